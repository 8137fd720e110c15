"""How many given fixtures there are: one that is another's copy but for rounding adds nothing to a check."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from pytest_reflex.verdict.metrics import is_float, pieces, ulp_distance

__all__ = ["NEAR", "distinct_count", "thinned"]

Array = np.ndarray[Any, Any]

# Values are near each other when they differ by this share of their size, or of the input's, at most.
NEAR: Final = 1e-3
# So many values of an input are looked at before all of them are; a half is more than any rounding.
_SAMPLE: Final = 16
# So many of drawn ones, which are alike throughout where they are alike.
_THINNED: Final = 256
_COARSE: Final = 0.5


def distinct_count(fixtures: Iterable[Mapping[str, Array]]) -> int:
    """How many fixtures are left when each that is a near copy of an earlier one is taken away.

    Two are near copies when no float of any input differs by more than :data:`NEAR` times the larger of the
    two values and of the input's median magnitude, or by one unit in the last place of its dtype, and all
    else is equal: shapes, dtypes, integers, masks, and where a NaN or an infinity stands.
    """
    groups: dict[str, _Group] = {}
    for fixture in fixtures:
        floats = {name: fixture[name] for name in sorted(fixture) if _has_ulps(fixture[name].dtype)}
        groups.setdefault(_exact_part(fixture), _Group()).add(list(floats.values()))
    return sum(len(group.kept) for group in groups.values())


def thinned(fixture: Mapping[str, Array]) -> dict[str, Array]:
    """A copy of some of each input's values, enough to tell drawn fixtures apart; nothing without a float.

    What is made of integers and masks alone may have fewer values than fixtures, all of them judged.
    """
    if not any(_has_ulps(array.dtype) and array.size for array in fixture.values()):
        return {}
    flat = {name: array.reshape(-1) for name, array in fixture.items()}
    return {name: array[:: max(1, array.size // _THINNED)][:_THINNED].copy() for name, array in flat.items()}


class _Group:
    """Fixtures that are alike in all but their floats; of near copies the first is kept."""

    def __init__(self) -> None:
        self.kept: list[list[tuple[Array, float]]] = []
        # A row for each that is kept: some of its values, and below it how large its inputs are.
        self._rows = np.zeros((0, 2, 0))

    def add(self, arrays: list[Array]) -> None:
        sized = [(array, _magnitude(array)) for array in arrays]
        some = [_sample(array) for array in arrays]
        sizes = [np.full(one.size, size) for one, (_, size) in zip(some, sized, strict=True)]
        row = np.concatenate([np.zeros((2, 0)), *map(np.stack, zip(some, sizes, strict=True))], axis=1)
        rows = self._rows.reshape(len(self.kept), *row.shape)
        close = _near(rows[:, 0], row[0], np.maximum(rows[:, 1], row[1]), _COARSE).all(axis=1)
        if any(_near_copies(sized, self.kept[at]) for at in np.flatnonzero(close)):
            return
        self.kept.append(sized)
        self._rows = np.concatenate([rows, row[None]])


def _exact_part(fixture: Mapping[str, Array]) -> str:
    """A digest of what has to be equal in near copies."""
    digest = hashlib.sha256()
    for name in sorted(fixture):
        array = fixture[name]
        digest.update(repr((name, array.dtype, array.shape)).encode())
        exact = array
        if _has_ulps(array.dtype):
            wide = array.astype(np.float64)
            exact = np.where(np.isfinite(wide), 0, np.where(np.isnan(wide), 2, np.sign(wide))).astype(np.int8)
        digest.update(np.ascontiguousarray(exact).tobytes())
    return digest.hexdigest()


def _has_ulps(dtype: np.dtype[Any]) -> bool:
    return is_float(dtype) and dtype.itemsize <= 8


def _near_copies(one: list[tuple[Array, float]], other: list[tuple[Array, float]]) -> bool:
    return all(
        (_near(a.astype(np.float64), b.astype(np.float64), size, NEAR) | (ulp_distance(a, b) <= 1)).all()
        for (whole, size_a), (same, size_b) in zip(one, other, strict=True)
        for size in [max(size_a, size_b)]
        for _, a, b in pieces(whole, same)
    )


def _near(a: Array, b: Array, size: float | Array, share: float) -> Array:
    with np.errstate(all="ignore"):
        near = np.abs(a - b) <= share * np.maximum(np.maximum(np.abs(a), np.abs(b)), size)
        return np.asarray(near | ~np.isfinite(a))  # what is not finite was compared before


def _magnitude(array: Array) -> float:
    """The median of an array's magnitudes, without zeros and what is not finite."""
    sizes = np.abs(array.astype(np.float64))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    return float(np.median(sizes)) if sizes.size else 0.0


def _sample(array: Array) -> Array:
    flat = array.reshape(-1)
    return flat[:: max(1, flat.size // _SAMPLE)][:_SAMPLE].astype(np.float64)
