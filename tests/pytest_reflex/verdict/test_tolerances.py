"""Thresholds for each output, rtol, what would pass, and stored results judged again with any of them."""

from __future__ import annotations

import ast
import functools
import itertools
import json
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pytest_reflex import InputSpec, ParityResult, TorchRunner, check, settings
from pytest_reflex.errors import SettingsError
from pytest_reflex.inputs import Gaussian
from pytest_reflex.report import json as as_json
from pytest_reflex.report.rejudge import rejudge
from pytest_reflex.verdict.metrics import difference
from pytest_reflex.verdict.tolerances import Amount, Tolerances

pytestmark = pytest.mark.once

INPUTS = [InputSpec("x", (4, 64), "float32", Gaussian())]


class Net(nn.Module):
    """Two outputs, one of them ``scale`` times as large, whose sums are taken in another order on demand."""

    def __init__(self, scale: float = 1.0, *, other: bool = False, off: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(64, 32)
        self.scale, self.other, self.off = scale, other, off

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        weight = self.layer.weight
        halves = [x[:, i::2] @ weight[:, i::2].T for i in (0, 1)]
        made = halves[0] + halves[1] + self.layer.bias if self.other else self.layer(x)
        made = made * torch.where(torch.arange(32) == 3, 1.0 + self.off, 1.0)
        return {"actions": made * self.scale, "logits": made * 3}


def judged(scale: float = 1.0, off: float = 0.0, **options: Any) -> ParityResult:
    return _judged(scale, off, repr(options))


@functools.cache
def _judged(scale: float, off: float, said: str) -> ParityResult:
    options = ast.literal_eval(said)
    return check(
        TorchRunner(Net(scale)),
        TorchRunner(Net(scale, other=True, off=off)),
        inputs=INPUTS,
        fixtures=3,
        **options,
    )


# --- the frontier --------------------------------------------------------------------------------------

sizes = st.lists(
    st.tuples(st.floats(-1e3, 1e3, width=32), st.floats(-1.0, 1.0, width=32)), min_size=1, max_size=60
)


@given(sizes, st.sampled_from([0.0, 1e-7, 1e-3, 0.1, 0.9]))
def test_a_few_pairs_decide_for_every_rtol(values: list[tuple[float, float]], rtol: float) -> None:
    reference = np.array([r for r, _ in values], np.float32)
    candidate = (reference + np.array([d for _, d in values], np.float32)).astype(np.float32)
    found = difference(reference, candidate)
    apart = np.abs(candidate.astype(np.float64) - reference)
    size = np.abs(reference.astype(np.float64))
    expected = max(0.0, float((apart - rtol * size).max()))
    assert found.excess(rtol) == pytest.approx(expected, rel=1e-12, abs=1e-15)
    for atol in (1e-3, 0.1):
        least = found.least_rtol(atol)
        beyond = apart >= atol
        if least is None:
            assert (size[beyond] == 0).any()
        else:
            assert (apart[beyond] <= (atol + least * size[beyond]) * (1 + 1e-12)).all()
            assert not beyond.any() or least > 0 or float(apart[beyond].max()) == atol


@given(sizes, st.sampled_from([1e-7, 1e-3, 0.9]), st.sampled_from([1e-6, 1e-2]))
def test_the_element_that_is_nearest_to_its_bound_is_in_the_frontier(
    values: list[tuple[float, float]], rtol: float, atol: float
) -> None:
    reference = np.array([r for r, _ in values], np.float32)
    candidate = (reference + np.array([d for _, d in values], np.float32)).astype(np.float32)
    apart, bound = difference(reference, candidate).nearest(atol, rtol)
    every = np.abs(candidate.astype(np.float64) - reference)
    shares = every / (atol + rtol * np.abs(reference.astype(np.float64)))
    assert apart / bound == pytest.approx(float(shares.max()), rel=1e-12, abs=1e-15)


def test_the_frontier_of_a_large_output_is_small_and_right() -> None:
    rng = np.random.default_rng(0)
    reference = rng.standard_normal(300_000).astype(np.float32)
    candidate = (reference + 1e-5 * rng.standard_normal(300_000) * np.abs(reference)).astype(np.float32)
    found = difference(reference, candidate)
    assert 1 < len(found.frontier) < 100
    apart = np.abs(candidate.astype(np.float64) - reference)
    for rtol in (1e-6, 1e-5, 4e-5):
        expected = float((apart - rtol * np.abs(reference.astype(np.float64))).max())
        assert found.excess(rtol) == pytest.approx(max(expected, 0.0), rel=1e-9, abs=1e-18)


def test_what_is_not_finite_has_no_frontier_and_passes_nothing() -> None:
    found = difference(np.ones(3, np.float32), np.array([1, np.nan, 1], np.float32))
    assert found.frontier == ()
    assert not found.excess(0.5) < 1e30
    assert found.least_rtol(1.0) is None


# --- scales --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e6, 1.0, 1e-6])
@pytest.mark.parametrize(
    "options",
    [{"threshold": "4x floor"}, {"threshold": {"actions": "4x floor", "logits": 1e-4}}, {"rtol": 3e-5}],
)
def test_right_outputs_of_any_scale_pass_and_wrong_ones_fail(scale: float, options: dict[str, Any]) -> None:
    if "rtol" in options:
        options = {**options, "threshold": {"actions": 1e-6 * scale, "logits": 1e-5}}
    assert judged(scale, **options).passed, str(judged(scale, **options))
    wrong = judged(scale, off=1e-3, **options)
    assert {answer.gate for _, answer in wrong.refusals} == {"threshold"}


def test_a_number_alone_cannot_say_it() -> None:
    assert not judged(1e6, threshold=1e-4).passed
    assert judged(1e-6, off=1e-3, threshold={"actions": 1e-4, "logits": 1.0}).passed


# --- what is asked -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "rest", "outputs"),
    [
        ("actions=1e-5", None, {"actions": Amount(1e-5)}),
        ("actions=1e-5, logits=3x floor", None, {"actions": Amount(1e-5), "logits": Amount(3, True)}),
        (
            "actions = 1e-5\nlogits = 3x floor\n1e-3",
            Amount(1e-3),
            {"actions": Amount(1e-5), "logits": Amount(3, True)},
        ),
        (["actions=1e-5", "2x floor", "actions=1e-6"], Amount(2, True), {"actions": Amount(1e-6)}),
        (["1e-5", "1e-6"], Amount(1e-6), {}),
        ("1e-5, a=1", Amount(1e-5), {"a": Amount(1.0)}),
        ({"a=b": 1e-5}, None, {"a=b": Amount(1e-5)}),
        ("a=b=1e-5", None, {"a=b": Amount(1e-5)}),
    ],
)
def test_thresholds_by_name(value: Any, rest: Amount | None, outputs: dict[str, Amount]) -> None:
    assert settings.threshold(value) == Tolerances(rest or settings.UNSAID, outputs)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {1: 1e-5},
        {"": 1e-5},
        {"a": 0},
        {"a": "5 deg and"},
        {"a": "0 deg"},
        "1 deg and 2 rad",
        "1 deg and 2e-4",
        {"a": "2x floors"},
        {"a": True},
        "a=",
        "a=nan",
        "a=1,a=2",
        ["a=0"],
        [1e-5],
    ],
)
def test_no_such_thresholds(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"^--threshold: "):
        settings.threshold(value, "--threshold")


