"""The one loop everyone calls: fixtures through the reference, through the candidate, then the verdict."""

from __future__ import annotations

import itertools
import json
import math
import platform
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np

from pytest_reflex import settings
from pytest_reflex.errors import ReflexError, RunnerError, SettingsError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.inputs.fixtures import Fixtures, MakesFixtures, fixtures_from
from pytest_reflex.inputs.near_copies import distinct_count, thinned
from pytest_reflex.judge.claim import MEMORY, MOST, Worst, draw_on
from pytest_reflex.judge.coverage import covered
from pytest_reflex.judge.input_dependence import (
    Effect,
    Effects,
    InputDependence,
    effects,
    judge_input_dependence,
    questions,
    recorded_effects,
    unequal_bits,
)
from pytest_reflex.judge.naming import Named, side_notes
from pytest_reflex.judge.precision import Held, Outputs, distances_of, held_to, predicted
from pytest_reflex.judge.reference import (
    Steadiness,
    Watch,
    again_runs,
    half_precision,
    is_half,
    judge_reference,
    one_model,
    random_numbers,
)
from pytest_reflex.judge.sides import Candidate, Sides, changed, known_inputs, sides_of
from pytest_reflex.judge.trajectory import trajectory_errors
from pytest_reflex.judge.variation import judge_copies, judge_variation
from pytest_reflex.progress import Progress, progress_callback
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import RecordedRunner, Runner
from pytest_reflex.runners.base import (
    HasDoubts,
    HasFloat64,
    asked,
    copied,
    said_by,
    trajectory_of,
)
from pytest_reflex.verdict import machine
from pytest_reflex.verdict.claim import Claim
from pytest_reflex.verdict.coverage import Coverage
from pytest_reflex.verdict.gates import (
    Evidence,
    judge_fixture,
    run_answers,
    same_structure,
    without_infinities,
)
from pytest_reflex.verdict.power import judge_power, swings_of
from pytest_reflex.verdict.results import (
    RUN_GATE_NAMES,
    Answer,
    FixtureResult,
    keep_worst_grids,
    largest_bound,
)
from pytest_reflex.verdict.rounding import FACTOR, Floor, Rounding, floors_of, rounding_of
from pytest_reflex.verdict.summaries import InputSummary, summaries
from pytest_reflex.verdict.tolerances import THRESHOLD, Amount, Tolerances

__all__ = ["Candidate", "Progress", "check"]

Array = np.ndarray[Any, Any]
# Of so many refused fixtures it is said what they are.
_LABELLED = 3
# What the reference was given in one fixture, and what it gave.
Recorder = Callable[[dict[str, Array], dict[str, Array]], object]


