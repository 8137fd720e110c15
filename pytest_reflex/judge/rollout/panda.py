"""``panda-reach``: the Franka Panda of the gym-hil package reaches over a block, by its seven joints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from pytest_reflex.judge.rollout.mujoco_arm import MujocoArm, assets_of
from pytest_reflex.verdict.drift import Quantity

__all__ = ["PandaReach"]

Array = np.ndarray[Any, Any]

JOINTS: Final = tuple(f"joint{i}" for i in range(1, 8))
# The pose in which gym-hil begins.
HOME: Final = np.array([0.0, 0.195, 0.0, -2.43, 0.0, 2.62, 0.785])
# Stiffness and damping of the joints' servos, in N m/rad and N m s/rad, as in MuJoCo Menagerie's Panda.
STIFFNESS: Final = (4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0)
DAMPING: Final = (450.0, 450.0, 350.0, 350.0, 200.0, 200.0, 200.0)
# The fastest that a target moves, rad/s.
SPEED: Final = 1.5
# Where blocks lie, m; how far from home the joints begin, rad.
BLOCKS: Final = np.array([[0.38, -0.18], [0.58, 0.18]])
SPREAD: Final = 0.05
# The job: the tip within so many mm of a point so high over the block, m, for the whole of the last second.
NEAR_MM: Final = 30.0
ABOVE: Final = 0.12


class PandaReach(MujocoArm):
    """An action is seven velocities of joint targets, as parts of 1.5 rad/s, and the gripper, -1 open to 1.

    State, in order: the joints from home in rad, their speeds in 2 rad/s, the gripper's command, and where
    the tip is and the block was at the start: x and y from the middle of its field, and z, in 0.2 m.
    """

    name = "panda-reach"
    quantities = (
        Quantity("tip", "mm", ("x", "y", "z"), whole=3, visible=1.0),
        Quantity("joints", "mrad", JOINTS, visible=5.0),
        Quantity("gripper", "mm", ("opening",), visible=1.0),
    )
    actions = (*JOINTS, "gripper")

    def __init__(self, hz: float = 30.0) -> None:
        scene = assets_of("gym_hil", "gym-hil") / "scene.xml"
        super().__init__(
            scene, hz, joints=JOINTS, change=_with_servos, cameras=("front", "handcam_rgb"), groups=(0, 3)
        )
        self._block = self.model.joint("block").qposadr[0]
        self._tip, self._block_body = self.model.site("pinch").id, self.model.body("block").id
        self._pads = [self.model.body(f"{side}_pad").id for side in ("left", "right")]
        self._limits = self.model.jnt_range[[self.model.joint(j).id for j in JOINTS]].T
        self._near = 0

    def reset(self, start: int) -> None:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        rng = np.random.default_rng([start, 0x9A4DA])
        qpos = np.array(self.model.qpos0)
        qpos[self.joint_at] = HOME + rng.uniform(-SPREAD, SPREAD, 7)
        qpos[self._block : self._block + 2] = rng.uniform(*BLOCKS)
        ctrl = np.zeros(8)
        ctrl[:7] = qpos[self.joint_at]
        self.begin(qpos, ctrl)
        self._lay = np.array(self.data.xpos[self._block_body])
        self._near = 0

    def state(self) -> Array:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        middle = np.append(BLOCKS.mean(axis=0), 0.0)
        return np.concatenate(
            [
                self.data.qpos[self.joint_at] - HOME,
                self.data.qvel[self.speed_at] / 2.0,
                [self.data.ctrl[7] / 127.5 - 1.0],
                (self.data.site_xpos[self._tip] - middle) / 0.2,
                (self._lay - middle) / 0.2,
            ]
        )

    def hold(self) -> Array:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        return np.array([0.0] * 7 + [self.data.ctrl[7] / 127.5 - 1.0])

    def step(self, action: Array) -> bool:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        cut = np.clip(action, -1.0, 1.0)
        targets = self.data.ctrl[:7] + cut[:7] * (SPEED / self.hz)
        self.data.ctrl[:7] = np.clip(targets, *self._limits)
        self.data.ctrl[7] = (cut[7] + 1.0) * 127.5
        self.advance()
        self._near = self._near + 1 if self._away() < NEAR_MM else 0
        return True

    def pose(self) -> Mapping[str, Array]:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        left, right = (self.data.xpos[pad] for pad in self._pads)
        return {
            "tip": 1e3 * self.data.site_xpos[self._tip],
            "joints": 1e3 * self.data.qpos[self.joint_at],
            "gripper": 1e3 * np.sqrt(((left - right) ** 2).sum(keepdims=True)),
        }

    def success(self) -> bool:
        """Whether the tip has been over the block for a second."""
        return self._near >= round(self.hz)

    def goal(self) -> Array:
        """Where the tip is to be, m, [3]: over the block as it lay at the start."""
        return np.array(self._lay + np.array([0.0, 0.0, ABOVE]))

    def _away(self) -> float:
        return 1e3 * float(np.sqrt(((self.data.site_xpos[self._tip] - self.goal()) ** 2).sum()))


def _with_servos(spec: Any) -> None:
    """Joints that hold a target against gravity, in place of gym-hil's torques."""
    for body in spec.bodies:
        if body.name not in ("world", "block", "target"):
            body.gravcomp = 1.0
    import mujoco

    for index, joint in enumerate(JOINTS):
        servo = spec.actuator(f"actuator{index + 1}")
        servo.biastype = mujoco.mjtBias.mjBIAS_AFFINE
        servo.gainprm[0] = STIFFNESS[index]
        servo.biasprm[:3] = (0.0, -STIFFNESS[index], -DAMPING[index])
        servo.forcerange = servo.ctrlrange
        servo.forcelimited = True
        servo.ctrlrange = spec.joint(joint).range
