"""One result in each of its faces: the text a person reads, the JSON a machine reads, the HTML page."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from report_cases import (
    ALL,
    DEAD,
    EMPTY,
    FAILING,
    NOT_FINITE,
    PASSING,
    STRUCTURE,
    difference,
    floored,
    located,
    measured,
    refused,
    result,
)

from pytest_reflex.errors import ParityError, ReflexError
from pytest_reflex.report import json as as_json
from pytest_reflex.report.files import write_text
from pytest_reflex.report.text import terminal
from pytest_reflex.report.text.summary import summary_lines
from pytest_reflex.result import ParityResult
from pytest_reflex.verdict.results import FIXTURE_GATE_NAMES, Answer, FixtureResult, OutputResult

FAILURE = """\
parity FAIL: max_abs_diff 9.461e-03 is not below 1.0e-05 (1 of 3 fixtures fails; \
worst: fixture 1, actions[0, 17, 3])

Per-fixture results
fixture_idx  max_abs_diff  mean_abs_diff        cos  passed  gate
          0     3.000e-07      3.000e-08  +1.000000     yes
          1     9.461e-03      9.461e-04  +1.000000      NO  threshold
          2     2.000e-07      2.000e-08  +1.000000     yes

Worst element: fixture 1, actions[0, 17, 3] (float32, 1x50x32)
  reference     0.5123456478118896
  candidate     0.5218066478118897
  difference    0.009461
  differing     100 of 1600 elements
  ULP           p50 1, p99 9, max 158729
  rmse          3.154e-03, max relative 1.892e-02, SQNR 60.0 dB

Would pass with
  actions: above threshold 9.461e-03

Reference: torch PI0Policy
Candidate: onnx pi0/model.onnx, on CPUExecutionProvider

Next: compare the inputs of fixture 1, which fails, with those of
  fixture 0, which passes: a masked camera, a short prompt or a state at
  its limits is where masks and padding go wrong.
A page with every figure:
  pytest test_pi0.py::test_pi0 --reflex-report parity_reports
Report: parity_reports/index.html"""

STRUCTURE_FAILURE = """\
parity FAIL: fixture 0, structure: outputs differ: missing 'actions'; \
unexpected 'action' (reference gives 'actions') (5 of 5 fixtures fail)

Refused by
  structure (fixtures 0-4): outputs differ: missing 'actions';
    unexpected 'action' (reference gives 'actions')
  compared: nothing was compared

Per-fixture results
fixture_idx  max_abs_diff  mean_abs_diff        cos  passed  gate
          0             -              -          -      NO  structure
          1             -              -          -      NO  structure
          2             -              -          -      NO  structure
          3             -              -          -      NO  structure
          4             -              -          -      NO  structure

Reference: torch PI0Policy
Candidate: onnx pi0/model.onnx, on CPUExecutionProvider

Next: compare the output names, order, dtypes and shapes of the two
  sides; a wrong dtype often means a model in half precision, a wrong
  shape a chunk length or a batch size fixed while tracing."""

PASS_TEXT = """\
parity PASS: max_abs_diff 4.500e-07 is below 1.0e-05 (2 fixtures)

Per-fixture results
fixture_idx  max_abs_diff  mean_abs_diff        cos  passed  gate
          0     3.000e-07      3.000e-08  +1.000000     yes
          1     4.500e-07      4.500e-08  +1.000000     yes

Worst element: fixture 1, actions[0, 17, 3] (float32, 1x50x32)
  reference     0.5123456478118896
  candidate     0.5123460978118897
  difference    4.5e-07
  differing     100 of 1600 elements
  ULP           p50 1, p99 9, max 158729
  rmse          1.500e-07, max relative 9.000e-07, SQNR 60.0 dB

Would pass with
  actions: above threshold 4.500e-07

Reference: torch PI0Policy
Candidate: onnx pi0/model.onnx, on CPUExecutionProvider

