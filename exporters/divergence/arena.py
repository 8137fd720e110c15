"""Memory that subgraph after subgraph writes its values into: fresh pages cost as much as the arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, Any]

_ALIGNMENT: Final = 64
_BLOCK_BYTES: Final = 64 << 20


class Arena:
    """Arrays that are all given up together, for the next ones to take their place."""

    def __init__(self) -> None:
        self._blocks: list[Array] = []
        self._block = 0
        self._used = 0

    def clear(self) -> None:
        """Give up every array that :meth:`array` has given."""
        self._block = self._used = 0

    def array(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """An array of any content, until :meth:`clear`."""
        size = math.prod(shape) * dtype.itemsize
        while True:
            if self._block == len(self._blocks):
                self._blocks.append(_aligned(max(size, _BLOCK_BYTES)))
            block = self._blocks[self._block]
            if self._used + size <= block.size:
                break
            self._block, self._used = self._block + 1, 0
        found = block[self._used : self._used + size].view(dtype).reshape(tuple(shape))
        self._used += -(-size // _ALIGNMENT) * _ALIGNMENT
        return found


def _aligned(size: int) -> Array:
    """Bytes that begin where a vector instruction likes it."""
    room = np.empty(size + _ALIGNMENT, np.uint8)
    skip = -room.ctypes.data % _ALIGNMENT
    return room[skip : skip + size]
