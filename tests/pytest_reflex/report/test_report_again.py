"""Stored results judged again, put together and compared; and the command that does so."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_cases import ALL, DEAD, FAILING, PASSING, located, measured, result

from pytest_reflex.cli import main
from pytest_reflex.errors import ReflexError, SettingsError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.judge.check import check
from pytest_reflex.report import github, html
from pytest_reflex.report import json as as_json
from pytest_reflex.report.compare import Change
from pytest_reflex.report.compare import compare as compare_runs
from pytest_reflex.report.json import results
from pytest_reflex.report.markdown import markdown
from pytest_reflex.report.merge import merge as merge_runs
from pytest_reflex.report.rejudge import rejudge
from pytest_reflex.report.text.console import painted, takes_color
from pytest_reflex.result import ParityResult
from pytest_reflex.verdict.results import OutputResult
from pytest_reflex.verdict.summaries import ErrorGrid

pytestmark = pytest.mark.once

THRESHOLDS = (1e-9, 1e-7, 9.5e-7, 1e-6, 1e-5, 1.0000001e-5, 1e-4, 1e-2, 0.5, 1e9)


class Toy:
    """A runner that computes with numpy."""

    def __init__(self, function: Callable[[Any], Any], name: str, **facts: Any) -> None:
        self._function, self.name, self._facts = function, name, facts

    def open(self) -> None: ...
    def close(self) -> None: ...
    def facts(self) -> dict[str, Any]:
        return {"kind": "toy", "class": self.name, **self._facts}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self._function(inputs))


INPUTS = [InputSpec("x", (1, 4, 3)), InputSpec("unread", (2,))]


def true(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {"actions": inputs["x"] * 2, "grip": inputs["x"][..., 0], "token": np.arange(3)}


def off(**by: Any) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The truth with something added to each named output, in proportion to the fixture's first value."""

    def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
        share = np.abs(inputs["x"]).ravel()[0]
        return {
            name: (value + np.asarray(share * by.get(name, 0))).astype(value.dtype)
            for name, value in true(inputs).items()
        }

    return run


def renamed(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {"action": true(inputs)["actions"]}


SIDES: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "equal": (true, {}),
    "one output off": (off(actions=2e-6), {}),
    "both outputs off, the second more": (off(actions=3e-7, grip=1e-3), {}),
    "an integer off": (off(token=7), {}),
    "not finite": (off(grip=math.nan), {}),
    "other names": (renamed, {}),
    "a reference that draws": (off(actions=2e-6), {"drew_random": True}),
}


def judged(side: str, threshold: float, strict: bool = False) -> ParityResult:
    function, facts = SIDES[side]
    return check(
        Toy(true, "true", **facts),
        Toy(function, side),
        inputs=INPUTS,
        fixtures=4,
        threshold=threshold,
        strict=strict,
    )


@pytest.mark.parametrize("side", SIDES)
def test_a_result_judged_again_is_the_result_of_a_fresh_run(side: str) -> None:
    for strict_before, strict_now in itertools.product((False, True), repeat=2):
        for before in (1e-9, 1e-5, 1.0):
            stored = ParityResult.from_json(
                json.loads(as_json.dumps(judged(side, before, strict_before).to_json()))
            )
            for now in THRESHOLDS:
                fresh = judged(side, now, strict_now)
                assert rejudge(stored, threshold=now, strict=strict_now).to_json() == fresh.to_json()


def test_what_was_not_asked_for_stays_as_it_was() -> None:
    for found in ALL.values():
        assert rejudge(found).to_json() == found.to_json()
    strict = judged("one output off", 1e-3, strict=True)
    assert rejudge(strict, threshold=1.0).threshold == 1e-5
    assert rejudge(strict, threshold=1e-6).threshold == 1e-6


def test_a_figure_that_meets_its_threshold_does_not_pass() -> None:
    for bound, passed in ((9.461e-3, False), (math.nextafter(9.461e-3, 1), True)):
        assert rejudge(FAILING, threshold=bound).fixtures[1].passed is passed


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_no_threshold_is_refused(bad: float) -> None:
    with pytest.raises(SettingsError):
        rejudge(PASSING, threshold=bad)


# Merging


