"""The power gate: what a bound says of an output depends on what the output does."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from pytest_reflex.report.rejudge import rejudge
from pytest_reflex.result import ParityResult
from pytest_reflex.verdict.gates import Evidence, judge_fixture
from pytest_reflex.verdict.power import _sample, judge_power, swings_of
from pytest_reflex.verdict.results import RUN_GATE_NAMES, Answer
from pytest_reflex.verdict.rounding import Floor
from pytest_reflex.verdict.tolerances import Amount, Tolerances

RNG = np.random.default_rng(0)
NORMAL = RNG.standard_normal((4, 8))


def swing(*arrays, dtype=np.float32):
    return swings_of([{"y": np.asarray(array).astype(dtype)} for array in arrays])["y"]


@pytest.mark.parametrize(
    ("values", "like"),
    [
        (NORMAL, 1.0),
        (NORMAL * 1e6, 1e6),
        (NORMAL * 1e-6, 1e-6),
        (NORMAL * 1e-6 + 5, 1e-6),  # what float32 leaves of it
        (np.where(RNG.random(4000) < 0.01, 1.0, 0.0), 1.0),  # nearly all padding
        (np.where(np.arange(400_001) == 77, 1.0, 0.0), 1.0),  # one that no sample meets
        (np.r_[NORMAL.ravel() * 1e-6, 1e6], 1e-6),  # one outlier
        (np.c_[NORMAL * 1e-6, np.full((4, 1), 1e3)], 1e-6),  # one column of another scale
        (np.full(7, -3.0), 3.0),
        (np.zeros(7), 0.0),
        (np.r_[NORMAL.ravel(), np.nan, np.inf], 1.0),
    ],
)
def test_the_swing_is_that_of_most_values(values, like):
    assert like / 4 <= swing(values) <= 4 * like


def test_the_swing_is_taken_over_fixtures_too():
    assert swing([1.0], [2.0], [3.0]) == 1.0
    assert swing([1.0]) == 1.0
    assert swings_of([{"ids": np.arange(3), "y": np.zeros((0, 3), np.float32)}]) == {"y": 0.0}
    assert swing(NORMAL, dtype=ml_dtypes.bfloat16) > 0.1


def test_a_large_output_is_sampled_in_every_column():
    columns = np.zeros((1 << 15, 32), np.float32)
    columns[:, 5] = RNG.standard_normal(1 << 15)
    assert 0.5 < swing(columns) < 2


@pytest.mark.parametrize("size", [1, 1 << 14, (1 << 14) + 1, 10**6, 12 * 5040])
def test_a_sample_is_all_of_a_small_output_and_a_bounded_part_of_a_large_one(size):
    found = _sample(np.arange(size).reshape(1, size))
    assert found.size == size if size <= 1 << 14 else 1 << 12 < found.size <= 1 << 14
    assert np.unique(np.diff(found)).size <= 1


def judged(scale, off, threshold=1e-4, **floor):
    reference = (NORMAL * scale).astype(np.float32)
    given = (reference + np.float32(off)).astype(np.float32)
    bounds = {"y": floor["bound"]} if floor else {}
    floors = {"y": Floor(2.0, reference_max=floor["unit"], scale=scale)} if floor else {}
    evidence = Evidence({"y": reference}, {"y": given}, threshold, "", (), floors, bounds)
    return [judge_fixture(0, evidence)], swings_of([{"y": reference}])


@pytest.mark.parametrize(("scale", "doubted"), [(1.0, False), (1e6, False), (1e-3, True), (1e-6, True)])
def test_a_bound_above_a_hundredth_of_the_swing_is_doubted(scale, doubted):
    found = judge_power(*judged(scale, scale * 1e-6), 1e-4, {})
    assert found.refused == []
    assert bool(found.doubted) is doubted
    if doubted:
        assert "the bound is 1.0e-04, above 1 % of that" in found.doubted[0]


def test_what_is_equal_to_the_bit_needs_no_bound():
    assert judge_power(*judged(1e-6, 0), 1e-4, {}).doubted == []
    assert judge_power(*judged(0, 0), 1e-4, {}).doubted == []
    assert "swings by 0.0e+00" in judge_power(*judged(0, 1e-6), 1e-4, {}).doubted[0]


def test_one_fixture_that_is_equal_to_the_bit_does_not_speak_for_the_others():
    (equal,), swings = judged(1e-6, 0)
    (off,), _ = judged(1e-6, 1e-9)
    assert judge_power([equal, equal], swings, 1e-4, {}).doubted == []
    assert judge_power([equal, off], swings, 1e-4, {}).doubted
    assert judge_power([off, equal], swings, 1e-4, {}).doubted


@pytest.mark.parametrize(
    ("unit", "bound", "verdict"),
    [(1e-6, 2e-6, "yes"), (1e-2, 2e-2, "doubted"), (3.0, 1e-5, "refused"), (1e-3, 3.0, "refused")],
)
def test_a_floor_as_large_as_the_output_is_refused(unit, bound, verdict):
    asked = Tolerances(Amount(bound / unit, in_floors=True))
    found = judge_power(*judged(1.0, 1e-7, unit=unit, bound=bound), 1e-4, {}, asked)
    assert (bool(found.refused), bool(found.doubted)) == (verdict == "refused", verdict == "doubted")


@pytest.mark.parametrize(("scale", "refused"), [(1.0, False), (1e6, False), (1e-6, True), (0, True)])
def test_a_threshold_beside_rtol_that_is_as_large_as_the_output_is_refused(scale, refused):
    """Who gives rtol alone counts on the size of the values, which the default threshold does not know."""
    found = judge_power(*judged(scale, 1e-9), 1e-4, {}, Tolerances(rtol=1e-5))
    assert bool(found.refused) is refused
    if refused:
        assert "the bound is 1.0e-04, of which rtol adds " in found.refused[0]
        assert found.doubted == []
    small = Tolerances(Amount(1e-12), rtol=1e-5)
    assert judge_power(*judged(scale, 1e-9), 1e-12, {}, small).refused == [] or scale == 0


def test_each_output_is_asked_about_with_its_own_figures():
    small = (NORMAL * 1e-6).astype(np.float32)
    large = NORMAL.astype(np.float32)
    swings = swings_of([{"small": small, "large": large}])

    def asked(small_off, large_off, **bounds):
        off = {"small": small + np.float32(small_off), "large": large + np.float32(large_off)}
        evidence = Evidence({"small": small, "large": large}, off, 1e-4, "", (), {}, bounds)
        return judge_power([judge_fixture(0, evidence)], swings, 1e-4, {})

    assert asked(0, 1e-6).doubted == []
    assert [doubt.split()[0] for doubt in asked(1e-9, 0).doubted] == ["small"]
    assert asked(1e-9, 1e-6, small=1e-9).doubted == []
    assert [doubt.split()[0] for doubt in asked(1e-9, 1e-6, large=1e-9).doubted] == ["small"]


@pytest.mark.parametrize(
    ("changes", "doubted"),
    [
        ({"y": 1e-6}, True),
        ({"y": 1e-3}, False),
        ({"y": float("nan")}, False),
        ({"y": 1e-6, "ids": 0.0}, True),
        ({"y": 1e-6, "ids": 1.0}, False),  # an integer is compared exactly
        ({"y": 0.0}, False),  # a change of bits alone, such as the sign of a zero
        ({}, False),
    ],
)
def test_an_input_that_moves_nothing_by_the_bound_is_doubted(changes, doubted):
    found = judge_power(*judged(1.0, 1e-7), 1e-4, {"state": changes})
    assert bool(found.doubted) is doubted
    assert not doubted or found.doubted[0].startswith("input 'state' moves no output by more than 1.0e-06")


def test_power_is_asked_again_at_another_threshold():
    (fixture,), swings = judged(1e-4, 1e-9, 1e-4)
    fixtures = [fixture] * 3
    doubt = judge_power(fixtures, swings, 1e-4, {}).doubted
    answers = tuple(Answer.yes(gate) for gate in RUN_GATE_NAMES)
    result = ParityResult(
        "run", 1e-4, False, 0, tuple(fixtures), answers, notes=("first", *doubt),
        doubts=(Answer.no("power", doubt[0]),), swings=swings,
    )  # fmt: skip
    assert result.passed
    strict = rejudge(result, strict=True)
    assert [answer.gate for _, answer in strict.refusals] == ["power"]
    assert "the bound is 1.0e-05" in strict.refusals[0][1].said
    assert strict.notes == ("first",)
    assert rejudge(strict, strict=False, threshold=1e-4) == result
    finer = rejudge(result, strict=True, threshold=1e-7)
    assert finer.passed
    assert (finer.doubts, finer.notes) == ((), ("first",))
    assert ParityResult.from_json(strict.to_json()) == strict