@pytest.mark.parametrize("value", [-1e-6, 1, "nan", "1 %", True, None, float("inf")])
def test_no_such_rtol(value: Any) -> None:
    with pytest.raises(SettingsError, match="is no share of a value; give a number from 0 to below 1"):
        settings.rtol(value)


def test_each_output_has_its_own_and_the_rest_the_default() -> None:
    found = judged(threshold={"logits": 1e-9})
    (said, *_) = [answer.said for _, answer in found.refusals]
    assert said.startswith("logits: max_abs_diff ")
    assert {o.name: o.bound for o in found.fixtures[0].outputs} == {"actions": None, "logits": 1e-9}
    assert found.asked == Tolerances(outputs={"logits": Amount(1e-9)})
    assert found.threshold == 1e-4
    first = str(found).splitlines()[0]
    assert "is not below 1.0e-09" in first
    assert "logits" in first


def test_what_one_result_was_asked_for_can_be_asked_of_another() -> None:
    first = judged(threshold={"actions": 1e-3, "logits": 1e-2}, rtol=1e-6)
    again = check(
        TorchRunner(Net()), TorchRunner(Net(other=True)), inputs=INPUTS, fixtures=3, threshold=first.asked
    )
    assert again.asked == first.asked
    assert rejudge(judged(threshold=1e-9), threshold=first.asked).asked == first.asked


def test_a_frame_has_the_threshold_of_each_output() -> None:
    pytest.importorskip("pandas")
    from pytest_reflex.report.frame import frame

    rows = frame([judged(threshold={"logits": 1.0})])
    assert dict(zip(rows["output"], rows["threshold"], strict=True)) == {"actions": 1e-4, "logits": 1.0}


@pytest.mark.parametrize("name", ["action", "x"])
def test_an_output_that_is_not_there_has_no_threshold(name: str) -> None:
    with pytest.raises(
        SettingsError, match=f"there is no output '{name}'; the reference gives actions, logits"
    ):
        judged(threshold={name: 1e-5})


def test_strict_lowers_every_threshold_and_doubts_a_large_rtol() -> None:
    strict = judged(threshold={"actions": 1e-3, "logits": "1000x floor"}, strict=True)
    assert {o.bound for f in strict.fixtures for o in f.outputs} == {1e-5}
    assert strict.threshold == 1e-5
    for rtol, doubted in ((1e-6, False), (0.05, True)):
        found = judged(threshold=1e-5, rtol=rtol, strict=True)
        assert ("power" in {answer.gate for _, answer in found.refusals}) is doubted
        plain = judged(threshold=1e-5, rtol=rtol)
        assert plain.passed
        assert any("give an rtol of " in note for note in plain.notes) is doubted


