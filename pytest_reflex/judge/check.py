"""The one loop everyone calls: fixtures through the reference, through the candidate, then the verdict."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np

from pytest_reflex import settings
from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.inputs.fixtures import Fixtures, MakesFixtures, fixtures_from
from pytest_reflex.inputs.ranges import corners
from pytest_reflex.judge.another_policy import another_policy
from pytest_reflex.judge.answers import verdict_of
from pytest_reflex.judge.coverage import covered
from pytest_reflex.judge.input_dependence import InputDependence, judge_input_dependence, questions
from pytest_reflex.judge.precision import held_to
from pytest_reflex.judge.reference import one_model
from pytest_reflex.judge.rounds import Rounds, drawn_on, fit
from pytest_reflex.judge.runs import (
    CandidateRun,
    Recorder,
    doubts_of,
    reference_effects,
    run_candidate,
    run_reference,
)
from pytest_reflex.judge.sides import Candidate, changed, known_inputs, sides_of
from pytest_reflex.judge.swapped_inputs import swapped_inputs
from pytest_reflex.judge.terms import Terms
from pytest_reflex.judge.trajectory import trajectory_errors
from pytest_reflex.judge.traps import trapped
from pytest_reflex.judge.workers.shares import sharing
from pytest_reflex.progress import Progress, progress_callback
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import RecordedRunner, Runner
from pytest_reflex.verdict.claim import Claim
from pytest_reflex.verdict.results import READS

__all__ = ["Candidate", "Progress", "check"]

Array = np.ndarray[Any, Any]


def check(
    reference: Any,
    candidate: Any,
    inputs: Sequence[InputSpec] | Sequence[Mapping[str, Array]] | MakesFixtures | None = None,
    *,
    name: str | None = None,
    progress: Progress | None = None,
    record: Recorder | None = None,
    **options: Unpack[settings.CheckOptions],
) -> ParityResult:
    """Judge whether the candidate computes what the reference computes.

    The reference runs all fixtures and is closed before the candidate is opened, so the two are never
    in memory together.

    Args:
        reference: a runner; an ``nn.Module``; or whatever the candidate's ``reference_runner`` takes. An
            :class:`~pytest_reflex.runners.OnnxReference` where a graph is to be the judge, and PyTorch not.
        candidate: a runner, the path of an ``.onnx`` file, or a :class:`Candidate` such as a bundle.
        inputs: the inputs to draw fixtures from; recorded inputs, one mapping per fixture; or
            :func:`~pytest_reflex.inputs.episodes.episodes` of a recording. By default those of a recorded
            reference, else the candidate's own.
        name: what the result is called; by default the candidate's name.
        progress: called as ``progress(side, runs done, runs in all)``; by default pytest's line of progress
            is told, where there is one.
        record: called as ``record(inputs, outputs)`` for each fixture, with copies of what the reference was
            given and of what it gave.
        **options: ``threshold``, ``fixtures`` and so on, the keywords of
            :class:`~pytest_reflex.settings.CheckOptions`.

    Returns:
        The result, whether it passed or not; ``result.require()`` raises when it did not.

    Raises:
        SettingsError: a setting has no good value, or the candidate was made for another provider.
        InputError: there are no inputs, or they do not fit together.
        RunnerError: a side could not be opened or could not run a fixture.
        ReflexError: the reference or the candidate is nothing that can be judged.
    """
    started = time.monotonic()
    told = settings.of_call(options, "check")
    sides = sides_of(reference, candidate, inputs, told.provider)
    held = held_to(sides.candidate, told.rounding, told.provider)
    terms = Terms.of(told, held)
    drawn = fixtures_from(sides.inputs, told.fixtures, told.seed, known_inputs(candidate))
    settings.require_enough(drawn.distinct, told.strict)
    report_progress = progress_callback(progress)

    # What the caller says is meant; what the candidate alone says may be doubted.
    stated = drawn.specs if inputs is None and drawn.seed is not None else ()
    called = name or sides.candidate.name
    with sharing(told, sides, drawn, report_progress, exact=terms.factor is not None) as workers:
        try:
            truth = run_reference(sides.reference, drawn, report_progress, terms, record, stated, workers)
        except RunnerError as error:  # it may be another's
            doubts = doubts_of(sides.reference, stated)
            if of_inputs := [doubt for doubt in doubts if doubt.startswith(READS)]:
                raise RunnerError(f"{error}; {'; '.join(of_inputs)}") from error
            raise
        try:
            run = run_candidate(sides, drawn, truth, terms, report_progress, workers)
        except RunnerError as error:  # what was changed may be why
            if known := changed(candidate, sides.candidate):
                raise RunnerError(f"{'; '.join(known)}; {error}") from error
            raise
        rounds = Rounds(sides, drawn, truth, run.first, terms, report_progress, workers=workers)
        return _judged(candidate, called, rounds, run, told, started)


def _judged(
    candidate: Any, called: str, rounds: Rounds, run: CandidateRun, told: settings.Settings, started: float
) -> ParityResult:
    """The verdict: on the first fixtures, and on the further ones that coverage and the claim ask for."""
    sides, drawn, truth, terms = rounds.sides, rounds.fixtures, rounds.first, rounds.terms
    report_progress = rounds.report_progress
    dependence = _input_dependence(sides.reference, drawn, run)
    passed = [found.passed for found in run.results]
    coverage = None
    if told.coverage is not None:
        coverage = covered(sides.candidate, drawn, told.coverage, report_progress, choose=all(passed))
        run.further.extend(rounds.judged(coverage.chosen, math.inf))

    def judged_so_far() -> ParityResult:
        of_sides = {
            "intact": [*changed(candidate, sides.candidate), *changed(sides.reference, sides.reference)],
            "reference": [*one_model(sides.reference, sides.candidate), *rounds.of("reference")],
            "repeat": rounds.of("candidate"),
            "coverage": coverage.refusals if coverage is not None else [],
        }
        return verdict_of(called, drawn, terms, truth, run, dependence, of_sides, claim, coverage)

    asked_claim = told.claim
    if asked_claim is not None and told.claim_budget is not None:
        asked_claim = replace(asked_claim, budget=told.claim_budget)
    claim = Claim.of(passed, source=drawn.source, distinct=drawn.distinct, asked=asked_claim)
    result = judged_so_far()
    if claim.sequential and fit(result):  # corners make no claim, and may refuse one
        known = coverage.chosen if coverage is not None else ()
        ends = [idx for idx in corners(drawn.specs) if idx not in known]
        run.further.extend(rounds.judged(ends, math.inf))
        result = judged_so_far()
    if not claim.settled and claim.sequential:
        claim = drawn_on(rounds, run, claim, result, started)
        if coverage is not None:  # what was drawn for the claim was drawn, and not chosen
            coverage = replace(coverage, chosen=tuple(i for i in coverage.chosen if i >= claim.judged))
        result = judged_so_far()
    if result.passed and rounds.workers is not None:
        rounds.ask_again(rounds.workers)
        result = judged_so_far()
    # After the verdict, which nothing of it can change.
    if not result.passed:
        result = replace(result, notes=(*result.notes, *another_policy(result, sides, candidate)))
        result = replace(result, notes=(*result.notes, *swapped_inputs(result, sides, drawn)))
        result = replace(result, notes=(*result.notes, *trapped(result, sides, drawn)))
    shown = not result.passed if told.trajectory is None else told.trajectory
    judged = (truth.outputs, run.outputs) if shown else None
    first = result.fixtures[: drawn.count]
    seen = trajectory_errors(sides.reference, sides.candidate, drawn, first, judged, report_progress)
    return replace(result, steps=seen.steps, steps_of=seen.fixture_idx, unseen=seen.unseen)


def _input_dependence(reference: Runner, fixtures: Fixtures, run: CandidateRun) -> InputDependence:
    live = not isinstance(reference, RecordedRunner)
    asked_too = questions(run.effects, run.others, of_refused=live)
    return judge_input_dependence(
        fixtures.make(0), run.effects, reference_effects(reference, fixtures, asked_too)
    )
