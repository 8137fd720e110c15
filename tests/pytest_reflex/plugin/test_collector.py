"""What a session found, by itself: who has said what, and who has not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_reflex.plugin.collector import Collector, Told


def collector(*, strict: bool = False, **told: Any) -> Collector:
    found = Collector(strict=strict, json=None, report=None)
    found.hear(Told(**told))
    return found


def report(nodeid: str, when: str, outcome: str = "passed") -> Any:
    return SimpleNamespace(nodeid=nodeid, when=when, failed=outcome == "failed")


def test_what_a_process_says_at_its_end_is_kept_once() -> None:
    found = collector(problems=["worker gw0 went down", "a fail was swallowed"])
    found.hear(Told(problems=["a fail was swallowed"]))
    assert found.problems == ["worker gw0 went down", "a fail was swallowed"]
    assert not found.empty
    assert collector().empty


def test_a_fail_that_no_report_said_is_a_problem_and_one_that_was_said_is_none() -> None:
    found = collector(fails={"a.py::test_a": "it is off", "a.py::test_b": "it is off"})
    found.saw(report("a.py::test_b", "call", "failed"))
    found.close()
    assert found.problems == ["a.py::test_a: no report said its fail: it is off"]


@pytest.mark.parametrize("strict", [False, True])
def test_a_parity_test_that_did_not_come_to_its_end_is_missed(strict: bool) -> None:
    found = collector(strict=strict, collected=[f"a.py::test_{name}" for name in "abcdefg"])
    found.saw(report("a.py::test_a", "call"))
    found.saw(report("a.py::test_b", "teardown"))
    found.saw(report("a.py::test_c", "setup", "failed"))
    found.close()
    said = "of the parity tests that were collected, 5 did not come to an end"
    (problem,) = found.run().problems
    missing = f"{said}: a.py::test_a, a.py::test_d, a.py::test_e and 2 more"
    # Under strict a session without a result says that, which is enough.
    assert problem == missing if not strict else problem.startswith("no parity result in this session")


def test_a_worker_that_never_said_what_it_collected_is_missed() -> None:
    found = collector()
    found.workers |= {"gw1", "gw0"}
    found.close()
    assert found.run().problems == ("nobody knows what was collected by gw0, gw1",)
    found = collector()
    found.close()
    assert found.run().problems == ()
