"""How two arrays differ, in numbers: numpy only, nothing rounded, nothing skipped.

Every figure is taken in float64 from the arrays as they are, except the distances of integers, which
are exact in 64 unsigned bits. A NaN anywhere makes ``max_abs_diff`` NaN: an element that cannot be
compared is never left out of the comparison.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, Any]

# Floats that numpy knows only through ml_dtypes; their dtype.kind is not "f".
_SMALL_FLOATS: Final = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
_UNSIGNED: Final = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True)
class Difference:
    """How a candidate array differs from its reference, as Python builtins.

    Attributes:
        elements: how many elements were compared.
        max_abs_diff: the largest ``|reference - candidate|``; NaN as soon as one of them is NaN.
        mean_abs_diff: the mean of ``|reference - candidate|``.
        cos: cosine of the angle between the two as vectors; 1.0 for two zero arrays, 0.0 for one.
        max_rel_diff: the largest ``|reference - candidate| / |reference|``, where 0/0 is 0 and x/0 infinite.
        rmse: root of the mean squared difference.
        sqnr_db: ``10 log10(sum reference^2 / sum (reference - candidate)^2)`` in decibel; infinite when
            equal, minus infinite when only the reference is zero.
        ulp_p50: median distance in units in the last place of the arrays' dtype (see :func:`ulp_distance`).
        ulp_p99: 99th percentile of the same; like the median, a value that occurs (the higher neighbour).
        ulp_max: the largest such distance.
        worst_index: where ``max_abs_diff`` is; the first difference that is not finite, if there is one.
        worst_reference: the reference's value there.
        worst_candidate: the candidate's value there.
        unequal: how many elements are not equal (+0 equals -0, NaN equals nothing).
        scale: the largest finite ``|reference|``, None when there is none: what a figure is large beside.
        ulp_counts: how many elements are 0, 1, 2 to 3, 4 to 7, ... units in the last place apart: entry
            ``k`` counts distances of ``k`` binary digits; ends with the last that is not zero.
    """

    elements: int
    max_abs_diff: float
    mean_abs_diff: float
    cos: float
    max_rel_diff: float
    rmse: float
    sqnr_db: float
    ulp_p50: int
    ulp_p99: int
    ulp_max: int
    worst_index: tuple[int, ...]
    worst_reference: float | int | bool
    worst_candidate: float | int | bool
    unequal: int
    scale: float | None = None
    ulp_counts: tuple[int, ...] = ()


def difference(reference: Array, candidate: Array) -> Difference:
    """Measure how ``candidate`` differs from ``reference``.

    Args:
        reference: array of any shape with at least one element: floats of up to 64 bits (bfloat16 and
            float8 through ml_dtypes too), integers or booleans.
        candidate: array of the same shape and dtype; nothing is broadcast or converted.

    Raises:
        ValueError: the shapes or dtypes differ, the arrays are empty, or the dtype is not one of these.
    """
    _require_comparable(reference, candidate)
    ulps = ulp_distance(reference, candidate)
    r, c = reference.astype(np.float64), candidate.astype(np.float64)
    with np.errstate(all="ignore"):  # inf - inf and overflow have meanings here, not warnings
        d = absolute_difference(reference, candidate, ulps)
        relative = np.where(d == 0, 0.0, d / np.abs(r))
        strange = np.flatnonzero(~np.isfinite(d))
        worst = int(strange[0]) if strange.size else int(np.argmax(d if _is_float(reference.dtype) else ulps))
        index = tuple(int(i) for i in np.unravel_index(worst, reference.shape))
        return Difference(
            elements=int(reference.size),
            max_abs_diff=float(d.max()),
            mean_abs_diff=_mean(d),
            cos=_cosine(r, c),
            max_rel_diff=float(relative.max()),
            rmse=_root_mean_square(d),
            sqnr_db=_decibel(_root_mean_square(r), _root_mean_square(d)),
            ulp_p50=_percentile(ulps, 50),
            ulp_p99=_percentile(ulps, 99),
            ulp_max=int(ulps.max()),
            worst_index=index,
            worst_reference=_builtin(reference, index),
            worst_candidate=_builtin(candidate, index),
            unequal=int(np.count_nonzero(reference != candidate)),
            scale=float(np.abs(r[np.isfinite(r)]).max()) if np.isfinite(r).any() else None,
            ulp_counts=_binary_digits(ulps),
        )


def absolute_difference(reference: Array, candidate: Array, ulps: Array | None = None) -> Array:
    """``|reference - candidate|`` in float64, element by element; arrays of the same shape and dtype.

    Two integers above 2**53 may be one float64; their distance is exact, and so never falsely zero.
    """
    if not _is_float(reference.dtype):
        return np.asarray(ulp_distance(reference, candidate) if ulps is None else ulps).astype(np.float64)
    with np.errstate(all="ignore"):
        return np.asarray(np.abs(reference.astype(np.float64) - candidate.astype(np.float64)))


def ulp_distance(reference: Array, candidate: Array) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """How many steps apart each pair of elements is on the ordered line of the dtype's values.

    Floats of one sign are ordered as their bit patterns are, so the distance is the difference of the
    magnitudes' bits, or their sum across zero; +0 and -0 are the same place. (Bruce Dawson, "Comparing
    Floating Point Numbers, 2012 Edition".) A NaN has no place: it is as far from anything, itself
    included, as two bit patterns can be. For integers and booleans it is ``|reference - candidate|``.

    Args:
        reference: array of any shape; dtypes as in :func:`difference`.
        candidate: array of the same shape and dtype.

    Returns:
        Array of the same shape, uint64, exact.

    Raises:
        ValueError: as in :func:`difference`.
    """
    _require_comparable(reference, candidate)
    dtype = reference.dtype
    if not _is_float(dtype):
        wide = np.int64 if dtype.kind == "i" else np.uint64
        a, b = reference.astype(wide), candidate.astype(wide)
        low, high = np.minimum(a, b).astype(np.uint64), np.maximum(a, b).astype(np.uint64)
        with np.errstate(over="ignore"):  # modulo 2**64, above every distance, so the result is exact
            return np.asarray(high - low)
    bits = 8 * dtype.itemsize
    largest = np.uint64(2 ** (bits - 1) - 1)
    a, b = _bit_pattern(reference), _bit_pattern(candidate)
    magnitude_a, magnitude_b = a & largest, b & largest
    steps = np.where(
        a >> np.uint64(bits - 1) == b >> np.uint64(bits - 1),
        np.maximum(magnitude_a, magnitude_b) - np.minimum(magnitude_a, magnitude_b),
        magnitude_a + magnitude_b,
    )
    nan = np.isnan(reference.astype(np.float64)) | np.isnan(candidate.astype(np.float64))
    return np.where(nan, np.uint64(2) * largest, steps)


def _require_comparable(reference: Array, candidate: Array) -> None:
    if reference.dtype != candidate.dtype:
        raise ValueError(f"dtypes differ: reference {reference.dtype}, candidate {candidate.dtype}")
    if reference.shape != candidate.shape:
        shapes = f"reference {list(reference.shape)}, candidate {list(candidate.shape)}"
        raise ValueError(f"shapes differ: {shapes}")
    if reference.size == 0:
        raise ValueError(f"shape {list(reference.shape)} holds no element, so there is nothing to compare")
    known = reference.dtype.kind in "iub" or _is_float(reference.dtype)
    if not known or reference.dtype.itemsize not in _UNSIGNED:
        good = "floats of 8 to 64 bits, integers or booleans"
        raise ValueError(f"dtype {reference.dtype} cannot be compared; give {good}")


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or dtype.name in _SMALL_FLOATS


def _bit_pattern(array: Array) -> np.ndarray[Any, np.dtype[np.uint64]]:
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return np.array(native, order="C").view(_UNSIGNED[array.dtype.itemsize]).astype(np.uint64)


def _scaled(x: Array) -> tuple[Array, int]:
    """``x = scaled * 2**exponent``, largest in [0.5, 1), so squares neither overflow nor vanish."""
    _, exponent = math.frexp(float(np.abs(x).max()))
    return np.ldexp(x, -exponent), exponent


def _unscaled(value: float, exponent: int) -> float:
    return float(np.ldexp(value, exponent))  # unlike math.ldexp, infinite on overflow


def _mean(d: Array) -> float:
    if not np.isfinite(d).all():
        return float(d.max())
    scaled, exponent = _scaled(d)
    return _unscaled(float(scaled.mean()), exponent)


def _root_mean_square(x: Array) -> float:
    if not np.isfinite(x).all():
        return float(np.abs(x).max())
    scaled, exponent = _scaled(x)
    return _unscaled(math.sqrt(float(np.mean(scaled * scaled))), exponent)


def _cosine(r: Array, c: Array) -> float:
    if not (np.isfinite(r).all() and np.isfinite(c).all()):
        return math.nan
    if not r.any() or not c.any():
        return 1.0 if r.any() == c.any() else 0.0
    r, c = _scaled(r)[0], _scaled(c)[0]
    # One root of the product: for equal arrays it is exactly their square sum, and the cosine exactly 1.
    cos = np.sum(r * c) / np.sqrt(np.sum(r * r) * np.sum(c * c))
    return float(np.clip(cos, -1.0, 1.0))


def _decibel(signal: float, noise: float) -> float:
    """``20 log10(signal / noise)`` of two root mean squares, without their quotient, which may overflow."""
    if math.isnan(signal) or math.isnan(noise) or (math.isinf(signal) and math.isinf(noise)):
        return math.nan
    if noise == 0:
        return math.inf
    if signal == 0 or math.isinf(noise):
        return -math.inf
    return 20 * (math.log10(signal) - math.log10(noise))


def _binary_digits(ulps: Array) -> tuple[int, ...]:
    # Counted against exact powers of two: a float64 logarithm is wrong beside large ones.
    edges = np.array([1 << k for k in range(64)], dtype=np.uint64)
    counts = np.bincount(np.searchsorted(edges, ulps.ravel(), side="right"))
    return tuple(int(count) for count in counts)


def _percentile(ulps: Array, percent: int) -> int:
    """numpy's ``percentile(method="higher")``, in integers, which lose nothing above 2**53."""
    rank = -(-percent * (ulps.size - 1) // 100)
    return int(np.partition(ulps, rank, axis=None)[rank])


def _builtin(array: Array, index: tuple[int, ...]) -> float | int | bool:
    value = array[index]
    kind = array.dtype.kind
    return bool(value) if kind == "b" else int(value) if kind in "iu" else float(value)
