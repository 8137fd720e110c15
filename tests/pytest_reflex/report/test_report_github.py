"""What a GitHub job is told by a pytest run: its summary, and an annotation at each failing line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from plugin_cases import FAILS, PASSES, Run

pytestmark = pytest.mark.once

SOURCE = (
    PASSES
    + FAILS
    + "def test_broken(parity):\n    x = 1\n    raise KeyError('100% off')\n"
    + "@pytest.mark.parametrize('how', ['a,b:c'])\ndef test_nan(parity, how):\n"
    + "    def helper():\n        judged(parity, off_by(float('nan')))\n    helper()\n"
    + "def test_plain(): raise ValueError\n"
)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> Path:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path.parent))
    return summary


def line_of(text: str) -> int:
    """The line of the test file, from 1, on which a text stands; the file begins with its import."""
    source = ("from toys import *\n" + SOURCE).splitlines()
    return next(i for i, line in enumerate(source, 1) if text in line)


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "xdist"])
def test_failing_parity_tests_are_annotated_at_their_lines(
    run: Run,
    job: Path,
    pytester: pytest.Pytester,
    workers: tuple[str, ...],
) -> None:
    if workers:
        pytest.importorskip("xdist")
    found = run(SOURCE, *workers)
    assert found.ret == 1
    here = pytester.path.name
    commands = [line for line in found.outlines if line.startswith("::")]
    places = [
        re.match(rf"::error file={here}/test_it\.py,line=(\d+),title=([^:]*)::(.*)", c) for c in commands
    ]
    seen = {match[2]: (int(match[1]), match[3]) for match in places if match}
    assert len(seen) == len(commands) == 3
    line, message = seen["test_it.py%3A%3Atest_bad"]
    assert line == line_of("judged(parity, off_by(0.5))")
    assert message.startswith(
        "parity FAIL: max_abs_diff 5.000e-01 is not below 1.0e-05 (5 of 5 fixtures fail"
    )
    assert seen["test_it.py%3A%3Atest_broken"] == (line_of("KeyError"), "KeyError: '100%25 off'")
    assert seen["test_it.py%3A%3Atest_nan[a%2Cb%3Ac]"][0] == line_of("off_by(float('nan'))")
    text = job.read_text(encoding="utf-8")
    assert text.startswith("## ❌ parity FAIL\n")
    assert "3 compared, 2 failing, 1 without a result." in text


def test_what_is_found_out_of_a_fail_is_annotated_too(run: Run, job: Path) -> None:
    """What the floor says, as would where the two sides part: both stand below the first line everywhere."""
    found = run(FAILS, "--reflex-floor")
    (said,) = [line for line in found.outlines if line.startswith("::error")]
    assert re.search(r"::parity FAIL: max_abs_diff \S+ is not below .*%0AFloor: (bug|undecided)", said)


def test_nobody_is_told_where_no_github_is(
    run: Run,
    job: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS")
    found = run(FAILS)
    assert "::error" not in found.stdout.str()
    assert not job.exists()


def test_a_job_without_parity_tests_gets_no_summary(run: Run, job: Path) -> None:
    assert run("def test_plain(): pass\n").ret == 0
    assert not job.exists()
