"""Given fixtures that only rounding tells apart count as one; whatever a policy could heed makes two."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pytest_reflex.inputs import InputSpec, Integers, State, make_fixture
from pytest_reflex.inputs.fixtures import fixtures_from
from pytest_reflex.inputs.near_copies import distinct_count

Arrays = dict[str, np.ndarray]
SPECS = [
    InputSpec("image", (1, 3, 200, 200)),
    InputSpec("state", (1, 6), meaning=State()),
    InputSpec("embodiment", (1,), "int64", Integers(0, 32)),
]


def plain() -> Arrays:
    return make_fixture(SPECS, 0, 0)


def put(name: str, at: tuple[int, ...], value: float) -> Callable[[Arrays], None]:
    return lambda fixture: fixture[name].__setitem__(at, value)


def scaled(name: str, share: float) -> Callable[[Arrays], None]:
    return lambda fixture: fixture[name].__imul__(np.float32(1 + share))


def next_bit(name: str) -> Callable[[Arrays], None]:
    return lambda fixture: fixture[name].view(np.int32).__ixor__(1)


@pytest.mark.parametrize(
    "change",
    [
        lambda fixture: None,
        next_bit("image"),
        scaled("image", 0.0008),
        scaled("state", -0.0008),
        # Beside what else the input holds it is nothing, however small it is: half of it is below 0.67.
        lambda fixture: fixture["image"].__iadd__(np.float32(0.0006)),
    ],
    ids=["a_copy", "one_bit", "one_input", "the_other", "all_by_as_much"],
)
def test_a_near_copy_counts_with_what_it_is_a_copy_of(change: Callable[[Arrays], None]) -> None:
    other = plain()
    change(other)
    assert distinct_count([plain(), other, plain()]) == 1


@pytest.mark.parametrize(
    "change",
    [
        scaled("state", 0.0012),
        lambda fixture: fixture["image"].__iadd__(np.float32(0.0008)),
        put("image", (0, 2, 199, 199), 3.5),
        put("embodiment", (0,), 1),
        put("state", (0, 0), np.nan),
        put("state", (0, 0), np.inf),
        lambda fixture: fixture.update(state=fixture["state"].astype(np.float64)),
        lambda fixture: fixture.update(state=fixture["state"][:, :5]),
    ],
    ids=[
        "more",
        "all_by_more",
        "one_element_of_many",
        "an_integer",
        "a_nan",
        "an_infinity",
        "a_dtype",
        "a_shape",
    ],
)
def test_what_a_policy_could_heed_makes_another_fixture(change: Callable[[Arrays], None]) -> None:
    other = plain()
    change(other)
    assert distinct_count([plain(), other, other]) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0])
def test_what_is_not_finite_is_compared_by_its_place(value: float) -> None:
    one, other = plain(), plain()
    for fixture in (one, other):
        put("state", (0, 3), value)(fixture)
    assert distinct_count([one, other]) == 1
    put("state", (0, 3), np.inf if value != np.inf else np.nan)(other)
    assert distinct_count([one, other]) == 2


def test_zeros_are_no_copy_of_the_faint_nor_of_each_other_s_opposites() -> None:
    faint = np.full((1, 6), 1e-20, np.float32)
    states = [faint * 0, faint, -faint, 2 * faint]
    assert distinct_count([{"state": state} for state in states]) == 4


def test_padding_says_nothing_of_how_large_an_input_is() -> None:
    mostly = np.zeros(100, np.float32)
    mostly[:9] = 1
    other = mostly.copy()
    other[99] = 0.0009
    assert distinct_count([{"x": mostly}, {"x": other}]) == 1
    other[99] = 0.0011
    assert distinct_count([{"x": mostly}, {"x": other}]) == 2


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn"])
def test_a_coarse_dtype_has_coarse_copies(name: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(getattr(ml_dtypes, name))
    values = np.linspace(1, 2, 9, dtype=np.float32).astype(dtype)
    up = (values.view(f"u{dtype.itemsize}") + 1).view(dtype)
    further = (values.view(f"u{dtype.itemsize}") + 2).view(dtype)
    assert distinct_count([{"x": values}, {"x": up}, {"x": further}]) == 2


@pytest.mark.parametrize("dtype", ["longdouble", "complex64", "uint8", "bool"])
def test_what_has_no_units_in_the_last_place_has_no_near_copies(dtype: str) -> None:
    values = np.array([0, 1, 1], dtype)
    other = values.copy()
    other[0] = other[0] + np.array(1, dtype)
    assert distinct_count([{"x": values}, {"x": values.copy()}, {"x": other}]) == 2


def test_fixtures_without_an_element_are_one() -> None:
    assert distinct_count([{"x": np.zeros((0, 3), np.float32)}] * 3) == 1


def test_given_fixtures_are_counted_and_drawn_ones_are_as_many_as_were_asked_for() -> None:
    given = [make_fixture(SPECS, 0, idx) for idx in (0, 1, 2, 0)]
    fixtures = fixtures_from(given, 5, 0)
    assert (fixtures.count, fixtures.distinct) == (4, 3)
    assert fixtures_from(SPECS, 5, 0).distinct == 5