def test_the_rtol_that_power_advises_is_not_doubted() -> None:
    (doubt, *_) = [d.said for d in judged(rtol=0.05).doubts if d.said.startswith("actions")]
    advised = float(doubt.rpartition("an rtol of ")[2].partition(" ")[0]) * 0.9
    assert not any("rtol" in d.said for d in judged(threshold=1e-9, rtol=advised).doubts)


# --- the least that would pass -------------------------------------------------------------------------


def test_what_would_pass_passes_just_above_and_not_at_it() -> None:
    found = judged(off=1e-3, threshold=1e-6, floor=True)
    assert not found.passed
    assert "Would pass with" in str(found)
    for least in found.least:
        others = {n.name: 1.0 for n in found.least if n.name != least.name}
        assert least.rtol is not None
        assert least.floors is not None
        for way in ("atol", "floors", "rtol"):
            for share, passes in ((1 + 1e-9, True), (1 - 1e-9, False)):
                number = getattr(least, way) * share
                if way == "rtol":
                    again = judged(off=1e-3, threshold={least.name: 1e-6, **others}, rtol=number)
                else:
                    own = f"{number!r}x floor" if way == "floors" else number
                    again = judged(off=1e-3, threshold={least.name: own, **others})
                refused = {answer.gate for _, answer in again.refusals}
                assert ("threshold" not in refused) is passes, (least, way, share)


def test_a_bound_is_said_once_and_of_the_outputs_that_there_are() -> None:
    """The first line and the summary, of what was asked."""
    said = {
        # All outputs have one, so that there are no others.
        "actions=1e-3, logits=1e-2": ("; asked: actions 0.001, logits 0.01)", "actions 0.001, logits 0.01"),
        "actions=1e-3": ("; asked: actions 0.001, others 0.0001)", "actions 0.001, others 0.0001"),
        # The same for each of them is one for all.
        "actions=1e-3, logits=1e-3": ("(3 fixtures)", "1.0e-03"),
        "actions=1000x floor, logits=1000x floor": ("; asked: 1000x floor)", "1000x floor, at most "),
    }
    for threshold, (first, below) in said.items():
        text = str(judged(threshold=threshold))
        assert first in text.splitlines()[0]
        (line,) = (line for line in text.splitlines() if line.startswith("  threshold  "))
        assert line.removeprefix("  threshold").strip().startswith(below), line
        assert ("at most" in line) is below.endswith("at most ")
    assert " + 1e-06 of the value (3 fixtures; nearest: " in str(judged(threshold=1e-4, rtol=1e-6))
    assert "rtol" not in str(judged(threshold=1e-4, rtol=1e-6)).splitlines()[0]
    # What strict lowers is not what was asked for.
    assert "logits 0.01, at most 1.0e-05 (strict)" in str(
        judged(threshold="actions=1e-3, logits=1e-2", strict=True)
    )


def test_an_output_that_passes_with_any_threshold_is_said_to() -> None:
    lines = str(judged(rtol=4e-3)).splitlines()
    assert "  actions: with any threshold beside its rtol" in lines
    assert not any("above threshold 0.000e+00" in line for line in lines)


# --- judged again --------------------------------------------------------------------------------------

ASKED: list[dict[str, Any]] = [
    {"threshold": 1e-4},
    {"threshold": 1e-9},
    {"threshold": "2x floor"},
    {"threshold": "actions=1e-7, logits=3x floor, 1e-4"},
    {"threshold": "actions=1x floor, 1e-3"},
]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("before", range(len(ASKED)))
def test_every_combination_judged_again_is_a_fresh_run(before: int, strict: bool) -> None:
    stored = judged(off=1e-5, floor=True, strict=strict, **ASKED[before])
    document = as_json.document([stored])
    jsonschema.validate(document, as_json.schema())
    read = ParityResult.from_json(json.loads(as_json.dumps(stored.to_json())))
    assert read == stored
    for asked, rtol in itertools.product(ASKED, (0.0, 1e-5)):
        fresh = judged(off=1e-5, floor=True, strict=strict, rtol=rtol, **asked)
        jsonschema.validate(as_json.document([fresh]), as_json.schema())
        assert rejudge(read, rtol=rtol, **asked).to_json() == fresh.to_json()


def test_what_is_not_named_stays_as_it_was() -> None:
    stored = judged(threshold={"actions": 1e-3, "logits": 1e-2}, rtol=1e-6)
    assert rejudge(stored).to_json() == stored.to_json()
    again = rejudge(stored, threshold={"logits": 1e-5})
    assert again.asked.outputs == {"actions": Amount(1e-3), "logits": Amount(1e-5)}
    assert again.asked.rtol == 1e-6
    with pytest.raises(SettingsError, match="has no output 'ids' of floats; it has actions, logits"):
        rejudge(stored, threshold="ids=1e-3")
