"""The one loop everyone calls: fixtures through the reference, through the candidate, then the verdict."""

from __future__ import annotations

import itertools
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np

from pytest_reflex import settings
from pytest_reflex.errors import ReflexError, RunnerError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.inputs.fixtures import Fixtures, fixtures_from
from pytest_reflex.judge.input_dependence import (
    Effect,
    effects,
    judge_input_dependence,
    recorded_effects,
    unequal_bits,
)
from pytest_reflex.judge.sides import (
    Candidate,
    candidate_runner,
    changed,
    inputs_for,
    provider_asked,
    reference_runner,
)
from pytest_reflex.judge.trajectory import trajectory_errors
from pytest_reflex.progress import Progress, progress_callback
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import RecordedRunner, Runner
from pytest_reflex.runners.base import copied, trajectory_of
from pytest_reflex.verdict import machine
from pytest_reflex.verdict.gates import STRICT_THRESHOLD, Evidence, judge_fixture, same_structure
from pytest_reflex.verdict.results import RUN_GATE_NAMES, YES, Answer, FixtureResult, keep_worst_grids
from pytest_reflex.verdict.rounding import FACTOR, Floor, Rounding, floors_of, rounding_of
from pytest_reflex.verdict.summaries import InputSummary, summaries

__all__ = ["Candidate", "Progress", "check"]

Array = np.ndarray[Any, Any]


