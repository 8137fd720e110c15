"""The gates: each refuses alone, and a result with an answer missing does not pass."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from floors import ulps

from pytest_reflex.result import ParityResult
from pytest_reflex.verdict.gates import FIXTURE_GATES, Evidence, below_threshold, judge_fixture
from pytest_reflex.verdict.metrics import difference
from pytest_reflex.verdict.results import FIXTURE_GATE_NAMES, RUN_GATE_NAMES, Answer, FixtureResult
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD

CPU = "CPUExecutionProvider"
ACTIONS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 3, 4)
IDS = np.arange(3)
GOOD = Evidence(
    reference={"actions": ACTIONS, "ids": IDS},
    candidate={"actions": ACTIONS + np.float32(1e-6), "ids": IDS},
    threshold=1e-4,
    provider_asked=CPU,
    providers_used=(CPU,),
)


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


def with_candidate(**arrays) -> Evidence:
    return replace(GOOD, candidate={**GOOD.candidate, **arrays})


def with_both(array) -> Evidence:
    return replace(GOOD, reference={"actions": array}, candidate={"actions": array.copy()})


NAN, INF = float("nan"), float("inf")
REFUSED = {
    "no output": (replace(GOOD, reference={}, candidate={}), "structure", "gave no output"),
    "missing": (replace(GOOD, candidate={"ids": IDS}), "structure", "missing 'actions'"),
    "extra": (with_candidate(more=IDS), "structure", "unexpected 'more'"),
    "reordered": (
        replace(GOOD, candidate=dict(reversed(GOOD.candidate.items()))),
        "structure",
        "reference gives actions, ids, candidate ids, actions",
    ),
    "dtype": (with_candidate(actions=ACTIONS.astype(np.float64)), "structure", "dtype is float64"),
    "would broadcast": (with_candidate(actions=ACTIONS[:, :1]), "structure", r"shape is [1, 1, 4]"),
    "empty": (with_both(ACTIONS[:0]), "structure", "holds no element"),
    "text": (with_both(np.array(["a"])), "structure", "cannot be compared as numbers"),
    "other provider": (
        replace(GOOD, providers_used=("Other", CPU)),
        "provider",
        f"ran on Other, not on {CPU}",
    ),
    "no provider": (replace(GOOD, providers_used=()), "provider", "ran on no provider"),
    "nan": (
        with_candidate(actions=changed(ACTIONS, (0, 2, 1), NAN)),
        "finite",
        "candidate actions[0, 2, 1] is nan",
    ),
    "both nan": (with_both(changed(ACTIONS, (0, 0, 0), NAN)), "finite", "is nan (1 of 12"),
    "both inf": (with_both(changed(ACTIONS, (0, 0, 0), INF)), "finite", "is inf (1 of 12"),
    "nan behind integers": (
        replace(
            GOOD,
            reference={"ids": IDS, "actions": ACTIONS},
            candidate={"ids": IDS, "actions": changed(ACTIONS, (0, 2, 1), NAN)},
        ),
        "finite",
        "candidate actions[0, 2, 1] is nan",
    ),
    "bfloat16 nan": (with_both(np.array([NAN], ml_dtypes.bfloat16)), "finite", "actions[0] is nan"),
    "integer": (with_candidate(ids=np.array([0, 1, 3])), "exact", "ids[2] is 3, reference has 2"),
    "too far": (
        with_candidate(actions=changed(ACTIONS, (0, 0, 0), -1.001)),
        "threshold",
        "max_abs_diff 1.000e-03",
    ),
}


def run(*fixtures: FixtureResult, **answers: str) -> ParityResult:
    said = {**dict.fromkeys(RUN_GATE_NAMES), **answers}
    return ParityResult("run", 1e-4, False, 0, fixtures, tuple(Answer(g, said[g]) for g in RUN_GATE_NAMES))


def test_a_good_fixture_passes_every_gate_and_has_figures():
    result = judge_fixture(3, GOOD)
    assert result.passed
    assert result.refusal is None
    assert tuple(a.gate for a in result.answers) == FIXTURE_GATE_NAMES
    assert [(o.name, o.dtype, o.shape) for o in result.outputs] == [
        ("actions", "float32", (1, 3, 4)),
        ("ids", "int64", (3,)),
    ]
    assert 0 < result.max_abs_diff < STRICT_THRESHOLD
    assert run(result).passed
    assert run(result).require() is not None


@pytest.mark.parametrize("case", REFUSED)
def test_each_gate_refuses_alone(case):
    evidence, gate, reason = REFUSED[case]
    result = judge_fixture(0, evidence)
    assert not result.passed
    assert result.refusal.gate == gate
    assert reason in result.refusal.said
    # It alone: every gate before it was satisfied, and a run of this fixture fails for nothing else.
    assert [a.passed for a in result.answers] == [True] * FIXTURE_GATE_NAMES.index(gate) + [False]
    assert run(result).refusals == ((0, result.refusal),)


def test_every_fixture_gate_has_a_case_here():
    assert {gate for _, gate, _ in REFUSED.values()} == set(FIXTURE_GATE_NAMES)


@pytest.mark.parametrize("index", list(np.ndindex(ACTIONS.shape)), ids=str)
def test_every_element_is_compared(index):
    result = judge_fixture(0, with_candidate(actions=changed(ACTIONS, index, ACTIONS[index] + 0.5)))
    assert result.refusal.gate == "threshold"
    assert result.outputs[0].difference.worst_index == index


def test_the_threshold_itself_is_no_pass():
    zero = np.zeros(1, np.float64)
    at = Evidence({"x": zero}, {"x": zero + 1e-4}, 1e-4, "", ())
    assert judge_fixture(0, at).refusal.gate == "threshold"
    assert judge_fixture(0, replace(at, threshold=np.nextafter(1e-4, 1))).passed
    assert not judge_fixture(0, replace(at, threshold=NAN)).passed


@pytest.mark.parametrize("nearer", [1e-3, NAN])
def test_the_output_that_is_furthest_above_is_named_and_the_others_are_counted(nearer):
    one = np.ones((1, 2), np.float32)
    off = {"a": 1e-2, "b": 2e-3, "c": nearer, "d": 0.0}
    differences = {name: difference(one, one + np.float32(by)) for name, by in off.items()}
    furthest = "a: max_abs_diff 1.000e-02" if nearer == nearer else "c: max_abs_diff nan"
    said = below_threshold(differences, 1e-4).said
    assert said.startswith(furthest)
    assert said.endswith("is not below 1.0e-04, and 2 more outputs")
    assert below_threshold({"d": differences["d"]}, 1e-4).passed
    # Beside what each may be off by.
    held = below_threshold(differences, 1e-4, {"a": 1.0, "b": 1e-5, "c": 1.0}).said
    assert held.startswith("c: " if nearer != nearer else "b: ")


def test_the_cosine_decides_nothing():
    chunk = np.random.default_rng(0).standard_normal((1, 50, 32)).astype(np.float32)
    result = judge_fixture(0, Evidence({"x": chunk}, {"x": chunk * np.float32(1.05)}, 1e-4, "", ()))
    assert 1 - result.cos < np.finfo(np.float32).eps
    assert result.refusal.gate == "threshold"


@pytest.mark.parametrize("gate", FIXTURE_GATE_NAMES)
def test_a_fixture_with_an_answer_missing_does_not_pass(gate):
    whole = judge_fixture(0, GOOD)
    partial = replace(whole, answers=tuple(a for a in whole.answers if a.gate != gate))
    assert not partial.passed
    assert partial.refusal == Answer(gate, f"the {gate} gate was never asked")
    assert not run(partial).passed


@pytest.mark.parametrize("gate", RUN_GATE_NAMES)
def test_a_run_with_an_answer_missing_does_not_pass(gate):
    whole = run(judge_fixture(0, GOOD))
    partial = replace(whole, answers=tuple(a for a in whole.answers if a.gate != gate))
    assert not partial.passed
    assert partial.refusals == ((None, Answer(gate, f"the {gate} gate was never asked")),)


@pytest.mark.parametrize("gate", RUN_GATE_NAMES)
def test_each_run_gate_refuses_alone(gate):
    result = run(judge_fixture(0, GOOD), **{gate: "no"})
    assert not result.passed
    assert result.refusals == ((None, Answer(gate, "no")),)


@pytest.mark.parametrize("said", ["yes", "Yes", "no"])
def test_no_text_is_a_yes(said):
    assert run(judge_fixture(0, GOOD)).passed
    assert not run(judge_fixture(0, GOOD), compared=said).passed


@pytest.mark.parametrize("said", ["", None, True])
def test_only_yes_is_yes(said):
    with pytest.raises(ValueError, match="the compared gate"):
        Answer.no("compared", said)


def test_a_run_needs_a_fixture_and_all_of_them():
    good, bad = judge_fixture(0, GOOD), judge_fixture(1, REFUSED["too far"][0])
    assert not run().passed
    assert run().refusals
    assert not run(good, bad).passed
    assert run(good, bad).worst_fixture is bad
    assert run(good, bad).refusals == ((1, bad.refusal),)


def test_the_run_figures_are_taken_over_all_fixtures():
    good, bad = judge_fixture(0, GOOD), judge_fixture(1, REFUSED["too far"][0])
    assert run(good, bad).max_abs_diff_across_all == bad.max_abs_diff
    # What was planted, but for the last bit of a float32 near 1.
    assert ulps(bad.max_abs_diff, 1e-3, scale=1) <= 1
    assert ulps(good.mean_abs_diff, 1e-6 * 12 / 15, scale=1) <= 0.5
    assert judge_fixture(0, REFUSED["missing"][0]).max_abs_diff is None


def test_a_nan_fixture_shows_a_nan_and_not_the_largest_of_the_rest():
    good, nan = judge_fixture(0, GOOD), judge_fixture(1, REFUSED["nan"][0])
    assert np.isnan(nan.max_abs_diff)
    assert np.isnan(run(good, nan).max_abs_diff_across_all)
    assert np.isnan(run(nan, good).max_abs_diff_across_all)
    assert run(nan, good).worst_fixture is run(good, nan).worst_fixture is nan


def test_a_nan_and_no_figure_are_as_bad_and_the_first_of_them_is_shown():
    nan, none = judge_fixture(0, REFUSED["nan"][0]), judge_fixture(1, REFUSED["missing"][0])
    assert run(nan, none).worst_fixture is nan
    assert run(none, nan).worst_fixture is none


def test_a_nan_output_is_the_worst_whichever_comes_first():
    nan = changed(ACTIONS, (0, 0, 0), NAN)
    for names in (("a", "b"), ("b", "a")):
        reference = dict.fromkeys(names, ACTIONS)
        result = judge_fixture(0, replace(GOOD, reference=reference, candidate={**reference, "b": nan}))
        assert result.worst.name == "b"
        assert np.isnan(result.max_abs_diff)
        assert np.isnan(result.cos)


def test_whether_an_answer_passed_is_not_read_from_what_it_says() -> None:
    no, yes = Answer.no("exact", "yes"), Answer.yes("exact")
    assert (no.passed, no.said, yes.passed, yes.said) == (False, "yes", True, "yes")
    assert no != yes


@pytest.mark.parametrize("given", [None, "yes", True, Answer.yes("structure")], ids=repr)
def test_a_gate_that_gives_no_answer_of_its_own_refuses(
    given: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates = tuple((name, (lambda e: given) if name == "exact" else gate) for name, gate in FIXTURE_GATES)
    monkeypatch.setattr("pytest_reflex.verdict.gates.FIXTURE_GATES", gates)
    x = np.zeros(3, np.float32)
    refusal = judge_fixture(0, Evidence({"x": x}, {"x": x}, 1e-4, "", ())).refusal
    assert refusal is not None
    assert refusal.gate == "exact"
    assert repr(given) in str(refusal.refusal)
