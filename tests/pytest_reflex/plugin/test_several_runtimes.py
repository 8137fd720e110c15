"""``runtimes`` of a parity test: one reference, each runtime a result, the worst decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from plugin_cases import Run, written
from policy_cases import Function

from pytest_reflex import settings
from pytest_reflex.errors import ParityError, ReflexError, RunnerError, SettingsError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.plugin.fixture import Parity
from pytest_reflex.verdict.matrix import REFERENCE

pytestmark = pytest.mark.once

NAMES = ("onnxruntime", "openvino", "evaluator")


class Bundle:
    """A candidate that each runtime opens, and computes off by so much there; None where it cannot."""

    inputs = (InputSpec("x", (2, 3)),)

    def __init__(self, off: Mapping[str, float | None], at: str = "") -> None:
        self.off, self.at = off, at

    def on(self, runtime: str) -> Bundle:
        return Bundle(self.off, runtime)

    def runner(self, provider: str) -> Function:
        off = self.off[self.at]
        if off is None:
            raise RunnerError(f"{self.at} has no device here; plug one in")
        return Function(lambda x: {"y": x * 2 + np.float32(off)}, self.at)

    def reference_runner(self, model: Any) -> Any:
        raise AssertionError("the reference is a runner already")


class Told:
    """A parity object, and what it has told."""

    def __init__(self, **marked: Any) -> None:
        self.passed: list[bool] = []
        self.absent: list[tuple[str, str]] = []
        marker = settings.marker(marked)
        self.parity = Parity(
            "a test",
            lambda call: settings.resolve(call, marker),
            lambda result: self.passed.append(result.passed),
            absent=lambda *said: self.absent.append(said),
        )


def twice() -> Any:
    return Function(lambda x: {"y": x * 2}, "twice")


def test_each_runtime_is_a_result_and_the_reference_is_one() -> None:
    told = Told(runtimes="ort, openvino,evaluator")
    result = told.parity.check(twice(), Bundle(dict.fromkeys(NAMES, 0.0)))
    assert [one.name for one in told.parity.results] == [f"a test [{name}]" for name in NAMES]
    assert told.passed == [True] * 3
    assert result in told.parity.results
    (made,) = told.parity.matrices
    assert (made.members, made.odd) == ((REFERENCE, *NAMES), ())
    assert "on openvino it is 0.000e+00 from onnxruntime, 0.000e+00 from evaluator. Odd one out: none" in (
        told.parity.results[1].notes
    )
    told.parity.check(twice(), Bundle(dict.fromkeys(NAMES, 0.0)), runtimes=["ort"])
    assert told.parity.results[-1].name == "a test (call 2) [onnxruntime]"


@pytest.mark.parametrize("odd", NAMES)
def test_one_that_is_wrong_fails_the_test_by_its_name(odd: str) -> None:
    told = Told(runtimes=NAMES)
    with pytest.raises(ParityError) as failed:
        told.parity.check(twice(), Bundle(dict.fromkeys(NAMES, 0.0) | {odd: 0.5}))
    lines = str(failed.value).splitlines()
    assert lines[0].startswith(f"parity FAIL: on {odd}: max_abs_diff 5.000e-01 is not below 1.0e-04")
    assert any(line.startswith(f"Odd one out: {odd}; all others are within ") for line in lines)
    assert failed.value.result.name == f"a test [{odd}]"
    assert told.passed == [name != odd for name in NAMES]


def test_one_without_a_verdict_is_an_error_beside_the_others_results() -> None:
    told, said = Told(runtimes=NAMES), "openvino has no device here; plug one in"
    with pytest.raises(ReflexError, match=f"^no verdict on openvino: {said}$"):
        told.parity.check(twice(), Bundle({"onnxruntime": 0.0, "openvino": None, "evaluator": 0.0}))
    assert told.passed == [True, True]
    assert told.absent == [("a test [openvino]", said)]
    with pytest.raises(ParityError, match=r"^parity FAIL: on evaluator: "):
        told.parity.check(twice(), Bundle({"onnxruntime": 0.0, "openvino": None, "evaluator": 0.5}))


def test_what_is_on_a_runtime_already_and_what_cannot_be_honoured_is_refused() -> None:
    parity = Told(runtimes="ort,openvino").parity
    with pytest.raises(SettingsError, match=r"^runtimes: the candidate is a Function, which is on a runtime"):
        parity.check(twice(), twice(), inputs=Bundle.inputs)
    with pytest.raises(
        SettingsError, match=r"^provider: CUDA.* and runtimes has openvino too; leave one out"
    ):
        parity.check(twice(), Bundle({}), provider="cuda")
    with pytest.raises(SettingsError, match=r"^expect_fail\(runtimes=...\): 'ort' is for parity.check; give"):
        parity.expect_fail(twice(), Bundle({}), runtimes="ort")
    with pytest.raises(RunnerError, match=r"no runtime is named 'openvno' .did you mean 'openvino'"):
        parity.check(twice(), "policy.onnx", runtimes=["ort", "openvno"], inputs=Bundle.inputs)


TESTS = """
class Bundle:
    inputs = INPUTS
    def __init__(self, at=""): self.at = at
    def on(self, runtime): return Bundle(runtime)
    def reference_runner(self, model): return model
    def runner(self, provider):
        if self.at == "evaluator":
            raise reflex.ReflexError("no evaluator here; install one")
        return off_by(0.5 if self.at == "openvino" else 0)

def test_it(parity): parity.check(TWICE, Bundle())
"""


def test_reports_have_each_runtime_and_the_one_that_reached_no_verdict(run: Run) -> None:
    found = run(TESTS, "--reflex-runtimes", "ort,openvino,evaluator", "--reflex-report", "rep")
    assert found.ret == 1
    text = found.stdout.str()
    assert "FAILED test_it.py::test_it - parity FAIL: on openvino: max_abs_diff 5.000e-01" in text
    for line in (
        "PASS        0.000e+00    1.0e-04  test_it.py::test_it [onnxruntime] (1 note)",
        "FAIL        5.000e-01    1.0e-04  test_it.py::test_it [openvino]",
        "no result: test_it.py::test_it [evaluator]: failed: no evaluator here; install one",
    ):
        assert line in found.outlines
    made = written("rep/parity.json")
    assert [entry["passed"] for entry in made["results"]] == [True, False]
    assert [test["nodeid"] for test in made["not_compared"]] == ["test_it.py::test_it [evaluator]"]
    for entry, other in zip(made["results"], ("openvino", "onnxruntime"), strict=True):
        assert any(f"it is 5.000e-01 from {other}" in note for note in entry["notes"])
    strict = run(TESTS, "-o", "reflex_runtimes=ort,evaluator", "--reflex-strict")
    assert strict.ret == 1
    assert "no verdict on evaluator: no evaluator here; install one" in strict.stdout.str()
