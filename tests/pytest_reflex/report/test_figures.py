"""How figures are written: no more digits than hold, rounded to the side that claims less."""

from __future__ import annotations

import math

import pytest

from pytest_reflex.errors import SettingsError
from pytest_reflex.report.html.pages import _sentence
from pytest_reflex.report.text.divergence import _BAR, _bar
from pytest_reflex.report.text.in_units import _ROWS, _spread
from pytest_reflex.report.text.terminal import told_apart
from pytest_reflex.settings import seconds
from pytest_reflex.verdict.claim import anytime, draws_for, seconds_text
from pytest_reflex.verdict.power import rounded_down

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("value", "limit", "said"),
    [
        (1e-3, 1e-4, ("1.000e-03", "1.0e-04")),
        (1.00001e-4, 1e-4, ("1.000e-04", "1.0e-04")),  # which is not below it
        (9.99999e-5, 1e-4, ("9.99999e-05", "1.0e-04")),
        (math.nan, 1e-4, ("nan", "1.0e-04")),
        (math.inf, 1e-4, ("inf", "1.0e-04")),
        (1.0, math.inf, ("1.000e+00", "inf")),
    ],
)
def test_a_figure_has_as_many_digits_as_tell_it_from_its_threshold(
    value: float, limit: float, said: tuple[str, str]
) -> None:
    assert told_apart(value, limit) == said


@pytest.mark.parametrize(("given", "said"), [(0.377, "0.38"), (1234.0, "1,300"), (0.0, "0"), (math.inf, "0")])
def test_seconds_are_rounded_up(given: float, said: str) -> None:
    assert seconds_text(given) == said


@pytest.mark.parametrize("share", [0.5, 0.4507, 0.1, 0.01, 1e-3, 1e-6])
def test_no_fewer_draws_would_do(share: float) -> None:
    count = draws_for(share)
    assert anytime(count) <= share
    assert count == 1 or anytime(count - 1) > share


@pytest.mark.parametrize("bound", [1e-5, 1.99e-3, 9.999, 0.0, math.inf])
def test_a_bound_that_is_advised_is_never_above_what_holds(bound: float) -> None:
    found = rounded_down(bound)
    assert found <= bound
    assert found == bound or float(f"{found:.1e}") == found


@pytest.mark.parametrize(
    ("value", "largest", "length"),
    [
        (1.0, 1.0, _BAR),
        (1e-6, 1.0, 1),
        (0.0, 1.0, 0),
        (math.nan, 1.0, 0),
        (math.inf, 1.0, _BAR),
        (1.0, math.inf, _BAR),
        (1e-9, 1.0, 1),
    ],
)
def test_a_bar_is_as_long_as_its_decades(value: float, largest: float, length: int) -> None:
    assert _bar(value, largest) == "#" * length


def test_of_many_steps_the_worst_are_shown_in_their_order_nan_first_of_all() -> None:
    rows = [(str(step), f"{step:.3e}", "deg", "joint") for step in range(_ROWS + 2)]
    rows[1] = ("1", "nan", "deg", "joint")
    assert [row[0] for row in _spread(rows)] == ["1", *map(str, range(3, _ROWS + 2))]


def test_a_page_of_nothing_proves_nothing() -> None:
    assert _sentence(True, 0, 0) == "Nothing was compared, so nothing is proven."


@pytest.mark.parametrize("value", ["soon", -1, math.inf, math.nan, None])
def test_what_is_no_time_is_named(value: object) -> None:
    with pytest.raises(SettingsError, match=r"^budget: .* is not a time; give seconds, 0 or more$"):
        seconds(value, "budget")
