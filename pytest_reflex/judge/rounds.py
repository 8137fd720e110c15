"""Fixtures beyond the first ones: both sides are opened again, and judged as they were."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pytest_reflex.inputs.fixtures import Fixtures
from pytest_reflex.judge.claim import MEMORY, MOST, Worst, draw_on
from pytest_reflex.judge.naming import Named
from pytest_reflex.judge.precision import Outputs, predicted
from pytest_reflex.judge.reference import is_half
from pytest_reflex.judge.runs import CandidateRun, ReferenceRun, exact_outputs, note_categories, opened
from pytest_reflex.judge.sides import Sides
from pytest_reflex.judge.terms import Terms, Truth, judged_fixture
from pytest_reflex.progress import Progress
from pytest_reflex.result import ParityResult
from pytest_reflex.runners.base import asked, copied
from pytest_reflex.verdict.claim import Claim
from pytest_reflex.verdict.results import FixtureResult
from pytest_reflex.verdict.summaries import InputSummary, summaries

__all__ = ["Rounds", "drawn_on", "fit"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Rounds:
    """Judges fixtures beyond the first ones as those were judged; ``total`` is how many there will be."""

    sides: Sides
    fixtures: Fixtures
    first: ReferenceRun
    terms: Terms
    report_progress: Progress
    total: int = 0

    def judged(self, fixture_idxs: Sequence[int], until: float) -> Generator[FixtureResult, None, None]:
        """Each fixture's verdict in order, as far as there is time until that moment."""
        truths = self._truths(fixture_idxs, until) if fixture_idxs else []
        if not truths:
            return
        runner = Named(self.sides.candidate, list(self.first.outputs[0]))
        around = self.terms, self.sides, self.fixtures
        with opened(runner):
            for fixture_idx, truth in zip(fixture_idxs, truths, strict=False):
                if time.monotonic() >= until:
                    return
                inputs = self.fixtures.make(fixture_idx)
                fed = summaries(inputs)
                got = asked(runner, inputs)
                found = judged_fixture(fixture_idx, got, truth, self.first.rounding, *around)
                self._note(fed)
                if self.total:
                    self.report_progress("claim", fixture_idx + 1, self.total)
                yield replace(found, inputs=fed)

    def _truths(self, fixture_idxs: Sequence[int], until: float) -> list[Truth]:
        runner, precision, make = self.sides.reference, self.terms.held.precision.name, self.fixtures.make
        half = is_half(self.first.facts)
        outputs: list[dict[str, Array]] = []
        exact: list[Outputs] = []
        with opened(runner):
            for fixture_idx in fixture_idxs:
                if time.monotonic() >= until:
                    break
                inputs = make(fixture_idx)
                note_categories(self.first.categories, inputs)
                outputs.append(copied(asked(runner, inputs)))
                exact.append(exact_outputs(runner, make(fixture_idx)) if self.first.exact else {})
            rounded: list[Outputs] = [*outputs]
            if self.first.exact and precision != "float32" and not half:
                rounded = [*predicted(runner, self.terms.held, lambda i: make(fixture_idxs[i]), len(outputs))]
        return [Truth(*one) for one in zip(outputs, exact, rounded, strict=True)]

    def _note(self, fed: tuple[InputSummary, ...]) -> None:
        """Keep what was fed in where its shapes are new: the variation gate looks at nothing else."""
        shapes = [given.shape for given in fed]
        if all(shapes != [given.shape for given in before] for before in self.first.inputs):
            self.first.inputs.append(fed)


def fit(result: ParityResult) -> bool:
    """Whether nothing refuses yet but what more fixtures may mend: what was not varied, and the claim."""
    mended = ("variation", "claim")
    return all(result.fixtures) and all(a.passed for a in result.answers if a.gate not in mended)


def drawn_on(rounds: Rounds, run: CandidateRun, claim: Claim, result: ParityResult, started: float) -> Claim:
    """The claim with more draws, and what is kept of them in the run; none where the check fails anyway."""
    if not fit(result) or claim.asked is None:
        return replace(claim, stopped="unfit")
    first, terms = rounds.first, rounds.terms
    held = [first.outputs[0], *first.exact[:1], *first.rounded[:1]]
    size = sum(array.nbytes for one in held if not isinstance(one, str) for array in one.values())
    worst = Worst(terms.asked.rtol, terms.bound)
    found = draw_on(
        claim,
        replace(rounds, total=claim.asked.draws).judged,
        worst,
        each=(time.monotonic() - started) / len(result.fixtures),
        most=max(1, min(MOST, MEMORY // max(1, size))),
        until=math.inf if claim.asked.budget is None else started + claim.asked.budget,
    )
    chosen = [result for result in run.further if result.fixture_idx >= found.judged]
    run.further[:] = [*worst.kept, *chosen]
    return found
