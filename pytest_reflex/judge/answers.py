"""What the gates of the whole run answer, beside the fixtures that were judged as they ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from pytest_reflex.inputs.fixtures import Fixtures
from pytest_reflex.judge.input_dependence import InputDependence
from pytest_reflex.judge.naming import side_notes
from pytest_reflex.judge.reference import judge_reference, random_numbers
from pytest_reflex.judge.runs import CandidateRun, ReferenceRun
from pytest_reflex.judge.terms import Terms
from pytest_reflex.judge.variation import judge_copies, judge_open_axes, judge_variation
from pytest_reflex.result import ParityResult
from pytest_reflex.verdict.claim import Claim
from pytest_reflex.verdict.coverage import Coverage
from pytest_reflex.verdict.gates import run_answers
from pytest_reflex.verdict.power import judge_power
from pytest_reflex.verdict.results import (
    ELSEWHERE,
    RUN_GATE_NAMES,
    Answer,
    FixtureResult,
    keep_worst_grids,
    largest_bound,
)

__all__ = ["verdict_of"]

# Of so many refused fixtures it is said what they are.
_LABELLED: Final = 3


def verdict_of(
    name: str,
    fixtures: Fixtures,
    terms: Terms,
    truth: ReferenceRun,
    run: CandidateRun,
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
    doubted += judge_open_axes(run.open_axes, fixtures.specs, truth.inputs)
    doubts = {
        "compared": _doubted_runs(truth, run, terms),
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
        "repeat": run.unrepeated or of_sides["repeat"],
        "inputs": dependence.dead,
        "coverage": of_sides["coverage"],
        "claim": claim.refusals,
    }
    found = tuple(Answer.no(gate, doubt) for gate in RUN_GATE_NAMES for doubt in doubts.get(gate, []))
    doubts_noted = () if terms.strict else tuple(doubt.said for doubt in found)
    return ParityResult(
        name=name,
        threshold=largest_bound(results, terms.asked, strict=terms.strict),
        strict=terms.strict,
        seed=fixtures.seed,
        fixtures=tuple(results),
        answers=run_answers(reasons, doubts, strict=terms.strict),
        reference=truth.facts,
        candidate={**run.facts, "live_inputs": dependence.live},
        notes=(*noted, *side_notes(truth.facts, run.facts), *dependence.notes, *doubts_noted),
        doubts=found,
        asked=terms.asked,
        by_default=terms.by_default,
        precision=terms.held.precision,
        swings=truth.swings,
        effects=dependence.effects,
        claim=claim,
        coverage=coverage,
        units=run.units,
    )


def _doubted_runs(truth: ReferenceRun, run: CandidateRun, terms: Terms) -> list[str]:
    """Whether something else than the inputs and the provider asked for had a part in what was given."""
    drawn = random_numbers(truth.steadiness, truth.facts)
    return [*drawn, *terms.held.doubts, *_fell_back(run.facts)]


def _fell_back(facts: Mapping[str, object]) -> list[str]:
    """A doubt where nodes ran on another provider than the one that the session was asked for."""
    nodes = facts.get("fell_back")
    if not isinstance(nodes, list) or not nodes:
        return []
    count = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    return [f"{count} {ELSEWHERE} {facts.get('provider_asked')}, the first {nodes[0]}"]


def _said_of(fixtures: Fixtures, results: Sequence[FixtureResult]) -> list[str]:
    """What is said of the fixtures, and what the first that were refused are called where they have names."""
    label = fixtures.label
    if label is None:
        return list(fixtures.notes)
    refused = [f.fixture_idx for f in results if not f.passed and f.fixture_idx < fixtures.count]
    return [*fixtures.notes, *(f"fixture {idx} is {label(idx)}" for idx in refused[:_LABELLED])]


def _of_variation(
    fixtures: Fixtures, truth: ReferenceRun, results: Sequence[FixtureResult]
) -> tuple[list[str], list[str]]:
    """What is doubted of the fixtures; and what is noted of them, such as that some are the same but for
    rounding."""
    said = _said_of(fixtures, results)
    drawn = fixtures.seed is not None
    distinct = truth.distinct if drawn else fixtures.distinct
    categories = truth.categories if drawn else {}
    copies = judge_copies(fixtures.count, distinct, "drawn" if drawn else "given")
    doubted = [*copies, *judge_variation(fixtures.specs, truth.inputs, categories, recorded=not drawn)]
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


def _infinite(truth: ReferenceRun) -> list[str]:
    """A reason for each output of floats of which nothing is left once what is infinite is equal."""
    found = []
    for name in truth.swings:
        given = [fixture[name] for fixture in truth.outputs if name in fixture]
        if any(array.size for array in given) and all(np.isinf(array).all() for array in given):
            found.append(f"{name} is infinite throughout every fixture, so that nothing of it was compared")
    return found
