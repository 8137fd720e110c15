"""``planar-reach``: an arm of three joints in a plane, in numpy alone, where no simulator is installed.

Its servos are second order and nothing is touched, so that nothing in it is chaotic. It shows a policy and a
check at work within seconds; what drift means on a real arm it does not say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import SettingsError
from pytest_reflex.verdict.drift import Quantity
from pytest_reflex.verdict.naming import did_you_mean

__all__ = ["PlanarReach"]

Array = np.ndarray[Any, Any]

JOINTS: Final = ("shoulder", "elbow", "wrist")
# Lengths of the links, m.
LINKS: Final = np.array([0.3, 0.25, 0.15])
HOME: Final = np.array([0.4, 0.6, 0.4])
# Stiffness and damping of each joint's servo, by its inertia: 1/s^2 and 1/s.
STIFFNESS: Final = 900.0
DAMPING: Final = 48.0
PHYSICS_HZ: Final = 240.0
# The fastest that a target moves, rad/s.
SPEED: Final = 1.5
# The job: the tip within so many mm of the goal for the whole of the last second.
NEAR_MM: Final = 30.0


class PlanarReach:
    """An action is three velocities of joint targets, as parts of 1.5 rad/s.

    State, in order: the joints from home in rad, their speeds in 2 rad/s, and where the goal is, in m.
    """

    name = "planar-reach"
    quantities: Sequence[Quantity] = (
        Quantity("tip", "mm", ("x", "y"), whole=2, visible=1.0),
        Quantity("joints", "mrad", JOINTS, visible=5.0),
    )
    actions: Sequence[str] = JOINTS
    cameras: Sequence[str] = ("above",)

    def __init__(self, hz: float = 30.0) -> None:
        self.hz = hz
        self._substeps = max(1, round(PHYSICS_HZ / hz))
        self._near = 0
        self.reset(0)

    def reset(self, start: int) -> None:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        rng = np.random.default_rng([start, 0x91A9A2])
        self._angles = HOME + rng.uniform(-0.1, 0.1, 3)
        self._speeds = np.zeros(3)
        self._targets = self._angles.copy()
        self._goal = self._tip(HOME + rng.uniform(-0.5, 0.5, 3))
        self._near = 0

    def state(self) -> Array:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        return np.concatenate([self._angles - HOME, self._speeds / 2.0, self._goal])

    def image(self, camera: str, height: int, width: int) -> Array:
        """See :class:`.environments.Environment`: links in white, the goal in red."""
        if camera not in self.cameras:
            near = did_you_mean(camera, self.cameras)
            raise SettingsError(f"camera {camera!r} is none of {self.name}'s{near}; give {self.cameras[0]}")
        drawn = np.zeros((height, width, 3), np.uint8)
        along = np.linspace(0.0, 1.0, 2 * max(height, width))[:, None]
        ends = self._ends(self._angles)
        for one, other in pairwise(ends):
            self._paint(drawn, one + along * (other - one), (255, 255, 255))
        self._paint(drawn, self._goal[None], (255, 0, 0))
        return drawn

    def hold(self) -> Array:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        return np.zeros(3)

    def step(self, action: Array) -> bool:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        self._targets = self._targets + np.clip(action, -1.0, 1.0) * (SPEED / self.hz)
        dt = 1.0 / (self.hz * self._substeps)
        for _ in range(self._substeps):
            pull = STIFFNESS * (self._targets - self._angles) - DAMPING * self._speeds
            self._speeds = self._speeds + dt * pull
            self._angles = self._angles + dt * self._speeds
        away = self._tip(self._angles) - self._goal
        self._near = self._near + 1 if 1e3 * float(np.sqrt((away * away).sum())) < NEAR_MM else 0
        return True

    def pose(self) -> Mapping[str, Array]:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        return {"tip": 1e3 * self._tip(self._angles), "joints": 1e3 * self._angles}

    def success(self) -> bool:
        """Whether the tip has been at the goal for a second."""
        return self._near >= round(self.hz)

    def close(self) -> None:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""

    def _ends(self, angles: Array) -> Array:
        """Where the joints and the tip are, m, [4, 2]."""
        turned = np.cumsum(angles)
        steps = LINKS[:, None] * np.stack([np.cos(turned), np.sin(turned)], axis=1)
        return np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])

    def _tip(self, angles: Array) -> Array:
        tip: Array = self._ends(angles)[-1]
        return tip

    def _paint(self, drawn: Array, points: Array, colour: tuple[int, int, int]) -> None:
        """Colour the pixels of points; the picture is from -0.8 to 0.8 m."""
        height, width = drawn.shape[:2]
        columns = ((points[:, 0] + 0.8) / 1.6 * width).astype(int).clip(0, width - 1)
        rows = ((0.8 - points[:, 1]) / 1.6 * height).astype(int).clip(0, height - 1)
        drawn[rows, columns] = colour
