"""``--reflex-baseline``: what got worse than a factor fails, and a flag takes it as it is now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plugin_cases import Run, written

pytestmark = pytest.mark.once

AT = ("--reflex-baseline", "main.json")
UPDATE = (*AT, "--reflex-baseline-update")


def off(amount: float, name: str = "test_x") -> str:
    return f"def {name}(parity): judged(parity, off_by({amount}))\n"


def test_what_got_worse_than_a_factor_fails_and_a_flag_takes_it(run: Run) -> None:
    found = run(off(1e-5), *UPDATE)
    assert found.ret == 0
    found.stdout.fnmatch_lines(["baseline: *main.json is written; commit it"])
    assert json.loads(Path("main.json").read_text())["format"] == "reflex-baseline"
    assert run(off(1e-5), *AT).ret == 0
    assert run(off(1.5e-5), *AT).ret == 0
    found = run(off(5e-5), *AT, "--reflex-json", "out.json")
    assert found.ret == 1
    found.stdout.fnmatch_lines(
        [
            "E*parity FAIL: baseline: max_abs_diff * is * times the baseline's *, and may be 2 times",
            "E*Next: find out what changed since the baseline was kept, or take the*",
            "FAIL *test_it.py::test_x (refused by baseline)",
            "baseline main.json: 1 compared",
        ]
    )
    assert "no result" not in str(found.stdout)
    made = written("out.json")
    assert made["passed"] is False
    assert made["not_compared"] == []
    (entry,) = made["results"]
    assert entry["passed"] is False
    assert entry["gates"][-1]["gate"] == "baseline"
    assert run(off(5e-5), *AT, "--reflex-baseline-factor", "10").ret == 0
    assert run(off(5e-5), *UPDATE).ret == 0
    assert run(off(5e-5), *AT).ret == 0


def test_an_update_of_a_run_that_compared_nothing_writes_nothing(run: Run) -> None:
    nothing = "baseline: nothing to write, for this run compared nothing; *main.json"
    found = run("def test_plain(): pass\n", *UPDATE)
    assert found.ret == 0
    found.stdout.fnmatch_lines([f"{nothing} is not written"])
    assert "commit it" not in found.stdout.str()
    assert not Path("main.json").exists()
    found = run(off(1), *UPDATE)
    assert found.ret == 1
    found.stdout.fnmatch_lines(["baseline: nothing to write, for no test that compares passed; *not written"])
    run(off(1e-5), *UPDATE)
    kept = Path("main.json").read_bytes()
    found = run(off(1e-5), *UPDATE, "-k", "nowhere")
    assert found.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    found.stdout.fnmatch_lines([f"{nothing} stays as it was"])
    assert Path("main.json").read_bytes() == kept


def test_a_threshold_that_was_raised_makes_no_figure_small(run: Run) -> None:
    run(off(1e-6), *UPDATE)
    looser = "def test_x(parity): judged(parity, off_by(9e-4), threshold=1.0)\n"
    assert run(looser).ret == 0
    assert run(looser, *AT).ret == 1


def test_what_was_compared_with_the_baseline_is_said_and_nothing_at_all_is_no_green_tick(run: Run) -> None:
    run(off(1e-5) + off(1e-5, "test_y"), *UPDATE)
    found = run(off(1e-5) + off(1e-5, "test_z"), *AT)
    assert found.ret == 0
    found.stdout.fnmatch_lines(
        ["baseline main.json: 1 compared, 1 without an entry, 1 of its entries not in this run"]
    )
    nothing = "baseline main.json: none of the 1 results of this run has an entry in it, "
    nothing += "such as test_it.py::test_z; its own are such as test_it.py::test_x"
    found = run(off(1e-5, "test_z"), *AT)
    assert found.ret == 0
    found.stdout.fnmatch_lines([f"{nothing}; write it with --reflex-baseline-update"])
    found = run(off(1e-5, "test_z"), *AT, "--reflex-strict")
    assert found.ret == 1
    found.stdout.fnmatch_lines(
        [f"error: {nothing}; --reflex-strict wants one; write it with --reflex-baseline-update"]
    )


def test_a_fail_by_the_baseline_is_a_fail_on_the_page_and_is_judged_again_as_one(run: Run) -> None:
    run(off(1e-5), *UPDATE)
    assert run(off(5e-5), *AT, "--reflex-report", "rep").ret == 1
    page = Path("rep/index.html").read_text()
    assert "does not compute what the reference computes" in page
    from pytest_reflex.report.json.documents import read_run
    from pytest_reflex.report.rejudge import rejudge

    (entry,) = read_run("rep/parity.json").results
    assert not rejudge(entry.result, threshold=9e-5).passed


TWICE = "def test_x(parity):\n    judged(parity, off_by({}))\n    judged(parity, off_by({}))\n"
AGAIN = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    for last in (False, True):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if last or not any(report.failed for report in reports):
            for report in reports:
                item.ihook.pytest_runtest_logreport(report=report)
            return True
"""