def merge(documents: Iterable[Mapping[str, Any]], **options: Any) -> dict[str, Any]:
    """The document of what :func:`merge_runs` makes of documents."""
    return merge_runs(documents, **options).to_json()


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    return compare_runs(as_json.run_of(before), as_json.run_of(after))


def entry(found: ParityResult, nodeid: str, call: int = 0) -> dict[str, Any]:
    return {"nodeid": nodeid, "call": call, **found.to_json()}


ENTRIES = [
    entry(PASSING, "a.py::test_a"),
    entry(FAILING, "a.py::test_a", 1),
    entry(FAILING, "b.py::test_b"),
    entry(PASSING, "b.py::test_b"),
    PASSING.to_json(),
    entry(DEAD, "ü.py::test_ü[\u202e]"),
]
SKIPPED = [{"nodeid": f"{n}.py::test", "outcome": "skipped", "reason": "no GPU"} for n in "cab"]


@settings(max_examples=30, deadline=None)
@given(
    order=st.permutations(range(len(ENTRIES))),
    cuts=st.sets(st.integers(0, 5), max_size=3),
    shuffled=st.randoms(),
)
def test_shards_in_any_order_give_the_same_file(order: list[int], cuts: set[int], shuffled: Any) -> None:
    edges = [0, *sorted(cuts), len(ENTRIES)]
    shards = [
        as_json.document(
            [ENTRIES[i] for i in order[a:b]],
            not_compared=SKIPPED[: a % 4],
            problems=[f"worker gw{a} went down"] * (a > 2),
        )
        for a, b in itertools.pairwise(edges)
    ]
    error = as_json.error_document(ReflexError("m.onnx: gone"))
    plain, mixed = [*shards, error], [*shards, error, *shards[:1]]
    shuffled.shuffle(mixed)
    assert as_json.dumps(merge(plain)) == as_json.dumps(merge(mixed))
    assert sorted(map(as_json.dumps, merge(plain)["results"])) == sorted(map(as_json.dumps, ENTRIES))
    assert merge([merge(plain)]) == merge(plain)


def test_a_shard_without_a_verdict_fails_the_whole() -> None:
    good = as_json.document([PASSING])
    assert merge([good])["passed"] is True
    made = merge([good, as_json.error_document(ReflexError("m.onnx: gone"))])
    assert (made["passed"], made["problems"]) == (False, ["no verdict: ReflexError: m.onnx: gone"])


def test_strict_lets_no_skip_and_no_empty_run_by() -> None:
    three = result(*PASSING.fixtures, measured(2, 1e-8))
    made = merge([as_json.document([three], not_compared=SKIPPED[:1])], strict=True)
    assert (made["passed"], made["not_compared"][0]["outcome"]) == (False, "failed")
    assert merge([as_json.document([PASSING], not_compared=SKIPPED[:1])])["passed"] is True
    assert merge([as_json.document([])], strict=True)["problems"] == [
        "no parity result in these documents; --strict wants at least one"
    ]


# Comparing


def run_of(**figures: float) -> dict[str, Any]:
    return as_json.document([{**result(measured(0, v)).to_json(), "name": n} for n, v in figures.items()])


def test_what_got_worse_comes_first() -> None:
    before = run_of(a=1e-7, b=1e-2, c=1e-7, d=1e-7, e=1e-7, f=4e-7, g=math.nan, h=0.0)
    after = run_of(a=1e-2, b=1e-7, c=1.9e-7, d=2.1e-7, new=1e-7, f=1e-7, g=math.nan, h=1e-7)
    found = [(change.kind, change.name, change.words) for change in compare(before, after)]
    assert found == [
        ("worse", "a", "passed before, fails now"),
        ("worse", "d", "2.1 times larger, both pass"),
        ("worse", "h", "worse, both pass"),
        ("gone", "e", "gone, pass"),
        ("new", "new", "new, pass"),
        ("better", "b", "failed before, passes now"),
        ("better", "f", "4 times smaller, both pass"),
        ("same", "c", "1.9 times larger, both pass"),
        ("same", "g", "the same"),
    ]
    assert {change.kind for change in compare(before, before)} == {"same"}