Summary
  max_abs_diff_across_all  4.500e-07
  threshold                1.0e-05
  passed                   yes"""


def test_failure_message() -> None:
    said = terminal.failure_message(
        FAILING,
        report="parity_reports/index.html",
        rerun="pytest test_pi0.py::test_pi0 --reflex-report parity_reports",
    )
    assert said == FAILURE


def test_failure_message_of_a_structural_gate() -> None:
    assert terminal.failure_message(STRUCTURE) == STRUCTURE_FAILURE


def test_result_text_of_a_pass() -> None:
    assert str(PASSING) == PASS_TEXT


def test_result_text_of_a_failure_is_the_message_and_the_summary() -> None:
    assert str(FAILING) == terminal.failure_message(FAILING, width=80) + "\n\n" + terminal.summary(FAILING)
    assert terminal.summary(FAILING) == (
        "Summary\n"
        "  max_abs_diff_across_all  9.461e-03\n"
        "  threshold                1.0e-05\n"
        "  passed                   NO"
    )


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (PASSING, "parity PASS: max_abs_diff 4.500e-07 is below 1.0e-05 (2 fixtures)"),
        (
            NOT_FINITE,
            "parity FAIL: fixture 1, finite: candidate actions[0, 3, 2] is nan "
            "(1 of 1600 elements are not finite) (1 of 2 fixtures fails)",
        ),
        (
            DEAD,
            "parity FAIL: inputs: image0 is dead: it changes the reference's actions by 3.1e-01 "
            "and not the candidate's",
        ),
        (EMPTY, "parity FAIL: compared: no fixture was compared"),
        (result(), "parity FAIL: intact: the intact gate was never asked"),
        (
            result(FixtureResult(0, ())),
            "parity FAIL: fixture 0, structure: the structure gate was never asked (1 of 1 fixture fails)",
        ),
        # The most basic refusal speaks first, whichever fixture it came from.
        (
            result(measured(0, 1.0), refused(1, "provider", "ran on CPU")),
            "parity FAIL: fixture 1, provider: ran on CPU (2 of 2 fixtures fail)",
        ),
        # Rounding never shows a figure on the wrong side of its threshold.
        (
            result(measured(0, 9.99999e-6)),
            "parity PASS: max_abs_diff 9.99999e-06 is below 1.0e-05 (1 fixture)",
        ),
        (
            result(measured(0, 1.25e-5, 1.25e-5), threshold=1.25e-5),
            "parity FAIL: max_abs_diff 1.250e-05 is not below 1.250e-05 "
            "(1 of 1 fixture fails; worst: fixture 0, actions[0, 17, 3])",
        ),
    ],
)
def test_headline(found: ParityResult, line: str) -> None:
    assert terminal.headline(found) == line


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("provider", "see with onnxruntime.get_available_providers() what this build has"),
        ("finite", "look for the first value that is not finite"),
        ("exact", "integers and booleans must be equal"),
        ("threshold", "the only fixture fails, by much, so look at what all of them pass through"),
    ],
)
def test_next_for_each_gate(gate: str, said: str) -> None:
    # Floats that are off would be looked at before integers made of them.
    far = 1e-9 if gate == "exact" else 1.0
    assert f"Next: {said}" in " ".join(terminal.failure_message(result(refused(0, gate, "why", far))).split())


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("compared", "give the check fixtures, inputs and outputs to compare"),
        ("repeat", "look for a random operator in the graph"),
        ("inputs", "look for where the input leaves the graph"),
    ],
)
def test_next_for_each_run_gate(gate: str, said: str) -> None:
    found = result(measured(0, 0.0), refusing={gate: "why"})
    assert f"Next: {said}" in " ".join(terminal.failure_message(found).split())


@pytest.mark.parametrize("found", ALL.values(), ids=ALL.keys())
def test_below_its_first_line_a_message_keeps_to_its_width(found: ParityResult) -> None:
    said = found if found.passed else dataclasses.replace(found, notes=("word " * 60,))
    for text, width in ((terminal.failure_message(said), 72), (terminal.result_text(said), 80)):
        assert text.isascii()
        assert all(len(line) <= width for line in text.splitlines()[1:])


SHOWN = {**ALL, "floors": floored(FAILING, 8e-7, 9.46e-3, 7e-7)}
SHOWN["where"] = dataclasses.replace(SHOWN["floors"], located=located(), strict=True)


@pytest.mark.parametrize("width", [32, 40, 60, 66, 72, 80, 100])
@pytest.mark.parametrize("found", SHOWN.values(), ids=SHOWN.keys())
def test_any_width_down_to_forty_columns_and_pytest_s_margin(found: ParityResult, width: int) -> None:
    # A figure that rounding would move across its threshold is shown in full, and still fits.
    exact = dataclasses.replace(found, fixtures=(*found.fixtures, measured(99, 9.999999999999998e-6)))
    for said in (found, exact):
        # The verdict's own lines are whole at every width, for whoever looks for them; a terminal wraps them.
        first = terminal.verdict_lines(said)
        text = terminal.result_text(said, width=width)
        assert text.startswith(f"{first}\n\n")
        lines = text.removeprefix(first).splitlines()
        # What does not fit is one word, such as a name; from 60 columns on a place's lines are not broken.
        long = [line for line in lines if len(line) > width and len(line.split()) > 1]
        assert long == [] or (width >= 60 and said.located is not None)
        rows = [
            line for line in terminal.fixture_table(said, width).splitlines()[2:] if line.split()[0].isdigit()
        ]
        assert len(rows) == len(said.fixtures)
        assert all((" yes" in row) != (" NO" in row) for row in rows)


def test_forty_columns_say_the_same() -> None:
    assert terminal.fixture_table(FAILING, 40) == (
        "Per-fixture results\n"
        "fixture    max_abs  passed  gate\n"
        "      0  3.000e-07     yes\n"
        "      1  9.461e-03      NO  threshold\n"
        "      2  2.000e-07     yes"
    )
    wide, narrow = (terminal.result_text(SHOWN["where"], width) for width in (100, 40))
    whole, narrowly = (terminal.worst_element(FAILING, width).splitlines() for width in (100, 40))
    assert [line for line in whole if len(line) <= 40] == [line for line in narrowly if line in whole]
    for word in (
        "9.461e-03",
        "0.5218066478118897",
        "[0, 3, 11]",
        "node",
        "1.0e-05",
        "158729",
        "passed",
        "NO",
    ):
        assert word in wide, word
        assert word in narrow, word


def test_a_summary_puts_names_below_their_figures_on_few_columns() -> None:
    run = as_json.run_of(as_json.document([{**PASSING.to_json(), "name": f"test_{i}"} for i in (10, 2)]))
    assert [text for text, _ in summary_lines(run, width=40)] == [
        "verdict  max_abs_diff  threshold  name",
        "PASS        4.500e-07    1.0e-05",
        "  test_2",
        "PASS        4.500e-07    1.0e-05",
        "  test_10",
    ]
    assert [text for text, _ in summary_lines(run)][1:] == [
        "PASS        4.500e-07    1.0e-05  test_2",
        "PASS        4.500e-07    1.0e-05  test_10",
    ]


def test_a_summary_counts_notes_and_doubts_or_prints_them() -> None:
    doubt = Answer.no("power", "the threshold is a fifth of all that the output does")
    noted = replace(PASSING, name="test_1", notes=("one", "two", doubt.said), doubts=(doubt,))
    run = as_json.run_of(as_json.document([noted.to_json()]))
    row = "PASS        4.500e-07    1.0e-05"
    where = "in the report; -v or -rA prints them here"
    assert [text for text, _ in summary_lines(run, where=where)][1:] == [
        f"{row}  test_1 (2 notes, 1 doubt)",
        f"notes: {where}",
    ]
    narrow = [text for text, _ in summary_lines(run, width=40, where=where, notes=True)]
    assert narrow == [
        "verdict  max_abs_diff  threshold  name",
        row,
        "  test_1 (2 notes, 1 doubt)",
        "  note: one",
        "  note: two",
        "  doubt: the threshold is a fifth of all",
        "    that the output does",
    ]
    long = as_json.run_of(as_json.document([replace(noted, name="test_of_a_name_as_long_as_it").to_json()]))
    assert [text for text, _ in summary_lines(long, width=40, where=where)][1:] == [
        row,
        "  test_of_a_name_as_long_as_it",
        "  (2 notes, 1 doubt)",
        "notes: in the report; -v or -rA prints",
        "  them here",
    ]
    # Those that are not listed are counted together.
    many = [replace(noted, name=f"test_{i}").to_json() for i in range(53)]
    lines = [text for text, _ in summary_lines(as_json.run_of(as_json.document(many)), where=where)]
    assert lines[-2:] == ["... 3 more PASS (6 notes, 3 doubts)", f"notes: {where}"]


def test_a_narrow_table_says_the_same_in_shorter_words() -> None:
    assert terminal.fixture_table(FAILING, 60) == (
        "Per-fixture results\n"
        "fixture    max_abs   mean_abs        cos  passed  gate\n"
        "      0  3.000e-07  3.000e-08  +1.000000     yes\n"
        "      1  9.461e-03  9.461e-04  +1.000000      NO  threshold\n"
        "      2  2.000e-07  2.000e-08  +1.000000     yes"
    )


def test_a_name_that_is_not_ascii_costs_nobody_the_verdict() -> None:
    output = OutputResult("действия\n", "float32", (1,), difference(1.0, worst_index=(0,)))
    answers = (*(Answer.yes(name) for name in FIXTURE_GATE_NAMES[:-1]), Answer.no("threshold", "no"))
    text = terminal.failure_message(result(FixtureResult(0, answers, (output,))))
    assert text.isascii()
    assert text.splitlines()[1] == ""


def test_two_hundred_fixtures_show_the_failing_ones_first() -> None:
    found = result(*(measured(i, 1e-2 if i in (7, 150) else 3e-7) for i in range(200)))
    lines = terminal.fixture_table(found).splitlines()
    assert len(lines) == 2 + terminal.TABLE_ROWS + 1
    assert [line.split()[0] for line in lines[2:6]] == ["7", "150", "0", "1"]
    assert lines[-1] == "... 180 more not shown: 0 failing, 180 passing, max_abs_diff at most 3.000e-07"


def test_more_failing_fixtures_than_rows_are_counted() -> None:
    found = result(*(measured(i, 1e-2) for i in range(30)))
    assert terminal.fixture_table(found).splitlines()[-1] == (
        "... 10 more not shown: 10 failing, 0 passing, max_abs_diff at most 1.000e-02"
    )


def test_a_nan_is_the_worst_element() -> None:
    assert "Worst element: fixture 1, actions[0, 17, 3]" in terminal.worst_element(NOT_FINITE)
    assert "difference    nan" in terminal.worst_element(NOT_FINITE)


def test_a_provider_that_fell_back_is_named() -> None:
    facts = {
        "kind": "onnx",
        "path": "m.onnx",
        "provider_asked": "CUDAExecutionProvider",
        "providers_used": [],
    }
    assert terminal.sides(result(candidate=facts)).endswith(
        "Candidate: onnx m.onnx, asked for CUDAExecutionProvider, ran on no provider"
    )


def test_require_raises_the_message() -> None:
    assert PASSING.require() is PASSING
    with pytest.raises(ParityError) as caught:
        FAILING.require()
    assert str(caught.value) == terminal.failure_message(FAILING)
    assert caught.value.result is FAILING


# JSON


@pytest.fixture(scope="module")
def valid() -> Callable[[object], None]:
    schema = as_json.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).validate


def test_documents_keep_to_the_schema(valid: Callable[[object], None]) -> None:
    valid(as_json.document(ALL.values(), exit_code=1))
    valid(as_json.document([]))
    valid(as_json.error_document(ReflexError("m.onnx: no such file")))
    entry = {"nodeid": "test_a.py::test_b", "call": 0, **PASSING.to_json()}
    skipped = {"nodeid": "test_a.py::test_c", "outcome": "skipped", "reason": "no GPU here"}
    valid(as_json.document([entry], not_compared=[skipped], problems=["worker gw0 went down"]))


def test_the_schema_refuses_what_is_not_in_it(valid: Callable[[object], None]) -> None:
    good = as_json.document([FAILING])
    row = good["results"][0]["fixtures"][0]
    for place, key, value in (
        (good, "extra", 1),
        (good, "schema_version", 1),
        (good["results"][0], "passed", "yes"),
        (row, "max_abs_diff", "nan"),
        (row["outputs"][0]["difference"], "elements", 0),
    ):
        before = dict(place)
        place[key] = value
        with pytest.raises(jsonschema.ValidationError):
            valid(good)
        place.clear()
        place.update(before)
    valid(good)


def test_every_key_of_the_schema_is_required_or_explained() -> None:
    definitions = as_json.schema()["$defs"]
    for name in ("run", "error", "result", "fixture", "output", "difference", "answer"):
        assert definitions[name]["additionalProperties"] is False
        assert set(definitions[name]["required"]) <= set(definitions[name]["properties"])


@pytest.mark.parametrize("found", ALL.values(), ids=ALL.keys())
def test_json_there_and_back(found: ParityResult) -> None:
    text = json.dumps(found.to_json(), allow_nan=False)
    again = ParityResult.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    assert again.passed is found.passed
    assert str(again) == str(found)


def test_json_rounds_nothing_and_writes_nan_as_text() -> None:
    row = FAILING.to_json()["fixtures"][1]  # type: ignore[index]
    assert row["max_abs_diff"] == 9.461e-3
    assert row["gate"] == "threshold"
    assert row["reason"] == "actions: max_abs_diff 9.461e-03 is not below 1.0e-05"
    assert NOT_FINITE.to_json()["fixtures"][1]["max_abs_diff"] == "NaN"  # type: ignore[index]
    for value, text in ((math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")):
        assert as_json.plain(value) == text
        assert str(as_json.number(text)) == str(value)


def test_plain_leaves_only_builtins() -> None:
    class Text(str):
        __slots__ = ()

    given = {
        1: np.float32(0.5),
        "a": [np.int64(3), np.bool_(True), Path("x"), {2}, (None,)],
        "b": Text("t"),
        "c": np.array(2.0),
        "d": np.float64(math.inf),
        "e": "\udcff",
    }
    made = as_json.plain(given)
    assert made == {
        "1": 0.5,
        "a": [3, True, "x", [2], [None]],
        "b": "t",
        "c": 2.0,
        "d": "Infinity",
        "e": "\\udcff",
    }
    assert [type(v) for v in made["a"][:3]] == [int, bool, str]
    assert type(made["b"]) is str
    assert type(made["1"]) is float


@pytest.mark.parametrize(
    "change",
    [
        {"passed": True},
        {"max_abs_diff_across_all": 1e-9},
        {"extra": 1},
        {"strict": "no"},
    ],
)
def test_a_result_that_was_changed_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ReflexError, match=r"contradicts itself|not a parity result"):
        as_json.result_from_json({**FAILING.to_json(), **change})


def test_a_fixture_that_was_changed_is_refused() -> None:
    data: Any = json.loads(json.dumps(FAILING.to_json()))
    data["fixtures"][1]["passed"] = True
    with pytest.raises(ReflexError) as caught:
        as_json.result_from_json(data)
    assert str(caught.value) == (
        "parity result 'test_pi0.py::test_pi0' contradicts itself at 'fixtures': "
        "its answers and figures give another value; it was changed after it was written"
    )
    del data["fixtures"]
    with pytest.raises(ReflexError) as caught:
        as_json.result_from_json(data)
    assert str(caught.value) == (
        "not a parity result: key 'fixtures' is missing; expected what pytest-reflex wrote"
    )


@pytest.mark.parametrize(
    ("results", "given", "passed"),
    [
        ([PASSING], {}, True),
        ([], {}, False),
        ([PASSING, FAILING], {}, False),
        ([PASSING], {"problems": ["worker gw0 went down"]}, False),
        ([PASSING], {"not_compared": [{"nodeid": "a", "outcome": "failed", "reason": "b"}]}, False),
        ([PASSING], {"not_compared": [{"nodeid": "a", "outcome": "skipped", "reason": "b"}]}, True),
        ([{**PASSING.to_json(), "passed": 1}], {}, False),
    ],
)
def test_a_document_passes_only_when_everything_did(results: Any, given: Any, passed: bool) -> None:
    assert as_json.document(results, **given)["passed"] is passed


def test_error_document() -> None:
    made = as_json.error_document(ReflexError("m.onnx: no such file"))
    assert made["error"] == {"type": "ReflexError", "message": "m.onnx: no such file"}
    assert made["exit_code"] == 2


def test_read(tmp_path: Path) -> None:
    path = tmp_path / "parity.json"
    made = as_json.document([PASSING, FAILING])
    path.write_text(as_json.dumps(made), encoding="utf-8")
    assert as_json.read(path) == made
    path.write_text(as_json.dumps({**made, "passed": True}), encoding="utf-8")
    with pytest.raises(ReflexError) as caught:
        as_json.read(path)
    assert str(caught.value) == f"{path}: says passed True, but its results give False"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is no parity document; give a parity.json that pytest-reflex wrote"),
        ('{"tool": "pytest-reflex", "schema_version": 2}', "has schema_version 2, expected 6"),
        ('{"tool": "pytest-reflex", "schema_version": 4}', "is no parity document"),
        ('{"tool": "pytest-reflex", "schema_version": 5}', "is no parity document"),
    ],
)
def test_read_refuses(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "parity.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ReflexError) as caught:
        as_json.read(path)
    assert str(caught.value).startswith(f"{path}: {said}")
    with pytest.raises(ReflexError, match="cannot be read"):
        as_json.read(tmp_path / "absent.json")


# Files


def test_write_replaces_whole_files_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "parity.json"
    write_text(path, "one")
    write_text(path, "two\n")
    assert path.read_bytes() == b"two\n"
    assert os.listdir(path.parent) == ["parity.json"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "parity.json"
    write_text(path, "one")

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pytest_reflex.report.files.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "two")
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["parity.json"]
