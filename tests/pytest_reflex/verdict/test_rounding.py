"""Rounding, bug or undecided: the words at their edges, and thresholds in units of the floor."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pytest_reflex import InputSpec, RecordedRunner, TorchRunner, check, settings
from pytest_reflex.errors import SettingsError
from pytest_reflex.inputs import Gaussian
from pytest_reflex.report.json import document, schema
from pytest_reflex.report.json.results import result_from_json, result_to_json
from pytest_reflex.report.rejudge import rejudge
from pytest_reflex.report.text.rounding import floor_cells
from pytest_reflex.report.text.terminal import result_text
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import save_recording
from pytest_reflex.verdict.metrics import PIECE
from pytest_reflex.verdict.rounding import (
    ABSOLUTE_ULPS,
    CHANCE,
    FACTOR,
    FEW_VALUES,
    Floor,
    floors_of,
    rounding_of,
    worst_word,
)
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD, Amount, Tolerances

INPUTS = [InputSpec("x", (4, 64), "float32", Gaussian())]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.LayerNorm(128), nn.Linear(128, 64))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.layers(x)}


class Other(Net):
    """The same sums in another order, and then ``off``."""

    off = 0.0

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        first, gelu, norm, last = self.layers
        halves = [x[:, i::2] @ first.weight[:, i::2].T for i in (0, 1)]
        made = norm(gelu(halves[0] + halves[1] + first.bias)) @ last.weight.T + last.bias
        made[0, 0] += self.off
        return {"y": made}


def compared(off: float = 0.0, **given: Any) -> ParityResult:
    other = Other()
    other.off = off
    return check(TorchRunner(Net()), TorchRunner(other), inputs=INPUTS, **given)


def test_nobody_asked() -> None:
    result = compared()
    assert result.passed
    assert result.word is None
    assert all(o.floor is None for f in result.fixtures for o in f.outputs)
    assert "Floor" not in result_text(result)


def test_another_order_of_sums_is_rounding() -> None:
    result = compared(floor=True)
    assert result.word == "rounding"
    floors = [o.floor for f in result.fixtures for o in f.outputs]
    assert all(floor is not None and 0.3 < (floor.rms_ratio or 0) < 3 for floor in floors)
    assert result_text(result).splitlines()[1].startswith("Floor: rounding: ")


def test_a_small_error_is_a_bug_though_the_threshold_lets_it_pass() -> None:
    result = compared(off=3e-5, floor=True)
    assert result.passed, "the word is no gate"
    assert result.word == "bug"
    assert [f.word for f in result.fixtures] == ["bug"] * 5
    text = result_text(result)
    floor = text.splitlines()[1]
    assert floor.startswith("Floor: bug: ")
    assert floor.endswith("; the threshold is wider than that: '2x floor' is not")
    assert "Distance from float64" in text


def test_a_factor_of_ones_own() -> None:
    result = compared(off=3e-5, floor=1000)
    assert result.word == "rounding"
    for bad in (0.5, math.nan, math.inf, "much", -1):
        with pytest.raises(SettingsError):
            compared(floor=bad)


def test_a_recording_has_no_truth(tmp_path: Path) -> None:
    pairs = []
    with TorchRunner(Net()) as runner:
        for idx in range(2):
            x = np.random.default_rng(idx).standard_normal((4, 64)).astype(np.float32)
            pairs.append(({"x": x}, runner.run({"x": x})))
    save_recording(tmp_path / "r.safetensors", pairs, live_inputs=["x"])
    recorded = RecordedRunner(tmp_path / "r.safetensors")
    result = check(recorded, TorchRunner(Other()), floor=True)
    assert result.passed
    assert result.word == "undecided"
    assert "has no float64 run" in result_text(result).splitlines()[1]
    assert check(recorded, TorchRunner(Other()), threshold="2x floor").passed is False


def test_a_threshold_in_floors() -> None:
    passing = compared(threshold="3x floor")
    assert passing.passed
    assert passing.asked == Tolerances(Amount(3, in_floors=True))
    assert passing.word == "rounding"
    bounds = [o.bound for f in passing.fixtures for o in f.outputs]
    units = [o.floor.unit for f in passing.fixtures for o in f.outputs if o.floor]
    assert bounds == [3 * (unit or 0) for unit in units]
    assert passing.threshold == max(bounds)
    assert "3x floor, at most " in result_text(passing)

    failing = compared(off=3e-5, threshold="3x floor")
    assert not failing.passed
    assert {f.refusal.gate for f in failing.fixtures if f.refusal} == {"threshold"}
    # A large model may ask for more than strict allows; strict's promise holds all the same.
    strict = compared(off=3e-5, threshold="1000x floor", strict=True)
    assert strict.threshold <= STRICT_THRESHOLD
    assert not strict.passed
    assert compared(off=3e-5, threshold="1000x floor").passed


@pytest.mark.parametrize(
    "value", ["2x", "x floor", "0x floor", "-1x floor", "nanx floor", "2 floor", "2x roof"]
)
def test_no_such_threshold(value: str) -> None:
    with pytest.raises(SettingsError, match="is not a threshold"):
        settings.threshold(value)


def test_it_survives_json_and_is_judged_again() -> None:
    for result in (
        compared(floor=True),
        compared(threshold="3x floor"),
        compared(off=3e-5, threshold="3x floor"),
    ):
        again = result_from_json(json.loads(json.dumps(result_to_json(result), allow_nan=False)))
        assert again == result
        jsonschema.validate(document([again]), schema())
    result = compared(off=3e-5, threshold="3x floor")
    assert not rejudge(result).passed, "its own bounds hold where no other is asked for"
    assert rejudge(result, threshold=1e-4).passed
    assert rejudge(result, threshold=1e-4).asked == Tolerances(Amount(1e-4))
    assert not rejudge(rejudge(result, threshold=1e-4), threshold=1e-6).passed
    for threshold in ("2x floor", "1000x floor"):
        fresh = compared(off=3e-5, threshold=threshold)
        assert rejudge(result, threshold=threshold).to_json() == fresh.to_json()
    with pytest.raises(SettingsError, match="was run without a floor; run it again with floor"):
        rejudge(compared(), threshold="2x floor")


def floor_with(
    candidate: float, *, reference: float = 1e-6, values: int = 10_000, scale: float = 1.0
) -> Floor:
    return Floor(2.0, values, scale, reference, reference, reference, reference, candidate, candidate)


def test_the_words_at_their_edges() -> None:
    edge = max(2e-6, floor_with(0).absolute)
    assert floor_with(edge).word == "rounding"
    assert floor_with(math.nextafter(edge, 1)).word == "bug"
    assert floor_with(math.nan).word == "bug"
    assert floor_with(math.inf).word == "bug"
    assert floor_with(0.0, reference=0.0).word == "rounding"
    few = floor_with(3 * edge, values=FEW_VALUES - 1)
    assert few.word == "undecided"
    assert "too few to tell" in few.reason
    assert few.reason.endswith("from chance; judge more fixtures, such as 30")
    assert floor_with(3 * edge, values=FEW_VALUES).word == "bug"
    assert floor_with(1.01 * CHANCE * edge, values=1).word == "bug"
    assert replace(floor_with(edge), candidate_max=None).word == "undecided"
    assert worst_word([]) is None
    assert worst_word(["rounding", "bug", "undecided"]) == "bug"
    assert worst_word(["rounding", "undecided"]) == "undecided"


def test_the_numbers_are_those_that_the_documentation_names() -> None:
    assert (FACTOR, ABSOLUTE_ULPS, FEW_VALUES, CHANCE) == (2.0, 16, 128, 10.0)


def test_a_unit_is_the_largest_of_the_fixture_the_run_and_what_is_always_allowed() -> None:
    floor = floor_with(0)
    assert replace(floor, reference_max=3.0, run_max=2.0).unit == 3.0
    assert replace(floor, reference_max=2.0, run_max=3.0).unit == 3.0
    assert replace(floor, reference_max=2.0, run_max=None).unit == 2.0
    assert replace(floor, reference_max=0.0, run_max=0.0).unit == floor.absolute > 0
    # Of an output that is zero there is no last place.
    for scale in (0.0, None):
        assert replace(floor, scale=scale).absolute == 0


@given(st.floats(2.0**-140, 2.0**100, width=32))
def test_what_is_always_allowed_is_so_many_units_in_the_last_place(scale: float) -> None:
    expected = ABSOLUTE_ULPS * float(np.spacing(np.float32(scale)))
    assert floor_with(0, scale=scale).absolute == expected


def test_the_run_lends_a_lucky_fixture_its_rounding() -> None:
    truth = np.zeros((2, 100))
    truth[:, 0] = 1.0
    lucky, plain = truth[0].astype(np.float32), (truth[1] + 4e-6).astype(np.float32)
    rounding = rounding_of([{"y": truth[0]}, {"y": truth[1]}], [{"y": lucky}, {"y": plain}])
    candidate = (truth[0] + 5e-6).astype(np.float32)
    assert floors_of({"y": truth[0]}, {"y": lucky}, {"y": candidate}, rounding)["y"].word == "rounding"
    alone = rounding_of([{"y": truth[0]}], [{"y": lucky}])
    assert floors_of({"y": truth[0]}, {"y": lucky}, {"y": candidate}, alone)["y"].word == "undecided"


def test_no_truth_is_undecided_and_says_why() -> None:
    y = {"y": np.ones(3, np.float32), "n": np.ones(3, np.int64)}
    cases: list[tuple[Any, str]] = [
        ("it does not run", "it does not run"),
        ({}, "gives no output 'y'"),
        ({"y": np.ones(4)}, "[4] in float64 and [3] in float32"),
        ({"y": np.array([1, np.nan, 1])}, "is not finite"),
    ]
    for truth, said in cases:
        floors = floors_of(truth, y, y, {})
        assert list(floors) == ["y"], "integers are exact, and have a gate of their own"
        assert floors["y"].word == "undecided"
        assert said in floors["y"].reason
        assert floors["y"].unit is None


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_what_has_to_be_equal_has_no_floor(dtype: str) -> None:
    y = {"y": np.ones(3, np.float32), "n": np.ones(3, dtype)}
    truth = {name: array.astype(np.float64) for name, array in y.items()}
    assert list(floors_of(truth, y, y, {})) == ["y"]
    assert list(rounding_of([truth], [y])) == ["y"]


@pytest.mark.parametrize(
    ("reference", "truth"),
    [
        (np.ones(3, np.int64), np.ones(3)),
        (np.ones(3, np.uint8), np.ones(3)),
        (np.ones(3, np.bool_), np.ones(3)),
        (np.ones(0, np.float32), np.ones(0)),
        (np.ones(3, np.float32), np.ones(4)),
        (np.ones(3, np.float32), np.zeros(3)),
        (np.ones(3, np.float32), np.array([1, np.nan, 1])),
        (np.ones(3, np.float32), None),
    ],
)
def test_an_output_without_a_rounding_takes_it_from_no_other(
    reference: np.ndarray, truth: np.ndarray | None
) -> None:
    y, exact = np.float32([1.0, 2.0]), np.array([1.0, 2.0 + 2e-7])
    given = {} if truth is None else {"first": truth}
    (name, found), *others = rounding_of([{**given, "y": exact}], [{"first": reference, "y": y}]).items()
    assert (name, others) == ("y", [])
    assert (found.values, found.max) == (2, abs(2.0 - exact[1]) / exact[1])
    assert "y" in floors_of(
        {**given, "y": exact}, {"first": reference, "y": y}, {"first": reference, "y": y}, {}
    )


def test_a_root_mean_square_is_of_all_elements_and_of_any_size() -> None:
    for scale in (1.0, 1e-200, 1e200):
        truth = np.zeros(2 * PIECE)
        side = truth.copy()
        side[[0, -1]] = 3.0 * scale, 4.0 * scale
        truth[5] = 10 * scale
        side[5] = truth[5]
        floor = floors_of({"y": truth}, {"y": side}, {"y": truth}, {})["y"]
        expected = 5.0 * scale / math.sqrt(truth.size)
        assert (floor.scale, floor.reference_max) == (10 * scale, 4 * scale)
        assert floor.reference_rms == pytest.approx(expected, rel=4 * np.finfo(float).eps)
        assert (floor.candidate_max, floor.candidate_rms) == (0.0, 0.0)


def test_a_ratio_has_no_more_digits_than_the_figures_that_it_is_of() -> None:
    shown = {1.7: "1.70", 41.494: "41.5", 221.6: "222", 1234.5: "1.2e+03", 1.46e9: "1.5e+09"}
    for ratio, text in shown.items():
        floor = Floor(2.0, 1000, 1.0, 1e-6, 1e-7, 1e-6, 1e-7, 1e-6 * ratio, 1e-7 * ratio)
        cells = floor_cells(0, floor)
        assert (cells[4], cells[5]) == (text, text)
        assert cells[3] == "2.000e-06", "what is allowed as rounding stands beside it"


@pytest.mark.parametrize("which", ["max", "rms"])
def test_a_ratio_needs_both_sides(which: str) -> None:
    def ratio(candidate: float | None, reference: float | None) -> float | None:
        floor = replace(floor_with(0), **{f"candidate_{which}": candidate, f"reference_{which}": reference})
        return floor.ratio if which == "max" else floor.rms_ratio

    assert ratio(3.0, 2.0) == 1.5
    assert ratio(None, 2.0) is ratio(3.0, None) is ratio(None, None) is None
    # PyTorch hit the truth: so did the candidate, or it is as far beyond as can be.
    assert (ratio(0.0, 0.0), ratio(3.0, 0.0)) == (1.0, math.inf)


def test_what_was_not_measured_is_nothing_and_no_zero() -> None:
    figures = (
        "scale",
        "reference_max",
        "reference_rms",
        "run_max",
        "run_rms",
        "candidate_max",
        "candidate_rms",
    )
    held = {"precision": "float32", "unsure": ""}
    assert vars(Floor(3.0)) == {"factor": 3.0, "values": 0, **dict.fromkeys(figures), "unknown": "", **held}


def test_beside_an_exact_zero_nothing_but_zero_is_rounding() -> None:
    assert floor_with(0.0, reference=0.0, values=1, scale=0.0).word == "rounding"
    assert floor_with(1e-30, reference=0.0, values=1, scale=0.0).word == "bug"