def check(
    reference: Any,
    candidate: Any,
    *,
    inputs: Sequence[InputSpec] | Sequence[Mapping[str, Array]] | MakesFixtures | None = None,
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
    terms = _Terms.of(told, held)
    drawn = fixtures_from(sides.inputs, told.fixtures, told.seed, known_inputs(candidate))
    settings.require_enough(drawn.distinct, told.strict)
    report_progress = progress_callback(progress)

    # What the caller says is meant; what the candidate alone says may be doubted.
    stated = drawn.specs if inputs is None and drawn.seed is not None else ()
    truth = _run_reference(sides.reference, drawn, report_progress, terms, record, stated)
    run = _run_candidate(sides, drawn, truth, terms, report_progress)
    dependence = _input_dependence(sides.reference, drawn, run)
    called = name or sides.candidate.name

    rounds = _Rounds(sides, drawn, truth, terms, report_progress)
    passed = [found.passed for found in run.results]
    coverage = None
    if told.coverage is not None:
        coverage = covered(sides.candidate, drawn, told.coverage, report_progress, choose=all(passed))
        run.further.extend(rounds.judged(coverage.chosen, math.inf))

    def judged_so_far() -> ParityResult:
        of_sides = {
            "intact": [*changed(candidate, sides.candidate), *changed(sides.reference, sides.reference)],
            "reference": one_model(sides.reference, sides.candidate),
            "coverage": coverage.refusals if coverage is not None else [],
        }
        return _verdict(called, drawn, terms, truth, run, dependence, of_sides, claim, coverage)

    asked_claim = told.claim and replace(told.claim, budget=told.claim_budget)
    claim = Claim.of(passed, recorded=drawn.seed is None, distinct=drawn.distinct, asked=asked_claim)
    result = judged_so_far()
    if not claim.settled and claim.sequential:
        claim = _drawn_on(rounds, run, claim, result, started)
        if coverage is not None:  # what was drawn for the claim was drawn, and not chosen
            coverage = replace(coverage, chosen=tuple(i for i in coverage.chosen if i >= claim.judged))
        result = judged_so_far()
    # After the verdict, which nothing of it can change.
    shown = not result.passed if told.trajectory is None else told.trajectory
    judged = (truth.outputs, run.outputs) if shown else None
    first = result.fixtures[: drawn.count]
    seen = trajectory_errors(sides.reference, sides.candidate, drawn, first, judged, report_progress)
    return replace(result, steps=seen.steps, steps_of=seen.fixture_idx, unseen=seen.unseen)


@dataclass(frozen=True)
class _Terms:
    """What the caller asks of every fixture, and what the candidate is held to."""

    asked: Tolerances
    by_default: bool
    strict: bool
    factor: float | None
    infinities: bool
    held: Held

    @classmethod
    def of(cls, told: settings.Settings, held: Held) -> _Terms:
        given: Tolerances = told.threshold or Tolerances(settings.UNSAID)
        by_default = given.rest == settings.UNSAID
        narrower = held.precision.name != "float32"
        rest = (Amount(FACTOR, True) if narrower else Amount(THRESHOLD)) if by_default else given.rest
        asked = Tolerances(rest, given.outputs, told.rtol or given.rtol)
        factor = FACTOR if isinstance(told.floor, bool) else told.floor
        return cls(
            asked,
            by_default and not given.outputs,
            told.strict,
            factor if told.floor or asked.needs_floors else None,
            told.infinities,
            held,
        )

    @property
    def bound(self) -> float:
        """The threshold of outputs that have none of their own."""
        return self.asked.plain(strict=self.strict)


@dataclass(frozen=True)
class _Truth:
    """What the reference gives in one fixture, in float64, and in the precision of the candidate."""

    outputs: dict[str, Array]
    exact: Outputs
    rounded: Outputs


@dataclass(frozen=True)
class _ReferenceRun:
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

    def of(self, fixture_idx: int) -> _Truth:
        exact = self.exact[fixture_idx] if self.exact else {}
        return _Truth(self.outputs[fixture_idx], exact, self.rounded[fixture_idx])


@dataclass(frozen=True)
class _CandidateRun:
    """What is left of the candidate when it is closed; ``others`` are the values that were swapped in.

    ``further`` is what is kept of a claim's draws.
    """

    results: list[FixtureResult]
    outputs: list[dict[str, Array]]
    unrepeated: list[str]
    others: dict[int, dict[str, Array]]
    effects: Effects
    facts: dict[str, Any]
    further: list[FixtureResult]


def _run_reference(
    runner: Runner,
    fixtures: Fixtures,
    report_progress: Progress,
    terms: _Terms,
    record: Recorder | None,
    stated: Sequence[InputSpec],
) -> _ReferenceRun:
    outputs, fed, thin = [], [], []
    exact: list[Outputs] = []
    rounded: list[Outputs] = []
    precision = terms.held.precision.name
    drawn: dict[str, set[int]] = {spec.name: set() for spec in fixtures.specs if spec.meaning.categories()}
    watch = Watch(runner)
    done, total = itertools.count(1), fixtures.count + again_runs(runner)
    with _opened(runner):
        for fixture_idx in range(fixtures.count):
            inputs = fixtures.make(fixture_idx)
            fed.append(summaries(inputs))  # before the runner, which may write to them
            if fixtures.seed is not None:  # of given ones it is known, and there may be very many
                thin.append(thinned(inputs))
            _note_categories(drawn, inputs)
            outputs.append(copied(watch.run(inputs)))
            if record is not None:
                record(copied(fixtures.make(fixture_idx)), copied(outputs[-1]))
            report_progress("reference", next(done), total)
        steadiness = watch.asked_again(
            fixtures.make, outputs, lambda: report_progress("reference", min(next(done), total), total)
        )
        facts = _facts(runner)
        for fixture_idx in range(fixtures.count) if terms.factor is not None or is_half(facts) else ():
            exact.append(_exact(runner, fixtures.make(fixture_idx)))
            report_progress("float64", fixture_idx + 1, fixtures.count)
        # One in half precision is rounded as it is.
        if exact and precision != "float32" and not is_half(facts):
            for found in predicted(runner, terms.held, fixtures.make, fixtures.count):
                rounded.append(found)
                report_progress(precision, len(rounded), fixtures.count)
        doubts = [*(runner.doubts(stated) if isinstance(runner, HasDoubts) else ())]
        doubts += half_precision(facts, exact, outputs)
    rounded = rounded or [*outputs]
    rounding = rounding_of(exact, rounded) if exact else {}
    swings = swings_of(outputs)
    distinct = distinct_count(thin) if all(thin) else len(thin)
    distinct = distinct if fixtures.seed is not None else fixtures.distinct
    return _ReferenceRun(
        outputs, fed, exact, rounded, rounding, swings, steadiness, doubts, drawn, distinct, facts
    )


def _note_categories(drawn: dict[str, set[int]], inputs: Mapping[str, Array]) -> None:
    for name, seen in drawn.items():
        seen.update(inputs[name].reshape(-1).tolist() if name in inputs else ())


def _exact(runner: Runner, inputs: Mapping[str, Array]) -> Outputs:
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
    """Run and judge every fixture; then the first again, and some with each input swapped."""
    runner = Named(sides.candidate, list(truth.outputs[0]))
    digests: dict[str, set[str]] = {}
    for given in itertools.chain.from_iterable(truth.inputs):
        digests.setdefault(given.name, set()).add(given.digest)
    others = {idx: fixtures.others(idx, digests) for idx in fixtures.probed}
    total = fixtures.count + 1 + sum(map(len, others.values()))
    done = itertools.count(1)
    results, outputs = [], []
    plain: dict[int, dict[str, Array]] = {}
    with _opened(runner):
        for fixture_idx in range(fixtures.count):
            # Not copied: it is judged before the runner runs again.
            got = asked(runner, fixtures.make(fixture_idx))
            results.append(_judged(fixture_idx, got, truth.of(fixture_idx), truth, terms, sides, fixtures))
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
        facts = {**_facts(sides.candidate), **runner.matched_facts}
        return _CandidateRun(keep_worst_grids(results), outputs, unrepeated, others, swapped, facts, [])


def _drawn_on(
    rounds: _Rounds, run: _CandidateRun, claim: Claim, result: ParityResult, started: float
) -> Claim:
    """The claim with more draws, and what is kept of them in the run; none where the check fails anyway."""
    # What was not varied yet may be varied by more draws.
    unfit = any(not answer.passed for answer in result.answers if answer.gate not in ("variation", "claim"))
    if unfit or not all(result.fixtures) or claim.asked is None:
        return replace(claim, stopped="unfit")
    first, terms = rounds.first, rounds.terms
    held = [first.outputs[0], *first.exact[:1], *first.rounded[:1]]
    size = sum(array.nbytes for one in held if not isinstance(one, str) for array in one.values())
    worst = Worst(terms.asked.rtol, terms.bound)
    found = draw_on(
        claim,
        replace(rounds, total=claim.asked.draws).judged,
        worst,
        each=(time.monotonic() - started) / rounds.fixtures.count,
        most=max(1, min(MOST, MEMORY // max(1, size))),
        until=math.inf if claim.asked.budget is None else started + claim.asked.budget,
    )
    chosen = [result for result in run.further if result.fixture_idx >= found.judged]
    run.further[:] = [*worst.kept, *chosen]
    return found


@dataclass(frozen=True)
class _Rounds:
    """Judges fixtures beyond the first ones as those were judged; ``total`` is how many there will be."""

    sides: Sides
    fixtures: Fixtures
    first: _ReferenceRun
    terms: _Terms
    report_progress: Progress
    total: int = 0

    def judged(self, fixture_idxs: Sequence[int], until: float) -> Generator[FixtureResult, None, None]:
        """Each fixture's verdict in order, as far as there is time until that moment."""
        truths = self._truths(fixture_idxs, until) if fixture_idxs else []
        if not truths:
            return
        runner = Named(self.sides.candidate, list(self.first.outputs[0]))
        with _opened(runner):
            for fixture_idx, truth in zip(fixture_idxs, truths, strict=False):
                if time.monotonic() >= until:
                    return
                inputs = self.fixtures.make(fixture_idx)
                fed = summaries(inputs)
                got = asked(runner, inputs)
                found = _judged(fixture_idx, got, truth, self.first, self.terms, self.sides, self.fixtures)
                self._note(fed)
                if self.total:
                    self.report_progress("claim", fixture_idx + 1, self.total)
                yield replace(found, inputs=fed)

    def _truths(self, fixture_idxs: Sequence[int], until: float) -> list[_Truth]:
        runner, precision, make = self.sides.reference, self.terms.held.precision.name, self.fixtures.make
        half = is_half(self.first.facts)
        outputs: list[dict[str, Array]] = []
        exact: list[Outputs] = []
        with _opened(runner):
            for fixture_idx in fixture_idxs:
                if time.monotonic() >= until:
                    break
                inputs = make(fixture_idx)
                _note_categories(self.first.categories, inputs)
                outputs.append(copied(asked(runner, inputs)))
                exact.append(_exact(runner, make(fixture_idx)) if self.first.exact else {})
            rounded: list[Outputs] = [*outputs]
            if self.first.exact and precision != "float32" and not half:
                rounded = [*predicted(runner, self.terms.held, lambda i: make(fixture_idxs[i]), len(outputs))]
        return [_Truth(*one) for one in zip(outputs, exact, rounded, strict=True)]

    def _note(self, fed: tuple[InputSummary, ...]) -> None:
        """Keep what was fed in where its shapes are new: the variation gate looks at nothing else."""
        shapes = [given.shape for given in fed]
        if all(shapes != [given.shape for given in before] for before in self.first.inputs):
            self.first.inputs.append(fed)


def _judged(
    fixture_idx: int,
    got: Mapping[str, Array],
    truth: _Truth,
    first: _ReferenceRun,
    terms: _Terms,
    sides: Sides,
    fixtures: Fixtures,
) -> FixtureResult:
    """The verdict on what the candidate has just given; nothing of it is held any longer."""
    runner = sides.candidate
    used = tuple(said_by(runner, "providers_used", ()))
    evidence = _evidence(truth, first.rounding, got, terms, sides, used)
    if fixture_idx == 0 and evidence.floors:
        found = distances_of(runner, terms.held, got, fixtures.make(0), truth.exact)
        evidence = replace(evidence, quantised=found)
    return judge_fixture(fixture_idx, evidence)


def _evidence(
    truth: _Truth,
    rounding: Mapping[str, Rounding],
    got: Mapping[str, Array],
    terms: _Terms,
    sides: Sides,
    used: Sequence[str],
) -> Evidence:
    evidence = Evidence(
        truth.outputs,
        got,
        terms.bound,
        sides.provider,
        used,
        infinities=terms.infinities,
        rtol=terms.asked.rtol,
    )
    if not same_structure(evidence):
        return evidence
    _require_named(terms.asked, evidence.reference)
    found: dict[str, Floor] = {}
    if terms.factor is not None:
        candidate = {name: pair[1] for name, pair in evidence.pairs.items()}
        exact, rounded = (_without_infinities(side, evidence) for side in (truth.exact, truth.rounded))
        name = terms.held.precision.name
        found = floors_of(exact, rounded, candidate, rounding, terms.factor, name, terms.held.unsure)
    floats = [name for name, (r, _) in evidence.pairs.items() if r.dtype.kind not in "iub"]
    return replace(evidence, floors=found, bounds=terms.asked.bounds(found, floats, strict=terms.strict))


def _without_infinities(side: Outputs, evidence: Evidence) -> Outputs:
    """The reference's outputs in another precision without the infinities that are meant."""
    if isinstance(side, str) or not evidence.infinities:
        return side
    outputs = evidence.reference
    return {n: without_infinities(array, outputs.get(n, array))[0] for n, array in side.items()}


def _require_named(asked: Tolerances, outputs: Mapping[str, Array]) -> None:
    """Refuse a threshold of an output that is not there, or is exact."""
    for name in asked.outputs:
        if name not in outputs:
            given = ", ".join(outputs)
            raise SettingsError(f"threshold: there is no output {name!r}; the reference gives {given}")
        if outputs[name].dtype.kind in "iub":
            raise SettingsError(
                f"threshold: output {name!r} is {outputs[name].dtype}, which has to be equal; give it none"
            )


def _input_dependence(reference: Runner, fixtures: Fixtures, run: _CandidateRun) -> InputDependence:
    live = not isinstance(reference, RecordedRunner)
    asked_too = questions(run.effects, run.others, of_refused=live)
    return judge_input_dependence(
        fixtures.make(0), run.effects, _reference_effects(reference, fixtures, asked_too)
    )


def _reference_effects(
    runner: Runner, fixtures: Fixtures, questions: Mapping[int, Mapping[str, Array]]
) -> Effects:
    """What some swaps do to the reference; it is opened only for them."""
    if not questions:
        return {}
    found = {}
    with _opened(runner):
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


def _verdict(
    name: str,
    fixtures: Fixtures,
    terms: _Terms,
    truth: _ReferenceRun,
    run: _CandidateRun,
    dependence: InputDependence,
    of_sides: Mapping[str, list[str]],
    claim: Claim,
    coverage: Coverage | None,
) -> ParityResult:
    """What the run's own gates answer, beside the fixtures that were judged as they ran.

    ``of_sides`` are reasons to refuse that no run shows, or another than these, by gate.
    """
    first = [replace(f, inputs=i) for f, i in zip(run.results, truth.inputs, strict=False)]
    results = keep_worst_grids([*first, *run.further])
    power = judge_power(results, truth.swings, terms.bound, dependence.effects, terms.asked)
    loosest = _loosest(results, truth.swings, terms.bound)
    no_reference, doubtful = judge_reference(truth.steadiness, loosest, truth.facts, run.facts)
    doubted, noted = _of_variation(fixtures, truth, results)
    doubts = {
        "compared": random_numbers(truth.steadiness, truth.facts),
        "reference": [*doubtful, *truth.doubts],
        "power": power.doubted,
        "variation": doubted,
        "inputs": dependence.unproven,
        "coverage": coverage.doubts if coverage is not None else [],
    }
    reasons = {
        "intact": [*of_sides["intact"], *terms.held.reasons(run.facts)],
        "compared": [*_uncompared(results), *(_infinite(truth) if terms.infinities else ())],
        "reference": [*of_sides["reference"], *no_reference],
        "power": power.refused,
        "repeat": run.unrepeated,
        "inputs": dependence.dead,
        "coverage": of_sides["coverage"],
        "claim": claim.refusals,
    }
    found = tuple(Answer.no(gate, doubt) for gate in RUN_GATE_NAMES for doubt in doubts.get(gate, []))
    return ParityResult(
        name=name,
        threshold=largest_bound(results, terms.asked, strict=terms.strict),
        strict=terms.strict,
        seed=fixtures.seed,
        fixtures=tuple(results),
        answers=run_answers(reasons, doubts, strict=terms.strict),
        reference=truth.facts,
        candidate={**run.facts, "live_inputs": dependence.live},
        notes=(
            *noted,
            *side_notes(truth.facts, run.facts),
            *dependence.notes,
            *(() if terms.strict else (doubt.said for doubt in found)),
        ),
        doubts=found,
        asked=terms.asked,
        by_default=terms.by_default,
        precision=terms.held.precision,
        swings=truth.swings,
        effects=dependence.effects,
        claim=claim,
        coverage=coverage,
    )


def _said_of(fixtures: Fixtures, results: Sequence[FixtureResult]) -> list[str]:
    """What is said of the fixtures, and what the first that were refused are called where they have names."""
    label = fixtures.label
    if label is None:
        return list(fixtures.notes)
    refused = [f.fixture_idx for f in results if not f.passed and f.fixture_idx < fixtures.count]
    return [*fixtures.notes, *(f"fixture {idx} is {label(idx)}" for idx in refused[:_LABELLED])]


def _of_variation(
    fixtures: Fixtures, truth: _ReferenceRun, results: Sequence[FixtureResult]
) -> tuple[list[str], list[str]]:
    """What is doubted of the fixtures; and what is noted of them, such as that some are the same but for
    rounding."""
    said = _said_of(fixtures, results)
    drawn = fixtures.seed is not None
    distinct = truth.distinct if drawn else fixtures.distinct
    copies = judge_copies(fixtures.count, distinct, "drawn" if drawn else "given")
    doubted = [*copies, *judge_variation(fixtures.specs, truth.inputs, *([truth.categories] * drawn))]
    if copies or drawn or distinct == fixtures.count:
        return doubted, said
    near = f"{fixtures.count} fixtures were given and {distinct} differ; near copies count as one"
    return doubted, [*said, near]


def _loosest(results: Sequence[FixtureResult], names: Iterable[str], threshold: float) -> dict[str, float]:
    """The bound that each output of floats was held to, the largest of any fixture."""
    own = [(o.name, o.bound) for result in results for o in result.outputs if o.bound is not None]
    return {name: max((b for n, b in own if n == name), default=threshold) for name in names}


def _uncompared(results: Sequence[FixtureResult]) -> list[str]:
    compared = sum(o.difference.elements for f in results for o in f.outputs if o.difference is not None)
    if compared > 0:
        return []
    return [f"no element was compared in {len(results)} fixtures"]


def _infinite(truth: _ReferenceRun) -> list[str]:
    """A reason for each output of floats of which nothing is left once what is infinite is equal."""
    found = []
    for name in truth.swings:
        given = [fixture[name] for fixture in truth.outputs if name in fixture]
        if any(array.size for array in given) and all(np.isinf(array).all() for array in given):
            found.append(f"{name} is infinite throughout every fixture, so that nothing of it was compared")
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
def _opened(runner: Runner) -> Iterator[None]:
    try:
        runner.open()
        yield
    finally:
        runner.close()
