"""Draw on until what was asked of the fixtures is established, until one is refused, or until the time is up.

The fixtures of every check come first; what follows them is drawn and judged in the same way, in rounds. Of a
round both sides are asked one after the other, so that they are never in memory together, and of its fixtures
those alone are kept that a report needs: how much memory a claim takes does not hang on how many are drawn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import Final

from pytest_reflex.verdict.claim import Claim
from pytest_reflex.verdict.results import FixtureResult, OutputResult

__all__ = ["FEWEST", "MEMORY", "MOST", "Worst", "draw_on"]

# A round is twice as long as the one before, so that a candidate which is soon refused costs little, and one
# that is large is opened seldom; but no longer than this, for the budget is planned by rounds.
FEWEST: Final = 8
MOST: Final = 256
# What the reference gives in one round is kept until the candidate has given its own: so many bytes at most.
MEMORY: Final = 1 << 26

# The fixtures of a range, judged in order as far as there is time: until a moment of the clock.
JudgeRound = Callable[[range, float], Generator[FixtureResult, None, None]]


class Worst:
    """Of any number of fixtures those that a report needs: what was refused, and the worst by each figure.

    Args:
        rtol: what was asked for beside the thresholds.
        bound: the threshold of outputs that have none of their own.
    """

    def __init__(self, rtol: float, bound: float) -> None:
        self._rtol, self._bound = rtol, bound
        self._worst: dict[tuple[str, str], tuple[tuple[bool, float], FixtureResult]] = {}
        self._refused: list[FixtureResult] = []

    def add(self, result: FixtureResult) -> None:
        """Keep it where it is the worst so far."""
        if not result.passed:
            self._refused.append(result)
        for output in result.outputs:
            for figure, value in self._figures(output).items():
                # What is not known, and NaN, is worse than any number.
                lost = value is None or math.isnan(value)
                badness = lost, 0.0 if value is None or lost else value
                before = self._worst.get((output.name, figure))
                if before is None or badness > before[0]:
                    self._worst[output.name, figure] = badness, result

    def _figures(self, output: OutputResult) -> dict[str, float | None]:
        """Whatever a result says the largest of over its fixtures."""
        difference, floor = output.difference, output.floor
        if difference is None:
            return {}
        bound = self._bound if output.bound is None else output.bound
        excess = difference.excess(self._rtol)
        found: dict[str, float | None] = {
            "max_abs_diff": difference.max_abs_diff,
            "excess": excess,
            "share": excess / bound if bound else math.inf if excess else 0.0,
            "rtol": difference.least_rtol(bound),
            "scale": difference.scale,
            "bound": bound,
        }
        if floor is not None:
            unit = floor.unit
            found |= {"floors": None if not unit else excess / unit, "unit": unit}
            found |= {"ratio": floor.ratio, "rms": floor.rms_ratio, floor.word: 0.0}
        return found

    @property
    def kept(self) -> list[FixtureResult]:
        """Each of them once, in order."""
        found = {result.fixture_idx: result for _, result in self._worst.values()}
        found |= {result.fixture_idx: result for result in self._refused}
        return [found[idx] for idx in sorted(found)]


def draw_on(
    claim: Claim,
    judge_round: JudgeRound,
    worst: Worst,
    *,
    each: float,
    most: int = MOST,
    until: float = math.inf,
    now: Callable[[], float] = time.monotonic,
) -> Claim:
    """The claim with as many more draws as settle it, or as there is time for.

    Args:
        claim: what the first fixtures establish; none of them was refused.
        judge_round: judges the fixtures of a range.
        worst: is given each result.
        each: how many seconds one fixture has taken.
        most: how long a round may be.
        until: the moment at which the budget ends, by ``now``.
        now: the clock, in seconds.
    """
    if claim.asked is None or claim.source != "drawn":
        return claim
    needed, size = claim.asked.draws, FEWEST // 2
    while not claim.settled:
        left = until - now()
        size = max(1, min(2 * size, most, needed - claim.judged))
        if left < size * each:
            size = int(left / each)
        if size < 1:
            return _ended(claim, each, until - now())
        begun, before = now(), claim.judged
        with closing(judge_round(range(before, before + size), until)) as results:
            for result in results:
                claim = claim.going_on(result.passed)
                worst.add(result)
                if claim.settled:
                    break
        if claim.judged == before:
            return _ended(claim, each, until - now())
        each = (now() - begun) / (claim.judged - before)
    return claim


def _ended(claim: Claim, each: float, left: float) -> Claim:
    """The claim where the budget ended, with what the whole of it takes at ``each`` seconds a fixture."""
    asked = claim.asked
    if asked is None or asked.budget is None:
        return replace(claim, stopped="budget")
    taken = asked.budget - left
    return replace(claim, stopped="budget", needs=taken + each * (asked.draws - claim.judged))
