"""Both sides over the fixtures: what is left of each when it is closed."""

from __future__ import annotations

import itertools
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.inputs.fixtures import Fixtures
from pytest_reflex.inputs.near_copies import distinct_count, thinned
from pytest_reflex.judge.input_dependence import Effect, Effects, effects, recorded_effects, unequal_bits
from pytest_reflex.judge.naming import Named
from pytest_reflex.judge.precision import Outputs, exact_outputs, predicted
from pytest_reflex.judge.reference import Steadiness, Watch, again_runs, half_precision, is_half
from pytest_reflex.judge.sides import Sides
from pytest_reflex.judge.terms import Terms, Truth, judged_fixture, robot_units
from pytest_reflex.judge.variation import categories_of, note_categories
from pytest_reflex.judge.workers.here import Seen, gave
from pytest_reflex.judge.workers.pool import Pool
from pytest_reflex.judge.workers.shares import own_share
from pytest_reflex.judge.workers.work import given
from pytest_reflex.progress import Progress
from pytest_reflex.runners import RecordedRunner, Runner
from pytest_reflex.runners.base import HasDoubts, asked, copied, said_by, trajectory_of
from pytest_reflex.verdict import machine
from pytest_reflex.verdict.power import swings_of
from pytest_reflex.verdict.results import FixtureResult, keep_worst_grids
from pytest_reflex.verdict.rounding import Rounding, rounding_of
from pytest_reflex.verdict.summaries import InputSummary, summaries
from pytest_reflex.verdict.units import InUnits, units_of

__all__ = [
    "CandidateRun",
    "Recorder",
    "ReferenceRun",
    "opened",
    "reference_effects",
    "run_candidate",
    "run_reference",
]

Array = np.ndarray[Any, Any]
# What the reference was given in one fixture, and what it gave.
Recorder = Callable[[dict[str, Array], dict[str, Array]], object]


@dataclass(frozen=True)
class ReferenceRun:
    """What is left of the reference when it is closed, a value for each fixture in the first four.

    ``rounded`` is what it gives in the precision that the candidate is held to, ``distinct`` how many of
    drawn fixtures differ by more than rounding. ``inputs`` goes on with those of a claim's draws that had
    shapes of their own.
    """

    outputs: list[dict[str, Array]]
    inputs: list[tuple[InputSummary, ...]]
    exact: list[Outputs]
    rounded: list[Outputs]
    rounding: Mapping[str, Rounding]
    swings: dict[str, float]
    steadiness: Steadiness
    doubts: Sequence[str]
    categories: dict[str, set[int]]
    distinct: int
    facts: dict[str, Any]

    def of(self, fixture_idx: int) -> Truth:
        exact = self.exact[fixture_idx] if self.exact else {}
        return Truth(self.outputs[fixture_idx], exact, self.rounded[fixture_idx])


@dataclass(frozen=True)
class CandidateRun:
    """What is left of the candidate when it is closed; ``others`` are the values that were swapped in.

    ``further`` is what is kept of a claim's draws, ``open_axes`` what its graph leaves open: of each axis the
    input, its place and its name. ``first`` is what it gave in fixture 0.
    """

    results: list[FixtureResult]
    outputs: list[dict[str, Array]]
    unrepeated: list[str]
    others: dict[int, dict[str, Array]]
    effects: Effects
    facts: dict[str, Any]
    open_axes: Sequence[tuple[str, int, str]]
    further: list[FixtureResult]
    units: Mapping[str, InUnits]
    first: dict[str, Array]


def doubts_of(runner: Runner, stated: Sequence[InputSpec]) -> list[str]:
    """What a reference has to say against a candidate that states these inputs, as far as it can."""
    return [*(runner.doubts(stated) if isinstance(runner, HasDoubts) else ())]


def run_reference(
    runner: Runner,
    fixtures: Fixtures,
    report_progress: Progress,
    terms: Terms,
    record: Recorder | None,
    stated: Sequence[InputSpec],
    workers: Pool | None = None,
) -> ReferenceRun:
    outputs, fed, thin = [], [], []
    exact: list[Outputs] = []
    rounded: list[Outputs] = []
    precision = terms.held.precision.name
    drawn = categories_of(fixtures.specs)
    watch, own = Watch(runner), own_share(workers, fixtures.count)
    done, total = itertools.count(1), fixtures.count + again_runs(runner)
    with opened(runner):
        for fixture_idx in range(fixtures.count):
            inputs = fixtures.make(fixture_idx)
            fed.append(summaries(inputs))  # before the runner, which may write to them
            if fixtures.seed is not None:  # of given ones it is known, and there may be very many
                thin.append(thinned(inputs))
            note_categories(drawn, inputs)
            if workers is None or fixture_idx < own:
                outputs.append(copied(watch.run(inputs)))
            else:
                outputs.append(given(workers.get(fixture_idx).reference))
            if record is not None:
                record(copied(fixtures.make(fixture_idx)), copied(outputs[-1]))
            report_progress("reference", next(done), total)
        steadiness = watch.asked_again(
            fixtures.make, outputs, lambda: report_progress("reference", min(next(done), total), total)
        )
        facts = _facts(runner)
        for fixture_idx in range(fixtures.count) if terms.factor is not None or is_half(facts) else ():
            if workers is None or fixture_idx < own:
                exact.append(exact_outputs(runner, fixtures.make(fixture_idx)))
            else:
                exact.append(workers.get(fixture_idx).exact)
            report_progress("float64", fixture_idx + 1, fixtures.count)
        # One in half precision is rounded as it is.
        if exact and precision != "float32" and not is_half(facts):
            for found in predicted(runner, terms.held, fixtures.make, fixtures.count):
                rounded.append(found)
                report_progress(precision, len(rounded), fixtures.count)
        doubts = doubts_of(runner, stated)
        doubts += half_precision(facts, exact, outputs)
    rounded = rounded or [*outputs]
    rounding = rounding_of(exact, rounded) if exact else {}
    swings = swings_of(outputs)
    distinct = distinct_count(thin) if all(thin) else len(thin)
    distinct = distinct if fixtures.seed is not None else fixtures.distinct
    return ReferenceRun(
        outputs, fed, exact, rounded, rounding, swings, steadiness, doubts, drawn, distinct, facts
    )