def test_outputs_with_tolerances_of_their_own_are_compared_by_what_they_use_of_them() -> None:
    """The largest difference is that of the largest output, whatever becomes of the others."""

    def run_of(off: float) -> dict[str, Any]:
        def wrong(inputs: Mapping[str, Any]) -> dict[str, Any]:
            made = true(inputs)
            return {**made, "actions": made["actions"] + np.float32(0.5), "grip": made["grip"] + off}

        own = {"actions": 1e3, "grip": 1e-1}
        found = check(Toy(true, "r"), Toy(wrong, "c"), inputs=INPUTS, threshold=own, name="x")
        return as_json.document([found])

    before, after = run_of(np.float32(1e-3)), run_of(np.float32(1e-2))
    largest = [found["results"][0]["max_abs_diff_across_all"] for found in (before, after)]
    assert largest[0] == largest[1]
    (change,) = compare(before, after)
    assert change.kind == "worse"
    assert change.words.endswith(" times larger, both pass")
    assert compare(before, before)[0].kind == "same"


def test_results_are_known_by_test_and_call() -> None:
    old = as_json.document([entry(PASSING, "a.py::t"), entry(FAILING, "a.py::t", 1)])
    new = as_json.document([entry(FAILING, "a.py::t", 1), entry(FAILING, "a.py::t")])
    assert [(c.kind, c.after and c.after.call) for c in compare(old, new)] == [
        ("worse", 0),
        ("same", 1),
    ]


def test_the_page_and_the_summary_say_what_changed() -> None:
    before, after = run_of(a=1e-7, gone=1e-7), run_of(a=1e-2)
    for text in (html.page(after, before), markdown(after, before)):
        assert "passed before, fails now" in text
        assert "gone, pass" in text
        assert "Since the earlier run" in text


# Markdown and GitHub


def test_markdown() -> None:
    text = markdown(
        as_json.document([FAILING, PASSING], not_compared=SKIPPED[:1], problems=["gw0 went down"])
    )
    lines = text.splitlines()
    assert lines[0] == "## ❌ parity FAIL"
    assert lines[2] == "2 compared, 1 failing, 1 without a result."
    rows = [line for line in lines if line.startswith(("| ✅", "| ❌"))]
    assert rows[0].endswith("| 9.461e-03 | 1.0e-05 | 946 times above the threshold | 1 of 3 |")
    assert "| 1 | 9.461e-03 | 9.461e-04 | +1.000000 | threshold |" in text
    assert markdown(as_json.document([PASSING])).startswith("## ✅ parity PASS\n")
    assert "no verdict" in markdown(as_json.error_document(ReflexError("gone")))


def test_a_hostile_name_stays_text_in_markdown() -> None:
    name = "|a|`b`*c*_d_<script>[x](javascript:1)@team #12 \u202e &amp;\n## head" + "long" * 3000
    found = result(measured(0, 1.0), name=name, refusing={"inputs": name})
    text = markdown(as_json.document([found], problems=[name]))
    for mark in ("<script", "`", "*c", "_d_", "](", "@", "\n## head", "&amp;", "\u202e"):
        assert mark not in text
    assert len(text) < 10_000
    header, rule, row = next(
        text.splitlines()[i : i + 3]
        for i, line in enumerate(text.splitlines())
        if line.startswith("| verdict")
    )
    assert header.count("|") == rule.count("|") == row.count("|")


def test_an_annotation_is_escaped() -> None:
    assert github.annotation("50% of\nit", title="a,b:c", file="t/x,y.py", line=3) == (
        "::error file=t/x%2Cy.py,line=3,title=a%2Cb%3Ac::50%25 of%0Ait"
    )
    assert github.annotation("no", title="reflex") == "::error title=reflex::no"


def test_a_summary_is_written_only_in_a_github_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert github.add_summary(as_json.document([PASSING])) == ""
    assert not summary.exists()
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for _ in range(2):
        assert github.add_summary(as_json.document([PASSING])) == ""
    assert summary.read_text(encoding="utf-8").count("parity PASS") == 2
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    assert github.add_summary(as_json.document([PASSING])).endswith("could not be written (Is a directory)")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    assert github.from_workspace(tmp_path / "tests" / "test_a.py") == "tests/test_a.py"


# Colour


def test_colour_is_for_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    assert takes_color(Terminal())
    assert not takes_color(object())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not takes_color(Terminal())
    shown = painted(str(FAILING))
    assert shown.startswith("\033[1;31mparity FAIL")
    assert shown.count("\033[1;31m") == 3  # the verdict, the failing row, the summary's NO
    assert painted(str(PASSING)).count("\033[") == 2


