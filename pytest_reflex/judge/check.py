"""The one loop everyone calls: fixtures through the reference, through the candidate, then the verdict."""

from __future__ import annotations

import itertools
import json
import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    InputDependence,
    effects,
    judge_input_dependence,
    recorded_effects,
    unequal_bits,
)
from pytest_reflex.judge.sides import Candidate, Sides, changed, sides_of
from pytest_reflex.judge.trajectory import trajectory_errors
from pytest_reflex.progress import Progress, progress_callback
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import RecordedRunner, Runner
from pytest_reflex.runners.base import HasFloat64, SaysProviders, copied, trajectory_of
from pytest_reflex.verdict import machine
from pytest_reflex.verdict.gates import STRICT_THRESHOLD, Evidence, judge_fixture, same_structure
from pytest_reflex.verdict.results import RUN_GATE_NAMES, Answer, FixtureResult, keep_worst_grids
from pytest_reflex.verdict.rounding import FACTOR, Floor, Rounding, floors_of, rounding_of
from pytest_reflex.verdict.summaries import InputSummary, summaries

__all__ = ["Candidate", "Progress", "check"]

Array = np.ndarray[Any, Any]
# What the reference was given in one fixture, and what it gave.
Recorder = Callable[[dict[str, Array], dict[str, Array]], object]