def run_candidate(
    sides: Sides,
    fixtures: Fixtures,
    truth: ReferenceRun,
    terms: Terms,
    report_progress: Progress,
    workers: Pool | None = None,
) -> CandidateRun:
    """Run and judge every fixture; then the first again, and some with each input swapped."""
    runner = Named(sides.candidate, list(truth.outputs[0]))
    others = _swapped_in(fixtures, truth)
    total = fixtures.count + 1 + sum(map(len, others.values()))
    done = itertools.count(1)
    results, outputs, own = [], [], own_share(workers, fixtures.count)
    digests: list[str] = []  # of what it gives in its own fixtures
    plain: dict[int, dict[str, Array]] = {}
    with opened(runner):
        for fixture_idx in range(fixtures.count):
            if workers is None or fixture_idx < own:
                # Not copied: it is judged before the runner runs again.
                got = asked(runner, fixtures.make(fixture_idx))
                if workers is not None:
                    digests.append(gave(got))
            else:
                got = runner.named(given(workers.get(fixture_idx).candidate))
                workers.done(fixture_idx)
            one = truth.of(fixture_idx)
            results.append(judged_fixture(fixture_idx, got, one, truth.rounding, terms, sides, fixtures))
            steps = trajectory_of(sides.candidate)
            kept = fixture_idx in fixtures.probed or bool(steps)
            got = copied(got) if kept else {}
            if fixture_idx in fixtures.probed:
                plain[fixture_idx] = got
            # Kept for trajectory_errors() alone, and only of what it may ask again: a loop's outputs are
            # small.
            outputs.append(got if steps else {})
            report_progress("candidate", next(done), total)
        again = unequal_bits(plain[0], asked(runner, fixtures.make(0)))
        unrepeated = [f"fixture 0 run again gave other bits: {again}"] if again else []
        report_progress("candidate", next(done), total)
        swapped = {
            idx: effects(
                runner,
                fixtures.make(idx),
                plain[idx],
                values,
                lambda: report_progress("candidate", next(done), total),
            )
            for idx, values in others.items()
        }
        facts = _facts(sides.candidate)
        if workers is not None:
            _require_same(workers, truth, Seen.of(facts, digests, repeats=not again))
        facts |= runner.matched_facts
        said = robot_units(sides.candidate, terms.asked)
        seen = {o.name: o.shape for result in results for o in result.outputs if o.elements}
        units = {name: units_of(said, terms.units, name, shape) for name, shape in seen.items()}
        known = {name: one for name, one in units.items() if one is not None}
        axes, worst = said_by(sides.candidate, "open_axes", ()), keep_worst_grids(results)
        return CandidateRun(worst, outputs, unrepeated, others, swapped, facts, axes, [], known, plain[0])


def _require_same(workers: Pool, truth: ReferenceRun, candidate: Seen) -> None:
    """Compare every worker's sides with this process's, as they are in its own fixtures."""
    digests = [gave(outputs) for outputs in truth.outputs[: own_share(workers, len(truth.outputs))]]
    workers.require_same(Seen.of(truth.facts, digests, repeats=truth.steadiness.again is None), candidate)


def _swapped_in(fixtures: Fixtures, truth: ReferenceRun) -> dict[int, dict[str, Array]]:
    """Of each fixture that is probed the values that are swapped in, which are no fixture's own."""
    digests: dict[str, set[str]] = {}
    for fed in itertools.chain.from_iterable(truth.inputs):
        digests.setdefault(fed.name, set()).add(fed.digest)
    return {idx: fixtures.others(idx, digests) for idx in fixtures.probed}


def reference_effects(
    runner: Runner, fixtures: Fixtures, questions: Mapping[int, Mapping[str, Array]]
) -> Effects:
    """What some swaps do to the reference; it is opened only for them."""
    if not questions:
        return {}
    found = {}
    with opened(runner):
        for idx, values in questions.items():
            if isinstance(runner, RecordedRunner):
                # It says what the model depends on, and not in which fixture.
                always = [n for n in values if all(n in questions.get(i, ()) for i in fixtures.probed)]
                found[idx] = {**dict.fromkeys(values, Effect()), **recorded_effects(runner, always)}
                continue
            # Run anew: a model that is loaded again is compared with itself as it is now.
            plain = copied(asked(runner, fixtures.make(idx)))
            found[idx] = effects(runner, fixtures.make(idx), plain, values)
    return found


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
def opened(runner: Runner) -> Iterator[None]:
    try:
        runner.open()
        yield
    finally:
        runner.close()
