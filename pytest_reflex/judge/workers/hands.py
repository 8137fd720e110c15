"""What runs in a worker's process.

It is sent as it stands and imports nothing of this package before its path is that of the first process:
where Ray's places come first, there may be another one of this package.
"""

from __future__ import annotations

import pickle
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_reflex.judge.workers.here import Seen
    from pytest_reflex.judge.workers.work import Answer

__all__ = ["Hands"]


class Hands:
    """What a worker does, in this order, one call after the other."""

    def place(self, path: Sequence[str], here: bytes) -> tuple[str, str]:
        """Become as the first process is, and say where this is; or why it cannot be so.

        Args:
            path: where the first process finds modules.
            here: what it is, pickled.
        """
        # In its order, or a module may be found where another one of its name is; Ray's own places behind.
        sys.path[:] = [*path, *(place for place in sys.path if place not in path)]
        try:
            self._here = pickle.loads(here)
            self._here.take_over()
        except Exception as error:
            return socket.gethostname(), str(error) or type(error).__name__
        return socket.gethostname(), ""

    def hold(self, sent: Any, weights: list[Any]) -> tuple[Seen, ...] | str:
        """Open both sides; or say why not."""
        from pytest_reflex.errors import RunnerError
        from pytest_reflex.judge.workers.sent import received
        from pytest_reflex.judge.workers.work import Worker

        try:
            work, modules = received(sent, weights)
            try:
                self._worker = Worker(work, self._here)
            finally:  # where it cannot be opened, another value in a module may be why
                modules.require_same()
        except RunnerError as error:
            return str(error)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return self._worker.sides

    def judge(self, fixture_idx: int) -> Answer:
        return self._worker.judge(fixture_idx)
