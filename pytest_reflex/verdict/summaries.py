"""What a result keeps for its pictures: where the error lies, what was fed in. None of it decides."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# A grid beyond this is drawn coarser: each cell is then the largest error of a block.
GRID_CELLS: Final = 4096
_GRID_SIDE: Final = 64
_DIGEST: Final = 16


@dataclass(frozen=True)
class ErrorGrid:
    """Where one output's error lies: chunk step by action dimension, the last two axes of its shape.

    Attributes:
        rows: how many chunk steps there are; 1 for an output with fewer than two axes.
        columns: how many action dimensions there are.
        block: how many of each one cell stands for, ``(1, 1)`` unless the grid was too large to keep.
        cells: rows of the largest ``|reference - candidate|`` of each block, over all other axes.
    """

    rows: int
    columns: int
    block: tuple[int, int]
    cells: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class InputSummary:
    """What one input held in one fixture.

    Attributes:
        name: the input's name.
        dtype: its numpy name.
        shape: its shape.
        low: its least value; None where values have no order.
        high: its largest value.
        nonzero: how many elements are not zero; of a mask, how many are true.
        digest: the first 16 hexadecimal digits of the SHA-256 of dtype, shape and bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    low: float | int | bool | None
    high: float | int | bool | None
    nonzero: int
    digest: str


@dataclass(frozen=True)
class StepDifference:
    """How far the two sides were apart after one denoising step.

    Attributes:
        step: which, from 1.
        max_abs_diff: the largest ``|reference - candidate|`` of what the loop carries.
        mean_abs_diff: the mean of the same.
    """

    step: int
    max_abs_diff: float
    mean_abs_diff: float


def error_grid(reference: Array, candidate: Array) -> ErrorGrid:
    """Where two arrays of the same shape and dtype differ; a NaN stays one in its cell."""
    import numpy as np

    from pytest_reflex.verdict.metrics import PIECE, absolute_difference

    shape = reference.shape if reference.ndim > 1 else (1, reference.size)
    rows, columns = shape[-2:]
    block = (1, 1) if rows * columns <= GRID_CELLS else (-(-rows // _GRID_SIDE), -(-columns // _GRID_SIDE))
    one, other = (side.reshape(-1, rows, columns) for side in (reference, candidate))
    cells = np.zeros((-(-rows // block[0]), -(-columns // block[1])))
    # Whole blocks of rows at a time, as many as fit into a piece.
    height = block[0] * max(1, PIECE // (block[0] * columns))
    for row in range(0, rows, height):
        depth = max(1, PIECE // (min(height, rows) * columns))
        for plane in range(0, len(one), depth):
            part = np.s_[plane : plane + depth, row : row + height]
            errors = absolute_difference(one[part], other[part]).max(axis=0)
            for axis, size in enumerate(block):
                errors = np.maximum.reduceat(errors, range(0, errors.shape[axis], size), axis=axis)
            seen = cells[row // block[0] : row // block[0] + len(errors)]
            np.maximum(seen, errors, out=seen)
    return ErrorGrid(rows, columns, block, tuple(tuple(map(float, row)) for row in cells))


def summaries(inputs: Mapping[str, Array]) -> tuple[InputSummary, ...]:
    """One summary for each input of a fixture, in order."""
    return tuple(summary_of(name, array) for name, array in inputs.items())


def summary_of(name: str, array: Array) -> InputSummary:
    """What one input holds."""
    import numpy as np

    ordered = array.dtype.kind in "biuf" and array.size > 0
    digest = hashlib.sha256(f"{array.dtype}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return InputSummary(
        name=name,
        dtype=str(array.dtype),
        shape=tuple(int(n) for n in array.shape),
        low=array.min().item() if ordered else None,
        high=array.max().item() if ordered else None,
        nonzero=int(np.count_nonzero(array)),
        digest=digest.hexdigest()[:_DIGEST],
    )
