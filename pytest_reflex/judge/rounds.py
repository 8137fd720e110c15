"""Fixtures beyond the first ones: both sides are opened again, and judged as they were."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from pytest_reflex.inputs.fixtures import Fixtures
from pytest_reflex.judge.claim import MEMORY, MOST, Worst, draw_on
from pytest_reflex.judge.input_dependence import unequal_bits
from pytest_reflex.judge.naming import Named
from pytest_reflex.judge.precision import Outputs, exact_outputs, predicted
from pytest_reflex.judge.reference import is_half
from pytest_reflex.judge.runs import CandidateRun, ReferenceRun, opened
from pytest_reflex.judge.sides import Sides
from pytest_reflex.judge.terms import Terms, Truth, judged_fixture
from pytest_reflex.judge.variation import note_categories
from pytest_reflex.judge.workers.pool import Pool
from pytest_reflex.judge.workers.work import given
from pytest_reflex.progress import Progress
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import RecordedRunner
from pytest_reflex.runners.base import asked, copied
from pytest_reflex.verdict.claim import Claim
from pytest_reflex.verdict.results import FixtureResult
from pytest_reflex.verdict.summaries import InputSummary, summaries

__all__ = ["Rounds", "drawn_on", "fit"]

Array = np.ndarray[Any, Any]
Side = Literal["reference", "candidate"]


@dataclass(frozen=True)
class Rounds:
    """Judges fixtures beyond the first ones as those were judged.

    Attributes:
        sides: both sides, closed.
        fixtures: the fixtures.
        first: what the reference gave in the first ones.
        gave: what the candidate gave in fixture 0.
        terms: what is asked of each.
        report_progress: is told of each.
        total: how many there will be.
        workers: who runs them; None for this process.
        strayed: which side no longer gives in fixture 0 what it gave at first, and how that is other.
    """

    sides: Sides
    fixtures: Fixtures
    first: ReferenceRun
    gave: Mapping[str, Array]
    terms: Terms
    report_progress: Progress
    total: int = 0
    workers: Pool | None = None
    strayed: dict[Side, str] = field(default_factory=dict)

    def ask_again(self, workers: Pool) -> None:
        """Have every worker run fixture 0 once more: a side that goes astray does so where it runs often."""
        runner = Named(self.sides.candidate, list(self.first.outputs[0]))
        for place, answer in workers.asked_again(0):
            self._compare("reference", given(answer.reference), f" on {place}")
            self._compare("candidate", runner.named(given(answer.candidate)), f" on {place}")

    def of(self, side: Side) -> list[str]:
        """That a side strayed, as a reason to refuse."""
        return [self.strayed[side]] if side in self.strayed else []

    def _compare(self, side: Side, now: Mapping[str, Array], where: str = "") -> None:
        before = self.first.outputs[0] if side == "reference" else self.gave
        if (said := unequal_bits(before, now)) and side not in self.strayed:
            self.strayed[side] = f"fixture 0 run again{where} behind others gave other bits: {said}"

    def judged(self, fixture_idxs: Sequence[int], until: float) -> Generator[FixtureResult, None, None]:
        """Each fixture's verdict in order, as far as there is time until that moment."""
        if self.workers is not None:
            self.workers.plan(fixture_idxs)
        truths = self._truths(fixture_idxs, until) if fixture_idxs else []
        if not truths:
            return
        runner = Named(self.sides.candidate, list(self.first.outputs[0]))
        around = self.terms, self.sides, self.fixtures
        with opened(runner) if self.workers is None else nullcontext():
            for fixture_idx, truth in zip(fixture_idxs, truths, strict=False):
                # What workers gave is there by now.
                if self.workers is None and time.monotonic() >= until:
                    return
                fed, got = self._candidate(runner, fixture_idx)
                found = judged_fixture(fixture_idx, got, truth, self.first.rounding, *around)
                self._note(fed)
                if self.total:
                    self.report_progress("claim", fixture_idx + 1, self.total)
                # Before the last one is given, behind which nobody may ask for more.
                if self.workers is None and fixture_idx == fixture_idxs[len(truths) - 1]:
                    self._compare("candidate", asked(runner, self.fixtures.make(0)))
                yield replace(found, inputs=fed)

    def _candidate(
        self, runner: Named, fixture_idx: int
    ) -> tuple[tuple[InputSummary, ...], dict[str, Array]]:
        """What is fed in, and what the candidate gives."""
        if self.workers is not None:
            answer = self.workers.get(fixture_idx)
            self.workers.done(fixture_idx)
            return answer.fed, runner.named(given(answer.candidate))
        inputs = self.fixtures.make(fixture_idx)
        return summaries(inputs), asked(runner, inputs)

    def _truths(self, fixture_idxs: Sequence[int], until: float) -> list[Truth]:
        runner, precision, make = self.sides.reference, self.terms.held.precision.name, self.fixtures.make
        narrow = bool(self.first.exact) and precision != "float32" and not is_half(self.first.facts)
        outputs: list[dict[str, Array]] = []
        exact: list[Outputs] = []
        with opened(runner) if self.workers is None or narrow else nullcontext():
            for fixture_idx in fixture_idxs:
                if time.monotonic() >= until or (found := self._reference(fixture_idx, until)) is None:
                    break
                outputs.append(found[0])
                exact.append(found[1])
            if self.workers is None and not isinstance(runner, RecordedRunner):
                self._compare("reference", asked(runner, make(0)))
            rounded: list[Outputs] = [*outputs]
            if narrow:
                rounded = [*predicted(runner, self.terms.held, lambda i: make(fixture_idxs[i]), len(outputs))]
        return [Truth(*one) for one in zip(outputs, exact, rounded, strict=True)]

    def _reference(self, fixture_idx: int, until: float) -> tuple[dict[str, Array], Outputs] | None:
        """What the reference gives, and that in float64; None where the time is up first."""
        runner, make, drawn = self.sides.reference, self.fixtures.make, self.first.categories
        if self.workers is None:
            inputs = make(fixture_idx)
            note_categories(drawn, inputs)
            gave = copied(asked(runner, inputs))
            return gave, exact_outputs(runner, make(fixture_idx)) if self.first.exact else {}
        answer = self.workers.answer(fixture_idx, until)
        if answer is None:
            return None
        for name, seen in answer.categories.items():
            drawn.setdefault(name, set()).update(seen)
        return given(answer.reference), answer.exact

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
    if rounds.workers is not None:  # as many ahead as there will be, whatever a round is
        rounds.workers.plan(range(claim.judged, claim.asked.draws))
    abreast = 1 if rounds.workers is None else rounds.workers.size
    found = draw_on(
        claim,
        replace(rounds, total=claim.asked.draws).judged,
        worst,
        each=(time.monotonic() - started) / len(result.fixtures) / abreast,
        most=max(1, min(MOST, MEMORY // max(1, size))),
        until=math.inf if claim.asked.budget is None else started + claim.asked.budget,
    )
    chosen = [result for result in run.further if result.fixture_idx >= found.judged]
    run.further[:] = [*worst.kept, *chosen]
    return found