# The command


@pytest.fixture
def reflex(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    made = {"pass": [entry(PASSING, "a.py::t")], "fail": [entry(FAILING, "b.py::t")]}
    for name, entries in made.items():
        Path(f"{name}.json").write_text(as_json.dumps(as_json.document(entries)), encoding="utf-8")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["report", *arguments])
        said = capsys.readouterr()
        return int(str(left.value.code)), said.out, said.err

    return run


def test_report_makes_the_files_again_in_any_order(reflex: Callable[..., Any]) -> None:
    assert reflex("pass.json", "fail.json", "-o", "one")[0] == 1
    code, out, err = reflex("fail.json", "pass.json", "-o", "two")
    assert (code, err) == (1, "")
    assert out.splitlines()[0] == "parity FAIL"
    assert out.splitlines()[-1] == "Report: two/index.html"
    for name in ("parity.json", "index.html"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()
    assert reflex("pass.json")[0] == 0
    assert sorted(os.listdir("parity_reports")) == ["index.html", "parity.json"]
    # What it wrote can be read again, and gives the same.
    assert reflex("one/parity.json", "-o", "three")[0] == 1
    assert Path("three/index.html").read_bytes() == Path("one/index.html").read_bytes()


def test_report_judges_again(reflex: Callable[..., Any]) -> None:
    assert reflex("fail.json", "--threshold", "0.01")[0] == 0
    assert reflex("pass.json", "--threshold", "1e-9")[0] == 1
    assert json.loads(Path("parity_reports/parity.json").read_text())["results"][0]["threshold"] == 1e-9
    code, _, err = reflex("pass.json", "--strict")
    assert code == 2
    name = PASSING.name
    assert err == (
        f"reflex: error: strict: {name} has 2 fixtures, too few for strict; run it again with 3 or more\n"
    )
    three = result(*PASSING.fixtures, measured(2, 1e-8))
    Path("three.json").write_text(as_json.dumps(as_json.document([three])))
    code, out, err = reflex("three.json", "--strict", "--output-json")
    assert (code, err) == (0, "")
    assert json.loads(out)["results"][0]["strict"] is True
    code, _, err = reflex("pass.json", "--threshold", "nan")
    assert code == 2
    assert err.startswith("reflex: error: --threshold: 'nan' is not a threshold")
    for name in ("threshold", "rtol"):  # an empty word asks for something, too
        code, _, err = reflex("pass.json", f"--{name}=")
        assert code == 2
        assert err.startswith(f"reflex: error: --{name}: '' is no")


def test_report_against_an_earlier_run(reflex: Callable[..., Any]) -> None:
    code, out, _ = reflex("fail.json", "--against", "pass.json", "--markdown", "summary.md")
    assert code == 1
    assert "  gone    test_pi0.py::test_pi0: gone, pass" in out
    assert "Since the earlier run" in Path("summary.md").read_text(encoding="utf-8")
    assert "Since the earlier run" in Path("parity_reports/index.html").read_text(encoding="utf-8")
    assert "  nothing changed" in reflex("fail.json", "--against", "fail.json")[1]
    # A directory is read as one that is reported on.
    Path("before").mkdir()
    shutil.copy("fail.json", "before")
    assert "  nothing changed" in reflex("fail.json", "--against", "before")[1]
    shutil.copy("pass.json", "before")
    code, out, err = reflex("fail.json", "--against", "before")
    assert (code, err) == (1, "")
    assert "gone" in out


def test_report_says_in_one_line_what_it_cannot_read_or_write(reflex: Callable[..., Any]) -> None:
    Path("bad.json").write_text("{")
    Path("error.json").write_text(as_json.dumps(as_json.error_document(ReflexError("gone"))))
    for arguments, said in (
        (["absent.json"], "absent.json: cannot be read"),
        (["bad.json"], "bad.json: is not JSON"),
        (["pass.json", "--against", "error.json"], "error.json: reached no verdict"),
        (["pass.json", "-o", "pass.json"], "pass.json/parity.json: cannot be written"),
    ):
        code, out, err = reflex(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"reflex: error: {said}")


def test_a_summary_that_cannot_be_written_is_a_warning(
    reflex: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    code, out, err = reflex("pass.json")
    assert code == 0
    assert out.startswith("parity PASS\n")
    assert err == f"reflex: warning: {tmp_path}: the job summary could not be written (Is a directory)\n"


def test_of_two_results_of_one_name_none_is_lost(reflex: Callable[..., Any]) -> None:
    def written(name: str, *results: ParityResult) -> None:
        Path(name).write_text(as_json.dumps(as_json.document(results)))

    written("two.json", PASSING, FAILING)
    written("one.json", PASSING)
    _, out, _ = reflex("two.json", "--against", "one.json")
    # The worse one stands first, whatever the order they came in.
    assert [line.split()[0] for line in out.splitlines() if line.startswith("  ")] == ["worse", "new"]


def test_what_was_not_measured_stays_a_fail_at_any_threshold() -> None:
    again = rejudge(ALL["structure"], threshold=1.0)
    assert not again.passed
    assert {answer.gate for _, answer in again.refusals} >= {"structure"}
    # An output without figures was not compared, whatever its gates say.
    blank = replace(FAILING.fixtures[1], outputs=(OutputResult("actions", "float32", (1,), None),))
    assert rejudge(replace(FAILING, fixtures=FAILING.fixtures[1:2]), threshold=1.0).passed
    assert not rejudge(replace(FAILING, fixtures=(blank,)), threshold=1.0).passed


def test_a_figure_that_is_null_is_no_result() -> None:
    made = as_json.result_to_json(PASSING)
    made["fixtures"][0]["outputs"][0]["difference"]["rmse"] = None
    with pytest.raises(ReflexError, match="not a parity result: rmse is None; expected"):
        as_json.result_from_json(made)


@pytest.mark.parametrize(
    ("at", "bad"),
    [
        (("strict",), 1),
        (("seed",), True),
        (("fixtures", 0, "outputs", 0, "name"), {}),
        (("fixtures", 0, "outputs", 0, "shape"), [1, 50.0, 32]),
        (("fixtures", 0, "outputs", 0, "difference", "elements"), "1600"),
        (("fixtures", 0, "outputs", 0, "difference", "worst_reference"), "0.5"),
        (("fixtures", 0, "outputs", 0, "grid", "block"), [1]),
        (("located", "cause"), "bad luck"),
        (("located", "place", "index"), {}),
        (("located", "growth", 0, "step"), 0.5),
    ],
)
def test_a_field_of_another_type_is_no_result(at: tuple[Any, ...], bad: object) -> None:
    output = replace(FAILING.fixtures[1].outputs[0], grid=ErrorGrid(1, 2, (1, 1), ((0.0, 1e-3),)))
    fixture = replace(FAILING.fixtures[1], outputs=(output,))
    made = as_json.result_to_json(replace(FAILING, fixtures=(fixture,), located=located()))
    assert as_json.result_from_json(made).fixtures == (fixture,)
    held = made
    for key in at[:-1]:
        held = held[key]
    held[at[-1]] = bad
    with pytest.raises(ReflexError, match=r"^not a parity result: .+; expected what pytest-reflex wrote$"):
        as_json.result_from_json(made)


def test_a_long_table_in_markdown_says_how_much_it_left_out() -> None:
    many = [replace(PASSING, name=f"policy {k}") for k in range(500)]
    text = markdown(as_json.document(many))
    rows = sum(line.startswith("| ✅") for line in text.splitlines())
    assert rows in range(1, 500)
    assert f"… {500 - rows} more." in text


def test_a_result_is_decoded_once_whatever_is_made_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "job.md"))
    for name, found in (("old", PASSING), ("new", FAILING)):
        Path(f"{name}.json").write_text(as_json.dumps(as_json.document([entry(found, "a.py::t")])))
    decoded = []

    def counted(data: Mapping[str, Any], kind: Any) -> Any:
        decoded.append(data["name"])
        return decode(data, kind)

    decode = results._read_result
    monkeypatch.setattr(results, "_read_result", counted)
    command = ["report", "new.json", "--against", "old.json", "--threshold", "1e-7", "--markdown", "out.md"]
    with pytest.raises(SystemExit) as left:
        main(command)
    assert left.value.code == 1
    assert sorted(decoded) == sorted([FAILING.name, PASSING.name])
    for name in ("job.md", "out.md"):
        assert "threshold" in Path(name).read_text()
    decoded.clear()
    assert "drawn with seed 0" in html.result_html(FAILING)
    assert not decoded
