"""What is said of a closed loop, by hand: its words, its first line, and what stands below."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pytest_reflex.report.html.rollout import rollout_page
from pytest_reflex.report.text.rollout import ROWS, rollout_text, sentence, success_lines
from pytest_reflex.verdict.drift import Drift, Quantity
from pytest_reflex.verdict.rollout import CANDIDATE, FLOAT64, JITTER, REFERENCE, OpenLoop, Rollout, Start
from pytest_reflex.verdict.rounding import CHANCE, FACTOR

pytestmark = pytest.mark.once

TIP = Quantity("tip", "mm", ("x", "y", "z"), whole=3)


def went(far: float, visible: float | None = None) -> tuple[Drift, ...]:
    return (Drift("tip", far, far, 0.5, None, visible, (far, 0.0, 0.0)),)


def started(
    start: int, far: float, floor: float = 1.0, *, parted: float | None = None, did: Any = (None, None)
) -> Start:
    drifts = {CANDIDATE: went(far), FLOAT64: went(floor, parted), JITTER: went(floor / 2)}
    return Start(start, drifts, {"tip": 1e-9}, dict(zip((REFERENCE, CANDIDATE), did, strict=True)))


def rollout(*starts: Start, **told: Any) -> Rollout:
    given = {"asked": len(starts), "open_loop": OpenLoop(16, 1e-6, None), **told}
    return Rollout("reach", "planar", 2.0, 30.0, 8, 0, 0, quantities=(TIP,), starts=starts, **given)


def test_up_to_some_floors_it_is_rounding_and_then_further() -> None:
    good = rollout(started(0, FACTOR), started(1, 0.5))
    assert (good.word, bool(good), good.exit_code) == ("rounding", True, 0)
    assert sentence(good).endswith("rounding in 2 starts; tip 2 mm at most, 2.00 times its floor")
    far = rollout(started(0, math.nextafter(FACTOR, 3)), started(1, 0.5))
    assert (far.word, bool(far), far.exit_code, far.further) == ("further", False, 1, ("tip",))
    assert "FAIL: reach on planar, 2 s at 30 Hz: further than rounding (tip)" in sentence(far)
    assert rollout(started(0, math.nan)).word == "further"


def test_where_rounding_alone_parts_the_ways_a_drift_is_undecided() -> None:
    calm = started(1, 0.1, 0.2)
    made = rollout(started(0, CHANCE, parted=0.4), calm)
    assert (made.word, made.passed, made.exit_code) == ("undecided", False, 1)
    assert "undecided, for rounding alone parts the ways visibly" in sentence(made)
    assert rollout(started(0, CHANCE + 1, parted=0.4), calm).word == "further"
    text = rollout_text(made)
    assert "Chaos: in 1 of 2 starts rounding alone was visible (1 mm), first after 0.40 s" in text


def test_what_is_allowed_takes_the_place_of_rounding() -> None:
    assert rollout(started(0, 5.0), within=5.5).passed
    made = rollout(started(0, 5.0), within=5.0)
    assert not made.passed
    assert sentence(made).endswith("; 5 mm was allowed")


def test_a_candidate_that_does_the_job_less_often_fails_though_it_hardly_drifts() -> None:
    made = rollout(*(started(k, 0.1, did=(True, False)) for k in range(8)), notes=("one more thing",))
    assert (made.word, made.passed) == ("rounding", False)
    assert sentence(made).endswith("; it does the job differently often")
    (line,) = success_lines(made)
    assert line.startswith("Success: reference 8 of 8, candidate 0; 8 starts by the reference alone, 0 by ")
    assert "a difference; 8 starts could have shown one of " in line
    assert rollout_text(made).endswith("Note: one more thing\n")
    (few,) = success_lines(rollout(started(0, 0.1, did=(True, True))))
    assert few.endswith("1 starts could have shown no difference at all; give at least 6")
    assert success_lines(rollout(started(0, 0.1))) == ["Success: planar has no task"]


def test_where_no_start_was_driven_nothing_passes_and_why_is_said() -> None:
    made = rollout(asked=2, error="start 0: action 3 is nan", not_driven="what stands around it")
    assert (made.passed, made.exit_code) == (False, 2)
    assert sentence(made) == "rollout ERROR: reach on planar, 2 s at 30 Hz: no start was driven"
    assert rollout_text(made).splitlines()[1:] == [
        "Note: what stands around it",
        "Not driven to the end: start 0: action 3 is nan",
    ]
    assert "no start was driven" in rollout_page(made)
    assert rollout(started(0, 0.1), asked=2).exit_code == 2, "one of two starts is no verdict"


def test_of_many_starts_the_worst_are_shown() -> None:
    text = rollout_text(rollout(*(started(k, 0.001 * k) for k in range(ROWS + 3))))
    assert "and 3 more, which drifted less" in text
    assert text.index(f"   {ROWS + 2}  ") < text.index(f"   {ROWS + 1}  ")
