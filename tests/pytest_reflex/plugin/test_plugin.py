"""The plugin as its user meets it: options, marker, fixture, what is printed, written and exited with."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from floors import ulps
from plugin_cases import FAILS, PASSES, Run, written

pytestmark = pytest.mark.once

NO_THRESHOLD = "is not a threshold; give a finite number above 0, such as 1e-5, or 2x floor, or 0.01 deg"


def lines_of(found: pytest.RunResult, first: str, count: int) -> list[str]:
    at = found.outlines.index(first)
    return found.outlines[at : at + count]


# What is printed


def test_a_pass(run: Run) -> None:
    found = run(PASSES)
    assert found.ret == 0
    assert lines_of(
        found, "================================ reflex: parity ================================", 3
    ) == [
        "================================ reflex: parity ================================",
        "verdict  max_abs_diff  threshold  name",
        "PASS        0.000e+00    1.0e-04  test_it.py::test_good",
    ]


def test_a_failure_ends_at_the_callers_line_and_begins_with_the_verdict(run: Run) -> None:
    found = run(FAILS)
    assert found.ret == 1
    at = found.outlines.index(">       judged(parity, off_by(0.5))")
    assert found.outlines[at + 1].strip() == ""
    shown = found.outlines[at + 1 :]
    e_lines = [line for line in shown if line.startswith("E ")]
    assert e_lines[0].startswith(
        "E       parity FAIL: max_abs_diff 5.000e-01 is not below 1.0e-05 (5 of 5 fixtures fail;"
    )
    assert all(len(line) <= 80 for line in e_lines[1:])
    assert "E       Candidate: toy OffBy0.5" in e_lines
    assert e_lines[-1] == "E         pytest test_it.py::test_bad --reflex-report parity_reports"
    text = found.stdout.str()
    assert "toys.py:26: ParityError" in text
    # No frame of the library is shown.
    assert "session.py" not in text
    assert "check.py" not in text
    assert "FAILED test_it.py::test_bad - parity FAIL: max_abs_diff 5.000e-01 is not belo..." in text
    assert "FAIL        5.000e-01    1.0e-05  test_it.py::test_bad" in text


def test_no_verdict_is_an_error_in_one_line_without_library_frames(run: Run) -> None:
    found = run("def test_x(parity): judged(parity, threshold=-1)\n")
    assert found.ret == 1
    text = found.stdout.str()
    message = f"parity.check(threshold=...): -1 {NO_THRESHOLD}"
    assert f"E       pytest_reflex.errors.SettingsError: {message}" in text
    assert "settings.py" not in text
    assert (
        f"no result: test_it.py::test_x: failed: pytest_reflex.errors.SettingsError: {message}"
        in found.outlines
    )


def test_what_went_wrong_in_a_policy_is_told_from_its_own_line_on(run: Run) -> None:
    """Of what stands between the test and the policy no frame is shown, unless all are asked for."""
    source = (
        "import torch\n\n"
        "class Narrow(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x[:, :2])\n\n"
        "def test_t(parity):\n"
        "    parity.check(Narrow(3, 2), off_by(0), inputs=INPUTS)\n"
    )
    result = run(source)
    said = result.stdout.str()
    assert "super().forward(x[:, :2])" in said
    assert "mat1 and mat2 shapes cannot be multiplied" in said
    assert "runners/torch.py" not in said
    assert "runners/torch.py" in run(source, "--full-trace").stdout.str()
    # What did not get as far as the policy's own code is told in one line.
    said = run(source.replace("self, x)", "self, x, mask)")).stdout.str()
    assert "E       pytest_reflex.errors.RunnerError: Narrow takes x, mask, and is given x: no 'mask'" in said
    assert "direct cause" not in said


def test_an_error_that_causes_itself_or_has_lost_its_trace_is_shown_whole(run: Run) -> None:
    source = (
        "import torch\n\n"
        "class Loops(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        try: raise ValueError('round and round')\n"
        "        except ValueError as error: raise error from error\n\n"
        "class Wraps(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        from pytest_reflex.errors import RunnerError\n"
        "        try: raise ValueError('at the bottom')\n"
        "        except ValueError as error:\n"
        "            wrapped = TypeError('between')\n"
        "            wrapped.__cause__ = error\n"
        "            raise RunnerError('above') from wrapped\n\n"
        "def test_loops(parity): parity.check(Loops(3, 2), off_by(0), inputs=INPUTS)\n"
        "def test_wraps(parity): parity.check(Wraps(3, 2), off_by(0), inputs=INPUTS)\n"
    )
    said = run(source).stdout.str()
    assert "round and round" in said
    assert "raise ValueError('at the bottom')" in said


def test_what_a_policy_was_given_when_it_failed_is_told_with_its_dtype(run: Run) -> None:
    source = (
        "import torch\n\n"
        "def test_t(parity):\n"
        "    given = [{'x': np.ones((2, 3))}]\n"
        "    parity.check(torch.nn.Linear(3, 2), off_by(0), inputs=given)\n"
    )
    assert "Linear failed on inputs x [2, 3] float64: RuntimeError" in run(source).stdout.str()


def test_several_calls_and_their_names(run: Run) -> None:
    found = run(
        "def test_two(parity):\n"
        "    judged(parity); judged(parity); judged(parity, name='policy.onnx')\n"
        "    assert len(parity.results) == 3\n"
    )
    assert found.ret == 0
    assert lines_of(found, "verdict  max_abs_diff  threshold  name", 4)[1:] == [
        "PASS        0.000e+00    1.0e-04  test_it.py::test_two",
        "PASS        0.000e+00    1.0e-04  test_it.py::test_two (call 2)",
        "PASS        0.000e+00    1.0e-04  test_it.py::test_two (policy.onnx)",
    ]


def test_the_notes_of_a_pass_are_counted_and_told_where_they_are(run: Run) -> None:
    doubted = (
        "def test_doubted(parity):\n"
        "    parity.check(TWICE, off_by(0), inputs=[*INPUTS, InputSpec('unread', (1,))])\n"
    )
    row = "PASS        0.000e+00    1.0e-04  test_it.py::test_doubted (1 doubt)"
    found = run(doubted)
    assert lines_of(found, row, 2)[1] == (
        "notes: --reflex-report DIR keeps them; -v or -rA prints them here"
    )  # fmt: skip
    for more in ("-v", "-rA"):
        found = run(doubted, more, "--reflex-report", "out")
        at = found.outlines.index(row)
        assert found.outlines[at + 1].startswith("  doubt: input 'unread' changes neither side")
        assert "\nnotes:" not in found.stdout.str()
    found = run(doubted, "--reflex-report", "out")
    assert lines_of(found, row, 2)[1] == "notes: in the report; -v or -rA prints them here"


def test_quiet_and_without_a_terminal(run: Run) -> None:
    assert "PASS        0.000e+00    1.0e-04  test_it.py::test_good" in run(PASSES, "-q").outlines
    found = run(PASSES + FAILS, "-p", "no:terminal", "--reflex-json", "out.json")
    assert found.ret == 1
    assert [entry["passed"] for entry in written("out.json")["results"]] == [False, True]


def test_a_session_without_parity_tests_says_nothing(run: Run) -> None:
    found = run("def test_plain(): pass\n")
    assert found.ret == 0
    assert "reflex: parity" not in found.stdout.str()


def test_many_passing_results_are_counted(run: Run) -> None:
    found = run(
        "@pytest.mark.parametrize('i', range(53))\ndef test_i(parity, i): judged(parity, fixtures=1)\n"
    )
    assert "... 3 more PASS" in found.outlines


# Settings


def seen(run: Run, source: str, *args: str, **files: str) -> tuple[float, int, int]:
    found = run(source, *args, "--reflex-json", "out.json", **files)
    assert found.ret == 0, found.stdout.str()
    entry = written("out.json")["results"][0]
    return entry["threshold"], len(entry["fixtures"]), entry["seed"]


MARKED = "@reflex.parity(threshold=1e-3, fixtures=3, seed=3)\ndef test_x(parity): judged(parity{})\n"


def test_command_line_beats_call_beats_marker_beats_ini_beats_default(
    run: Run, pytester: pytest.Pytester
) -> None:
    assert seen(run, PASSES) == (1e-4, 5, 0)
    pytester.makeini("[pytest]\nreflex_threshold = 1e-6\nreflex_fixtures = 6\nreflex_seed = 6\n")
    assert seen(run, PASSES) == (1e-6, 6, 6)
    assert seen(run, MARKED.format("")) == (1e-3, 3, 3)
    assert seen(run, MARKED.format(", threshold=1e-2, seed=0")) == (1e-2, 3, 0)
    assert seen(
        run, MARKED.format(", threshold=1e-2, fixtures=2"), "--reflex-threshold=0.5", "--reflex-seed=0"
    ) == (
        0.5,
        2,
        0,
    )


def test_the_closest_marker_wins_keyword_by_keyword(run: Run) -> None:
    source = (
        "pytestmark = reflex.parity(threshold=1e-3, fixtures=3)\n"
        "@reflex.parity(seed=8)\n"
        "class TestIt:\n"
        "    @reflex.parity(threshold=1e-2)\n"
        "    def test_x(self, parity): judged(parity)\n"
    )
    assert seen(run, source) == (1e-2, 3, 8)


def test_toml_takes_numbers(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml(
        "[tool.pytest.ini_options]\nreflex_threshold = 1e-6\nreflex_fixtures = 4\nreflex_strict = true\n"
    )
    assert seen(run, PASSES) == (1e-6, 4, 0)


@pytest.mark.skipif(
    pytest.version_tuple < (9, 2), reason="an ini value has no union of types before pytest 9.2"
)
def test_native_toml_takes_numbers(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml(
        "[tool.pytest]\nreflex_threshold = 1e-6\nreflex_fixtures = 4\nreflex_strict = true\n"
        "reflex_seed = '4'\n"
    )
    assert seen(run, PASSES) == (1e-6, 4, 4)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["--reflex-threshold=abc"],
            f"--reflex-threshold: 'abc' {NO_THRESHOLD}",
        ),
        (
            ["--reflex-fixtures=0"],
            "--reflex-fixtures: '0' is not a number of fixtures; give a whole number, 1 or more",
        ),
        (["--reflex-seed=-1"], "--reflex-seed: '-1' is not a seed; give a whole number, 0 or more"),
        (
            ["--reflex-provider=gpu"],
            "--reflex-provider: 'gpu' is not an execution provider; give one of cpu, cuda, tensorrt, rocm, "
            "migraphx, openvino, coreml, dml, qnn "
            "(or ONNX Runtime's full name, such as CPUExecutionProvider)",
        ),
        (["--reflex-json="], "--reflex-json: '' is not a path; give the path to write to"),
        (["--reflex-json=."], "--reflex-json: '.' is a directory; give a file"),
        (["--reflex-report=toys.py"], "--reflex-report: 'toys.py' is a file; give a directory"),
        (
            ["-o", "reflex_strict=perhaps"],
            "reflex_strict (ini file): 'perhaps' is neither yes nor no; give true or false",
        ),
        (
            ["-o", "reflex_threshold=0"],
            f"reflex_threshold (ini file): 0.0 {NO_THRESHOLD}",
        ),
        (
            ["-o", "reflex_fixtures=2.5"],
            "reflex_fixtures (ini file): '2.5' is not a number of fixtures; give a whole number, 1 or more",
        ),
    ],
)
def test_a_bad_value_is_a_usage_error(run: Run, args: list[str], said: str) -> None:
    found = run(PASSES, *args)
    assert found.ret == 4
    assert f"ERROR: {said}" in found.errlines


KEYWORDS = (
    "the keywords are threshold, units, rtol, fixtures, seed, claim, claim_budget, coverage, provider, "
    "floor, rounding, infinities, trajectory, runtimes"
)
BAD_MARKERS = {
    "treshold=1": f"unknown keyword 'treshold' (did you mean 'threshold'?); {KEYWORDS}",
    "atol=1, qqq=2": f"unknown keywords 'atol' (did you mean 'threshold'?), 'qqq'; {KEYWORDS}",
    "1e-5": f"1e-05 has no keyword; write threshold=1e-05; {KEYWORDS}",
    "fixtures=0": "fixtures: 0 is not a number of fixtures; give a whole number, 1 or more",
}


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "xdist"])
@pytest.mark.parametrize("by", ["pytest.mark", "reflex"])
def test_a_bad_marker_fails_its_test_and_no_other_and_all_are_told_of(
    run: Run, by: str, workers: tuple[str, ...]
) -> None:
    source = "".join(
        f"@{by}.parity({mark})\ndef test_{idx}(parity): judged(parity)\n"
        for idx, mark in enumerate(BAD_MARKERS)
    )
    found = run(source + PASSES, *workers)
    assert found.ret == 1
    assert found.parseoutcomes() == {"errors": len(BAD_MARKERS), "passed": 1}
    for idx, said in enumerate(BAD_MARKERS.values()):
        told = f"parity marker on test_it.py::test_{idx}: {said}"
        assert told in found.outlines
        assert f"no result: test_it.py::test_{idx}: failed: {told}" in found.outlines
    assert not any("During handling" in line for line in found.outlines)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["--reflex-treshold", "1"],
            "option '--reflex-treshold' (did you mean '--reflex-threshold'?); there are",
        ),
        (["--reflex-atol=1e-5"], "option '--reflex-atol' (did you mean '--reflex-threshold'?); there are"),
        (
            ["-o", "reflex_treshold=1"],
            "ini value 'reflex_treshold' (did you mean 'reflex_threshold'?); there are",
        ),
    ],
)
def test_a_name_that_is_none_is_a_usage_error(run: Run, args: list[str], said: str) -> None:
    found = run(PASSES, *args)
    assert found.ret == 4
    assert any(line.startswith(f"ERROR: unknown {said} ") for line in found.errlines), found.errlines


def test_every_flag_is_known(run: Run) -> None:
    assert run(PASSES, "--reflex-no-trajectory", "--reflex-threshold=1e-3", "--reflex-strict").ret == 0


def test_a_name_that_is_none_is_told_the_nearest_in_a_test(run: Run) -> None:
    found = run("def test_x(parity): judged(parity, treshold=1)\n")
    assert found.ret == 1
    found.stdout.fnmatch_lines(
        ["E*Parity.check() got an unexpected keyword argument 'treshold' (did you mean 'threshold'?)"]
    )


def test_the_marker_and_the_options_are_documented(run: Run) -> None:
    found = run(PASSES, "--markers")
    found.stdout.fnmatch_lines(
        ["@pytest.mark.parity(threshold=None, units=None, rtol=0, fixtures=5, *provider='cpu'*): *"]
    )
    options = run(PASSES, "--help").stdout.str()
    for name in ("strict", "threshold", "fixtures", "seed", "provider", "report", "json"):
        assert f"--reflex-{name}" in options
        assert f"reflex_{name} (" in options


# What is written


def test_json_and_report(run: Run, pytester: pytest.Pytester) -> None:
    before = int(time.time())
    found = run(PASSES + FAILS, "--reflex-json", "deep/out.json", "--reflex-report", "rep")
    assert found.ret == 1
    made = written("deep/out.json")
    (session,) = made["sessions"]
    assert session["seconds"] > 0
    assert before <= datetime.fromisoformat(session["started"]).timestamp() <= time.time()
    assert [(e["nodeid"], e["call"], e["passed"]) for e in made["results"]] == [
        ("test_it.py::test_bad", 0, False),
        ("test_it.py::test_good", 0, True),
    ]
    assert made["passed"] is False
    assert made["results"][0]["candidate"]["count"] == 3
    assert Path("rep/parity.json").read_bytes() == Path("deep/out.json").read_bytes()
    assert "parity FAIL" in Path("rep/index.html").read_text(encoding="utf-8")
    assert f"report: {pytester.path / 'rep/index.html'}" in found.outlines
    assert "E       Report: rep/index.html" in found.outlines


def test_a_path_from_the_ini_file_is_relative_to_it(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nreflex_json = here/out.json\n")
    (pytester.path / "sub").mkdir()
    os.chdir(pytester.path / "sub")
    assert run(PASSES, "..").ret == 0
    assert written(pytester.path / "here/out.json")["passed"] is True
    # And the command that runs a test again is written for where pytest was started.
    assert (
        "E         pytest ../test_it.py::test_bad --reflex-report parity_reports" in run(FAILS, "..").outlines
    )


def test_a_report_that_cannot_be_written_fails_the_session(run: Run) -> None:
    found = run(PASSES, "--reflex-json", "toys.py/out.json")
    assert found.ret == 1
    (line,) = [line for line in found.outlines if line.startswith("error: ")]
    assert line.endswith("toys.py/out.json: the report could not be written (File exists)")
    found = run(PASSES, "--reflex-json", "toys.py/out.json", "-p", "no:terminal")
    assert found.ret == 1
    found.stderr.fnmatch_lines(["reflex: error: */toys.py/out.json: the report could not be written (*)"])


def test_what_went_wrong_is_said_to_a_github_job_without_a_terminal_too(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    found = run(FAILS, "--reflex-json", "toys.py/out.json", "-p", "no:terminal")
    assert found.ret == 1
    said = found.stderr.str().splitlines()
    assert any(line.startswith("::error") and "parity FAIL: max_abs_diff" in line for line in said)
    assert any(line.startswith("::error") and "the report could not be written" in line for line in said)


def test_the_document_is_written_also_when_nothing_was_compared(run: Run) -> None:
    Path("out.json").write_text("what an earlier run left")
    assert run("@reflex.parity\ndef test_x(): pass\n", "--reflex-json", "out.json").ret == 1
    made = written("out.json")
    assert made["passed"] is False
    assert made["not_compared"] == [
        {
            "nodeid": "test_it.py::test_x",
            "outcome": "failed",
            "reason": "parity FAIL: nothing was compared: the test never called parity.check",
        }
    ]


def test_collect_only_writes_nothing(run: Run) -> None:
    assert run(PASSES, "--collect-only", "--reflex-json", "out.json", "--reflex-strict").ret == 0
    assert not Path("out.json").exists()


def test_junit_holds_flat_scalars(run: Run) -> None:
    run(FAILS + "def test_two(parity): judged(parity); judged(parity)\n", "--junitxml=junit.xml")
    cases = {case.get("name"): case for case in ElementTree.parse("junit.xml").iter("testcase")}
    found = {
        name: {p.get("name"): p.get("value") for p in case.iter("property")} for name, case in cases.items()
    }
    assert found["test_bad"]["reflex_verdict"] == "FAIL"
    assert found["test_bad"]["reflex_threshold"] == "1e-05"
    assert ulps(float(str(found["test_bad"]["reflex_max_abs_diff"])), 0.5, scale=8) <= 1
    assert list(found["test_two"]) == [
        "reflex_verdict",
        "reflex_max_abs_diff",
        "reflex_threshold",
        "reflex_verdict_2",
        "reflex_max_abs_diff_2",
        "reflex_threshold_2",
    ]


def test_a_check_in_setup_counts(run: Run) -> None:
    source = "@pytest.fixture\ndef ready(parity): judged(parity)\ndef test_x(ready): pass\n"
    found = run(source, "--reflex-strict", "--reflex-json", "out.json")
    assert found.ret == 0
    assert len(written("out.json")["results"]) == 1


def test_last_failed_keyword_and_exitfirst(run: Run) -> None:
    source = FAILS + PASSES
    assert run(source, "-x").ret == 1
    found = run(source, "--lf", "--reflex-json", "out.json")
    assert [e["nodeid"] for e in written("out.json")["results"]] == ["test_it.py::test_bad"]
    assert found.ret == 1
    assert run(source, "-k", "good", "--reflex-strict", "--reflex-json", "out.json").ret == 0
    assert [e["nodeid"] for e in written("out.json")["results"]] == ["test_it.py::test_good"]


# What must never pass in silence


NOTHING = "parity FAIL: nothing was compared: the test never called parity.check"


@pytest.mark.parametrize("strict", [(), ("--reflex-strict",)], ids=["", "strict"])
@pytest.mark.parametrize(
    "source",
    [
        "@reflex.parity\ndef test_x(): pass\n",
        "def test_x(parity): pass\n",
        "@pytest.mark.parity\ndef test_x(): pass\n",
        "def test_x(request): request.getfixturevalue('parity')\n",
    ],
)
def test_a_parity_test_that_compared_nothing_fails(run: Run, source: str, strict: tuple[str, ...]) -> None:
    found = run(source + PASSES, *strict)
    assert found.ret == 1
    assert found.parseoutcomes() == {"failed": 1, "passed": 1}
    assert NOTHING in found.outlines


def test_a_parity_test_that_compares_in_a_teardown_or_swallows_an_error_is_let_be(run: Run) -> None:
    source = (
        "@pytest.fixture\ndef later(parity):\n    yield\n    judged(parity)\n"
        "def test_x(later): pass\n"
        "def test_y(parity):\n"
        "    with pytest.raises(reflex.ReflexError): judged(parity, threshold=-1)\n"
    )
    assert run(source).ret == 0


STRICT_CASES = {
    "skip mark": (
        "@pytest.mark.skip(reason='no GPU here')\n@reflex.parity\ndef test_x(): pass\n",
        "skipped: no GPU here",
    ),
    "skip call": ("def test_x(parity): pytest.skip('no GPU here')\n", "skipped: no GPU here"),
    "skip after a check": (
        "def test_x(parity):\n    judged(parity)\n    pytest.skip('enough')\n",
        "skipped: enough",
    ),
    "xfail": (
        "@pytest.mark.xfail(reason='known')\ndef test_x(parity): judged(parity, off_by(1))\n",
        "expected to fail, and did: known",
    ),
    "xfail not run": (
        "@pytest.mark.xfail(reason='known', run=False)\ndef test_x(parity): judged(parity)\n",
        "expected to fail, and did: [NOTRUN] known",
    ),
    "xpass": (
        "@pytest.mark.xfail(reason='known')\ndef test_x(parity): judged(parity)\n",
        "expected to fail, but passed: known",
    ),
}


@pytest.mark.parametrize("case", STRICT_CASES)
def test_strict_fails_what_would_pass_in_silence(run: Run, case: str) -> None:
    source, why = STRICT_CASES[case]
    assert run(source).ret == 0
    found = run(source + PASSES, "--reflex-strict", "--reflex-json", "out.json")
    assert found.ret == 1
    assert f"parity FAIL: {why} (--reflex-strict)" in found.outlines
    # The summary begins with the verdict too, and not with the name of an exception.
    assert " test_it.py::test_x - parity FAIL: " in found.stdout.str()
    counts = found.parseoutcomes()
    assert counts["passed"] == 1
    assert counts.get("failed", 0) + counts.get("errors", 0) == 1


def test_strict_leaves_other_tests_alone(run: Run) -> None:
    source = (
        "@pytest.mark.skip\ndef test_skip(): pass\n"
        "@pytest.mark.xfail\ndef test_xfail(): raise ValueError\n"
        "def test_plain(): pass\n"
    )
    assert run(source + PASSES, "--reflex-strict").ret == 0


def test_strict_tightens_every_threshold(run: Run) -> None:
    source = (
        "@reflex.parity(threshold=1e-2)\ndef test_loose(parity): judged(parity, off_by(2e-4))\n"
        "def test_tight(parity): judged(parity, threshold=1e-6)\n"
    )
    assert run(source).ret == 0
    found = run(source, "--reflex-strict", "--reflex-threshold=0.1")
    assert found.ret == 1
    assert "FAIL        2.000e-04    1.0e-05  test_it.py::test_loose" in " ".join(found.outlines).replace(
        "2.001", "2.000"
    )


def test_strict_tightens_the_call_and_keeps_what_is_tighter(run: Run) -> None:
    source = "def test_x(parity):\n    judged(parity, threshold=1e-2)\n    judged(parity, threshold=1e-6)\n"
    assert run(source, "--reflex-strict", "--reflex-json", "out.json").ret == 0
    assert [entry["threshold"] for entry in written("out.json")["results"]] == [1e-5, 1e-6]


def test_a_budget_for_claims_that_nobody_makes_is_told_of(run: Run) -> None:
    source = "def test_x(parity):\n    judged(parity)\n"
    said = (
        "warning: --reflex-claim-budget 60: no test asks for a claim; add --reflex-claim 1e-3@95%, or leave "
        "it out"
    )
    budget = "--reflex-claim-budget=60"
    assert [run(source, *given).outlines.count(said) for given in ((budget,), (budget, "-n1"))] == [1, 1]
    assert said not in run(source, budget, "--reflex-claim=30%").outlines


def test_strict_fails_a_session_without_a_result(run: Run) -> None:
    source = "def test_plain(): pass\n"
    line = (
        "error: no parity result in this session; --reflex-strict wants at least one; a check() without the "
        "parity fixture is no test's: take parity.check"
    )
    for args in ((), ("-q",), ("-k", "nonesuch")):
        found = run(source, "--reflex-strict", *args)
        assert found.ret == 1
        assert line in found.outlines
    # Where a file was not collected, that is why.
    for args in ((), ("-n1",)):
        outlines = run("import nonesuch_package\n" + source, "--reflex-strict", *args).outlines
        assert (
            "error: no parity result in this session; --reflex-strict wants at least one; test_it.py could "
            "not be collected, as is said above"
        ) in outlines
    found = run(source, "--reflex-strict", "-p", "no:terminal")
    assert found.ret == 1
    assert f"reflex: {line}" in found.errlines


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "xdist"])
def test_strict_sees_a_module_that_skips_itself(run: Run, workers: tuple[str, ...]) -> None:
    found = run(
        PASSES,
        "--reflex-strict",
        *workers,
        test_gone="import pytest\npytest.importorskip('absent_module')\ndef test_x(parity): pass\n",
        test_other="import pytest\npytest.skip('of no matter', allow_module_level=True)\n",
    )
    assert found.ret != 0
    assert (
        "parity FAIL: a module with parity tests was skipped: could not import 'absent_module'"
        in found.stdout.str()
    )
    assert "of no matter" not in found.stdout.str()


def test_strict_fails_a_dead_input_that_neither_side_reads(run: Run) -> None:
    source = (
        "def test_x(parity):\n"
        "    parity.check(TWICE, off_by(0), inputs=[*INPUTS, InputSpec('unread', (1,))])\n"
    )
    assert run(source).ret == 0
    found = run(source, "--reflex-strict")
    assert found.ret == 1
    assert "parity FAIL: inputs: " in found.stdout.str()


def test_a_test_that_fails_otherwise_without_a_result_is_no_pass_in_the_document(run: Run) -> None:
    found = run(PASSES + "def test_x(parity): raise KeyError('x')\n", "--reflex-json", "out.json")
    assert found.ret == 1
    made = written("out.json")
    assert made["passed"] is False
    assert made["not_compared"] == [
        {"nodeid": "test_it.py::test_x", "outcome": "failed", "reason": "KeyError: 'x'"}
    ]


LATE = "@pytest.fixture\ndef late():\n    yield\n    raise ValueError('second')\n"


@pytest.mark.parametrize(
    ("source", "outcome", "reason"),
    [
        (LATE + "def test_x(parity, late): raise KeyError('first')\n", "failed", "KeyError: 'first'"),
        (LATE + "def test_x(parity, late): pytest.skip('first')\n", "failed", "ValueError: second"),
        (
            LATE + "def test_x(parity, late): pass\n",
            "failed",
            "parity FAIL: nothing was compared: the test never called parity.check",
        ),
        ("def test_x(parity): pytest.skip('no GPU here')\n", "skipped", "no GPU here"),
        ("def test_x(parity): pytest.fail('')\n", "failed", "Failed"),
    ],
)
def test_why_nothing_was_compared_is_the_first_that_went_wrong(
    source: str, outcome: str, reason: str, run: Run
) -> None:
    run(source, "--reflex-json", "out.json")
    assert written("out.json")["not_compared"] == [
        {"nodeid": "test_it.py::test_x", "outcome": outcome, "reason": reason}
    ]


def test_a_swallowed_fail_is_heard_of_where_the_session_s_end_is_cut_off(run: Run) -> None:
    source = "def test_x(parity):\n    try: judged(parity, off_by(0.5))\n    except AssertionError: pass\n"
    hook = "import pytest\ndef pytest_sessionfinish(): pytest.exit('enough', returncode=0)\n"
    found = run(source, conftest=hook)
    assert found.ret == 1
    found.stderr.fnmatch_lines(
        ["reflex: error: pytest was to exit with 0, and that would hide this: test_it*"]
    )
    assert run(PASSES, conftest=hook).ret == 0


def test_a_parity_that_is_asked_for_in_the_test_is_of_its_first_attempt(run: Run) -> None:
    source = "@reflex.parity\ndef test_x(request): judged(request.getfixturevalue('parity'))\n"
    assert run(source, "--reflex-strict", "--reflex-json", "out.json").ret == 0
    (result,) = written("out.json")["results"]
    assert result["name"] == "test_it.py::test_x"


def test_with_the_plugin_off_parity_tests_are_errors(run: Run) -> None:
    source = "@reflex.parity\ndef test_marked(): pass\n" + PASSES
    found = run(source, "-p", "no:reflex", "-p", "no:pytest_reflex.plugin", apart=True)
    assert found.ret == 1
    found.assert_outcomes(errors=2)
    assert "E       fixture 'parity' not found" in found.outlines


# xdist


MIXED = (
    FAILS
    + PASSES
    + "@pytest.mark.parametrize('i', [2, 10, 1])\n"
    + "def test_i(parity, i):\n    judged(parity); judged(parity, seed=i)\n"
    + "@reflex.parity\ndef test_nothing(): pass\n"
    + "def test_nan(parity): judged(parity, off_by(float('nan')))\n"
    + "@pytest.mark.skip(reason='no GPU here')\ndef test_skip(parity): pass\n"
)


def test_the_document_is_the_same_byte_for_byte_with_workers(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xdist")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1796029331")
    files = Path("made.json"), Path("made/index.html")  # one place: it stands in what is said of a fail
    alone, workers = [], []
    for found, more in ((alone, []), (workers, ["-n2"])):
        assert run(MIXED, "--reflex-json", "made.json", "--reflex-report", "made", *more).ret == 1
        found += [file.read_bytes() for file in files]
    assert alone == workers
    made = written("made.json")
    keys = [(entry["nodeid"], entry["call"]) for entry in made["results"]]
    assert keys == sorted(keys)
    assert len(keys) == 9


def test_a_worker_has_no_last_word_of_its_own(run: Run) -> None:
    found = run(PASSES, "-n2", "--reflex-strict", "--reflex-json", "out.json")
    assert found.ret == 0
    assert "reflex: error" not in found.stdout.str() + found.stderr.str()
    assert written("out.json")["passed"] is True


def test_workers_with_junit_exitfirst_and_strict(run: Run) -> None:
    pytest.importorskip("xdist")
    found = run(MIXED, "-n2", "--reflex-strict", "--junitxml=junit.xml", "--reflex-json", "out.json")
    assert found.ret == 1
    assert found.parseoutcomes() == {"passed": 4, "failed": 3, "errors": 1}
    assert 'name="reflex_verdict" value="FAIL"' in Path("junit.xml").read_text(encoding="utf-8")
    assert run(MIXED, "-n2", "-x").ret in (1, 2)
    assert run(MIXED, "-n2", "-k", "good", "-p", "no:terminal", "--reflex-strict").ret == 0
    assert run("def test_plain(): pass\n", "-n2", "--reflex-strict").ret == 1


@pytest.mark.parametrize("code", [0, 3])
def test_a_worker_that_dies_is_never_exit_0(run: Run, code: int) -> None:
    pytest.importorskip("xdist")
    source = PASSES + f"import os\ndef test_dies(parity): os._exit({code})\n"
    for args in ((), ("--max-worker-restart=0",)):
        found = run(source, "-n2", "--reflex-json", "out.json", *args)
        assert found.ret == 1
        made = written("out.json")
        assert made["passed"] is False
        assert len(made["problems"]) == 1
        assert made["problems"][0].endswith(" went down: Not properly terminated")
        assert f"error: {made['problems'][0]}" in found.outlines


def test_an_internal_error_in_a_worker_is_never_exit_0(run: Run) -> None:
    pytest.importorskip("xdist")
    # What xdist cannot send ends the worker with an internal error, and the session, by itself, with 0.
    source = PASSES + "def test_unsendable(record_property): record_property('x', np.float32(1))\n"
    found = run(source, "-n2", "--reflex-json", "out.json")
    assert found.ret not in (0, 5)
    made = written("out.json")
    assert made["passed"] is False
    assert any("can't serialize <class 'numpy.float32'>" in problem for problem in made["problems"])


def test_an_internal_error_writes_a_document_that_does_not_pass(run: Run, pytester: pytest.Pytester) -> None:
    hook = "def pytest_runtest_logfinish(nodeid):\n    if 'zz' in nodeid: raise RuntimeError('broken hook')\n"
    found = run(PASSES + "def test_zz(): pass\n", "--reflex-json", "out.json", conftest=hook)
    assert found.ret == 3
    made = written("out.json")
    assert made["problems"] == ["internal error: broken hook"]
    assert made["passed"] is False
    assert "reflex: error: internal error: broken hook" in found.errlines
