"""Judge stored results again at another threshold: the verdict that a fresh run at it would give.

Only the gates threshold and power look at the threshold, and they look at figures that a result holds in
full. All other gates keep the answers they gave; what strict makes of a doubt follows from the doubts kept
beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pytest_reflex import settings
from pytest_reflex.report.json.results import Result
from pytest_reflex.verdict.gates import STRICT_THRESHOLD, below_threshold, run_answers
from pytest_reflex.verdict.power import judge_power
from pytest_reflex.verdict.results import (
    FIXTURE_GATE_NAMES,
    RUN_GATE_NAMES,
    Answer,
    FixtureResult,
    RunResult,
)


def rejudge(result: Result, *, threshold: float | None = None, strict: bool | None = None) -> Result:
    """The result that ``check`` would have given with this threshold.

    Args:
        result: what an earlier check found.
        threshold: the new bound; by default the one the result was judged at.
        strict: whether doubts are refusals and 1e-5 is the largest bound; by default as the result was.

    Raises:
        SettingsError: the threshold is no finite number above 0.
    """
    strictly = result.strict if strict is None else strict
    again = threshold is not None
    bound = result.threshold if threshold is None else settings.number_threshold(threshold)
    bound = min(bound, STRICT_THRESHOLD) if strictly else bound
    fixtures = tuple(_fixture(fixture, bound, keep=not again) for fixture in result.fixtures)
    power = judge_power(fixtures, result.swings, bound, result.effects)
    reasons = {answer.gate: _without_doubts(answer, result) for answer in result.answers}
    doubts = {**_by_gate(result.doubts), "power": power.doubted}
    asked = {answer.gate for answer in result.answers}
    answers = run_answers({**reasons, "power": power.refused}, doubts, strict=strictly)
    doubted = tuple(Answer.no(gate, doubt) for gate in RUN_GATE_NAMES for doubt in doubts.get(gate, ()))
    # A plain run ends its notes with its doubts, in the order of the gates.
    notes = result.notes if result.strict else result.notes[: len(result.notes) - len(result.doubts)]
    return replace(
        result,
        threshold=bound,
        strict=strictly,
        fixtures=fixtures,
        answers=tuple(answer for answer in answers if answer.gate in asked),
        notes=notes if strictly else notes + tuple(doubt.said for doubt in doubted),
        doubts=doubted,
        floors=None if again else result.floors,
    )


def _fixture(fixture: FixtureResult, bound: float, *, keep: bool) -> FixtureResult:
    """The fixture judged at ``bound``; ``keep`` leaves outputs the lower bounds of their own."""
    refusal = fixture.refusal
    if refusal is not None and refusal.gate != "threshold":
        return fixture
    differences = {o.name: o.difference for o in fixture.outputs if o.difference is not None}
    if len(differences) < sum(0 not in o.shape for o in fixture.outputs) or not differences:
        return fixture  # there is nothing to ask the threshold of, and what was not asked is a fail
    earlier = tuple(answer for answer in fixture.answers if answer.gate != FIXTURE_GATE_NAMES[-1])
    outputs = tuple(
        replace(o, bound=min(o.bound, bound) if keep and o.bound is not None else None)
        for o in fixture.outputs
    )
    own = {o.name: o.bound for o in outputs if o.bound is not None}
    return replace(fixture, answers=(*earlier, below_threshold(differences, bound, own)), outputs=outputs)


def _by_gate(doubts: Sequence[Answer]) -> dict[str, list[str]]:
    return {gate: [doubt.said for doubt in doubts if doubt.gate == gate] for gate in RUN_GATE_NAMES}


def _without_doubts(answer: Answer, result: RunResult) -> list[str]:
    """Why a run gate refused, but for the doubts that strict made reasons; they are always the last."""
    doubts = "; ".join(_by_gate(result.doubts).get(answer.gate, [])) if result.strict else ""
    own = (answer.refusal or "").removesuffix(doubts).removesuffix("; ")
    return [own] if own else []
