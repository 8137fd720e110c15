"""The error after each denoising step: seen where both sides show it, said why where they do not."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from floors import ulps
from policy_cases import Function

from pytest_reflex import ParityResult, check
from pytest_reflex.errors import RunnerError, SettingsError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.judge.trajectory import UNASKED, UNSEEN, worst_idx
from pytest_reflex.plugin.fixture import Parity
from pytest_reflex.report.json import result_from_json
from pytest_reflex.report.rejudge import rejudge
from pytest_reflex.runners import TorchRunner
from pytest_reflex.settings import Settings

SPECS = [InputSpec("noise", (1, 3, 2))]


def walked(noise: np.ndarray, steps: int = 4, wrong: float = 0.0) -> list[np.ndarray]:
    """A loop that halves what it holds; ``wrong`` is added in its third step."""
    states = [noise]
    for index in range(steps):
        states.append(states[-1] * np.float32(0.5) + np.float32(wrong if index == 2 else 0))
    return states[1:]


class Loop(Function):
    """Shows its steps."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(lambda noise: {"actions": walked(noise, **changes)[-1]}, "loop")
        self.shown = 0
        self.changes = changes

    def trajectory(self, inputs):
        assert self.opened == 0
        self.shown += 1
        return np.stack(walked(inputs["noise"], **self.changes))


def test_both_sides_show_their_steps() -> None:
    reference, candidate = Loop(), Loop(wrong=0.5)
    told = []
    result = check(reference, candidate, inputs=SPECS, fixtures=3, progress=lambda *a: told.append(a))
    assert not result.passed
    assert [s.step for s in result.steps] == [1, 2, 3, 4]
    errors = [s.max_abs_diff for s in result.steps]
    assert errors[:2] == [0, 0]
    assert ulps(errors[2:], [0.5, 0.25], scale=4) <= 1
    worst = worst_idx(result.fixtures)
    assert (result.steps_of, result.unseen) == (worst, "")
    # The last step is the output, and each side ran once for it.
    assert errors[-1] == result.fixtures[worst].max_abs_diff == result.max_abs_diff_across_all
    assert (reference.shown, candidate.shown) == (1, 1)
    assert told[-3:] == [("steps", done, 2) for done in range(3)]


def test_they_are_stored_and_hang_on_no_threshold() -> None:
    result = check(Loop(), Loop(wrong=0.5), inputs=SPECS, fixtures=3)
    assert result_from_json(result.to_json()) == result
    again = check(Loop(), Loop(wrong=0.5), inputs=SPECS, fixtures=3, threshold=9.0, trajectory=True)
    assert again.passed
    assert rejudge(result, threshold=9.0).to_json() == again.to_json()


@pytest.mark.parametrize(
    ("wrong", "asked", "seen"),
    [
        (0.0, None, False),
        (0.0, True, True),
        (0.5, None, True),
        (0.5, False, False),
        (math.nan, None, True),
    ],
)
def test_a_pass_runs_nothing_more_for_them_unless_asked(wrong: float, asked: bool | None, seen: bool) -> None:
    reference, candidate = Loop(), Loop(wrong=wrong)
    result = check(reference, candidate, inputs=SPECS, fixtures=2, trajectory=asked)
    assert result.passed is (wrong == 0)
    assert (len(result.steps), result.unseen) == ((4, "") if seen else (0, UNASKED))
    assert (reference.shown, candidate.shown) == (seen, seen)
    # Nothing else of the result hangs on it.
    other = check(Loop(), Loop(wrong=wrong), inputs=SPECS, fixtures=2, trajectory=not seen)
    left = {"steps": (), "steps_of": None, "unseen": ""}
    assert dataclasses.replace(other, **left).to_json() == dataclasses.replace(result, **left).to_json()


def test_a_switch_that_is_none_is_refused_before_anything_runs() -> None:
    never = Broken(error=AssertionError("it ran"))
    never.function = None
    with pytest.raises(SettingsError, match="trajectory: 'maybe' is neither yes nor no"):
        check(never, Loop(), inputs=SPECS, trajectory="maybe")


