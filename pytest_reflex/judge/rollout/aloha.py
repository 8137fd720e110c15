"""``aloha-reach``: the two ViperX arms of the gym-aloha package; the right one reaches over a box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from pytest_reflex.judge.rollout.mujoco_arm import MujocoArm, assets_of
from pytest_reflex.verdict.drift import Quantity

__all__ = ["AlohaReach"]

Array = np.ndarray[Any, Any]

SIDES: Final = ("left", "right")
_OF_ONE: Final = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
JOINTS: Final = tuple(f"vx300s_{side}/{joint}" for side in SIDES for joint in _OF_ONE)
PLACES: Final = tuple(f"{side} {axis}" for side in SIDES for axis in "xyz")
# The pose in which gym-aloha begins.
HOME: Final = np.array([0.0, -0.96, 1.16, 0.0, -0.3, 0.0] * 2)
# A finger's way from its rail's end, m: closed and open.
FINGER: Final = (0.021, 0.057)
# Where boxes lie, within reach of the right arm, m; how far from home the joints begin, rad.
BOXES: Final = np.array([[0.08, 0.4], [0.25, 0.6]])
SPREAD: Final = 0.05
# The job: the right tip within so many mm of a point so high over the box, m, for all of the last second.
NEAR_MM: Final = 30.0
ABOVE: Final = 0.1


class AlohaReach(MujocoArm):
    """An action is, for each arm, six joint targets, in rad from home, and its gripper, -1 closed to 1 open.

    State, in order: the twelve joints from home in rad, their speeds in 2 rad/s, both grippers' commands,
    where the right tip is and the box was at the start: x and y from the middle of its field, z, in 0.2 m.
    """

    name = "aloha-reach"
    quantities = (
        Quantity("tip", "mm", PLACES, whole=3, visible=1.0),
        Quantity("joints", "mrad", JOINTS, visible=5.0),
        Quantity("gripper", "mm", SIDES, visible=1.0),
    )
    actions = (*JOINTS[:6], "left gripper", *JOINTS[6:], "right gripper")

    def __init__(self, hz: float = 30.0) -> None:
        scene = assets_of("gym_aloha", "gym-aloha") / "bimanual_viperx_transfer_cube.xml"
        super().__init__(
            scene,
            hz,
            joints=JOINTS,
            change=_hold_itself,
            cameras=("top", "angle", "front_close"),
            groups=(0, 1),
        )
        self._box = self.model.joint("red_box_joint").qposadr[0]
        self._box_body = self.model.body("box").id
        self._fingers = np.array(
            [[self.model.joint(f"vx300s_{side}/{f}_finger").qposadr[0] for f in SIDES] for side in SIDES]
        )
        self._tips = [[self.model.body(f"vx300s_{side}/{f}_finger_link").id for f in SIDES] for side in SIDES]
        self._near = 0

    def reset(self, start: int) -> None:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        rng = np.random.default_rng([start, 0xA10A])
        qpos = np.array(self.model.qpos0)
        qpos[self.joint_at] = HOME + rng.uniform(-SPREAD, SPREAD, 12)
        qpos[self._fingers] = (sum(FINGER) / 2, -sum(FINGER) / 2)
        qpos[self._box : self._box + 2] = rng.uniform(*BOXES)
        qpos[self._box + 2] = 0.02
        self.begin(qpos, self._ctrl(np.concatenate([np.insert(a, 6, 0.0) for a in self._from_home(qpos)])))
        self._lay = np.array(self.data.xpos[self._box_body])
        self._near = 0

    def state(self) -> Array:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        middle = np.append(BOXES.mean(axis=0), 0.0)
        command = self.data.ctrl.reshape(2, 8)[:, 6]
        return np.concatenate(
            [
                self.data.qpos[self.joint_at] - HOME,
                self.data.qvel[self.speed_at] / 2.0,
                2.0 * (command - FINGER[0]) / (FINGER[1] - FINGER[0]) - 1.0,
                (self._places()[1] - middle) / 0.2,
                (self._lay - middle) / 0.2,
            ]
        )

    def hold(self) -> Array:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        command = self.data.ctrl.reshape(2, 8)
        opened = 2.0 * (command[:, 6:7] - FINGER[0]) / (FINGER[1] - FINGER[0]) - 1.0
        held: Array = np.concatenate([command[:, :6] - HOME.reshape(2, 6), opened], axis=1)
        return held.reshape(-1)

    def step(self, action: Array) -> bool:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        self.data.ctrl[:] = self._ctrl(np.clip(action, -1.0, 1.0))
        self.advance()
        self._near = self._near + 1 if self._away() < NEAR_MM else 0
        return True

    def pose(self) -> Mapping[str, Array]:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        fingers = self.data.qpos[self._fingers]
        return {
            "tip": 1e3 * self._places().reshape(-1),
            "joints": 1e3 * self.data.qpos[self.joint_at],
            "gripper": 1e3 * (fingers[:, 0] - fingers[:, 1]),
        }

    def success(self) -> bool:
        """Whether the right tip has been over the box for a second."""
        return self._near >= round(self.hz)

    def goal(self) -> Array:
        """Where the right tip is to be, m, [3]: over the box as it lay at the start."""
        return np.array(self._lay + np.array([0.0, 0.0, ABOVE]))

    def _places(self) -> Array:
        """Where the tips are, between their fingers, m, [2, 3]."""
        return np.array([self.data.xpos[pair].mean(axis=0) for pair in self._tips])

    def _away(self) -> float:
        return 1e3 * float(np.sqrt(((self._places()[1] - self.goal()) ** 2).sum()))

    def _from_home(self, qpos: Array) -> Array:
        return np.array((qpos[self.joint_at] - HOME).reshape(2, 6))

    def _ctrl(self, action: Array) -> Array:
        """The servos' targets: of each arm its joints, then both of its fingers."""
        arms = action.reshape(2, 7)
        opened = FINGER[0] + (arms[:, 6:] + 1.0) / 2.0 * (FINGER[1] - FINGER[0])
        ctrl = np.concatenate([arms[:, :6] + HOME.reshape(2, 6), opened, -opened], axis=1).reshape(-1)
        return np.array(np.clip(ctrl, *self.model.actuator_ctrlrange.T))


def _hold_itself(spec: Any) -> None:
    """Arms that do not sink under their weight: what is commanded is where they are."""
    for body in spec.bodies:
        if body.name.startswith("vx300s"):
            body.gravcomp = 1.0