def test_each_attempt_is_compared_with_the_figures_of_its_calls(run: Run) -> None:
    run(TWICE.format(1e-5, 2e-5), *UPDATE)
    before = Path("main.json").read_text()
    assert run(TWICE.format(1e-5, 9e-5), *AT).ret == 1
    # What a plugin runs again is no new test.
    assert run(TWICE.format(5e-5, 2e-5), *AT, conftest=AGAIN).ret == 1
    # An update takes the attempt that counted, and no test of which a call failed.
    flaky = (
        "N = []\ndef test_x(parity):\n    judged(parity, off_by(5e-5))\n    N.append(1)\n    assert N[1:]\n"
    )
    run(flaky, *UPDATE, conftest=AGAIN)
    (calls,) = json.loads(Path("main.json").read_text())["results"].values()
    assert len(calls) == 1
    Path("main.json").write_text(before)
    run("def test_x(parity):\n    with pytest.raises(AssertionError): judged(parity, off_by(1))\n"
        "    judged(parity)\n", *UPDATE)  # fmt: skip
    assert Path("main.json").read_text() == before


def test_a_baseline_is_not_where_the_run_writes(run: Run) -> None:
    run(off(1e-5), "--reflex-report", "rep")
    before = Path("rep/parity.json").read_text()
    found = run(off(5e-5), "--reflex-report", "rep", "--reflex-baseline", "rep/parity.json")
    assert found.ret == 4
    said = "ERROR: --reflex-baseline: 'parity.json' is where this run writes what it finds; give a copy"
    assert said in found.errlines
    assert Path("rep/parity.json").read_text() == before


def test_a_fail_by_the_baseline_cannot_be_swallowed(run: Run) -> None:
    run(off(1e-5), *UPDATE)
    swallowed = "def test_x(parity):\n    try: judged(parity, off_by(5e-5))\n    except Exception: pass\n"
    assert run(swallowed, *AT).ret == 1


def test_better_and_new_tests_pass_and_figures_far_below_the_threshold_are_rounding(run: Run) -> None:
    run(off(1e-7) + off(5e-5, "test_y"), *UPDATE)
    found = run(off(9e-7) + off(1e-5, "test_y") + off(9e-5, "test_z"), *AT)
    assert found.ret == 0


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "xdist"])
def test_an_update_keeps_what_was_not_run_and_what_failed(run: Run, workers: tuple[str, ...]) -> None:
    run(off(1e-5) + off(1e-5, "test_y") + off(1e-5, "test_z"), *UPDATE, *workers)
    before = json.loads(Path("main.json").read_text())["results"]
    assert len(before) == 3
    run(off(5e-5) + off(1, "test_y") + off(3e-5, "test_z"), *UPDATE, *workers, "-k", "test_x or test_y")
    after = json.loads(Path("main.json").read_text())["results"]
    changed = [name for name in before if before[name] != after[name]]
    assert changed == ["test_it.py::test_x"]


