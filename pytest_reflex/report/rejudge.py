"""Judge stored results again at another threshold: the verdict that a fresh run at it would give.

Only the threshold gate looks at the threshold, and it looks at figures that a result holds in full. All
other gates keep the answers they gave; what strict makes of a doubt follows from the doubts kept beside.
"""

from __future__ import annotations

from dataclasses import replace

from pytest_reflex import settings
from pytest_reflex.report.json.results import Result
from pytest_reflex.verdict.gates import STRICT_THRESHOLD, below_threshold
from pytest_reflex.verdict.results import FIXTURE_GATE_NAMES, Answer, FixtureResult, RunResult


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
    answers, notes = result.answers, result.notes
    if strictly != result.strict:
        answers = tuple(_with_doubts(answer, result, strictly) for answer in answers)
        doubted = tuple(doubt.said for doubt in result.doubts)
        # A plain run ends its notes with its doubts, in the order of the gates.
        notes = notes[: len(notes) - len(doubted)] if strictly else notes + doubted
    return replace(
        result,
        threshold=bound,
        strict=strictly,
        fixtures=tuple(_fixture(fixture, bound, keep=not again) for fixture in result.fixtures),
        answers=answers,
        notes=notes,
        floors=None if again else result.floors,
    )


def _fixture(fixture: FixtureResult, bound: float, *, keep: bool) -> FixtureResult:
    """The fixture judged at ``bound``; ``keep`` leaves outputs the lower bounds of their own."""
    refusal = fixture.refusal
    if refusal is not None and refusal.gate != "threshold":
        return fixture
    differences = {o.name: o.difference for o in fixture.outputs if o.difference is not None}
    if len(differences) < len(fixture.outputs) or not differences:
        return fixture  # there is nothing to ask the threshold of, and what was not asked is a fail
    earlier = tuple(answer for answer in fixture.answers if answer.gate != FIXTURE_GATE_NAMES[-1])
    outputs = tuple(
        replace(o, bound=min(o.bound, bound) if keep and o.bound is not None else None)
        for o in fixture.outputs
    )
    own = {o.name: o.bound for o in outputs if o.bound is not None}
    return replace(fixture, answers=(*earlier, below_threshold(differences, bound, own)), outputs=outputs)


def _with_doubts(answer: Answer, result: RunResult, strictly: bool) -> Answer:
    """A run gate's answer with its doubts among the reasons, or without them; they are always the last."""
    doubts = "; ".join(doubt.said for doubt in result.doubts if doubt.gate == answer.gate)
    if not doubts:
        return answer
    if strictly:
        return Answer.no(answer.gate, f"{answer.refusal}; {doubts}" if answer.refusal else doubts)
    return Answer(answer.gate, (answer.refusal or "").removesuffix(doubts).removesuffix("; ") or None)
