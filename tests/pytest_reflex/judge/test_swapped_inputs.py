"""Two inputs of one shape that the candidate takes for each other are named; nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from policy_cases import Function

from pytest_reflex.inputs import InputSpec
from pytest_reflex.judge.check import check
from pytest_reflex.report.text.terminal import failure_message
from pytest_reflex.runners import FunctionRunner
from pytest_reflex.verdict.results import SWAPPED

CAMERAS = [InputSpec("front", (1, 6)), InputSpec("state", (1, 3)), InputSpec("wrist", (1, 6))]


def actions(front, state, wrist):
    return {"actions": 2 * front - wrist + state.sum(), "stop": front[:, 0] > wrist[:, 0]}


def judged(candidate, **options):
    return check(FunctionRunner(actions), Function(candidate, kind="onnx"), inputs=CAMERAS, **options)


def notes(result):
    return [note for note in result.notes if note.startswith(SWAPPED)]


def test_swapped_cameras_are_named_and_what_to_do_next_says_so():
    result = judged(lambda front, state, wrist: actions(wrist, state, front))
    assert not result.passed
    said = (
        "with 'front' and 'wrist' the other way round, the reference gives in fixture "
        f"{result.worst_fixture.fixture_idx} what the candidate gives"
    )
    assert notes(result) == [SWAPPED + said]
    text = " ".join(failure_message(result).split())
    assert f"Next: {said}: wire these two as the policy reads them." in text


@pytest.mark.parametrize(
    "candidate",
    [
        lambda front, state, wrist: actions(front, state, 2 * wrist),
        lambda front, state, wrist: actions(wrist, state + 1, front),
    ],
    ids=["other fault", "swapped and wrong"],
)
def test_another_fault_is_not_called_swapped(candidate):
    result = judged(candidate)
    assert not result.passed
    assert notes(result) == []


def test_a_pass_tries_nothing_and_a_reference_that_refuses_the_other_values_ends_it():
    asked = []

    def picky(front, state, wrist):
        asked.append(float(front[0, 0]))
        if state.sum() > 0 and len(asked) > 20:
            raise ValueError("these are no images")
        return actions(front, state, wrist)

    result = check(FunctionRunner(picky), Function(actions), inputs=CAMERAS)
    runs = len(asked)
    assert result.passed
    assert notes(result) == []
    asked.clear()
    failing = judged(lambda **given: {**actions(**given), "stop": np.ones(1, bool)})
    assert not failing.passed
    assert notes(failing) == []
    assert runs <= 5 + 2 + 1