def test_the_document_of_a_run_is_a_baseline_too(run: Run) -> None:
    run(off(1e-5), "--reflex-json", "main.json")
    assert run(off(1e-5), *AT).ret == 0
    assert run(off(5e-5), *AT).ret == 1


TWO = """
class Two(Toy):
    def __init__(self, off, large): self.off, self.large, self.name = off, large, "two"
    def run(self, inputs):
        made = {"actions": inputs["x"] + self.off, "logits": 1e6 * inputs["x"] + self.large}
        return {name: array.astype(np.float32) for name, array in made.items()}

def test_x(parity):
    own = {"actions": 1e-3, "logits": 1e2}
    parity.check(Two(0, 0), Two(OFF, LARGE), inputs=INPUTS, threshold=own)
"""


@pytest.mark.parametrize("kept", [UPDATE, ("--reflex-json", "main.json")], ids=["baseline", "document"])
def test_each_output_has_its_own_figure(run: Run, kept: tuple[str, ...]) -> None:
    def two(off: float, large: float) -> str:
        return TWO.replace("OFF", str(off)).replace("LARGE", str(large))

    assert run(two(1e-4, 10), *kept).ret == 0
    assert run(two(1e-4, 10), *AT).ret == 0
    found = run(two(9e-4, 10), *AT)  # the logits are off by as much as before
    assert found.ret == 1
    found.stdout.fnmatch_lines(
        ["E*parity FAIL: baseline: max_abs_diff * of actions is * times the baseline's *"]
    )
    assert run(two(1e-4, 50), *AT).ret == 1
    assert run(two(1e-7, 1e-1), *AT).ret == 0


def test_a_baseline_from_the_ini_file(run: Run, pytester: pytest.Pytester) -> None:
    run(off(1e-5), *UPDATE)
    pytester.makeini("[pytest]\nreflex_baseline = main.json\nreflex_baseline_factor = 3\n")
    assert run(off(2.5e-5)).ret == 0
    assert run(off(5e-5)).ret == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (AT, "ERROR: --reflex-baseline: 'main.json' does not exist; write it with --reflex-baseline-update"),
        (UPDATE[2:], "ERROR: --reflex-baseline-update was given without --reflex-baseline PATH"),
        (
            (*AT, "--reflex-baseline-factor=0.5"),
            "ERROR: --reflex-baseline-factor: '0.5' is not a factor; give a finite number, 1 or more",
        ),
    ],
)
def test_what_is_wrong_is_said_at_once(args: tuple[str, ...], said: str, run: Run) -> None:
    found = run(off(1e-5), *args)
    assert found.ret == 4
    assert said in found.errlines


def test_a_file_that_is_no_baseline_is_refused(run: Run) -> None:
    for text in ("{", "{}", '{"results": {"a": 3}, "format": "reflex-baseline", "version": 1}'):
        Path("main.json").write_text(text)
        assert run(off(1e-5), *AT).ret == 4


def test_a_column_in_pytest_html(run: Run) -> None:
    pytest.importorskip("pytest_html")
    found = run(off(1e-5) + "def test_plain(): pass\n", "--html=report.html")
    assert found.ret == 0
    page = Path("report.html").read_text()
    assert "max_abs_diff" in page
    assert "e-05 of 1.0e-04" in page


def test_a_baseline_of_another_version_and_one_that_cannot_be_written(run: Run) -> None:
    Path("main.json").write_text('{"results": {}, "format": "reflex-baseline", "version": 9}')
    found = run(off(1e-5), *AT)
    assert found.ret == 4
    said = "main.json: is no baseline (ValueError: it is 'reflex-baseline', version 9); write it with"
    assert any(said in line for line in found.errlines)
    Path("taken").write_text("")
    found = run(off(1e-5), "--reflex-baseline", "taken/main.json", "--reflex-baseline-update")
    assert found.ret == 1
    found.stdout.fnmatch_lines(["error: *taken/main.json: the baseline could not be written (*)"])
