"""Judge stored results again with other tolerances: the verdict that a fresh run with them would give.

Only the gates threshold and power look at tolerances, and they look at figures that a result holds in
full. All other gates keep the answers they gave; what strict makes of a doubt follows from the doubts kept
beside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pytest_reflex import settings
from pytest_reflex.errors import SettingsError
from pytest_reflex.report.json.results import Result
from pytest_reflex.verdict.claim import Claim
from pytest_reflex.verdict.gates import below_threshold, run_answers
from pytest_reflex.verdict.power import judge_power
from pytest_reflex.verdict.results import (
    FIXTURE_GATE_NAMES,
    RUN_GATE_NAMES,
    Answer,
    FixtureResult,
    RunResult,
    largest_bound,
)
from pytest_reflex.verdict.tolerances import Tolerances
from pytest_reflex.verdict.units import InUnits


def rejudge(
    result: Result, *, threshold: object = None, rtol: float | None = None, strict: bool | None = None
) -> Result:
    """The result that ``check`` would have given with these tolerances.

    Args:
        result: what an earlier check found.
        threshold: the new one, as :func:`~pytest_reflex.settings.threshold` takes it; by default what the
            result was asked for, and so for every output that a threshold of others does not name.
        rtol: the new one; by default what the result was asked for.
        strict: whether doubts are refusals and 1e-5 is the largest bound; by default as the result was.

    Raises:
        SettingsError: a value is bad, names an output that the result has not, or needs a figure that was not
            kept: a floor that nobody asked for, or what rtol needs in documents older than that; or there are
            too few fixtures for strict.
    """
    strictly = result.strict if strict is None else strict
    if strictly and not result.strict and len(result.fixtures) < settings.FEWEST_STRICT:
        raise SettingsError(
            f"strict: {result.name} has {len(result.fixtures)} fixtures, too few for strict; run it again "
            f"with {settings.FEWEST_STRICT} or more"
        )
    asked = _asked(result, threshold, rtol)
    if result.left_out and (asked != result.asked or strictly != result.strict):
        raise SettingsError(
            f"threshold: {result.left_out:,} of {result.count:,} fixtures of {result.name} were drawn for a "
            "claim and are not kept one by one; run it again with other tolerances"
        )
    fixtures = tuple(_fixture(f, asked, result.units, strict=strictly) for f in result.fixtures)
    power = judge_power(fixtures, result.swings, asked.plain(strict=strictly), result.effects, asked)
    reasons = {answer.gate: _without_doubts(answer, result) for answer in result.answers}
    doubts = {**_by_gate(result.doubts), "power": power.doubted}
    given = {answer.gate for answer in result.answers}
    kept = tuple(answer for answer in result.answers if answer.gate not in RUN_GATE_NAMES)
    claim = _claim(result, replace(result, fixtures=fixtures).drawn)
    said = {"power": power.refused, "claim": [] if claim is None else claim.refusals}
    answers = run_answers({**reasons, **said}, doubts, strict=strictly)
    doubted = tuple(Answer.no(gate, doubt) for gate in RUN_GATE_NAMES for doubt in doubts.get(gate, ()))
    # A plain run ends its notes with its doubts, in the order of the gates.
    notes = result.notes if result.strict else result.notes[: len(result.notes) - len(result.doubts)]
    return replace(
        result,
        threshold=largest_bound(fixtures, asked, strict=strictly),
        strict=strictly,
        fixtures=fixtures,
        answers=(*(answer for answer in answers if answer.gate in given), *kept),
        notes=notes if strictly else notes + tuple(doubt.said for doubt in doubted),
        doubts=doubted,
        asked=asked,
        by_default=result.by_default and threshold is None,
        claim=claim,
    )


def _claim(result: RunResult, fixtures: Sequence[FixtureResult]) -> Claim | None:
    """What the fixtures establish as they are judged now."""
    if result.claim is None or result.left_out:
        return result.claim
    passed = [fixture.passed for fixture in fixtures]
    before = result.claim
    found = Claim.of(passed, source=before.source, distinct=before.counted, asked=before.asked)
    return replace(found, stopped=before.stopped, needs=before.needs)


def _asked(result: RunResult, threshold: object, rtol: float | None) -> Tolerances:
    share = result.asked.rtol if rtol is None else settings.rtol(rtol)
    asked = replace(result.asked, rtol=share)
    if threshold is not None:
        new = settings.threshold(threshold)
        share = new.rtol or share if rtol is None else share
        asked = replace(settings.over(new, result.asked), rtol=share)
    outputs = [output for fixture in result.fixtures for output in fixture.outputs]
    names = {output.name: None for output in outputs if "float" in output.dtype}
    if strange := [name for name in asked.outputs if name not in names and outputs]:
        raise SettingsError(
            f"threshold: {result.name} has no output {strange[0]!r} of floats; it has {', '.join(names)}"
        )
    for output in outputs:
        if output.name not in names or output.difference is None:
            continue
        if asked.of(output.name).in_floors and output.floor is None:
            raise SettingsError(
                f"threshold: {asked.of(output.name)} is asked of {result.name}, which was run without a "
                "floor; run it again with floor, or give a number"
            )
        if share and not output.difference.frontier and math.isfinite(output.difference.max_abs_diff):
            raise SettingsError(
                f"rtol: {share:g} is asked of {result.name}, of which an older version kept no more than the "
                "largest difference; run it again, or give a threshold alone"
            )
    return asked


def _fixture(
    fixture: FixtureResult, asked: Tolerances, units: Mapping[str, InUnits], *, strict: bool
) -> FixtureResult:
    refusal = fixture.refusal
    if refusal is not None and refusal.gate != "threshold":
        return fixture
    differences = {o.name: o.difference for o in fixture.outputs if o.difference is not None}
    if len(differences) < sum(0 not in o.shape for o in fixture.outputs) or not differences:
        return fixture  # there is nothing to ask the threshold of, and what was not asked is a fail
    earlier = tuple(answer for answer in fixture.answers if answer.gate != FIXTURE_GATE_NAMES[-1])
    floors = {o.name: o.floor for o in fixture.outputs if o.floor is not None}
    seen = {o.name: (units[o.name], o.elements) for o in fixture.outputs if o.elements and o.name in units}
    floats = [o.name for o in fixture.outputs if "float" in o.dtype and 0 not in o.shape]
    own = asked.bounds(floors, floats, strict=strict, seen=seen)
    outputs = tuple(replace(o, bound=own.get(o.name)) for o in fixture.outputs)
    plain = asked.plain(strict=strict)
    answer = below_threshold(differences, plain, own, asked.rtol, floors)
    return replace(fixture, answers=(*earlier, answer), outputs=outputs)


def _by_gate(doubts: Sequence[Answer]) -> dict[str, list[str]]:
    return {gate: [doubt.said for doubt in doubts if doubt.gate == gate] for gate in RUN_GATE_NAMES}


def _without_doubts(answer: Answer, result: RunResult) -> list[str]:
    """Why a run gate refused, but for the doubts that strict made reasons; they are always the last."""
    doubts = "; ".join(_by_gate(result.doubts).get(answer.gate, [])) if result.strict else ""
    own = (answer.refusal or "").removesuffix(doubts).removesuffix("; ")
    return [own] if own else []
