"""The arms of MuJoCo and any id of gymnasium: a start decides everything; what is said without them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_reflex.errors import MissingPackageError, ReflexError, SettingsError
from pytest_reflex.judge.rollout.environments import (
    Environment,
    Unstable,
    environment_named,
    known_environments,
)

pytestmark = pytest.mark.once

WANTED = "not installed: pip install 'pytest-reflex[sim]'"
NAMES = ("aloha-reach", "panda-reach")
ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module", params=NAMES)
def arm(request: pytest.FixtureRequest) -> Any:
    for package in ("mujoco", "gym_hil", "gym_aloha"):
        if not _there(package):
            pytest.skip(f"{package} is {WANTED}")
    made = environment_named(request.param)(30.0)
    yield made
    made.close()


def _there(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is not None


def ways(arm: Environment, start: int, seed: int) -> list[np.ndarray[Any, Any]]:
    """What is seen of a second of random actions."""
    rng = np.random.default_rng(seed)
    arm.reset(start)
    seen = []
    for _ in range(30):
        assert arm.step(0.3 * rng.uniform(-1, 1, len(arm.actions)))
        seen.append(np.concatenate([arm.state(), *arm.pose().values()]))
    return seen


def test_a_start_and_its_actions_decide_everything(arm: Any) -> None:
    first = ways(arm, 3, 0)
    ways(arm, 4, 1)
    assert np.array_equal(first, ways(arm, 3, 0))
    copy = type(arm)(30.0)
    assert np.array_equal(first, ways(copy, 3, 0)), "another copy is the same plant"
    assert not np.array_equal(first, ways(arm, 5, 0))
    copy.close()


def test_physics_that_break_are_said_and_leave_no_file(
    arm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where MuJoCo by itself would write
    arm.reset(0)
    arm.data.qvel[0] = np.inf
    with (
        pytest.warns(UserWarning, match="MuJoCo: Nan, Inf or huge value in Q"),
        pytest.raises(Unstable) as said,
    ):
        arm.step(arm.hold())
    assert str(said.value).startswith("MuJoCo's mjWARN_BADQ")
    assert not list(tmp_path.iterdir())
    arm.reset(0)
    assert arm.step(arm.hold()), "a start after it is as any"


def test_who_holds_does_not_move(arm: Any) -> None:
    arm.reset(0)
    before = {name: values.copy() for name, values in arm.pose().items()}
    for _ in range(30):
        arm.step(arm.hold())
    for quantity in arm.quantities:
        moved = np.abs(arm.pose()[quantity.name] - before[quantity.name])[: len(arm.actions)]
        # What moves less than what is called visible does not move: a gripper closes onto its stop.
        assert quantity.name == "gripper" or moved.max() < quantity.visible


def test_what_is_watched_has_as_many_parts_as_it_says(arm: Any) -> None:
    assert isinstance(arm, Environment)
    arm.reset(0)
    assert {q.name: len(q.parts) for q in arm.quantities} == {n: len(v) for n, v in arm.pose().items()}
    assert len(arm.hold()) == len(arm.actions)
    assert arm.success() is False


def test_a_camera_sees_the_arm_move(arm: Any) -> None:
    arm.reset(0)
    before = arm.image(arm.cameras[0], 24, 32)
    assert before.shape == (24, 32, 3)
    assert before.dtype == np.uint8
    assert np.array_equal(before, arm.image(arm.cameras[0], 24, 32))
    ways(arm, 0, 0)
    assert not np.array_equal(before, arm.image(arm.cameras[0], 24, 32))
    with pytest.raises(SettingsError, match="camera 'frunt' is none of"):
        arm.image("frunt", 24, 24)


def test_an_unknown_joint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    if not _there("mujoco"):
        pytest.skip(f"mujoco is {WANTED}")
    from pytest_reflex.judge.rollout import panda

    monkeypatch.setattr(panda, "JOINTS", (*panda.JOINTS[:6], "joint8"))
    with pytest.raises(SettingsError, match=r"joint 'joint8' is none of panda-reach's \(did you mean 'joint"):
        panda.PandaReach(30.0)


def test_without_a_gl_library_it_is_said_in_one_line_and_needed_for_cameras_alone() -> None:
    if not _there("mujoco"):
        pytest.skip(f"mujoco is {WANTED}")
    code = """
