"""What fixtures establish: the bound against fifty digits, and how often it is wrong, worked out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from floors import ulps

from pytest_reflex.verdict.claim import (
    CONFIDENCE,
    Asked,
    Claim,
    anytime,
    clopper_pearson,
    draws_for,
    percent,
    sureness,
)

mpmath = pytest.importorskip("mpmath")

COUNTS = [(0, 5), (1, 5), (4, 5), (0, 299), (3, 300), (150, 300), (5, 2995), (2994, 2995), (120, 500)]


def tail(refused: int, judged: int, share: float) -> object:
    """The probability of so many refused or fewer, in fifty digits: what a Beta distribution has above."""
    return mpmath.betainc(refused + 1, judged - refused, mpmath.mpf(share), 1, regularized=True)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(("refused", "judged"), COUNTS)
def test_the_bound_is_the_beta_quantile_in_fifty_digits(refused: int, judged: int, confidence: float) -> None:
    with mpmath.workdps(50):
        low, high = mpmath.mpf(refused) / judged, mpmath.mpf(1)
        wanted = 1 - mpmath.mpf(confidence)
        for _ in range(90):
            middle = (low + high) / 2
            if tail(refused, judged, middle) > wanted:
                low = middle
            else:
                high = middle
        exact = float(high)
    got = clopper_pearson(refused, judged, confidence)
    # The logarithms that it adds have as many bits as any float, and are of the size of what is drawn.
    assert ulps(got, exact, dtype=np.float64) <= 8 + judged


def test_what_the_ways_of_choosing_are_rounded_to_moves_the_bound_by_little() -> None:
    few, many = clopper_pearson(1000, 5000), clopper_pearson(1001, 5000)
    with mpmath.workdps(50):
        for refused, got in ((1000, few), (1001, many)):
            step = 2.0**20 * np.spacing(got)
            assert tail(refused, 5000, got - step) > 1 - mpmath.mpf(0.95) > tail(refused, 5000, got + step)


def test_as_the_literature_has_it() -> None:
    assert percent(clopper_pearson(0, 5)) == "45.1 %"
    assert (draws_for(1e-2), draws_for(1e-3), draws_for(0.5), draws_for(0.999)) == (299, 2995, 5, 1)
    assert clopper_pearson(0, 0) == clopper_pearson(3, 3) == anytime(0) == 1.0
    assert clopper_pearson(0, 7) == anytime(7)


@pytest.mark.parametrize("share", [0.9, 0.3, 0.05, 1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 1 - 1e-6])
def test_no_draw_too_many_and_none_too_few(share: float, confidence: float) -> None:
    draws = draws_for(share, confidence)
    assert anytime(draws, confidence) <= share < anytime(draws - 1, confidence)


@pytest.mark.parametrize("judged", [1, 5, 29, 60])
def test_a_fixed_number_is_wrong_at_most_as_often_as_said(judged: int) -> None:
    bounds = [clopper_pearson(refused, judged) for refused in range(judged + 1)]
    assert bounds == sorted(bounds)
    for share in np.linspace(0.003, 0.997, 331):
        chance = [math.comb(judged, k) * share**k * (1 - share) ** (judged - k) for k in range(judged + 1)]
        assert (
            math.fsum(c for c, bound in zip(chance, bounds, strict=True) if bound < share) <= 1 - CONFIDENCE
        )


@pytest.mark.parametrize("share", [0.5, 0.07, 0.01, 0.0013])
def test_whoever_stops_where_he_likes_is_wrong_at_most_as_often_as_said(share: float) -> None:
    """The most that anyone can do is to look after each draw, and to stop at the best bound of all."""
    first_lie = next(n for n in range(10_000) if anytime(n) < share)
    assert (1 - share) ** first_lie <= 1 - CONFIDENCE


def test_whoever_looks_at_the_bound_of_a_fixed_number_is_wrong_more_often() -> None:
    assert _ever_below(0.2, 60) > 1 - CONFIDENCE


def _ever_below(share: float, most: int) -> float:
    """How probable it is that the fixed number's bound is below the truth after any of so many draws."""
    alive, wrong = {0: 1.0}, 0.0
    for judged in range(1, most + 1):
        after: dict[int, float] = {}
        for refused, chance in alive.items():
            after[refused] = after.get(refused, 0.0) + chance * (1 - share)
            after[refused + 1] = after.get(refused + 1, 0.0) + chance * share
        lies = [k for k in after if clopper_pearson(k, judged) < share]
        wrong += math.fsum(after.pop(k) for k in lies)
        alive = after
    return wrong


def test_a_claim_goes_on_as_if_all_had_been_judged_at_once() -> None:
    asked = Asked(0.2)
    for order in ([True] * 14, [True] * 6 + [False], [False, True, False, True], [True]):
        whole = Claim.of(order, source="drawn", distinct=0, asked=asked)
        step = Claim.of(order[:1], source="drawn", distinct=0, asked=asked)
        for passed in order[1:]:
            step = step.going_on(passed)
        assert step == whole
        assert whole.settled is (whole.reached or not all(order))
    assert Claim.of([True] * 14, source="drawn", distinct=0, asked=asked).reached
    assert not Claim.of([True] * 13, source="drawn", distinct=0, asked=asked).reached


