"""Any environment of gymnasium with a continuous action, driven and watched as an arm is.

What is observed, how actions are applied and what is watched are three methods: a subclass that says them
otherwise is an adapter of some thirty lines.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pytest_reflex.errors import MissingPackageError, ReflexError, SettingsError
from pytest_reflex.verdict.drift import Quantity

__all__ = ["GymEnvironment"]

Array = np.ndarray[Any, Any]


class GymEnvironment:
    """One copy of an environment of gymnasium. Its limit on steps is taken away: how long a start is driven,
    the rollout says.

    Args:
        env_id: the id, such as ``Pendulum-v1``.
        hz: control instants a second, for the clock; its own period is the environment's.
        **options: what ``gymnasium.make`` is given besides.

    Raises:
        MissingPackageError: gymnasium is not installed.
        SettingsError: there is no such id, or its actions are no box.
    """

    # What says in ``info`` that the job is done, in the words that environments have for it.
    done_words = ("is_success", "success", "succeed")

    def __init__(self, env_id: str, hz: float = 30.0, **options: Any) -> None:
        if importlib.util.find_spec("gymnasium") is None:
            raise MissingPackageError(
                "this needs gymnasium, which is not installed; pip install 'pytest-reflex[sim]'"
            )
        import gymnasium

        try:
            self.env = gymnasium.make(env_id, max_episode_steps=1 << 40, **options)
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise SettingsError(
                f"gymnasium cannot make {env_id!r} ({said}); give an id that it knows, "
                "with module: before it where a module registers it"
            ) from error
        space = self.env.action_space
        if not isinstance(space, gymnasium.spaces.Box):
            raise SettingsError(
                f"the actions of {env_id!r} are {space}, expected a Box; write a GymEnvironment for them"
            )
        self.name = f"gym:{env_id}"
        self.hz = hz
        self.cameras: Sequence[str] = ("render",)
        self._space: Any = space
        self._seen: Any = np.zeros(0)
        self._info: Mapping[str, Any] = {}
        self.reset(0)
        self.actions: Sequence[str] = tuple(f"action {i}" for i in range(int(np.prod(space.shape))))
        self.quantities: Sequence[Quantity] = self.watches()

    def watches(self) -> tuple[Quantity, ...]:
        """What is watched: by default the observation, in plain numbers."""
        parts = tuple(f"value {i}" for i in range(len(self.state())))
        return (Quantity("state", "", parts, visible=0.01),)

    def observed(self, observation: Any) -> Array:
        """The state that a policy reads, [values]: by default all numbers of the observation, in order."""
        if isinstance(observation, Mapping):
            parts = [self.observed(observation[key]) for key in observation]
            return np.concatenate(parts) if parts else np.zeros(0)
        array = np.asarray(observation)
        return np.zeros(0) if array.dtype == np.uint8 else array.astype(np.float64).reshape(-1)

    def applied(self, action: Array) -> Any:
        """What the environment is given for an action: by default -1 to 1 are its lowest and its highest, and
        what has no bounds is given as it is."""
        low, high = (np.asarray(end, np.float64).reshape(-1) for end in (self._space.low, self._space.high))
        bounded = np.isfinite(low) & np.isfinite(high)
        least, wide = np.where(bounded, low, 0.0), np.where(bounded, high - low, 0.0)
        scaled = np.where(bounded, least + (np.clip(action, -1.0, 1.0) + 1.0) / 2.0 * wide, action)
        return scaled.reshape(self._space.shape).astype(self._space.dtype)

    def reset(self, start: int) -> None:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        self._seen, self._info = self.env.reset(seed=start)

    def state(self) -> Array:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        return self.observed(self._seen)

    def image(self, camera: str, height: int, width: int) -> Array:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`; the nearest pixels."""
        seen = self.env.render()
        if not isinstance(seen, np.ndarray) or seen.ndim != 3:
            raise ReflexError(
                f"{self.name} draws nothing for the policy's camera; make it with render_mode='rgb_array'"
            )
        rows, columns = (np.arange(n) * m // n for n, m in zip((height, width), seen.shape, strict=False))
        return np.array(seen[rows][:, columns])

    def hold(self) -> Array:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`; the middle of every action."""
        return np.zeros(len(self.actions))

    def step(self, action: Array) -> bool:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        self._seen, _, ended, cut, self._info = self.env.step(self.applied(action))
        return not (ended or cut)

    def pose(self) -> Mapping[str, Array]:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        return {"state": self.state()}

    def success(self) -> bool | None:
        """What ``info`` says of it; None where it says nothing."""
        said = [self._info[word] for word in self.done_words if word in self._info]
        return bool(said[0]) if said else None

    def close(self) -> None:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        self.env.close()
