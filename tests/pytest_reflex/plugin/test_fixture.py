"""The ``parity`` fixture's object by itself: what it asks, records and raises."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from policy_cases import Function

from pytest_reflex import settings
from pytest_reflex.errors import ParityError, SettingsError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.plugin.fixture import Parity
from pytest_reflex.plugin.hooks import _last_line, _short
from pytest_reflex.plugin.outcome import _reason
from pytest_reflex.runners import RecordedRunner

INPUTS = [InputSpec("x", (2, 3))]
TWICE = Function(lambda x: {"y": x * 2}, "twice")


class Bundle:
    """A candidate that knows its inputs, and where it goes wrong."""

    inputs = INPUTS

    def __init__(self, off: float) -> None:
        self.off, self.looked = off, 0

    def runner(self, provider: str) -> Function:
        return Function(lambda x: {"y": x * 2 + np.float32(self.off)}, "bundle")

    def reference_runner(self, model: Any) -> Any:
        raise AssertionError("the reference is a runner already")

    def locate(self, reference: Any, **how: Any) -> Any:
        self.looked += 1


class Kept:
    """What a parity object has told."""

    def __init__(self, **given: Any) -> None:
        self.records: list[tuple[bool, dict[str, str]]] = []
        self.running = 0
        self.parity = Parity(
            "test_it.py::test_x", settings.resolve, self.record, during=self.during(), **given
        )

    @contextmanager
    def during(self) -> Any:
        self.running += 1
        yield
        self.running -= 1

    def record(self, result: Any, **said: str) -> None:
        assert self.running == 1, "it is recorded while something is compared"
        self.records.append((result.passed, said))


def test_a_pass_is_recorded_and_returned_and_a_fail_is_recorded_and_raised() -> None:
    kept = Kept()
    result = kept.parity.check(TWICE, Bundle(0))
    assert (result.passed, result.name, kept.records) == (True, "test_it.py::test_x", [(True, {})])
    kept = Kept(suffix=" (attempt 2)")
    bad = Bundle(0.5)
    with pytest.raises(ParityError) as failed:
        kept.parity.check(TWICE, bad, name="policy.onnx")
    assert kept.records == [(False, {})]
    assert failed.value.result is kept.parity.results[0]
    assert failed.value.result.name == "policy.onnx (attempt 2)"
    assert bad.looked == 1, "a fail is looked into"


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("tests/parity/test_arm.py::test_reach", "test_reach-"),
        ("test_arm.py::TestArm::test_what_the_robot_runs[0.5-x]", "test_what_the_ro-"),
        ("a result of a notebook", "a-result-of-a-no-"),
    ],
)
def test_a_stored_input_is_called_as_its_test_begins(name: str, starts: str) -> None:
    short = _short(name)
    assert short[:-6] == starts
    assert _short(f"{name} ") != short


@pytest.mark.parametrize(("simplest", "found"), [(None, True), (0, False)])
def test_a_fail_shrinks_to_the_simplest_input_and_stores_it(
    simplest: float | None, found: bool, tmp_path: Path
) -> None:
    """Where every input fails, the simplest is at rest."""
    asked = settings.Source("--reflex-{flag}", {"simplest": simplest})
    place = tmp_path / "simplest" / "one.safetensors"
    parity = Parity(
        "a test", lambda call: settings.resolve(asked, call), lambda result: "", store=lambda name: place
    )
    with pytest.raises(ParityError) as failed:
        parity.check(TWICE, Bundle(0.5))
    result = failed.value.result
    said = f"as fixture {result.worst_fixture.fixture_idx} does, stored in {place}: every input at rest (x)"
    assert any(note.endswith(said) for note in result.notes) is found
    assert place.is_file() is found
    if found:
        assert not RecordedRunner(place).recorded()[0]["x"].any()
        assert "the simplest input found" in str(failed.value)


@pytest.mark.parametrize("gate", [None, "threshold"])
def test_an_expected_fail_is_returned_and_not_looked_into(gate: str | None) -> None:
    kept, bad = Kept(), Bundle(0.5)
    result = kept.parity.expect_fail(TWICE, bad, gate=gate)
    assert not result.passed
    assert kept.parity.results == [result]
    ((passed, said),) = kept.records
    assert (passed, list(said)) == (False, ["expected"])
    wanted = "a fail" if gate is None else "a fail by the threshold gate"
    assert said["expected"].startswith(f"test_it.py::test_x: {wanted} was expected, and the verdict is: ")
    assert bad.looked == 0


@pytest.mark.parametrize(("off", "gate"), [(0, None), (0, "threshold"), (0.5, "exact"), (0.5, "inputs")])
def test_another_verdict_than_the_expected_one_is_recorded_and_raised(off: float, gate: str | None) -> None:
    kept = Kept()
    with pytest.raises(ParityError, match=r"^parity FAIL: a fail.* was expected, and the verdict is: "):
        kept.parity.expect_fail(TWICE, Bundle(off), gate=gate)
    ((passed, said),) = kept.records
    assert (passed, list(said)) == (off == 0, ["unmet"])


def test_a_gate_that_there_is_not_is_said_before_anything_runs() -> None:
    kept = Kept()
    with pytest.raises(SettingsError, match=r"'treshold' is no gate; give one of structure, .*, claim$"):
        kept.parity.expect_fail(TWICE, Bundle(0.5), gate="treshold")
    assert (kept.records, kept.parity.results, kept.running) == ([], [], 0)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("boom"), "boom"),
        ("first\n  last  \n\nassert False\n", "last"),
        ("'Traceback\nValueError: boom\nassert x' \n", "ValueError: boom"),
        ("assert x", "'assert x'"),
        ("", "''"),
    ],
)
def test_an_error_says_in_the_end_what_it_says(error: object, said: str) -> None:
    assert _last_line(error) == said


@pytest.mark.parametrize(
    ("longrepr", "said"),
    [
        (("test_it.py", 3, "Skipped: no GPU here"), "no GPU here"),
        (("test_it.py", 3, ""), "no reason given"),
        ("worker 'gw0' crashed\nwhile running", "worker 'gw0' crashed"),
        ("", "no reason given"),
        (SimpleNamespace(reprcrash=SimpleNamespace(message="KeyError: 'x'\nmore")), "KeyError: 'x'"),
    ],
)
def test_a_report_s_reason_is_one_line_whoever_made_it(longrepr: object, said: str) -> None:
    report: Any = SimpleNamespace(longrepr=longrepr)
    assert _reason(report) == said
    assert _reason(SimpleNamespace(longrepr=longrepr, wasxfail="known")) == "xfail: known"
    assert _reason(SimpleNamespace(longrepr=longrepr, wasxfail="")) == "xfail: no reason given"