def check(
    reference: Any,
    candidate: Any,
    *,
    inputs: Sequence[InputSpec] | Sequence[Mapping[str, Array]] | None = None,
    name: str | None = None,
    progress: Progress | None = None,
    **options: Unpack[settings.CheckOptions],
) -> ParityResult:
    """Judge whether the candidate computes what the reference computes.

    The reference runs all fixtures and is closed before the candidate is opened, so the two are never
    in memory together.

    Args:
        reference: a runner; an ``nn.Module``; or whatever the candidate's ``reference_runner`` takes.
        candidate: a runner, the path of an ``.onnx`` file, or a :class:`Candidate` such as a bundle.
        inputs: the inputs to draw fixtures from, or recorded inputs, one mapping per fixture. By default
            those of a recorded reference, else the candidate's own.
        name: what the result is called; by default the candidate's name.
        progress: called as ``progress(side, runs done, runs in all)``; by default pytest's line of progress
            is told, where there is one.
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
    told = settings.of_call(options, "check")
    floors = told.threshold if isinstance(told.threshold, settings.FloorMultiple) else None
    bound: float = told.threshold if floors is None else math.inf
    bound = min(bound, STRICT_THRESHOLD) if told.strict else bound
    factor = (FACTOR if isinstance(told.floor, bool) else told.floor) if told.floor or floors else None
    tested = candidate_runner(candidate, told.provider)
    truth = reference_runner(reference, candidate)
    if truth is tested:
        raise ReflexError(f"{truth.name} is given as both reference and candidate; give two runners")
    asked = provider_asked(tested, told.provider)
    given = inputs_for(inputs, truth, candidate)
    drawn = fixtures_from(given, told.fixtures, told.seed)
    report_progress = progress_callback(progress)

    expected, fed, reference_facts, exact = _run_reference(
        truth, drawn, report_progress, floor=factor is not None
    )
    rounding = rounding_of(exact, expected) if exact else {}
    terms = _Terms(Evidence({}, {}, bound, asked, ()), exact, rounding, factor, floors)
    run = _run_candidate(tested, drawn, expected, terms, report_progress)
    silent = {n: value for n, value in drawn.others.items() if not run.effects[n].words}
    dependence = judge_input_dependence(
        list(drawn.make(0)), run.effects, _reference_effects(truth, drawn, silent)
    )

    doubts = {"compared": _random(reference_facts), "inputs": dependence.unproven}
    reasons = {
        "intact": changed(candidate),
        "compared": _uncompared(run.results),
        "repeat": run.unrepeated,
        "inputs": dependence.dead,
    }
    notes = list(dependence.notes)
    for gate in RUN_GATE_NAMES:
        (reasons[gate] if told.strict else notes).extend(doubts.get(gate, []))
    result = ParityResult(
        name=name or tested.name,
        threshold=bound if floors is None else _largest_bound(run.results, bound),
        strict=told.strict,
        seed=drawn.seed,
        fixtures=tuple(replace(f, inputs=i) for f, i in zip(run.results, fed, strict=True)),
        answers=tuple(Answer(gate, "; ".join(reasons[gate]) or YES) for gate in RUN_GATE_NAMES),
        reference=reference_facts,
        candidate={**run.facts, "live_inputs": dependence.live},
        notes=tuple(notes),
        doubts=tuple(Answer(gate, doubt) for gate in RUN_GATE_NAMES for doubt in doubts.get(gate, [])),
        floors=floors.times if floors else None,
    )
    # After the verdict, which nothing of it can change.
    shown = not result.passed if told.trajectory is None else told.trajectory
    judged = (expected, run.outputs) if shown else None
    seen = trajectory_errors(truth, tested, drawn, result.fixtures, judged, report_progress)
    return replace(result, steps=seen.steps, steps_of=seen.fixture_idx, unseen=seen.unseen)


# The reference's outputs in float64, or why there are none.
_Truth = Mapping[str, Array] | str


@dataclass(frozen=True)
class _Terms:
    """What every fixture is judged by."""

    evidence: Evidence
    exact: Sequence[_Truth]
    rounding: Mapping[str, Rounding]
    factor: float | None
    floors: settings.FloorMultiple | None

    def of(self, fixture_idx: int, expected: Mapping[str, Array], got: dict[str, Array]) -> Evidence:
        """The evidence on one fixture, but for the provider that ran."""
        evidence = replace(self.evidence, reference=expected, candidate=got)
        if self.factor is None or not same_structure(evidence):
            return evidence
        floors = floors_of(self.exact[fixture_idx], expected, got, self.rounding, self.factor)
        return replace(evidence, floors=floors, bounds=self._bounds(floors))

    def _bounds(self, floors: Mapping[str, Floor]) -> dict[str, float]:
        if self.floors is None:
            return {}
        most = self.evidence.threshold  # strict's, where that is asked for
        # Without a floor there is no bound to be below: 0 refuses, and the floor says why.
        units = {name: floor.unit for name, floor in floors.items()}
        return {n: 0.0 if unit is None else min(self.floors.times * unit, most) for n, unit in units.items()}


def _largest_bound(results: Sequence[FixtureResult], most: float) -> float:
    """The loosest bound that any output was held to; outputs without one are exact."""
    bounds = [o.bound for result in results for o in result.outputs if o.bound]
    return max(bounds, default=min(most, STRICT_THRESHOLD))


@dataclass(frozen=True)
class _CandidateRun:
    """What is left of the candidate when it is closed."""

    results: list[FixtureResult]
    outputs: list[dict[str, Array]]
    unrepeated: list[str]
    effects: dict[str, Effect]
    facts: dict[str, Any]


def _run_reference(
    runner: Runner, fixtures: Fixtures, report_progress: Progress, *, floor: bool
) -> tuple[list[dict[str, Array]], list[tuple[InputSummary, ...]], dict[str, Any], list[_Truth]]:
    expected, fed = [], []
    exact: list[_Truth] = []
    with _opened(runner):
        for fixture_idx in range(fixtures.count):
            inputs = fixtures.make(fixture_idx)
            fed.append(summaries(inputs))  # before the runner, which may write to them
            expected.append(copied(runner.run(inputs)))
            report_progress("reference", fixture_idx + 1, fixtures.count)
        for fixture_idx in range(fixtures.count) if floor else ():
            exact.append(_exact(runner, fixtures.make(fixture_idx)))
            report_progress("float64", fixture_idx + 1, fixtures.count)
        return expected, fed, _facts(runner), exact


def _exact(runner: Runner, inputs: Mapping[str, Array]) -> _Truth:
    """The reference in float64, where its runner can do that; it decides nothing, so failing is no error."""
    exact = getattr(runner, "exact", None)
    if exact is None:
        return f"{runner.name} has no float64 run"
    try:
        return copied(exact(inputs))
    except ReflexError as error:
        return str(error)


def _run_candidate(
    runner: Runner,
    fixtures: Fixtures,
    expected: Sequence[Mapping[str, Array]],
    terms: _Terms,
    report_progress: Progress,
) -> _CandidateRun:
    others = fixtures.others
    total = fixtures.count + 1 + len(others)
    done = itertools.count(1)
    results, outputs = [], []
    plain: dict[str, Array] = {}
    with _opened(runner):
        for fixture_idx in range(fixtures.count):
            got = copied(runner.run(fixtures.make(fixture_idx)))
            used = tuple(getattr(runner, "providers_used", ()))
            evidence = replace(terms.of(fixture_idx, expected[fixture_idx], got), providers_used=used)
            results.append(judge_fixture(fixture_idx, evidence))
            plain = got if fixture_idx == 0 else plain
            # Kept for seen_steps() alone, and only of what it may ask again: a loop's outputs are small.
            outputs.append(got if trajectory_of(runner) else {})
            report_progress("candidate", next(done), total)
        again = unequal_bits(plain, copied(runner.run(fixtures.make(0))))
        unrepeated = [f"fixture 0 run again gave other bits: {again}"] if again else []
        report_progress("candidate", next(done), total)
        found = effects(
            runner, fixtures.make(0), plain, others, lambda: report_progress("candidate", next(done), total)
        )
        return _CandidateRun(keep_worst_grids(results), outputs, unrepeated, found, _facts(runner))


def _reference_effects(runner: Runner, fixtures: Fixtures, silent: Mapping[str, Array]) -> dict[str, Effect]:
    """What the inputs that are silent in the candidate do to the reference; it is opened only for them."""
    if not silent:
        return {}
    with _opened(runner):
        if isinstance(runner, RecordedRunner):
            return recorded_effects(runner, silent)
        # Run anew: a model that is loaded again is compared with itself as it is now.
        plain = copied(runner.run(fixtures.make(0)))
        return effects(runner, fixtures.make(0), plain, silent)


def _uncompared(results: Sequence[FixtureResult]) -> list[str]:
    compared = sum(o.difference.elements for f in results for o in f.outputs if o.difference is not None)
    if compared > 0:
        return []
    return [f"no element was compared in {len(results)} fixtures"]


def _random(facts: Mapping[str, Any]) -> list[str]:
    if not facts.get("drew_random"):
        return []
    return [
        "the reference drew from torch's random generator while running, so inputs alone do not determine "
        "its output; pass noise as an input"
    ]


def _facts(runner: Runner) -> dict[str, Any]:
    """The runner's facts, its machine and the versions, as builtins: nothing else survives every report."""
    facts = runner.facts()
    around = {"python": platform.python_version(), "platform": platform.platform(), "numpy": np.__version__}
    try:
        where = facts["machine"] if "machine" in facts else machine.here()
        known = {**facts, "machine": where, "versions": {**around, **facts.get("versions", {})}}
        plain = json.loads(json.dumps(known, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RunnerError(
            f"{runner.name}: facts() holds more than builtins ({error}); convert them"
        ) from error
    return dict(plain)


@contextmanager
def _opened(runner: Runner) -> Iterator[None]:
    try:
        runner.open()
        yield
    finally:
        runner.close()
