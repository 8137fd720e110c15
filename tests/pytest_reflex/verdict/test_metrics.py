"""How two arrays differ: exact, symmetric, and blind to nothing."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from floors import ulps
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_reflex.verdict.metrics import PIECE, difference, largest_difference, ulp_distance

FLOATS = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32), np.dtype(np.float64)]
SIZES = st.integers(1, 40)
# One rounding of a float64 near 1.
EPS = np.finfo(np.float64).eps


@st.composite
def pairs(draw: st.DrawFn, dtype: np.dtype = np.dtype(np.float32), finite: bool = True):  # noqa: B008
    size = draw(SIZES)
    elements = {"allow_nan": not finite, "allow_infinity": not finite} if dtype.kind == "f" else None
    return tuple(draw(hnp.arrays(dtype, size, elements=elements)) for _ in range(2))


@given(pairs())
def test_which_side_is_which_changes_only_what_is_relative_to_the_reference(pair):
    one, other = difference(*pair), difference(*reversed(pair))
    for name in ("max_abs_diff", "mean_abs_diff", "cos", "rmse", "ulp_p50", "ulp_p99", "ulp_max", "unequal"):
        assert getattr(one, name) == getattr(other, name), name
    assert (one.worst_index, one.worst_reference) == (other.worst_index, other.worst_candidate)


@given(pairs(), st.randoms(use_true_random=False))
def test_the_order_of_elements_does_not_matter(pair, random):
    reference, candidate = pair
    order = list(range(reference.size))
    random.shuffle(order)
    one, other = difference(reference, candidate), difference(reference[order], candidate[order])
    for name in ("max_abs_diff", "max_rel_diff", "ulp_p50", "ulp_p99", "ulp_max", "unequal"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("mean_abs_diff", "cos", "rmse"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1024 * EPS, abs=1024 * EPS), name


@given(hnp.arrays(np.float64, SIZES, elements={"allow_nan": False, "allow_infinity": False}))
def test_an_array_does_not_differ_from_itself(array):
    d = difference(array, array.copy())
    assert (d.max_abs_diff, d.mean_abs_diff, d.max_rel_diff, d.rmse, d.unequal) == (0, 0, 0, 0, 0)
    assert (d.ulp_p50, d.ulp_p99, d.ulp_max) == (0, 0, 0)
    assert d.cos == 1.0
    assert d.sqnr_db == math.inf


@given(pairs(np.dtype(np.float64), finite=False))
def test_a_difference_holds_builtins_only_and_never_skips_what_is_not_finite(pair):
    d = difference(*pair)
    # There may be no finite value to take the scale of.
    no_scale = {"scale"} if not np.isfinite(pair[0]).any() else set()
    assert {name for name, v in vars(d).items() if type(v) not in (int, float, bool, tuple)} == no_scale
    if not (np.isfinite(pair[0]).all() and np.isfinite(pair[1]).all()):
        assert not math.isfinite(d.max_abs_diff)
        assert not (np.isfinite(pair[0][d.worst_index]) and np.isfinite(pair[1][d.worst_index]))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@given(data=st.data())
def test_neighbours_are_one_ulp_apart(dtype, data):
    numbers = st.floats(-1e4, 1e4, width=16)
    x = np.array(data.draw(st.lists(numbers, min_size=1, max_size=20))).astype(dtype)
    # The neighbour away from zero, one spacing on: of bfloat16 numpy knows no spacing, only the bits.
    if dtype.kind == "f":
        after = (x + np.copysign(np.spacing(np.abs(x)), x)).astype(dtype)
        assert ulp_distance(x, after).tolist() == [1] * x.size
    bits = x.view(np.uint16 if dtype.itemsize == 2 else np.uint32 if dtype.itemsize == 4 else np.uint64)
    assert ulp_distance(x, (bits + bits.dtype.type(3)).view(dtype)).tolist() == [3] * x.size


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_line_of_floats_passes_zero_and_the_subnormals_without_a_jump(dtype):
    unsigned = {2: np.uint16, 4: np.uint32, 8: np.uint64}[dtype.itemsize]
    least = np.array([1], unsigned).view(dtype)
    zero, minus_zero = np.zeros(1, dtype), -np.zeros(1, dtype)
    assert ulp_distance(zero, minus_zero).tolist() == [0]
    assert ulp_distance(zero, least).tolist() == [1]
    assert ulp_distance(minus_zero, least).tolist() == [1]
    assert ulp_distance(-least, least).tolist() == [2]
    assert difference(zero, least).max_abs_diff > 0
    assert difference(zero, minus_zero).unequal == 0


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_nan_is_as_far_from_everything_as_bit_patterns_can_be(dtype):
    infinite, nan = np.array([np.inf], dtype), np.array([np.nan], dtype)
    farthest = 2 ** (8 * dtype.itemsize) - 2
    assert difference(-infinite, infinite).ulp_max < farthest
    for other in (infinite, nan, np.zeros(1, dtype)):
        assert difference(nan, other).ulp_max == difference(other, nan).ulp_max == farthest
        assert math.isnan(difference(nan, other).max_abs_diff)


def test_equal_infinities_are_no_small_difference():
    d = difference(np.float32([1, np.inf]), np.float32([1, np.inf]))
    assert math.isnan(d.max_abs_diff)
    assert d.worst_index == (1,)


def test_the_first_difference_that_is_not_finite_is_the_worst():
    reference = np.array([[0.0, 5.0], [np.nan, np.inf]])
    d = difference(reference, np.zeros((2, 2)))
    assert d.worst_index == (1, 0)
    assert math.isnan(d.worst_reference)
    assert d.worst_candidate == 0.0


def test_of_several_differences_that_are_not_finite_the_first_counts_whichever_it_is():
    for strange in ([np.inf, np.nan], [np.nan, np.inf]):
        d = difference(np.array([0.0, 5.0, *strange]), np.zeros(4))
        assert d.worst_index == (2,)
        assert math.isnan(d.max_abs_diff)


@given(pairs(np.dtype(np.int64)))
def test_distances_of_integers_are_exact(pair):
    exact = [abs(int(a) - int(b)) for a, b in zip(*pair, strict=True)]
    d = difference(*pair)
    assert d.ulp_max == max(exact)
    assert d.max_abs_diff == float(max(exact))
    assert exact[d.worst_index[0]] == max(exact)


@pytest.mark.parametrize(
    ("dtype", "reference", "candidate", "distance"),
    [
        (np.int64, 2**63 - 1, -(2**63), 2**64 - 1),
        (np.int64, 2**53, 2**53 + 1, 1),  # the same float64
        (np.uint64, 0, 2**64 - 1, 2**64 - 1),
        (np.int8, -128, 127, 255),
        (np.bool_, False, True, 1),
    ],
)
def test_integers_neither_wrap_nor_round(dtype, reference, candidate, distance):
    d = difference(np.array(reference, dtype), np.array(candidate, dtype))
    assert d.ulp_max == distance
    assert d.max_abs_diff == float(distance) > 0
    assert (d.worst_index, d.worst_reference, d.worst_candidate) == ((), reference, candidate)
    assert type(d.worst_reference) is type(reference)


def test_percentiles_are_values_that_occur():
    candidate = np.arange(100, dtype=np.int64)
    d = difference(np.zeros(100, np.int64), candidate)
    expected = [int(np.percentile(candidate, q, method="higher")) for q in (50, 99, 100)]
    assert [d.ulp_p50, d.ulp_p99, d.ulp_max] == expected == [50, 99, 99]


def test_figures_by_hand():
    d = difference(np.array([3.0, 0.0, -4.0]), np.array([3.0, 0.0, -3.0]))
    assert (d.elements, d.unequal, d.max_abs_diff, d.worst_index) == (3, 1, 1.0, (2,))
    assert d.mean_abs_diff == pytest.approx(1 / 3, rel=4 * EPS)
    assert d.rmse == pytest.approx(math.sqrt(1 / 3), rel=4 * EPS)
    assert d.max_rel_diff == 0.25
    assert d.cos == pytest.approx(21 / (5 * math.sqrt(18)), rel=4 * EPS)
    assert d.sqnr_db == pytest.approx(10 * math.log10(25), rel=4 * EPS)


def test_zero_arrays():
    zero, one = np.zeros(3), np.ones(3)
    assert difference(zero, zero).cos == 1.0
    assert difference(zero, one).cos == difference(one, zero).cos == 0.0
    assert difference(zero, one).max_rel_diff == math.inf
    assert difference(zero, one).sqnr_db == -math.inf


@pytest.mark.parametrize("scale", [1e300, 1e-300, 5e-324])
def test_squares_neither_overflow_nor_vanish(scale):
    d = difference(np.array([1.0, 2.0]) * scale, np.array([2.0, 2.0]) * scale)
    assert d.cos == pytest.approx(6 / math.sqrt(40), rel=4 * EPS)
    assert ulps(d.rmse, scale / math.sqrt(2), dtype=np.float64) <= 4
    assert math.isfinite(d.sqnr_db)


def test_big_endian_arrays_are_measured_like_others():
    reference, candidate = np.array([1.0, 2.0]), np.array([1.0, 2.0 + 2**-51])
    assert difference(reference.astype(">f8"), candidate.astype(">f8")) == difference(reference, candidate)


@pytest.mark.parametrize(
    ("reference", "candidate", "message"),
    [
        (np.zeros(3), np.zeros(3, np.float32), "dtypes differ: reference float64, candidate float32"),
        (np.zeros((3, 1)), np.zeros((1, 3)), r"shapes differ: reference \[3, 1\], candidate \[1, 3\]"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "holds no element"),
        (np.zeros(2, complex), np.zeros(2, complex), "complex128 cannot be compared"),
        (np.array(["a"]), np.array(["a"]), "cannot be compared"),
    ],
)
def test_what_cannot_be_laid_side_by_side_is_an_error(reference, candidate, message):
    with pytest.raises(ValueError, match=message):
        difference(reference, candidate)


@pytest.mark.parametrize(
    ("reference", "scale"),
    [([0.0, 0.0], 0.0), ([-3.0, 2.0], 3.0), ([np.inf, -2.0], 2.0), ([np.nan, -np.inf], None)],
)
def test_the_scale_is_the_largest_finite_value_and_none_is_not_zero(reference, scale):
    assert difference(np.array(reference), np.zeros(2)).scale == scale


def test_noise_that_is_no_number_has_no_decibel_whatever_the_signal_is():
    for signal in (0.0, 1.0, np.inf, np.nan):
        assert math.isnan(difference(np.float32([signal]), np.float32([np.nan])).sqnr_db)


def test_what_is_not_finite_has_no_angle_to_anything():
    for other in ([0.0, 0.0], [1.0, 1.0], [np.inf, 1.0]):
        for strange in ([np.inf, 1.0], [np.nan, 1.0]):
            for pair in ((strange, other), (other, strange)):
                assert math.isnan(difference(*map(np.float32, pair)).cos)


@pytest.mark.parametrize("size", [1, 2, 99, 100, 101, 200, 201])
def test_a_percentile_is_the_higher_neighbour_of_that_share(size):
    distances = np.random.default_rng(size).permutation(size)
    d = difference(np.zeros(size, np.int64), distances)
    expected = [int(np.percentile(distances, percent, method="higher")) for percent in (50, 99)]
    assert [d.ulp_p50, d.ulp_p99, d.ulp_max] == [*expected, size - 1]


@pytest.mark.parametrize("farthest", [10, 2**16 - 1, 2**16, 2**17, 2**33, 2**62])
def test_percentiles_of_a_large_array_are_those_of_all_its_pieces(farthest):
    rng = np.random.default_rng(farthest)
    distances = rng.integers(0, farthest, 2 * PIECE + 77, endpoint=True)
    distances[rng.permutation(distances.size)[: distances.size // 3]] = 3
    d = difference(np.zeros(distances.size, np.int64), distances)
    expected = [int(np.percentile(distances, percent, method="higher")) for percent in (50, 99)]
    assert [d.ulp_p50, d.ulp_p99, d.ulp_max] == [*expected, distances.max()]


def test_a_large_array_has_the_figures_of_a_small_one():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((3, PIECE)).astype(np.float32)
    candidate = (reference + 1e-3 * rng.standard_normal(reference.shape)).astype(np.float32)
    reference[1, 5], candidate[2, 7] = 2.0**10, 2.0**12
    d, r, c = difference(reference, candidate), reference.astype(np.float64), candidate.astype(np.float64)
    apart = np.abs(r - c)
    assert d.worst_index == np.unravel_index(apart.argmax(), apart.shape)
    assert largest_difference(reference, candidate) == d.max_abs_diff
    assert (d.max_abs_diff, d.scale) == (apart.max(), np.abs(r).max())
    assert (d.elements, d.unequal) == (r.size, np.count_nonzero(r != c))
    assert d.max_rel_diff == (apart / np.abs(r)).max()
    figures = {
        "mean_abs_diff": apart.mean(),
        "rmse": math.sqrt((apart**2).mean()),
        "cos": (r * c).sum() / math.sqrt((r * r).sum() * (c * c).sum()),
        "sqnr_db": 10 * math.log10((r * r).sum() / (apart**2).sum()),
    }
    for name, expected in figures.items():
        assert getattr(d, name) == pytest.approx(expected, rel=1024 * EPS), name
    assert sum(d.ulp_counts) == r.size


def test_rounding_makes_no_cosine_of_more_than_a_whole_turn():
    cosines = []
    for seed in range(200):
        vector = np.random.default_rng(seed).standard_normal(3)
        times = np.random.default_rng([seed, 1]).uniform(0.5, 2)
        cosines += [difference(vector, times * vector).cos, difference(vector, -times * vector).cos]
    assert max(cosines) == 1.0
    assert min(cosines) == -1.0


def test_distances_are_counted_by_their_binary_digits():
    distances = [0, 0, 1, 2, 3, 4, 7, 8, 2**40 - 1, 2**40, 2**62]
    d = difference(np.zeros(len(distances), np.int64), np.array(distances))
    digits = [distance.bit_length() for distance in distances]
    assert list(d.ulp_counts) == [digits.count(k) for k in range(64)]
    farthest = difference(np.array([0], np.uint64), np.array([2**64 - 1], np.uint64))
    assert farthest.ulp_counts == (0,) * 64 + (1,)