def check(
    reference: Any,
    candidate: Any,
    *,
    inputs: Sequence[InputSpec] | Sequence[Mapping[str, Array]] | None = None,
    name: str | None = None,
    progress: Progress | None = None,
    record: Recorder | None = None,
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
    told = settings.of_call(options, "check")
    floors = told.threshold if isinstance(told.threshold, settings.FloorMultiple) else None
    bound: float = told.threshold if floors is None else math.inf
    bound = min(bound, STRICT_THRESHOLD) if told.strict else bound
    factor = (FACTOR if isinstance(told.floor, bool) else told.floor) if told.floor or floors else None
    sides = sides_of(reference, candidate, inputs, told.provider)
    drawn = fixtures_from(sides.inputs, told.fixtures, told.seed)
    report_progress = progress_callback(progress)

    truth = _run_reference(sides.reference, drawn, report_progress, floor=factor is not None, record=record)
    terms = _Terms(bound, told.strict, factor, floors)
    run = _run_candidate(sides, drawn, truth, terms, report_progress)
    dependence = _input_dependence(sides.reference, drawn, run.effects)
    called = name or sides.candidate.name
    result = _verdict(called, drawn.seed, terms, truth, run, dependence, changed(candidate, sides.candidate))
    # After the verdict, which nothing of it can change.
    shown = not result.passed if told.trajectory is None else told.trajectory
    judged = (truth.outputs, run.outputs) if shown else None
    seen = trajectory_errors(
        sides.reference, sides.candidate, drawn, result.fixtures, judged, report_progress
    )
    return replace(result, steps=seen.steps, steps_of=seen.fixture_idx, unseen=seen.unseen)


# The reference's outputs in float64, or why there are none.
_Float64 = Mapping[str, Array] | str


@dataclass(frozen=True)
class _Terms:
    """What the caller asks of every fixture."""

    bound: float
    strict: bool
    factor: float | None
    floors: settings.FloorMultiple | None

    def bounds(self, floors: Mapping[str, Floor]) -> dict[str, float]:
        """The outputs' own bounds, where they are asked for in units of their floors."""
        if self.floors is None:
            return {}
        # Without a floor there is no bound to be below: 0 refuses, and the floor says why. Strict's own
        # bound, where that is asked for, is the most.
        units = {name: floor.unit for name, floor in floors.items()}
        return {
            name: 0.0 if unit is None else min(self.floors.times * unit, self.bound)
            for name, unit in units.items()
        }


@dataclass(frozen=True)
class _ReferenceRun:
    """What is left of the reference when it is closed, a value for each fixture but for the last two."""

    outputs: list[dict[str, Array]]
    inputs: list[tuple[InputSummary, ...]]
    exact: list[_Float64]
    rounding: Mapping[str, Rounding]
    facts: dict[str, Any]


@dataclass(frozen=True)
class _CandidateRun:
    """What is left of the candidate when it is closed."""

    results: list[FixtureResult]
    outputs: list[dict[str, Array]]
    unrepeated: list[str]
    effects: dict[str, Effect]
    facts: dict[str, Any]


def _run_reference(
    runner: Runner, fixtures: Fixtures, report_progress: Progress, *, floor: bool, record: Recorder | None
) -> _ReferenceRun:
    outputs, fed = [], []
    exact: list[_Float64] = []
    with _opened(runner):
        for fixture_idx in range(fixtures.count):
            inputs = fixtures.make(fixture_idx)
            fed.append(summaries(inputs))  # before the runner, which may write to them
            outputs.append(copied(runner.run(inputs)))
            if record is not None:
                record(copied(fixtures.make(fixture_idx)), copied(outputs[-1]))
            report_progress("reference", fixture_idx + 1, fixtures.count)
        for fixture_idx in range(fixtures.count) if floor else ():
            exact.append(_exact(runner, fixtures.make(fixture_idx)))
            report_progress("float64", fixture_idx + 1, fixtures.count)
        facts = _facts(runner)
    return _ReferenceRun(outputs, fed, exact, rounding_of(exact, outputs) if exact else {}, facts)


def _exact(runner: Runner, inputs: Mapping[str, Array]) -> _Float64:
    """The reference in float64, where its runner can do that; it decides nothing, so failing is no error."""
    if not isinstance(runner, HasFloat64):
        return f"{runner.name} has no float64 run"
    try:
        return copied(runner.exact(inputs))
    except ReflexError as error:
        return str(error)


def _run_candidate(
    sides: Sides, fixtures: Fixtures, truth: _ReferenceRun, terms: _Terms, report_progress: Progress
) -> _CandidateRun:
    """Run and judge every fixture; then the first again, and with each input swapped."""
    runner, others = sides.candidate, fixtures.others
    total = fixtures.count + 1 + len(others)
    done = itertools.count(1)
    results, outputs = [], []
    plain: dict[str, Array] = {}
    with _opened(runner):
        for fixture_idx in range(fixtures.count):
            got = copied(runner.run(fixtures.make(fixture_idx)))
            used = tuple(runner.providers_used) if isinstance(runner, SaysProviders) else ()
            evidence = Evidence(truth.outputs[fixture_idx], got, terms.bound, sides.provider, used)
            if terms.factor is not None and same_structure(evidence):
                found = floors_of(
                    truth.exact[fixture_idx], evidence.reference, got, truth.rounding, terms.factor
                )
                evidence = replace(evidence, floors=found, bounds=terms.bounds(found))
            results.append(judge_fixture(fixture_idx, evidence))
            plain = got if fixture_idx == 0 else plain
            # Kept for trajectory_errors() alone, and only of what it may ask again: a loop's outputs are
            # small.
            outputs.append(got if trajectory_of(runner) else {})
            report_progress("candidate", next(done), total)
        again = unequal_bits(plain, copied(runner.run(fixtures.make(0))))
        unrepeated = [f"fixture 0 run again gave other bits: {again}"] if again else []
        report_progress("candidate", next(done), total)
        swapped = effects(
            runner, fixtures.make(0), plain, others, lambda: report_progress("candidate", next(done), total)
        )
        return _CandidateRun(keep_worst_grids(results), outputs, unrepeated, swapped, _facts(runner))


def _input_dependence(
    reference: Runner, fixtures: Fixtures, candidate: Mapping[str, Effect]
) -> InputDependence:
    silent = {name: value for name, value in fixtures.others.items() if not candidate[name].words}
    return judge_input_dependence(
        list(fixtures.make(0)), candidate, _reference_effects(reference, fixtures, silent)
    )


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


def _verdict(
    name: str,
    seed: int | None,
    terms: _Terms,
    truth: _ReferenceRun,
    run: _CandidateRun,
    dependence: InputDependence,
    changes: list[str],
) -> ParityResult:
    """What the run's own gates answer, beside the fixtures that were judged as they ran."""
    doubts = {"compared": _random(truth.facts), "inputs": dependence.unproven}
    reasons = {
        "intact": changes,
        "compared": _uncompared(run.results),
        "repeat": run.unrepeated,
        "inputs": dependence.dead,
    }
    notes = list(dependence.notes)
    for gate in RUN_GATE_NAMES:
        (reasons[gate] if terms.strict else notes).extend(doubts.get(gate, []))
    return ParityResult(
        name=name,
        threshold=terms.bound if terms.floors is None else _largest_bound(run.results, terms.bound),
        strict=terms.strict,
        seed=seed,
        fixtures=tuple(replace(f, inputs=i) for f, i in zip(run.results, truth.inputs, strict=True)),
        answers=tuple(_answer(gate, reasons[gate]) for gate in RUN_GATE_NAMES),
        reference=truth.facts,
        candidate={**run.facts, "live_inputs": dependence.live},
        notes=tuple(notes),
        doubts=tuple(Answer.no(gate, doubt) for gate in RUN_GATE_NAMES for doubt in doubts.get(gate, [])),
        floors=terms.floors.times if terms.floors else None,
    )


def _answer(gate: str, reasons: Sequence[str]) -> Answer:
    return Answer.no(gate, "; ".join(reasons)) if reasons else Answer.yes(gate)


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


def _largest_bound(results: Sequence[FixtureResult], most: float) -> float:
    """The loosest bound that any output was held to; outputs without one are exact."""
    bounds = [o.bound for result in results for o in result.outputs if o.bound]
    return max(bounds, default=min(most, STRICT_THRESHOLD))


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
