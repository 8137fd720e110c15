"""Each fault that an export of X-VLA could have is refused; the honest flow beside it gives the same bits.

The flows run in PyTorch here, which is what they compute; a fault of each half is exported as well.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pytest_reflex import ParityResult, check
from pytest_reflex.errors import InputError, RunnerError
from pytest_reflex.inputs import make_fixture
from pytest_reflex.runners import TorchRunner
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

from tiny_features import tiny_policy  # noqa: E402

from exporters import export, xvla  # noqa: E402
from exporters.flow.diffusion import InterpolationSchedule  # noqa: E402
from exporters.flow.schedule import TableSchedule  # noqa: E402
from exporters.flow.update import Operation  # noqa: E402

Flow = xvla.XVLAFlow


@pytest.fixture(scope="module")
def policy() -> Any:
    return tiny_policy("xvla")


def _acting(policy: Any, **methods: Any) -> Flow:
    """A flow over a copy of the policy whose action space does something else."""
    other = copy.deepcopy(policy)
    for name, method in methods.items():
        setattr(other.model.action_space, name, method)
    return Flow(other)


def _observing(policy: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Flow:
    """A flow that is shown another observation."""

    class Observing(Flow):
        def prefix(self, **observation: torch.Tensor) -> Any:
            return super().prefix(**change(observation))

    return Observing(policy)


def _scheduled(policy: Any, change: Callable[[TableSchedule], TableSchedule]) -> Flow:
    """A flow whose loop has another table."""

    class Changed(InterpolationSchedule):
        def over(self, steps: int) -> TableSchedule:
            return change(super().over(steps))

    flow = Flow(policy)
    flow.schedule = Changed()
    return flow


def grippers_left_in_x(policy: Any) -> Flow:
    return _acting(policy, preprocess=lambda proprio, action: (proprio, action))


def grippers_left_as_logits(policy: Any) -> Flow:
    return _acting(policy, postprocess=lambda action: action)


def the_first_domain_for_all(policy: Any) -> Flow:
    return _observing(policy, lambda seen: {**seen, "domain_id": torch.zeros_like(seen["domain_id"])})


def another_camera_first(policy: Any) -> Flow:
    return _observing(policy, lambda seen: {**seen, "image_0": seen["image_1"], "image_1": seen["image_0"]})


def the_empty_view_seen(policy: Any) -> Flow:
    """As if its mask were not heeded: a black image is not nothing."""
    return _observing(policy, lambda seen: {**seen, "image_2": seen["image_0"]})


def x_for_the_noise_it_started_from(policy: Any) -> Flow:
    def change(table: TableSchedule) -> TableSchedule:
        held, *rest = table.update
        return dataclasses.replace(table, update=(Operation("Mul", held.name, ("to_start", "x")), *rest))

    return _scheduled(policy, change)


def noise_taken_for_actions(policy: Any) -> Flow:
    def change(table: TableSchedule) -> TableSchedule:
        to_start, to_clean = table.table["to_start"], table.table["to_clean"]
        return dataclasses.replace(table, table={"to_start": to_clean, "to_clean": to_start})

    return _scheduled(policy, change)


def the_time_of_the_step_after(policy: Any) -> Flow:
    return _scheduled(policy, lambda table: dataclasses.replace(table, times=(*table.times[1:], 0.0)))


def noise_left_in_the_last_step(policy: Any) -> Flow:
    """The last step's own time, where it should be 0."""

    def change(table: TableSchedule) -> TableSchedule:
        return dataclasses.replace(
            table, table={"to_start": table.times, "to_clean": tuple(1 - time for time in table.times)}
        )

    return _scheduled(policy, change)


def four_steps_for_five(policy: Any) -> Flow:
    flow = Flow(policy)
    flow.steps = 4
    return flow


FAULTS = (
    grippers_left_in_x,
    grippers_left_as_logits,
    the_first_domain_for_all,
    another_camera_first,
    the_empty_view_seen,
    x_for_the_noise_it_started_from,
    noise_taken_for_actions,
    the_time_of_the_step_after,
    noise_left_in_the_last_step,
    four_steps_for_five,
)