import sys
from pytest_reflex.judge.rollout.panda import PandaReach
arm = PandaReach(30.0)
arm.reset(0)
arm.step(arm.hold())
try:
    arm.image("front", 16, 16)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""
    # "disabled" is what is left where neither library is there.
    env = {**os.environ, "MUJOCO_GL": "disabled", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ReflexError: panda-reach cannot draw what a camera sees")
    assert "install libegl1 (MUJOCO_GL=egl) or libosmesa6 (MUJOCO_GL=osmesa)" in done.stdout
    assert done.stdout.count("\n") == 1


def test_who_imported_mujoco_first_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    if not _there("mujoco"):
        pytest.skip(f"mujoco is {WANTED}")
    arm = environment_named("panda-reach")(30.0)

    def failing(*args: object) -> None:
        raise RuntimeError("no OpenGL context")

    monkeypatch.setattr(arm._engine, "Renderer", failing)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    with pytest.raises(ReflexError, match=r"MUJOCO_GL=nothing \(RuntimeError: .*\); set it before anything"):
        arm.image("front", 16, 16)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(ReflexError, match=r"MUJOCO_GL=egl \(RuntimeError: .*\); install libegl1"):
        arm.image("front", 16, 16)


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_reflex.judge.rollout import gym_adapter, mujoco_arm

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)
    for wanted in (
        mujoco_arm.mujoco,
        lambda: mujoco_arm.assets_of("gym_hil", "gym-hil"),
        lambda: gym_adapter.GymEnvironment("Pendulum-v1"),
    ):
        with pytest.raises(
            MissingPackageError, match=r"is not installed; pip install 'pytest-reflex\[sim\]'"
        ):
            wanted()  # type: ignore[operator]


# --- gymnasium -------------------------------------------------------------------------------------------


def test_any_id_of_gymnasium_is_an_environment() -> None:
    pytest.importorskip("gymnasium", reason=f"gymnasium is {WANTED}")
    made = environment_named("gym:Pendulum-v1")(20.0)
    assert isinstance(made, Environment)
    assert np.array_equal(ways(made, 1, 0), ways(made, 1, 0))
    assert not np.array_equal(ways(made, 1, 0), ways(made, 2, 0))
    assert made.success() is None
    assert (made.quantities[0].unit, len(made.quantities[0].parts)) == ("", 3)
    # From its lowest torque to its highest, and no further.
    assert [float(made.applied(np.array([a]))[0]) for a in (-9.0, -1.0, 0.0, 1.0)] == [-2.0, -2.0, 0.0, 2.0]
    made.close()


def test_what_gymnasium_cannot_make_or_has_no_box_is_said() -> None:
    pytest.importorskip("gymnasium", reason=f"gymnasium is {WANTED}")
    with pytest.raises(SettingsError, match="gymnasium cannot make 'Pendulumm-v1'"):
        environment_named("gym:Pendulumm-v1")(30.0)
    with pytest.raises(
        SettingsError, match=r"the actions of 'CartPole-v1' are Discrete\(2\), expected a Box"
    ):
        environment_named("gym:CartPole-v1")(30.0)


def test_an_environment_of_another_distribution_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from pytest_reflex.judge.rollout import environments

    here = EntryPoint("mine", "pytest_reflex.judge.rollout.planar:PlanarReach", environments.GROUP)
    gone = EntryPoint("gone", "no_such_module:Arm", environments.GROUP)
    monkeypatch.setattr(environments, "entry_points", lambda group: [here, gone])
    assert {"mine", "gone", *NAMES} <= set(known_environments())
    assert environment_named("mine")(30.0).name == "planar-reach"
    with pytest.raises(ReflexError, match="environment 'gone' of no_such_module:Arm cannot be imported"):
        environment_named("gone")
