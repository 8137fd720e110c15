"""Which decisions of the candidate's graph the fixtures took both ways, and further fixtures that take more.

The candidate runs once more, in a copy that counts its decisions. Further fixtures are chosen by what they
add to that: they are judged like all others, and count for no claim, as they were not drawn at random.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from pytest_reflex.errors import ReflexError
from pytest_reflex.inputs.fixtures import Fixtures
from pytest_reflex.progress import Progress
from pytest_reflex.runners import Runner
from pytest_reflex.runners.base import HasDecisions, Watching, asked
from pytest_reflex.verdict.coverage import Coverage

__all__ = ["MOST", "POOL", "covered"]

# So many fixtures are judged at most to reach what was asked for, chosen among the first so many.
MOST: Final = 32
POOL: Final = 256
# What so many draws of an input never are, it is taken not to be able to be.
DRAWS: Final = 64

Array = np.ndarray[Any, Any]


def covered(
    candidate: Runner, fixtures: Fixtures, share: float, report_progress: Progress, *, choose: bool = True
) -> Coverage:
    """What the fixtures asked of the candidate's graph, with others that are to be judged for it.

    Args:
        candidate: its runner, closed.
        fixtures: what is judged.
        share: the share of decisions that has to go both ways; 0 to look, and to choose nothing.
        report_progress: told of each run.
        choose: whether more may be chosen.
    """
    if not isinstance(candidate, HasDecisions):
        return Coverage(asked=share, unknown=f"{candidate.name} shows no graph")
    try:
        watched = candidate.watching(_ranges(fixtures))
        watched.open()
    except ReflexError as error:
        return Coverage(asked=share, unknown=str(error))
    try:
        return _looked(watched, fixtures, share, report_progress, choose)
    except ReflexError as error:
        return Coverage(asked=share, unknown=str(error))
    finally:
        watched.close()


def _looked(
    watched: Watching, fixtures: Fixtures, share: float, report_progress: Progress, choose: bool
) -> Coverage:
    chosen: list[int] = []
    for idx in range(fixtures.count):
        asked(watched, fixtures.make(idx))
        report_progress("coverage", idx + 1, fixtures.count)
    found = _found(watched, fixtures.count, chosen, share)
    for idx in range(fixtures.count, POOL if choose and fixtures.seed is not None else 0):
        if not found.share < share or fixtures.count + len(chosen) >= MOST:
            break
        ways = _ways(watched)
        asked(watched, fixtures.make(idx))
        report_progress("coverage", idx + 1, POOL)
        if _ways(watched) > ways:
            chosen.append(idx)
            found = _found(watched, fixtures.count, chosen, share)
    return found


def _ranges(fixtures: Fixtures) -> dict[str, tuple[Array, Array]]:
    """What inputs of whole numbers and booleans can be: as they are drawn; of recorded booleans, both."""
    found: dict[str, tuple[Array, Array]] = {}
    if any(spec.free for spec in fixtures.specs):
        return found
    for idx in range(DRAWS if fixtures.seed is not None else 1):
        for name, array in fixtures.make(idx).items():
            if fixtures.seed is None and array.dtype.kind == "b":
                found[name] = np.zeros_like(array), np.ones_like(array)
            elif fixtures.seed is not None and array.dtype.kind in "biu":
                low, high = found.get(name, (array, array))
                found[name] = np.minimum(low, array), np.maximum(high, array)
    return found


def _ways(watched: Watching) -> int:
    """How many ways decisions went that inputs can turn round."""
    return sum(len(decision.went) for decision in watched.decisions if decision.reachable)


def _found(watched: Watching, judged: int, chosen: list[int], share: float) -> Coverage:
    return Coverage.of(watched.decisions, fixtures=judged + len(chosen), chosen=chosen, asked=share)
