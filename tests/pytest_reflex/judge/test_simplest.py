"""A failing check finds the simplest input that fails, by itself, in time, and stores it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from observation_cases import PROMPT, seven
from policy_cases import Function

from pytest_reflex.inputs import InputSpec, make_fixture
from pytest_reflex.inputs.ranges import corners, ends, rest, swaps
from pytest_reflex.judge.check import check
from pytest_reflex.judge.sides import sides_of
from pytest_reflex.judge.simplest import Pace, Simplest, simplest, simplified
from pytest_reflex.judge.workers.shares import OWN
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import RecordedRunner

SEVEN = seven("float32")
Array = np.ndarray[Any, Any]


def actions(**given: Array) -> dict[str, Array]:
    """Every input moves them."""
    parts = [np.sin(np.float32(1 + i) + given[name].astype(np.float32)) for i, name in enumerate(given)]
    total = sum(part.mean() for part in parts)
    return {"actions": np.full((1, 4), total, np.float32)}


def off_where(wrong: Any, by: float = 0.25) -> Any:
    def function(**given: Array) -> dict[str, Array]:
        right = actions(**given)
        return {"actions": right["actions"] + np.float32(by)} if wrong(given) else right

    return function


def found(wrong: Any, specs: list[InputSpec] = SEVEN, *, seconds: float = 30, **options: Any) -> Simplest:
    reference, candidate = Function(actions, "reference", kind="torch"), Function(off_where(wrong))
    result = check(reference, candidate, inputs=specs, **options)
    assert not result.passed
    made = simplest(result, sides_of(reference, candidate, specs, "CPUExecutionProvider"), seconds=seconds)
    assert made is not None
    assert wrong(made.inputs), "it does not fail"
    return made


def at_rest(inputs: Mapping[str, Array], specs: list[InputSpec]) -> set[str]:
    return {spec.name for spec in specs if rest(spec) is not None and (inputs[spec.name] == rest(spec)).all()}


@pytest.mark.parametrize(
    ("wrong", "awake", "said"),
    [
        (lambda one: one["state"][0, 3] > 0.5, "state", "state[0, 3] = 1.0; at rest: image, scaled, gripper"),
        (lambda one: one["gripper"][0, 1], "gripper", "gripper[0, 1] = True; at rest: image, scaled, state"),
        (lambda one: one["arm"][0] >= 5, "arm", "arm[0] = 8; at rest: image, scaled, state, gripper"),
        (lambda one: one["time"][0] > 1, "time", "time[0] = 2.0; at rest: image, scaled"),
        (lambda one: one["noise"][0, 2, 5] < -0.5, "noise", "noise[0, 2, 5] = -"),
        (lambda one: one["image"][0, 1].max() > 0.4, "image", "image[0, 1, "),
    ],
)
def test_seven_inputs_shrink_to_the_one_that_matters(wrong: Any, awake: str, said: str) -> None:
    made = found(wrong, fixtures=12)
    assert list(made.awake) == [awake]
    assert made.awake[awake][0] == 1
    assert at_rest(made.inputs, SEVEN) == {spec.name for spec in SEVEN} - {awake}
    assert made.text.startswith(said)
    assert set(made.resting) == {spec.name for spec in SEVEN} - {awake}
    # What the reference gives for it is kept beside it.
    assert (made.outputs["actions"] == actions(**made.inputs)["actions"]).all()


def test_two_inputs_that_matter_together_are_kept() -> None:
    made = found(lambda one: one["state"][0, 0] > 0 and one["noise"][0, 0, 0] > 1.5, fixtures=20)
    assert {name: count for name, (count, _) in made.awake.items()} == {"state": 1, "noise": 1}


def test_what_fails_everywhere_is_at_rest_altogether() -> None:
    made = found(lambda one: True)
    assert made.awake == {}
    assert made.text.startswith("every input at rest (image, ")


def test_inputs_that_hang_on_each_other_stay_those_of_one_fixture() -> None:
    made = found(lambda one: int(one["mask"].sum()) < 12, PROMPT, fixtures=12)
    together = ("cameras", "mask", "tokens")
    drawn = [make_fixture(PROMPT, 0, idx) for idx in range(12)]
    assert any(all((one[name] == made.inputs[name]).all() for name in together) for one in drawn)
    assert "state" in made.resting


def test_it_fails_by_the_same_gate_and_not_by_another() -> None:
    """At rest the candidate gives NaN: that is another fault."""

    def function(**given: Array) -> dict[str, Array]:
        right = actions(**given)["actions"]
        if not given["state"].any():
            return {"actions": right * np.float32(np.nan)}
        return {"actions": right + np.float32(given["state"][0, 0] > 0.25)}

    reference, candidate = Function(actions, "reference", kind="torch"), Function(function)
    for seed in range(9):
        result = check(reference, candidate, inputs=SEVEN, fixtures=1, seed=seed)
        if not result.passed:
            break
    assert result.refusals[0][1].gate == "threshold"
    made = simplest(result, sides_of(reference, candidate, SEVEN, "CPUExecutionProvider"), seconds=30)
    assert made is not None
    assert made.result.refusal is not None
    assert made.result.refusal.gate == "threshold"
    assert made.inputs["state"].any()


def test_it_ends_with_its_budget_and_keeps_what_fails() -> None:
    """A clock on which every look takes a second."""
    reference = Function(actions, "reference", kind="torch")
    candidate = Function(off_where(lambda one: one["state"][0, 3] > 0.5))
    result = check(reference, candidate, inputs=SEVEN, fixtures=12)
    sides = sides_of(reference, candidate, SEVEN, "CPUExecutionProvider")
    tries = []
    for budget in (1.0, 40.0, 400.0):
        ticks = iter(np.arange(1e6))
        made = simplest(result, sides, seconds=budget, now=lambda t=ticks: float(next(t)))
        assert made is not None
        assert made.inputs["state"][0, 3] > 0.5
        assert next(ticks) < budget + 60
        tries.append(made.tries)
    assert tries == sorted(tries)
    assert tries[0] < tries[2]


def failing() -> tuple[Function, Function, ParityResult]:
    reference = Function(actions, "reference", kind="torch")
    candidate = Function(off_where(lambda one: one["state"][0, 3] > 0.5))
    return reference, candidate, check(reference, candidate, inputs=SEVEN, fixtures=12)


def test_it_is_stored_as_a_recording_that_fails_again(tmp_path: Path) -> None:
    reference, candidate, result = failing()
    place = tmp_path / "made" / "one.safetensors"
    noted = simplified(result, reference, candidate, inputs=SEVEN, seconds=30, place=place)
    assert noted.notes[-1].startswith(
        f"the simplest input found that fails as fixture {result.worst_fixture.fixture_idx} does, stored in "
        f"{place}: state[0, 3] = 1.0; at rest: "
    )
    recording = RecordedRunner(place)
    again = check(recording, candidate, inputs=recording.recorded())
    assert [answer.gate for _, answer in again.refusals][:1] == ["threshold"]
    assert again.count == 1


def test_nothing_is_looked_for_where_nothing_can_be_found() -> None:
    reference, candidate, result = failing()
    assert simplified(result, reference, candidate, inputs=SEVEN, seconds=0) is result
    # One fixture of a large policy takes longer than there is time for.
    assert simplified(result, reference, candidate, inputs=SEVEN, seconds=3, each=2) is result
    passed = check(reference, Function(actions), inputs=SEVEN)
    assert simplified(passed, reference, candidate, inputs=SEVEN, seconds=30) is passed
    given = [make_fixture(SEVEN, 0, idx) for idx in range(12)]
    recorded = check(reference, candidate, inputs=given)
    assert simplified(recorded, reference, candidate, inputs=given, seconds=30) is recorded
    shapes = Function(lambda **one: {"actions": actions(**one)["actions"][:, :2]})
    unlike = check(reference, shapes, inputs=SEVEN)
    assert simplified(unlike, reference, shapes, inputs=SEVEN, seconds=30) is unlike


def test_a_fixture_s_pace_counts_no_wait_for_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening is a part of it, shared between all; starting workers and what they judge are none."""
    clock = [100.0]
    monkeypatch.setattr("pytest_reflex.judge.simplest.time.monotonic", lambda: clock[0])
    heard: list[tuple[str, int, int]] = []
    pace = Pace(lambda *said: heard.append(said))
    told = [("workers", 0, 1, 1), ("workers", 1, 1, 30), ("reference", 1, 12, 6)]
    told += [("reference", done, 12, 1.5) for done in range(2, OWN + 1)]
    told += [("reference", OWN + 1, 12, 50), ("float64", 1, 12, 20)]
    told += [("candidate", done, 12, 0.5) for done in range(1, OWN + 1)]
    for stage, done, total, took in told:
        clock[0] += took
        pace(stage, done, total)
    assert heard == [said[:3] for said in told]
    assert pace.each == (6 + (OWN - 1) * 1.5) / OWN + 0.5


