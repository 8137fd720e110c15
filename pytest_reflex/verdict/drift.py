"""How far two ways of one arm are apart over time: arrays in, answers out.

A path is what an arm did, at every control instant: the places of its tips, its joints, its gripper. All
figures are of one path minus another's at the same instants, from the same start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

__all__ = ["Drift", "Quantity", "apart", "drift", "growth", "parts_apart"]

Array = np.ndarray[Any, Any]
# What an arm did, by the names of quantities: [instants, parts] each, in the quantity's unit.
Path = Mapping[str, Array]

# A rate of growth needs this many instants: a line through fewer says nothing.
FEWEST_INSTANTS: Final = 8


@dataclass(frozen=True)
class Quantity:
    """Something of an arm that is watched.

    Attributes:
        name: such as ``tip``, ``joints`` or ``gripper``.
        unit: what its figures are in: ``mm``, ``mrad``, or empty for plain numbers.
        parts: the names of its parts: the axes of a place, the joints.
        whole: how many parts make one: 3 for a place, whose distance is taken; 1 where each part is its own.
        visible: two paths so far apart are visibly two; in the unit.
    """

    name: str
    unit: str
    parts: tuple[str, ...]
    whole: int = 1
    visible: float = 1.0


@dataclass(frozen=True)
class Drift:
    """How far one path went from another, in one quantity, in its unit.

    Attributes:
        quantity: the quantity's name.
        largest: the most at any instant, of any part.
        end: at the last instant.
        at_s: when it was largest, in seconds from the start.
        growth: how fast it grew until then, per second: of ``e ** (growth * t)``, by least squares; None
            where it was never there, or not for long enough.
        diverged_s: when it was first visible, in seconds from the start; None where it never was.
        parts: the most of each part, in order.
    """

    quantity: str
    largest: float
    end: float
    at_s: float
    growth: float | None
    diverged_s: float | None
    parts: tuple[float, ...]


def apart(one: Array, other: Array, quantity: Quantity) -> Array:
    """How far two paths are apart at each instant, [instants].

    Args:
        one: a path's values of the quantity, [instants, parts].
        other: the other's, of the same shape.
        quantity: whose values they are.
    """
    return np.asarray(_wholes(one, other, quantity).max(axis=1))


def parts_apart(one: Array, other: Array) -> tuple[float, ...]:
    """The largest distance of each part over all instants."""
    return tuple(float(part) for part in np.abs(one - other).max(axis=0))


def drift(one: Array, other: Array, quantity: Quantity, hz: float) -> Drift:
    """All that is said of how far two paths are apart.

    Args:
        one: a path's values of the quantity, [instants, parts], the first at the start.
        other: the other's, of the same shape.
        quantity: whose values they are.
        hz: how many instants a second has.
    """
    far = apart(one, other, quantity)
    at = int(far.argmax())
    seen = np.flatnonzero(far > quantity.visible)
    return Drift(
        quantity=quantity.name,
        largest=float(far[at]),
        end=float(far[-1]),
        at_s=at / hz,
        growth=growth(far[: at + 1], hz),
        diverged_s=int(seen[0]) / hz if len(seen) else None,
        parts=parts_apart(one, other),
    )


def growth(far: Sequence[float] | Array, hz: float) -> float | None:
    """The rate at which a distance grows, per second: the slope of its logarithm, by least squares.

    Where two ways part as chaos parts them this is the finite-time Lyapunov exponent (Wolf et al., 1985,
    "Determining Lyapunov exponents from a time series"). None where fewer than :data:`FEWEST_INSTANTS` are
    above 0.
    """
    values = np.asarray(far, np.float64)
    there = np.flatnonzero(values > 0)
    if len(there) < FEWEST_INSTANTS:
        return None
    t, y = there / hz, np.log(values[there])
    t = t - t.mean()
    slope = float((t * (y - y.mean())).sum() / (t * t).sum())
    return slope if math.isfinite(slope) else None


def _wholes(one: Array, other: Array, quantity: Quantity) -> Array:
    """The distances of what is one whole each, [instants, wholes]."""
    difference = one - other
    if quantity.whole == 1:
        return np.asarray(np.abs(difference))
    grouped = difference.reshape(len(difference), -1, quantity.whole)
    # No BLAS behind this: its sum would hang on the processor's width.
    return np.asarray(np.sqrt((grouped * grouped).sum(axis=2)))
