"""How two arrays differ, in numbers: numpy only, nothing rounded, nothing skipped.

Every figure is taken in float64 from the arrays as they are, except the distances of integers, which
are exact in 64 unsigned bits. A NaN anywhere makes ``max_abs_diff`` NaN: an element that cannot be
compared is never left out of the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, Any]

# Floats that numpy knows only through ml_dtypes; their dtype.kind is not "f".
_SMALL_FLOATS: Final = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
# How many elements are measured at a time.
PIECE: Final = 1 << 15
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
        frontier: pairs of ``|reference|`` and ``|reference - candidate|`` that decide whatever rtol asks: any
            element exceeds ``atol + rtol * |reference|`` if and only if one of these does. Empty where an
            element is not finite, or nobody looked.
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
    frontier: tuple[tuple[float, float], ...] = ()

    def excess(self, rtol: float) -> float:
        """The largest ``|reference - candidate| - rtol * |reference|``: what a threshold has to be above.

        Where the frontier is not known it is the largest difference, from which nothing is taken.
        """
        if not rtol or not self.frontier:
            return self.max_abs_diff
        return max(0.0, *(apart - rtol * size for size, apart in self.frontier))

    def nearest(self, atol: float, rtol: float) -> tuple[float, float]:
        """The difference and the bound, ``atol + rtol * |reference|``, of the element that uses most of it.

        It is a corner of the frontier: all quotients are below a number where a straight line is above all.
        """
        if not rtol or not self.frontier or not atol > 0:
            return self.max_abs_diff, atol
        bounds = [(apart, atol + rtol * size) for size, apart in self.frontier]
        return max(bounds, key=lambda pair: pair[0] / pair[1])

    def least_rtol(self, atol: float) -> float | None:
        """What rtol has to be above for every element to be below ``atol + rtol * |reference|``.

        0 where none is needed; None where none would do, or the frontier is not known.
        """
        if self.max_abs_diff < atol:
            return 0.0
        if not self.frontier:
            return None
        beyond = [(size, apart) for size, apart in self.frontier if not apart < atol]
        if any(size == 0 for size, _ in beyond):
            return None
        return max((apart - atol) / size for size, apart in beyond)


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
    with np.errstate(all="ignore"):  # inf - inf and overflow have meanings here, not warnings
        return _measured(reference, candidate, _Pairs(reference, candidate))


def distances(one: Mapping[str, Array], other: Mapping[str, Array]) -> dict[str, float]:
    """How far each output of one is from that of the other: of what must be equal 0 or infinity.

    Where the two cannot be laid side by side all are infinite.
    """
    if one.keys() != other.keys() or any(one[n].shape != other[n].shape for n in one):
        return dict.fromkeys({**one, **other}, float("inf"))
    found = {}
    for name, array in one.items():
        if array.dtype.kind in "iub":
            found[name] = 0.0 if np.array_equal(array, other[name]) else float("inf")
        else:
            found[name] = largest_difference(array, other[name]) if array.size else 0.0
    return found


def largest_difference(reference: Array, candidate: Array) -> float:
    """The ``max_abs_diff`` of :func:`difference` alone, for a tenth of the time; it raises as that does."""
    _require_comparable(reference, candidate)
    found = [absolute_difference(r, c).max() for _, r, c in pieces(reference, candidate)]
    return float(np.max(found))


def pieces(one: Array, other: Array) -> Iterator[tuple[int, Array, Array]]:
    """Where a piece begins, and that piece of both arrays, flat; they are of one size.

    What is computed of a piece takes a few megabytes, however large the arrays are.
    """
    flat, same = one.reshape(-1), other.reshape(-1)
    for at in range(0, flat.size, PIECE):
        yield at, flat[at : at + PIECE], same[at : at + PIECE]


@dataclass(frozen=True)
class _Pair:
    """One piece of both arrays: as they are in float64, and their distances."""

    at: int
    r: Array
    c: Array
    d: Array
    ulps: Array


class _Pairs:
    """The pieces of two arrays, made anew each time they are gone through; a single one is kept."""

    def __init__(self, reference: Array, candidate: Array) -> None:
        self._sides = reference, candidate
        self.only = self._pair(0, *self._sides) if reference.size <= PIECE else None

    def __iter__(self) -> Iterator[_Pair]:
        if self.only is not None:
            return iter((self.only,))
        return (self._pair(at, r, c) for at, r, c in pieces(*self._sides))

    @staticmethod
    def _pair(at: int, reference: Array, candidate: Array) -> _Pair:
        ulps = ulp_distance(reference, candidate)
        r, c = reference.astype(np.float64), candidate.astype(np.float64)
        return _Pair(at, r, c, absolute_difference(reference, candidate, ulps), ulps)


def _measured(reference: Array, candidate: Array, pairs: _Pairs) -> Difference:
    relative, unequal, counts = 0.0, 0, np.zeros(65, np.int64)
    # The largest value of each, NaN as soon as there is one.
    top_d, top_r, top_c, scale = 0.0, 0.0, 0.0, -1.0
    of_floats = is_float(reference.dtype)
    worst = _Worst(of_floats)
    edge = np.zeros((0, 2))
    for pair in pairs:
        worst.look(pair)
        size_r = np.abs(pair.r)
        edge = _steepest(edge, size_r.ravel(), pair.d.ravel())
        top_d, top_r = _larger(top_d, pair.d.max()), _larger(top_r, size_r.max())
        top_c = _larger(top_c, np.abs(pair.c).max())
        relative = _larger(relative, np.where(pair.d == 0, 0.0, pair.d / size_r).max())
        # Integers above 2**53 may be one float64; their distances are exact.
        unequal += int(np.count_nonzero(pair.r != pair.c if of_floats else pair.ulps))
        scale = max(scale, float(np.max(size_r, where=np.isfinite(size_r), initial=-1.0)))
        some = _binary_digits(pair.ulps)
        counts[: some.size] += some
    index = tuple(int(i) for i in np.unravel_index(worst.at, reference.shape))
    size = reference.size
    return Difference(
        elements=int(size),
        max_abs_diff=top_d,
        mean_abs_diff=_mean((pair.d for pair in pairs), top_d, size),
        cos=_cosine(((pair.r, pair.c) for pair in pairs), top_r, top_c),
        max_rel_diff=relative,
        rmse=_root_mean_square((pair.d for pair in pairs), top_d, size),
        sqnr_db=_decibel(
            _root_mean_square((pair.r for pair in pairs), top_r, size),
            _root_mean_square((pair.d for pair in pairs), top_d, size),
        ),
        ulp_p50=_percentile(pairs, 50, size, worst.ulps),
        ulp_p99=_percentile(pairs, 99, size, worst.ulps),
        ulp_max=worst.ulps,
        worst_index=index,
        worst_reference=_builtin(reference, index),
        worst_candidate=_builtin(candidate, index),
        unequal=unequal,
        scale=scale if scale >= 0 else None,
        ulp_counts=tuple(int(n) for n in np.trim_zeros(counts, "b")),
        frontier=_hull(edge) if np.isfinite(edge).all() and math.isfinite(top_r) and of_floats else (),
    )


def _steepest(edge: Array, size: Array, apart: Array) -> Array:
    """Of points ``(size, apart)``, in the order of size, those as small as which none is as far apart.

    Args:
        edge: those that are known, as rows.
        size: of further ones.
        apart: of the same.
    """
    if not edge.size:
        edge = np.array([[size[at], apart[at]] for at in {int(np.argmin(size)), int(np.argmax(apart))}])
        edge = edge[np.lexsort((-edge[:, 1], edge[:, 0]))]
    # Most lie behind those that are known, and need no sorting.
    behind = np.searchsorted(edge[:, 0], size, side="right") - 1
    new = (behind < 0) | ~(apart <= np.maximum.accumulate(edge[:, 1])[behind])
    points = np.concatenate([edge, np.stack([size[new], apart[new]], axis=1)])
    points = points[np.lexsort((-points[:, 1], points[:, 0]))]
    before = np.concatenate([[-1.0], np.maximum.accumulate(points[:, 1])[:-1]])
    return np.asarray(points[~(points[:, 1] <= before)])


def _hull(points: Array) -> tuple[tuple[float, float], ...]:
    """Of these, the corners of their upper hull: a straight line lies above all if above the corners.

    (Andrew, "Another efficient algorithm for convex hulls in two dimensions", 1979.)
    """
    kept: list[tuple[float, float]] = []
    for size, apart in points.tolist():
        while len(kept) > 1 and _below(kept[-2], kept[-1], (size, apart)):
            kept.pop()
        kept.append((size, apart))
    return tuple(kept)


def _below(first: tuple[float, float], middle: tuple[float, float], last: tuple[float, float]) -> bool:
    """Whether the middle one lies below the line between the others, clearly enough for float64."""
    (x0, y0), (x1, y1), (x2, y2) = first, middle, last
    return (y1 - y0) * (x2 - x0) < (y2 - y0) * (x1 - x0)


def _larger(one: float, other: float) -> float:
    """The larger of two that are no less than 0, NaN if one is."""
    return one if one >= other or math.isnan(one) else float(other)


class _Worst:
    """Where two arrays differ most: the first difference that is not finite, if there is one."""

    def __init__(self, of_floats: bool) -> None:
        self.at, self.ulps = 0, 0
        self._of_floats, self._strange, self._largest = of_floats, False, -1.0

    def look(self, pair: _Pair) -> None:
        self.ulps = max(self.ulps, int(pair.ulps.max()))
        if self._strange:
            return
        strange = np.flatnonzero(~np.isfinite(pair.d))
        ranked = pair.d if self._of_floats else pair.ulps
        place = int(strange[0]) if strange.size else int(np.argmax(ranked))
        self._strange = bool(strange.size)
        if self._strange or ranked.flat[place] > self._largest:
            self.at, self._largest = pair.at + place, ranked.flat[place]


def absolute_difference(reference: Array, candidate: Array, ulps: Array | None = None) -> Array:
    """``|reference - candidate|`` in float64, element by element; arrays of the same shape and dtype.

    Two integers above 2**53 may be one float64; their distance is exact, and so never falsely zero.
    """
    if not is_float(reference.dtype):
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
    if not is_float(dtype):
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
    if not is_comparable(reference.dtype):
        good = "floats of 8 to 64 bits, integers or booleans"
        raise ValueError(f"dtype {reference.dtype} cannot be compared; give {good}")


def is_comparable(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of it can be compared as numbers."""
    return (dtype.kind in "iub" or is_float(dtype)) and dtype.itemsize in _UNSIGNED


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether it is one of the floats that can be compared."""
    return dtype.kind == "f" or dtype.name in _SMALL_FLOATS


def _bit_pattern(array: Array) -> np.ndarray[Any, np.dtype[np.uint64]]:
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return np.array(native, order="C").view(_UNSIGNED[array.dtype.itemsize]).astype(np.uint64)


def _exponent(top: float) -> int:
    """``top = scaled * 2**exponent``, scaled in [0.5, 1), so squares neither overflow nor vanish."""
    return math.frexp(top)[1]


def _unscaled(value: float, exponent: int) -> float:
    return float(np.ldexp(value, exponent))  # unlike math.ldexp, infinite on overflow


def _mean(parts: Iterable[Array], top: float, size: int) -> float:
    if not math.isfinite(top):
        return top
    exponent = _exponent(top)
    return _unscaled(math.fsum(float(np.ldexp(d, -exponent).sum()) for d in parts) / size, exponent)


def _root_mean_square(parts: Iterable[Array], top: float, size: int) -> float:
    if not math.isfinite(top):
        return top
    exponent = _exponent(top)
    squares = math.fsum(float((np.ldexp(x, -exponent) ** 2).sum()) for x in parts)
    return _unscaled(math.sqrt(squares / size), exponent)


def _cosine(parts: Iterable[tuple[Array, Array]], top_r: float, top_c: float) -> float:
    if not (math.isfinite(top_r) and math.isfinite(top_c)):
        return math.nan
    if not top_r or not top_c:
        return 1.0 if top_r == top_c else 0.0
    e_r, e_c = _exponent(top_r), _exponent(top_c)
    sums = []
    for r, c in parts:
        r, c = np.ldexp(r, -e_r), np.ldexp(c, -e_c)
        sums.append([float(np.sum(r * c)), float(np.sum(r * r)), float(np.sum(c * c))])
    rc, rr, cc = (math.fsum(one) for one in zip(*sums, strict=True))
    # One root of the product: for equal arrays it is exactly their square sum, and the cosine exactly 1.
    return float(np.clip(rc / math.sqrt(rr * cc), -1.0, 1.0))


def _decibel(signal: float, noise: float) -> float:
    """``20 log10(signal / noise)`` of two root mean squares, without their quotient, which may overflow."""
    if math.isnan(signal) or math.isnan(noise) or (math.isinf(signal) and math.isinf(noise)):
        return math.nan
    if noise == 0:
        return math.inf
    if signal == 0 or math.isinf(noise):
        return -math.inf
    return 20 * (math.log10(signal) - math.log10(noise))


def _binary_digits(ulps: Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    # Counted against exact powers of two: a float64 logarithm is wrong beside large ones.
    edges = np.array([1 << k for k in range(64)], dtype=np.uint64)
    return np.bincount(np.searchsorted(edges, ulps.ravel(), side="right"))


def _percentile(pairs: _Pairs, percent: int, size: int, most: int) -> int:
    """numpy's ``percentile(method="higher")``, in integers, which lose nothing above 2**53.

    Sixteen bits at a time, the highest first: how many there are of each, and so which the wanted one has.
    """
    rank, found = -(-percent * (size - 1) // 100), 0
    if pairs.only is not None:
        return int(np.partition(pairs.only.ulps, rank, axis=None)[rank])
    for shift in range(16 * (max(most.bit_length() - 1, 0) // 16), -1, -16):
        counts = np.zeros(1 << 16, np.int64)
        for pair in pairs:
            high = pair.ulps.ravel() >> np.uint64(shift)
            # What has other higher bits is another's; above the highest there are none.
            own = high[high >> np.uint64(16) == np.uint64(found)]
            counts += np.bincount(own & np.uint64(0xFFFF), minlength=1 << 16)
        below = np.cumsum(counts)
        digit = int(np.searchsorted(below, rank, side="right"))
        rank -= int(below[digit - 1]) if digit else 0
        found = found << 16 | digit
    return found


def _builtin(array: Array, index: tuple[int, ...]) -> float | int | bool:
    value = array[index]
    kind = array.dtype.kind
    return bool(value) if kind == "b" else int(value) if kind in "iu" else float(value)