def test_what_a_side_does_not_take_does_not_fail_so_and_the_search_goes_on() -> None:
    """One that divides by a sum refuses whatever is at rest; the reference does, or the candidate."""
    reference, candidate, result = failing()

    def picky(function: Any) -> Any:
        def given(**one: Array) -> dict[str, Array]:
            if not one["image"].any():
                raise ValueError("nothing to divide by")
            return function(**one)

        return given

    for sides in (
        (Function(picky(reference.function)), candidate),
        (reference, Function(picky(candidate.function))),
    ):
        noted = simplified(result, *sides, inputs=SEVEN, seconds=30)
        assert "state[0, 3] = 1.0" in noted.notes[-1]
        assert "image[" in noted.notes[-1]


def test_a_search_that_fails_says_so_and_the_verdict_stands() -> None:
    reference, candidate, result = failing()

    def broken(**given: Array) -> dict[str, Array]:
        raise SystemExit(0)

    noted = simplified(result, reference, Function(broken), inputs=SEVEN, seconds=30)
    assert noted.notes[-1].startswith("no simpler input was looked for: ")
    assert not noted.passed
    assert noted.fixtures == result.fixtures


def test_corners_and_swaps_are_fixtures_by_their_numbers() -> None:
    low, high, *others = (make_fixture(SEVEN, 0, idx) for idx in corners(SEVEN))
    for spec in SEVEN:
        own = ends(spec)
        if own is None:
            continue
        assert (low[spec.name] == np.asarray(own[0], spec.dtype)).all()
        assert (high[spec.name] == np.asarray(own[1], spec.dtype)).all()
        for other in others:
            assert {*other[spec.name].ravel().tolist()} <= {*map(float, np.asarray(own, spec.dtype))}
    plain = make_fixture(SEVEN, 0, 0)
    seen = set()
    for idx in swaps(SEVEN, 2):
        swapped = make_fixture(SEVEN, 0, idx)
        assert all((swapped[n] == make_fixture(SEVEN, 0, idx)[n]).all() for n in plain)
        assert [(s.name, s.shape, s.dtype) for s in SEVEN] == [
            (n, a.shape, a.dtype.name) for n, a in swapped.items()
        ]
        unlike = [name for name in plain if (swapped[name] != plain[name]).any()]
        assert len(unlike) <= 1
        seen.update(unlike)
    assert seen == {spec.name for spec in SEVEN}


def test_outputs_that_are_called_apart_are_paired_as_in_the_check() -> None:
    """Of one output on each side the names do not matter, nor do they here."""
    reference = Function(actions, "reference", kind="torch")
    off = off_where(lambda one: one["state"][0, 3] > 0.5)
    candidate = Function(lambda **given: {"action": off(**given)["actions"]})
    result = check(reference, candidate, inputs=SEVEN)
    noted = simplified(result, reference, candidate, inputs=SEVEN, seconds=30)
    assert noted.notes[-1].split(": ", 1)[1].startswith("state[0, 3] = 1.0; at rest: ")
