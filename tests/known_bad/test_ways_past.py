"""Ways past the verdict: each ends in anything but exit 0, however the wrong export tries to leave."""

from __future__ import annotations

from pathlib import Path

import pytest
from known_bad_cases import CASES

from pytest_reflex.judge.check import check

# --- a result that is asked whether it is true -----------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.verdict != "error"])
def test_fail_result__asserted_and_not_required(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    result = case.judge(lambda *sides, **options: check(*sides, strict=case.strict, **options), tmp_path)
    assert bool(result) is (case.verdict == "pass")
    assert [bool(fixture) for fixture in result.fixtures] == [fixture.passed for fixture in result.fixtures]
    if not result:
        with pytest.raises(AssertionError, match=r"^parity FAIL: "):
            result.require()


@pytest.mark.parametrize("said", ["assert {}", "if not {}: raise SystemExit(1)", "assert all([{}])"])
def test_fail_result__a_script_that_asserts_its_check(said: str, tmp_path: Path) -> None:
    case = CASES["fail_finite__nan_on_both_sides"]
    asked = said.format("case.judge(check, work)")
    with pytest.raises((AssertionError, SystemExit)):
        exec(asked, {"case": case, "check": check, "work": tmp_path})
