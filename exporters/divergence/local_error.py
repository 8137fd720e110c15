"""One value of the graph beside PyTorch's: how far apart, and whether float32 explains it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import fx

from exporters.divergence.interpreter import Program, Step
from pytest_reflex.runners.float64 import lifted

Array = np.ndarray[Any, Any]

# A mask's fill, as large as float32 goes: beside it every other value would be within rounding.
FILL = 1e30
FILL_ROUNDING = 1e-6
# A node may be this many times as far from float64 as PyTorch's operator is, or so many units in the last
# place of the largest value.
TIMES = 4.0
ULPS = 16
# A node that is too far is at most TIMES / (TIMES - 1) times as far from float64 as from PyTorch: where the
# two differ by less than this many units, nobody needs to ask float64.
PLAIN_ULPS = ULPS * (TIMES - 1) / TIMES
# Operators whose rows are computed apart from each other, with the place of the operand that has the rows.
_BY_ROWS: Final[Mapping[object, int]] = {
    torch.ops.aten.linear.default: 0,
    torch.ops.aten.mm.default: 0,
    torch.ops.aten.addmm.default: 1,
}


@dataclass(frozen=True)
class Apart:
    """How two arrays of one shape differ; NaN beside NaN and infinity beside itself do not.

    Attributes:
        error: the largest difference.
        index: where it is.
        scale: the largest value of the reference that is finite and no mask's fill.
    """

    error: float
    index: tuple[int, ...]
    scale: float


def apart(reference: Array, candidate: Array) -> Apart:
    """The largest difference of two arrays of one shape."""
    if reference.size == 0:
        return Apart(0.0, (), 0.0)
    if reference.dtype.kind in "iub":
        exact, other = reference.astype(np.float64), candidate.astype(np.float64)
        error = np.where(reference != candidate, np.maximum(1.0, np.abs(exact - other)), 0.0)
        scale = float(np.abs(exact).max())
    else:
        with np.errstate(all="ignore"):
            # Exact enough in the arrays' own precision: nearby floats subtract without rounding. Few passes,
            # for memory is what this waits for.
            error = np.asarray(reference - candidate)
            np.abs(error, out=error)
            # The largest, or the first NaN.
            if not np.isfinite(error.reshape(-1)[int(error.argmax())]):
                same = (reference == candidate) | (np.isnan(reference) & np.isnan(candidate))
                error = np.where(np.isfinite(error), error, np.where(same, 0.0, np.inf))
            scale = max(float(reference.max()), -float(reference.min()))
            if not scale < FILL:
                size = np.abs(reference)
                fill = np.isfinite(size) & (size >= FILL)
                scale = float(np.max(size, where=size < FILL, initial=0.0))
                error = np.where(fill & (error <= FILL_ROUNDING * size), 0.0, error)
    worst = int(error.argmax())
    index = tuple(int(i) for i in np.unravel_index(worst, reference.shape))
    return Apart(float(error.reshape(-1)[worst]), index, scale)


def spacing(scale: float) -> float:
    """One unit in the last place of a float32 of this size."""
    return float(np.spacing(np.float32(min(abs(scale), float(np.finfo(np.float32).max)))))


@dataclass(frozen=True)
class Judged:
    """Whether a node is wrong by itself, and PyTorch's own error in its operator where that was measured."""

    wrong: bool
    rounding: float | None = None


def judge_local(step: Step, reference: Array, local: Array, found: Apart) -> Judged:
    """Whether ``local``, made of PyTorch's own inputs, is further from the truth than rounding explains.

    Most values are within a few units of PyTorch's. For the others the one operator is run in float64, a
    product of matrices first in its suspicious rows alone.
    """
    if reference.dtype.kind in "iub":
        return Judged(found.error > 0)
    if found.error <= PLAIN_ULPS * spacing(found.scale):
        return Judged(False)
    if not math.isfinite(found.error) or step.node is None:
        return Judged(True)
    unit = spacing(found.scale)
    try:
        some = _suspicious_rows(step, reference, local, unit)
        if some is not None and not _beyond(*some, unit).wrong:
            return Judged(False)
        return _beyond(step, reference, local, unit)
    except (RuntimeError, TypeError):
        # An operator that float64 does not have: judged by its float32 alone.
        return Judged(found.error > TIMES * ULPS * unit)


def _beyond(step: Step, reference: Array, local: Array, unit: float) -> Judged:
    """Whether ``local`` is further from the operator in float64 than PyTorch's own error allows."""
    if step.node is None:
        return Judged(True)
    with torch.no_grad(), lifted():
        truth = Program.compute(step.node, step.given)
    exact = truth.detach().numpy()
    own = apart(exact, reference.astype(np.float64)).error
    theirs = apart(exact, local.astype(np.float64)).error
    return Judged(not theirs <= max(TIMES * own, ULPS * unit), own)


def _suspicious_rows(
    step: Step, reference: Array, local: Array, unit: float
) -> tuple[Step, Array, Array] | None:
    """The step and both sides with those rows alone that can be wrong; None where rows cannot be told apart.

    What is not wrong in these is not wrong as a whole: any other row is too near to PyTorch's for that (see
    :data:`PLAIN_ULPS`), and PyTorch's error over all rows, which allows more, is no less than over some.
    """
    node = step.node
    if node is None or node.target not in _BY_ROWS:
        return None
    place = _BY_ROWS[node.target]
    operand, bias = node.args[place], node.args[0] if place else None
    # The same value twice, or a bias as large as the result, has rows in two places.
    if not isinstance(operand, fx.Node) or node.args.count(operand) > 1:
        return None
    if isinstance(bias, fx.Node) and step.given[bias].dim() != 1:
        return None
    left, right = (array.reshape(-1, array.shape[-1]) for array in (reference, local))
    with np.errstate(all="ignore"):
        rows = np.flatnonzero(~(np.abs(left - right).max(axis=1) <= PLAIN_ULPS * unit))
    matrix = step.given[operand]
    picked = matrix.reshape(-1, matrix.shape[-1])[torch.from_numpy(rows)]
    return replace(step, given={**step.given, operand: picked}), left[rows], right[rows]