@pytest.mark.parametrize("blind", ["reference", "candidate", "both"])
def test_a_side_that_does_not_show_them_is_named(blind: str) -> None:
    def side(one: str) -> Function:
        return Loop() if blind not in (one, "both") else Function(Loop().function, one)

    result = check(side("reference"), side("candidate"), inputs=SPECS, fixtures=2)
    assert result.passed
    assert (result.steps, result.steps_of) == ((), None)
    assert result.unseen == (UNSEEN if blind == "both" else f"the {blind} does not show {UNSEEN[19:]}")


class Other(Loop):
    """Shows the steps of another run than the one that is judged."""

    def trajectory(self, inputs):
        return super().trajectory(inputs) + np.float32(1e-7)


class Broken(Loop):
    def trajectory(self, inputs):
        raise self.changes["error"]


class Bare(Loop):
    """Shows nothing, or one number."""

    def trajectory(self, inputs):
        return self.changes["shown"]


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (Loop(steps=3), "the reference takes 4 steps and the candidate 3, so that no step of one is a step"),
        (Other(), "the candidate's steps could not be seen: the run that shows them ends in other bits than"),
        (Broken(error=RunnerError("no onnx here")), "the candidate's steps could not be seen: no onnx here"),
        (Bare(shown=np.zeros((0, 1, 3, 2))), "the candidate's steps could not be seen: none was shown"),
        (Bare(shown=3.0), "the candidate's steps could not be seen: none was shown"),
        (Broken(error=KeyError("x")), "the candidate's steps could not be seen: KeyError: 'x'"),
    ],
)
def test_what_goes_wrong_is_said_and_changes_no_verdict(candidate: Loop, said: str) -> None:
    plain = Function(lambda noise: {"actions": walked(noise, candidate.changes.get("steps", 4))[-1]}, "loop")
    candidate.function = plain.function
    reference = Loop()
    result = check(reference, candidate, inputs=SPECS, fixtures=2, trajectory=True)
    assert result.unseen.startswith(said)
    assert (result.steps, result.steps_of) == ((), None)
    assert candidate.opened == reference.opened == 0
    # Nothing else of the result hangs on it.
    blind = check(Loop(), plain, inputs=SPECS, fixtures=2, trajectory=True).to_json()
    assert {**result.to_json(), "unseen": None} == {**blind, "unseen": None}


def test_a_nan_is_seen_at_the_step_it_comes_from() -> None:
    result = check(Loop(), Loop(wrong=math.nan), inputs=SPECS, fixtures=2)
    assert [math.isnan(s.max_abs_diff) for s in result.steps] == [False, False, True, True]
    assert result.steps_of == 0
    assert ParityResult.from_json(result.to_json()).to_json() == result.to_json()


def test_outputs_that_cannot_be_laid_side_by_side_show_nothing() -> None:
    candidate = Loop()
    candidate.function = lambda noise: {"other": noise, "more": noise}
    result = check(Loop(), candidate, inputs=SPECS, fixtures=2)
    assert result.unseen == "in no fixture could the outputs be laid side by side"
    assert candidate.shown == 0


class Halve(torch.nn.Module):
    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return noise * 0.5


def halves(module: Halve, noise: torch.Tensor) -> list[torch.Tensor]:
    once = module(noise)
    return [once, module(once)]


def test_a_torch_runner_shows_what_it_is_told_to_and_closes() -> None:
    assert TorchRunner(Halve()).trajectory is None
    module = Halve()
    runner = TorchRunner(lambda: module, halves, outputs=["actions"], states=halves)
    module.train()
    assert runner.trajectory is not None
    states = runner.trajectory({"noise": np.ones((1, 2), np.float32)})
    assert states.tolist() == [[[0.5, 0.5]], [[0.25, 0.25]]]
    assert states.dtype == np.float32
    assert module.training
    with pytest.raises(RunnerError, match="is not open"):
        runner.run({"noise": np.ones((1, 2), np.float32)})


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        (Settings(), False),
        (Settings(report="place"), True),
        (Settings(trajectory=True), True),
        (Settings(report="place", trajectory=False), False),
    ],
)
def test_a_test_looks_where_a_page_is_written(chosen: Settings, seen: bool) -> None:
    parity = Parity("a test", lambda call: chosen, lambda result: None)
    assert bool(parity.check(Loop(), Loop(), inputs=SPECS).steps) is seen