def test_what_is_asked_for_rests_on_the_draws_before_the_first_refusal() -> None:
    passed = [True] * 20 + [False] + [True] * 30
    asked = Claim.of(passed, source="drawn", distinct=0, asked=Asked(0.01))
    unasked = Claim.of(passed, source="drawn", distinct=0)
    assert (asked.bound, unasked.bound) == (anytime(20), clopper_pearson(1, 51))
    assert "and fixture 20 fails, the first after 20 that pass" in asked.refusals[0]
    assert asked.text.endswith("(0 of the 20 before the first refusal did; in all 1 of 51 did)")
    none = Claim.of([False] * 5, source="drawn", distinct=0, asked=Asked(0.01))
    assert none.refusals == ["1 % at 95 % is asked for, and fixture 0 fails already"]
    assert unasked.refusals == []


def test_near_copies_count_once_and_a_recording_says_whose_claim_it_is() -> None:
    three = Claim.of([True] * 5, source="recorded", distinct=3)
    assert three.bound == clopper_pearson(0, 3)
    assert three.text == (
        "at most 63.2 % of the inputs that these recorded ones were taken from exceed the threshold, "
        "at 95 %, if each was picked independently of the others (0 of 5 did, of which 3 differ)"
    )
    assert Claim.of([False] * 5, source="recorded", distinct=3).bound == 1.0
    drawn = Claim.of([True] * 5, source="drawn", distinct=5)
    assert drawn.text == (
        "at most 45.1 % of inputs drawn like these exceed the threshold, at 95 % (0 of 5 did)"
    )
    asked = Claim.of([True] * 5, source="recorded", distinct=3, asked=Asked(1e-3, 0.99))
    assert asked.refusals == [
        "0.1 % at 99 % is asked for, and 3 recorded fixtures that differ establish at most 78.5 %; record "
        "4,603, or give InputSpecs to draw from"
    ]
    refused = Claim.of([True] * 58 + [False], source="recorded", distinct=59, asked=Asked(0.05))
    assert refused.refusals == [
        "5 % at 95 % is asked for, and 1 of 59 recorded fixtures fails, so that they establish at most 7.79 %"
    ]


def test_what_is_made_of_drawn_observations_was_not_recorded() -> None:
    stage = Claim.of([True] * 5, source="derived", distinct=3, asked=Asked(1e-3))
    assert stage.text == (
        "at most 45.1 % of inputs drawn like these exceed the threshold, at 95 % (0 of 5 did)"
    )
    assert stage.refusals == [
        "0.1 % at 95 % is asked for, and 5 fixtures establish at most 45.1 %; no more are drawn for a "
        "pipeline's stages, so ask for 2,995 fixtures"
    ]


def test_nothing_judged_claims_nothing() -> None:
    nothing = Claim.of([], source="drawn", distinct=0)
    assert (nothing.bound, nothing.text) == (1.0, "nothing was judged, so nothing is claimed of any input")
    assert Claim.of([False] * 3, source="drawn", distinct=3).text == (
        "nothing is claimed of other inputs (3 of 3 fail)"
    )


def test_a_confidence_never_says_more() -> None:
    assert [sureness(c) for c in (0.95, 0.999, 0.9999985)] == ["95 %", "99.9 %", "99.99985 %"]
    for confidence in (0.9999985, 0.99999899999, 2 / 3, 0.5 + 1e-12, 1 - 1e-6):
        assert float(sureness(confidence).removesuffix(" %")) <= 100 * confidence * (1 + 1e-12)
    claim = Claim.of([True] * 9, source="drawn", distinct=9, asked=Asked(0.5, 0.9999985))
    assert "at 99.99985 % (0 of 9 did)" in claim.text
    assert str(Asked(0.5, 0.9999985)) == "0.5@99.99985%"


def test_percent_never_says_less() -> None:
    rng = np.random.default_rng(0)
    for share in [1.0, 1e-3, 0.05, anytime(2995), *10 ** rng.uniform(-9, 0, 500)]:
        said = float(percent(share).removesuffix(" %")) / 100
        assert said >= share or ulps(said, share, dtype=np.float64) < 2**16
        assert said < share * 1.011
    assert (percent(anytime(2995)), percent(0.0), percent(0.99999)) == ("0.1 %", "0 %", "100 %")


@pytest.mark.parametrize(
    "numbers",
    [
        (5, 6, 0, 5),  # more count than were judged
        (5, 4, 0, 5),  # drawn, and not all count
        (5, 5, 0, 4),  # none refused, and one not clean
        (5, 5, 2, 4),
        (5, 5, -1, 5),
        (-5, -5, 0, -5),
        (10**400, 10**400, 0, 10**400),
    ],
)
def test_numbers_of_no_run_are_no_claim(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="is no claim"):
        Claim("drawn", *numbers)
    for share, confidence, budget in (
        (0.0, 0.95, None), (1.0, 0.95, None), (math.nan, 0.95, None), (0.1, 1.0, None), (0.1, 0.95, -1.0),
        (0.1, 0.4, None), (0.1, 0.95, math.inf),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="is no claim"):
            Asked(share, confidence, budget)
