"""What a policy reads in a closed loop: by what each input stands for, one line where it is not there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pytest_reflex.errors import InputError, MissingPackageError, ReflexError, SettingsError
from pytest_reflex.inputs import Gaussian, Image, InputSpec, ScaledImage, State
from pytest_reflex.judge.rollout.closed_loop import closed_loops
from pytest_reflex.judge.rollout.environments import environment_named
from pytest_reflex.judge.rollout.observing import Observing

pytestmark = pytest.mark.once


@pytest.fixture
def arm() -> Any:
    made = environment_named("planar-reach")(30.0)
    made.reset(0)
    return made


def read(arm: Any, *specs: InputSpec, **told: Any) -> Mapping[str, np.ndarray]:
    return Observing(specs, 0, **told).inputs(arm, 0, 0)


def test_a_longer_state_is_filled_and_a_shorter_one_cut(arm: Any) -> None:
    whole = arm.state()
    for size in (len(whole) - 2, len(whole), len(whole) + 3):
        found = read(arm, InputSpec("state", (1, size), meaning=State()))["state"]
        wanted = np.zeros((1, size), np.float32)
        wanted[0, : min(size, len(whole))] = whole[:size]
        assert np.array_equal(found, wanted)


def test_pictures_have_the_input_s_own_order_and_range(arm: Any) -> None:
    first = InputSpec("image", (1, 3, 8, 12), meaning=Image())
    last = InputSpec("rgb", (1, 8, 12, 3), meaning=ScaledImage(0.0, 1.0))
    one, other = read(arm, first)["image"], read(arm, last)["rgb"]
    assert one.shape == (1, 3, 8, 12)
    assert np.allclose((one.transpose(0, 2, 3, 1) + 1) / 2, other, rtol=0, atol=np.finfo(np.float32).eps)
    assert Observing([first], 0).sees
    assert not Observing([InputSpec("state", (1, 4), meaning=State())], 0).sees


def test_noise_is_each_plan_s_own_and_the_same_for_every_side(arm: Any) -> None:
    observing = Observing([InputSpec("noise", (1, 4), meaning=Gaussian())], 0)
    plans = [observing.inputs(arm, 0, plan)["noise"] for plan in (0, 1, 0)]
    assert np.array_equal(plans[0], plans[2])
    assert not np.array_equal(plans[0], plans[1])


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (InputSpec("state", (2, 8), meaning=State()), r"input 'state' is \[2, 8\]; a policy that drives"),
        (InputSpec("state", (1, 2, 8), meaning=State()), r"is \[1, 2, 8\], and a state is \[1, values\]"),
        (InputSpec("image", (1, 4, 8, 8), meaning=Image()), r"expected \[..., 3, height, width\] of a"),
        (InputSpec("image", (1, 9, 3, 8, 8), meaning=Image()), "needs a camera more than planar-reach has"),
    ],
)
def test_what_the_arm_does_not_show_is_one_line(spec: InputSpec, said: str, arm: Any) -> None:
    with pytest.raises(InputError, match=said):
        read(arm, spec)


def test_what_is_observed_otherwise_takes_its_place(arm: Any) -> None:
    given = np.arange(8, dtype=np.float32).reshape(1, 8)
    found = read(arm, InputSpec("state", (1, 8), meaning=State()), observe=lambda env: {"state": given})
    assert np.array_equal(found["state"], given)


def test_no_candidate_and_a_camera_that_is_none() -> None:
    with pytest.raises(SettingsError, match="candidates has none; give each under a name of its own"):
        closed_loops(None, {}, "planar-reach")
    arm = environment_named("planar-reach")(30.0)
    near = arm.cameras[0][:-1]
    with pytest.raises(SettingsError, match=f"camera '{near}' is none of planar-reach's .did you mean "):
        arm.image(near, 8, 8)


class Box:
    def __init__(self, *shape: int) -> None:
        self.shape, self.dtype = shape, np.float32
        self.low, self.high = np.full(shape, -2.0), np.full(shape, 2.0)


def gym_with(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """gymnasium with one environment, where none is installed."""
    spaces = SimpleNamespace(Box=Box)
    monkeypatch.setitem(sys.modules, "gymnasium", SimpleNamespace(make=lambda *a, **k: made, spaces=spaces))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)


def test_an_environment_of_gymnasium_whose_observation_is_a_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_reflex.judge.rollout.gym_adapter import GymEnvironment

    seen = {"pixels": np.zeros((4, 4, 3), np.uint8), "agent": {"place": np.arange(3), "speed": np.ones(1)}}
    drawn = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    env = SimpleNamespace(
        action_space=Box(2), reset=lambda seed: (seen, {}), render=lambda: drawn,
        step=lambda action: (seen, 0.0, False, bool(action[0] > 1), {"success": True}), close=lambda: None,
    )  # fmt: skip
    gym_with(env, monkeypatch)
    arm = GymEnvironment("Arm-v0")
    assert arm.state().tolist() == [0, 1, 2, 1]
    assert arm.observed({}).shape == (0,)
    assert arm.hold().tolist() == [0, 0]
    assert arm.success() is None
    assert arm.step(np.zeros(2))
    assert arm.success() is True
    assert not arm.step(np.ones(2)), "cut, where the first action is above 1"
    assert np.array_equal(arm.image("render", 3, 4), drawn[::2, ::2])
    env.render = lambda: None
    with pytest.raises(ReflexError, match="gym:Arm-v0 draws nothing for the policy's camera; make"):
        arm.image("render", 3, 4)


def test_what_is_no_environment_that_can_be_driven(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_reflex.judge.rollout.gym_adapter import GymEnvironment

    gym_with(SimpleNamespace(action_space="Discrete(3)"), monkeypatch)
    with pytest.raises(SettingsError, match=r"the actions of 'Arm-v0' are Discrete\(3\), expected a Box"):
        GymEnvironment("Arm-v0")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="this needs gymnasium, which is not installed; pip"):
        GymEnvironment("Arm-v0")