def judged(policy: Any, candidate: Any) -> ParityResult:
    inputs = xvla.inputs(policy)
    return check(xvla.reference(policy), candidate, inputs=inputs, fixtures=8, strict=True)


def require_caught(result: ParityResult) -> None:
    assert not result.passed
    # By its figures, and not because it could not run.
    assert result.max_abs_diff_across_all is not None
    assert result.max_abs_diff_across_all > 2 * STRICT_THRESHOLD
    assert {answer.gate for _, answer in result.refusals} <= {"threshold", "inputs"}


def test_without_a_fault_the_flow_passes_to_the_bit(policy: Any) -> None:
    result = judged(policy, TorchRunner(Flow(policy)))
    assert result.passed, str(result)
    assert result.max_abs_diff_across_all == 0.0


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault: Callable[[Any], Flow], policy: Any) -> None:
    require_caught(judged(policy, TorchRunner(fault(policy))))


@pytest.mark.parametrize("fault", [grippers_left_in_x, the_empty_view_seen, x_for_the_noise_it_started_from])
def test_a_fault_is_caught_in_a_bundle(fault: Callable[[Any], Flow], policy: Any, tmp_path: Path) -> None:
    made = export(
        xvla.reference(policy), tmp_path / "b", inputs=xvla.inputs(policy), flow=fault(policy), steps=5,
        layout="loop", family="xvla", call={"domain": None}, sizes={"domain": None}, verify=False,
    )  # fmt: skip
    require_caught(judged(policy, made))


def test_a_domain_that_is_baked_in_is_no_input(policy: Any, tmp_path: Path) -> None:
    made = xvla.export(policy, tmp_path / "b", domain=1, steps=2, layout="loop", fixtures=8, strict=True)
    assert made.manifest["call"] == {"domain": 1}
    assert "domain_id" not in [spec.name for spec in made.inputs]
    named = make_fixture(xvla.inputs(policy), 0, 2)
    with xvla.reference(policy, steps=2) as whole, made.runner() as runner:
        expected = whole.run({**named, "domain_id": np.array([1])})["actions"]
        other = whole.run({**named, "domain_id": np.array([2])})["actions"]
        got = runner.run({name: array for name, array in named.items() if name != "domain_id"})["actions"]
    assert np.abs(got - expected).max() < STRICT_THRESHOLD < np.abs(got - other).max()
    with pytest.raises(InputError, match="domain is 3, expected a whole number from 0 to 2"):
        xvla.inputs(policy, domain=3)


def test_a_camera_that_is_there_to_be_empty_is_no_input(policy: Any) -> None:
    """lerobot fills its view with nothing, as it does one that no camera is named for."""
    empty = tiny_policy("xvla", empty_cameras=1)
    names = [spec.name for spec in xvla.inputs(empty)]
    assert names == [spec.name for spec in xvla.inputs(policy)]
    assert "observation.images.empty_camera_0" in empty.config.image_features
    named = make_fixture(xvla.inputs(policy), 0, 0)
    with xvla.reference(policy) as one, xvla.reference(empty) as other:
        assert np.array_equal(one.run(named)["actions"], other.run(named)["actions"])


def test_a_loop_that_shows_its_network_something_else_is_not_watched(policy: Any) -> None:
    other = copy.deepcopy(policy)
    network = other.model.transformer
    call = network.forward
    network.forward = lambda **given: 2 * call(**given)
    named = make_fixture(xvla.inputs(policy), 0, 0)
    seen = xvla.reference(other).trajectory
    assert seen is not None
    assert len(seen(named)) == 5
    space = other.model.action_space
    make = space.preprocess
    calls = iter(range(100))
    space.preprocess = lambda proprio, action: make(proprio, action + next(calls))
    with pytest.raises(RunnerError, match="is not shown what the loop is known to hold"):
        seen(named)
