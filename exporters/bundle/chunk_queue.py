"""A robot's side of real-time chunking: the actions to carry out, and what is left for the next chunk.

It does what lerobot's ``ActionQueue`` does, with numpy alone.
"""

from __future__ import annotations

import threading

import numpy as np

from pytest_reflex.errors import InputError
from pytest_reflex.inputs.chunks import left_over

__all__ = ["ChunkQueue"]


class ChunkQueue:
    """What is carried out of each chunk, and what the next one is told of it.

    ``inputs`` before an inference, ``merge`` after it, and ``get`` for each tick of the robot in between::

        queue = ChunkQueue((1, 50, 32), horizon=10)
        with open_bundle("pi0").runner() as policy:
            actions = policy.infer({**observation, **queue.inputs(delay=4)})["actions"]
            queue.merge(actions, delay=4)  # as many as were carried out meanwhile
            action = queue.get()

    One thread may get actions while another waits for a chunk.

    Args:
        shape: the shape of a chunk, [batch, rows, dim], as the bundle's ``noise``.
        horizon: how many rows of the old chunk a new one is held to at most.
    """

    def __init__(self, shape: tuple[int, int, int], horizon: int) -> None:
        if isinstance(horizon, bool) or not isinstance(horizon, int) or not 0 < horizon <= shape[1]:
            raise InputError(f"horizon is {horizon!r}, expected a whole number from 1 to {shape[1]}")
        self._shape, self._horizon = shape, horizon
        self._held: tuple[np.ndarray | None, int] = (None, 0)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many actions are left."""
        chunk, used = self._held
        return 0 if chunk is None else chunk.shape[1] - used

    def inputs(self, delay: int) -> dict[str, np.ndarray]:
        """``prev_chunk``, ``execution_horizon`` and ``inference_delay`` for the next chunk, by name.

        With nothing left the horizon is 0, and the chunk is planned as if there were none before.

        Args:
            delay: how many actions will have been carried out when the chunk is there.

        Raises:
            InputError: the delay is no whole number, or below 0.
        """
        if isinstance(delay, bool) or not isinstance(delay, int) or delay < 0:
            raise InputError(f"delay is {delay!r}, expected a whole number of at least 0")
        chunk, used = self._held
        left = np.zeros(self._shape, np.float32) if chunk is None else left_over(chunk, used)
        horizon = 0 if chunk is None else min(self._horizon, chunk.shape[1] - used)
        return {
            "prev_chunk": left,
            "execution_horizon": np.asarray(horizon, np.int64),
            "inference_delay": np.asarray(min(delay, horizon), np.int64),
        }

    def merge(self, actions: np.ndarray, delay: int) -> None:
        """Put a new chunk in the place of the old one.

        Args:
            actions: as the policy gave them, [batch, rows, dim].
            delay: how many of the old chunk's actions were carried out since :meth:`inputs` was asked; the
                new chunk's first ones are too late by so many.

        Raises:
            InputError: the chunk is of another shape, or the delay is no number of its rows.
        """
        if actions.shape != self._shape:
            raise InputError(f"actions are {list(actions.shape)}, expected {list(self._shape)}")
        left_over(actions, delay)  # refuses what is no delay
        with self._lock:
            self._held = actions.astype(np.float32, copy=True), delay

    def get(self) -> np.ndarray | None:
        """The next action, [batch, dim]; None where none is left."""
        with self._lock:
            chunk, used = self._held
            if chunk is None or used == chunk.shape[1]:
                return None
            self._held = chunk, used + 1
        action: np.ndarray = chunk[:, used].copy()
        return action
