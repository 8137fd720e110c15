"""How far two ways are apart, and how two policies' successes differ: by hand, on small arrays."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from floors import ulps

from pytest_reflex.verdict.drift import Quantity, apart, drift, growth
from pytest_reflex.verdict.paired import mcnemar, paired, smallest_seen

pytestmark = pytest.mark.once

TIP = Quantity("tip", "mm", ("x", "y", "z"), whole=3)
JOINTS = Quantity("joints", "mrad", ("a", "b"), visible=5.0)


def test_a_place_is_one_whole_and_joints_are_each_their_own() -> None:
    one = np.zeros((3, 3))
    other = np.array([[0.0, 0, 0], [3, 4, 0], [0, 0, 2]])
    assert apart(one, other, TIP).tolist() == [0.0, 5.0, 2.0]
    assert apart(one[:, :2], other[:, :2], JOINTS).tolist() == [0.0, 4.0, 0.0]


def test_of_two_tips_the_further_one_counts() -> None:
    both = Quantity("tip", "mm", tuple("abcdef"), whole=3)
    other = np.array([[1.0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 6, 8]])
    assert apart(np.zeros((2, 6)), other, both).tolist() == [1.0, 10.0]


def test_what_is_said_of_a_drift() -> None:
    one = np.zeros((5, 2))
    other = np.array([[0.0, 0], [2, -1], [4, -7], [6, -3], [1, -2]])
    found = drift(one, other, JOINTS, hz=2.0)
    assert (found.largest, found.at_s, found.end) == (7.0, 1.0, 2.0)
    assert found.diverged_s == 1.0
    assert found.parts == (6.0, 7.0)
    assert found.growth is None, "two instants make no rate"


def test_what_was_never_apart_never_diverged() -> None:
    found = drift(np.ones((9, 3)), np.ones((9, 3)), TIP, hz=30.0)
    assert (found.largest, found.end, found.at_s, found.diverged_s, found.growth) == (0, 0, 0, None, None)


def test_the_rate_of_an_exponential_is_its_own() -> None:
    t = np.arange(60) / 30.0
    found = growth(1e-9 * np.exp(2.5 * t), 30.0)
    # A last place of the logarithms, of which there are sixty.
    assert ulps(found, 2.5, dtype=np.float64) < len(t)


def test_a_rate_is_of_what_is_there() -> None:
    assert growth([0.0] * 50 + [1.0] * 7, 30.0) is None
    assert growth([0.0] * 50 + [1.0] * 8, 30.0) == 0.0


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [(0, 0, 1), (1, 1, 1), (5, 0, Fraction(1, 16)), (6, 0, Fraction(1, 32)), (1, 9, Fraction(11, 512))],
)
def test_mcnemar_is_a_fair_coin(one: int, other: int, expected: Fraction | int) -> None:
    assert mcnemar(one, other) == mcnemar(other, one) == float(expected)


def test_so_many_starts_could_have_shown_so_much() -> None:
    assert smallest_seen(5) is None
    assert smallest_seen(6) == 1.0
    assert smallest_seen(20) == 6 / 20
    assert smallest_seen(100) == 6 / 100


def test_starts_are_counted_in_pairs() -> None:
    found = paired([True, True, False, False, True], [True, False, True, False, True])
    assert (found.both, found.reference_only, found.candidate_only, found.neither) == (2, 1, 1, 1)
    assert (found.reference, found.candidate, found.starts) == (0.6, 0.6, 5)
    assert not found.differ
    assert paired([True] * 8, [False] * 8).differ
    with pytest.raises(ValueError, match="shorter"):
        paired([True], [])


def test_a_nan_is_no_small_drift() -> None:
    other = np.array([[0.0, 0.0], [math.nan, 0.0]])
    assert math.isnan(drift(np.zeros((2, 2)), other, JOINTS, hz=1.0).largest)
