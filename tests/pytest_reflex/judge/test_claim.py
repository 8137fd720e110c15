"""Drawing on for a claim: until it is reached, until the first fixture that is refused, until time is up."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policy_cases import SPECS, Function, Policy, candidate, honest, only_refusal, unmasked

from pytest_reflex.errors import SettingsError
from pytest_reflex.inputs import InputSpec, Integers, Uniform, make_fixture
from pytest_reflex.inputs.ranges import CORNERS, corners
from pytest_reflex.judge import claim as drawing
from pytest_reflex.judge.check import check
from pytest_reflex.report.rejudge import rejudge
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import RecordedRunner, save_recording
from pytest_reflex.verdict.claim import Asked, Claim
from pytest_reflex.verdict.results import FIXTURE_GATE_NAMES, Answer, FixtureResult

pytestmark = pytest.mark.once


def nearly(x, mask):
    """Off by rounding, and nowhere as much as in fixture 17."""
    moved = honest(x, mask)["actions"]
    seventeenth = np.array_equal(x, make_fixture(SPECS, 0, 17)["x"])
    return {"actions": moved + np.float32(8e-6 if seventeenth else 1e-6)}


def wrong_in(*fixture_idxs):
    found = [make_fixture(SPECS, 0, idx)["x"].tobytes() for idx in fixture_idxs]

    def run(x, mask):
        off = np.float32(1) if x.tobytes() in found else np.float32(0)
        return {"actions": honest(x, mask)["actions"] + off}

    return run


def judged(function=honest, **options) -> ParityResult:
    return check(Function(honest, "reference", kind="torch"), Function(function), inputs=SPECS, **options)


def test_it_draws_as_many_as_it_needs_and_keeps_few() -> None:
    result = judged(nearly, claim="10%@95%")
    assert result.passed
    claim = result.claim
    assert (claim.judged, claim.refused, claim.stopped) == (29, 0, "")
    assert claim.text.startswith("at most 9.82 % of inputs drawn like these exceed the threshold, at 95 %")
    assert result.count == 29 + CORNERS
    kept = [f.fixture_idx for f in result.fixtures]
    assert kept[:5] == [0, 1, 2, 3, 4]
    assert 17 in kept
    assert kept[-CORNERS:] == corners(SPECS)
    assert len(kept) + result.left_out == 29 + CORNERS
    assert result.left_out > 15
    assert all(f.inputs for f in result.fixtures)
    assert ParityResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_what_is_kept_says_what_all_would() -> None:
    few, all_of_them = judged(nearly, claim=0.1, rtol=1e-7), judged(nearly, fixtures=29, rtol=1e-7)
    assert few.left_out
    assert not all_of_them.left_out
    for said in ("max_abs_diff_across_all", "least", "threshold", "doubts", "margin"):
        assert getattr(few, said) == getattr(all_of_them, said)
    assert few.nearest[0].fixture_idx == all_of_them.nearest[0].fixture_idx == 17
    assert few.answers == all_of_them.answers
    grids = [(f.fixture_idx, o.grid) for f in few.fixtures for o in f.outputs if o.grid is not None]
    assert grids == [(f.fixture_idx, o.grid) for f in all_of_them.fixtures for o in f.outputs if o.grid]


def test_floors_are_measured_in_every_draw() -> None:
    result = check(Policy(), candidate(), inputs=SPECS, claim="30%", threshold="2x floor")
    assert result.count == 9 + CORNERS
    assert result.passed
    assert all(o.floor is not None for f in result.fixtures for o in f.outputs)
    assert result.word == "rounding"


@pytest.mark.parametrize("wrong", [(5,), (12,), (28,), (12, 13, 20)])
def test_the_first_that_is_refused_ends_it(wrong: tuple[int, ...]) -> None:
    result = judged(wrong_in(*wrong), claim="10%@95%")
    assert not result.passed
    (idx, threshold), (run, own) = result.refusals
    assert (idx, threshold.gate, run, own.gate) == (wrong[0], "threshold", None, "claim")
    assert (result.claim.judged, result.claim.clean, result.claim.refused) == (wrong[0] + 1, wrong[0], 1)
    assert f"1 of {wrong[0] + 1} drawn + {CORNERS} corners fails" in str(result)


def straying(after: int):
    """Off by rounding from so many runs on, as what keeps a count may be."""
    runs = 0

    def run(x, mask):
        nonlocal runs
        runs += 1
        return {"actions": honest(x, mask)["actions"] + np.float32(1e-6 if runs > after else 0)}

    return run


@pytest.mark.parametrize("gate", ["reference", "repeat"])
@pytest.mark.parametrize("after", [20, 29])
def test_a_side_that_strays_once_it_ran_often_is_refused(gate: str, after: int) -> None:
    sides = {"reference": honest, "repeat": honest} | {gate: straying(after)}
    told = {"inputs": SPECS, "claim": "10%@95%"}
    result = check(Function(sides["reference"], "reference", kind="torch"), Function(sides["repeat"]), **told)
    assert all(result.fixtures)
    assert only_refusal(result, gate).startswith(
        "fixture 0 run again behind others gave other bits: actions[0, 0] was "
    )


def test_one_that_is_refused_among_the_first_needs_no_more() -> None:
    result = judged(wrong_in(3), claim="10%@95%")
    assert (result.count, [gate.gate for _, gate in result.refusals]) == (5, ["threshold", "claim"])


def test_the_budget_refuses_and_says_what_was_reached() -> None:
    said = only_refusal(judged(claim="1e-3@95%", claim_budget=0), "claim")
    assert re.fullmatch(
        r"0\.1 % at 95 % is asked for; 5 of 2,995 fixtures were judged when the budget of 0 s ended, which "
        r"establish at most 45\.1 %; at this rate it takes some [0-9.,]+ s; give more with claim_budget",
        said,
    )
    own = judged(claim=Asked(1e-3, budget=0))
    assert own.claim.stopped == "budget"
    assert "give it more time (claim_budget=, --claim-budget" in str(own)
    assert judged(claim="50%", claim_budget=0).passed  # the first five are enough
    some = judged(claim="1e-9@95%", claim_budget=2)
    assert only_refusal(some, "claim")
    assert some.claim.judged > 5


def test_what_fails_anyway_draws_no_more() -> None:
    result = judged(unmasked, claim="10%", threshold=100.0)
    assert [answer.gate for _, answer in result.refusals] == ["inputs", "claim"]
    assert result.count == 5
    assert result.refusals[1][1].said.endswith("no more are drawn where another gate refuses")


def test_recorded_fixtures_establish_what_they_do_and_no_more(tmp_path: Path) -> None:
    given = [make_fixture(SPECS, 0, idx) for idx in (0, 0, 1, 2, 0)]
    plain = check(Policy(), candidate(), inputs=given)
    assert (plain.claim.source, plain.claim.judged, plain.claim.counted) == ("recorded", 5, 3)
    assert plain.passed
    said = only_refusal(check(Policy(), candidate(), inputs=given, claim="1%"), "claim")
    assert said.startswith(
        "1 % at 95 % is asked for, and 3 recorded fixtures that differ establish at most 63.2 %"
    )
    given = [make_fixture(SPECS, 0, idx) for idx in range(6)]
    save_recording(tmp_path / "r.safetensors", [(one, honest(**one)) for one in given], ["x", "mask"])
    recorded = check(RecordedRunner(tmp_path / "r.safetensors"), candidate(), claim="40%@95%")
    assert recorded.passed
    assert (recorded.count, recorded.claim.counted, recorded.left_out) == (6, 6, 0)


@pytest.mark.parametrize("end", [False, True])
def test_a_corner_makes_no_claim_and_can_refuse_one(end: bool) -> None:
    """No draw has a mask of one kind alone, for it is of eight; a corner has."""

    def wrong_at_the_end(x, mask):
        right = honest(x, mask)
        return {"actions": right["actions"] + 1} if (mask == end).all() else right

    result = judged(wrong_at_the_end, claim="40%@95%")
    corner = corners(SPECS)[end]
    assert make_fixture(SPECS, 0, corner)["mask"].tolist() == [[end] * 8]
    refused = [(idx, answer.gate) for idx, answer in result.refusals]
    text, page = str(result), result._repr_html_()
    assert f"corner {int(end)}" in text
    assert f"corner {int(end)}" in page
    assert f" of 5 drawn + {CORNERS} corners fail" in text
    assert str(corner) not in text
    assert "Would pass with" not in text  # the claim refuses too
    assert (corner, "threshold") in refused
    assert (result.claim.judged, result.claim.refused, result.claim.stopped) == (5, 0, "unfit")
    assert ParityResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    # Who asks for no claim has no corners judged.
    assert judged(wrong_at_the_end).passed


def test_an_output_that_is_zero_throughout_a_corner_is_held_to_no_floor() -> None:
    """Nothing is rounded where the mask is false; what is not equal there is refused all the same."""
    given = [make_fixture(SPECS, 0, idx) for idx in (0, 1, 2, corners(SPECS)[0])]
    options = {"inputs": given, "threshold": "2x floor"}
    assert check(Policy(), candidate(), **options).passed
    off = check(Policy(), candidate(masked=False), **options)
    assert (3, "threshold") in [(idx, answer.gate) for idx, answer in off.refusals]


def test_a_policy_of_noise_alone_has_no_corners() -> None:
    noise = [InputSpec("x", (1, 8)), InputSpec("mask", (1, 8))]
    assert corners(noise) == []


def test_both_sides_are_never_open_at_once() -> None:
    reference, tested = Function(honest, "reference", kind="torch"), Function(honest)
    seen = []
    for side, other in ((reference, tested), (tested, reference)):
        opened = side.open

        def watched(opened=opened, other=other):
            seen.append(other.opened)
            opened()

        side.open = watched
    assert check(reference, tested, inputs=SPECS, claim="5%").passed
    assert len(seen) > 4
    assert set(seen) == {0}
    assert (reference.opened, tested.opened) == (0, 0)


def test_the_result_does_not_hang_on_how_draws_were_put_into_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for fewest, most in ((8, 256), (2, 3), (40, 1)):
        monkeypatch.setattr(drawing, "FEWEST", fewest)
        monkeypatch.setattr("pytest_reflex.judge.rounds.MOST", most)
        made.append(json.dumps([judged(f, claim="10%").to_json() for f in (nearly, wrong_in(11))]))
    assert len(set(made)) == 1


def test_draws_reach_sizes_and_categories_of_their_own() -> None:
    specs = [
        InputSpec("x", (2, 3), free=("batch", None)),
        InputSpec("arm", (1,), "int64", Integers(0, 20)),
    ]

    def scaled(x, arm):
        return {"actions": x * (1 + arm[0]).astype(np.float32)}

    def sides():
        return Function(scaled, "reference", kind="torch"), Function(scaled)

    few = check(*sides(), inputs=specs)
    assert [doubt.gate for doubt in few.doubts] == ["variation"]
    assert check(*sides(), inputs=specs, claim="10%", strict=True).passed


def test_memory_does_not_grow_with_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_reflex.judge.rounds.MOST", 16)
    specs = [InputSpec("x", (1, 1024))]

    def doubled(x):
        return {"actions": 2 * x + np.float32(1e-6)}

    def peak(claim: str) -> int:
        tracemalloc.start()
        try:
            sides = Function(lambda x: {"actions": 2 * x}, "reference", kind="torch"), Function(doubled)
            assert check(*sides, inputs=specs, claim=claim).passed
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak("20%")  # what is imported and cached once
    # 45 draws have a whole round; 222 are five times as many.
    assert peak("1.35%") < 2 * peak("6.5%")


def test_other_tolerances_need_what_was_not_kept() -> None:
    result = judged(nearly, claim="10%@95%")
    assert rejudge(result) == result
    with pytest.raises(SettingsError, match="were drawn for a claim and are not kept one by one"):
        rejudge(result, threshold=1e-7)
    whole = judged(nearly, claim="50%@95%")
    tighter = rejudge(whole, threshold=1e-9)
    fresh = judged(nearly, claim="50%@95%", threshold=1e-9)
    assert [answer.gate for _, answer in fresh.refusals] == ["threshold"] * 5 + ["claim"]
    # Which had its corners judged, for nothing had refused it yet.
    assert tighter.fixtures == (*fresh.fixtures, *tighter.fixtures[5:])
    assert (tighter.drawn, tighter.claim, tighter.answers) == (fresh.drawn, fresh.claim, fresh.answers)


# --- rounds, on a clock of their own ---------------------------------------------------------------------


class Clock:
    """A clock that a fixture takes so many seconds of; rounds are written down."""

    def __init__(self, each: float) -> None:
        self.each, self.time = each, 0.0
        self.rounds: list[range] = []

    def judge(self, idxs: range, until: float) -> Generator[FixtureResult, None, None]:
        self.rounds.append(idxs)
        for idx in idxs:
            if self.time >= until:
                return
            self.time += self.each
            yield FixtureResult(idx, tuple(Answer.yes(gate) for gate in FIXTURE_GATE_NAMES))

    def draw_on(self, asked: Asked, *, guessed: float, until: float, most: int = 256) -> Claim:
        first = Claim.of([True] * 5, source="drawn", distinct=5, asked=asked)
        worst = drawing.Worst(0.0, 1.0)
        return drawing.draw_on(
            first, self.judge, worst, each=guessed, most=most, until=until, now=lambda: self.time
        )


def test_rounds_grow_to_what_is_left() -> None:
    clock = Clock(1.0)
    claim = clock.draw_on(Asked(1e-2), guessed=1.0, until=float("inf"), most=64)
    assert claim.reached
    assert [len(one) for one in clock.rounds] == [8, 16, 32, 64, 64, 64, 46]
    assert clock.rounds[-1].stop == claim.judged == 299


@pytest.mark.parametrize("guessed", [0.01, 1.0, 50.0])
def test_a_round_fits_into_the_time_that_is_left(guessed: float) -> None:
    clock = Clock(1.0)
    claim = clock.draw_on(Asked(1e-3), guessed=guessed, until=100.0)
    assert claim.stopped == "budget"
    assert clock.time == 100.0
    assert claim.judged == 105


def test_a_guess_of_more_than_the_budget_draws_nothing() -> None:
    clock = Clock(1.0)
    assert clock.draw_on(Asked(1e-3), guessed=200.0, until=100.0).stopped == "budget"
    assert clock.rounds == []


def test_a_module_and_a_graph_draw_on() -> None:
    assert check(Policy(), candidate(), inputs=SPECS, claim="5%", strict=True).count == 59 + CORNERS


@pytest.mark.parametrize("count", [1, 2, 3])
def test_corners_of_whole_inputs_come_each_before_one_comes_again(count: int) -> None:
    """Of two inputs all four are among the first eight corners; of three as many as there is room for."""
    specs = [InputSpec(f"x{place}", (1, 2), meaning=Uniform(-1, 1)) for place in range(count)]
    for seed in range(20):
        made = [make_fixture(specs, seed, idx) for idx in (*corners(specs)[:2], *corners(specs)[2::2])]
        assert all(np.ptp(array) == 0 for one in made for array in one.values())
        seen = {tuple(float(array[0, 0]) for array in one.values()) for one in made}
        assert len(seen) == min(2**count, len(made))


def test_a_fault_at_one_choice_of_two_inputs_is_found() -> None:
    specs = [InputSpec(name, (1, 3), meaning=Uniform(-1, 1)) for name in ("state", "aux")]

    def right(state: Any, aux: Any) -> dict[str, Any]:
        return {"actions": state + aux}

    def wrong(state: Any, aux: Any) -> dict[str, Any]:
        return {"actions": state + aux + ((state == -1).all() & (aux == 1).all())}

    for seed in range(4):
        found = check(Function(right), Function(wrong), inputs=specs, claim="10%", seed=seed)
        assert not found.passed
