"""Every face of the report says what its fixtures establish, and a stored claim is what they establish."""

from __future__ import annotations

import dataclasses
import html
import json
from typing import Any

import jsonschema
import pytest
from report_cases import measured, result

from pytest_reflex.errors import ReflexError
from pytest_reflex.report import json as as_json
from pytest_reflex.report.html.pages import page, result_html
from pytest_reflex.report.json import documents
from pytest_reflex.report.json.documents import Entry, Run, run_of
from pytest_reflex.report.markdown import markdown
from pytest_reflex.report.text import terminal
from pytest_reflex.report.text.summary import summary_lines
from pytest_reflex.result import ParityResult
from pytest_reflex.verdict.claim import Asked, Claim


def claiming(made: ParityResult, *, left_out: int = 0, **given: Any) -> ParityResult:
    """The result with the claim of its fixtures, and of so many more that passed."""
    passed = [True] * left_out + [fixture.passed for fixture in made.fixtures]
    source = "recorded" if made.seed is None else "drawn"
    given = {"source": source, "distinct": len(passed), **given}
    return dataclasses.replace(made, claim=Claim.of(passed, **given))


FEW = claiming(result(measured(0, 3e-7), measured(1, 4.5e-7)))
MANY = claiming(
    result(measured(0, 3e-7), measured(17, 4.5e-7), name="many"), left_out=2993, asked=Asked(1e-3)
)
FRAMES = claiming(result(measured(0, 3e-7), measured(1, 4.5e-7), seed=None, name="frames"))
WRONG = claiming(result(measured(0, 3e-7), measured(1, 9.461e-3)))
EVERY = {"few": FEW, "many": MANY, "frames": FRAMES, "wrong": WRONG}

of_each = pytest.mark.parametrize("found", EVERY.values(), ids=EVERY.keys())


def plainly(text: str) -> str:
    return " ".join(html.unescape(text).split())


@of_each
def test_every_face_says_it(found: ParityResult) -> None:
    said = found.claim.text if found.claim else ""
    assert said.startswith("at most ")
    run = Run((Entry(found),))
    for shown in (str(found), page(run), result_html(found), markdown(run)):
        assert said in plainly(shown)
    assert (f"claim: {said}", "plain") in summary_lines(run)
    assert found.to_json()["claim"]["text"] == said  # type: ignore[index]


@pytest.mark.parametrize(
    ("source", "seed", "words"),
    [
        ("drawn", 7, "drawn with seed 7"),
        ("derived", None, "made of drawn observations"),
        ("recorded", None, "recorded"),
    ],
)
def test_the_page_says_where_its_fixtures_come_from(source: str, seed: int | None, words: str) -> None:
    made = claiming(result(measured(0, 3e-7), measured(1, 4.5e-7), seed=seed), source=source)
    assert f"2 fixtures, {words}" in plainly(page(Run((Entry(made),))))


def test_several_results_share_a_line_and_the_weakest_comes_first() -> None:
    run = Run((Entry(MANY), Entry(FEW), Entry(dataclasses.replace(FEW, name="other")), Entry(FRAMES)))
    claims = [text for text, _ in summary_lines(run) if text.startswith("claim: ")]
    assert [line.rpartition(": ")[2] for line in claims] == ["each of 2 results", "frames", "many"]
    assert markdown(run).count("claim: ") == 3
    many = [claiming(result(*(measured(i, 3e-7) for i in range(n)), name=f"r{n}")) for n in range(1, 9)]
    shown = [text for text, _ in summary_lines(Run(tuple(map(Entry, many)))) if text.startswith("claim: ")]
    assert (len(shown), shown[-1]) == (6, "claim: ... 3 others")


def test_what_was_not_kept_is_counted_everywhere() -> None:
    assert (MANY.count, MANY.left_out, len(MANY.fixtures)) == (2995, 2993, 2)
    text = str(MANY)
    assert "(2,995 fixtures)" in text.splitlines()[0]
    assert "... 2,993 more were drawn and pass; those with the worst figures are kept" in plainly(text)
    assert "0 of 2,995 fixtures fail" in page(Run((Entry(MANY),)))
    assert "| 0 of 2995 |" in markdown(Run((Entry(MANY),)))
    assert repr(MANY).endswith("2995 fixtures>")


@of_each
def test_json_there_and_back(found: ParityResult) -> None:
    document = as_json.document([found])
    jsonschema.validate(document, as_json.schema())
    text = json.dumps(document, allow_nan=False)
    assert run_of(json.loads(text)).results[0].result == found


@pytest.mark.parametrize(
    ("found", "key", "value"),
    [
        (FEW, "judged", 2995),
        (FEW, "counted", 1),
        (FEW, "refused", 1),
        (FEW, "clean", 1),
        (FEW, "bound", 1e-3),
        (FEW, "text", "at most 0.1 % of inputs"),
        (FEW, "source", "recorded"),
        (FEW, "asked", {"share": 1e-3, "confidence": 0.95, "budget": None}),
        (MANY, "clean", 1),
        (MANY, "judged", 2994),
        (MANY, "counted", 10**18),
        (MANY, "asked", None),
        (MANY, "asked", {"share": 1e-300, "confidence": 0.95, "budget": None}),
        (MANY, "asked", {"share": 1e-4, "confidence": 0.95, "budget": None}),
        (WRONG, "refused", 0),
        (WRONG, "refused", -1),
        (FRAMES, "source", "drawn"),
        (FRAMES, "judged", 3),
        (FRAMES, "stopped", "perhaps"),
    ],
)
def test_a_claim_that_was_changed_is_refused(found: ParityResult, key: str, value: object) -> None:
    data: Any = json.loads(json.dumps(found.to_json()))
    data["claim"][key] = value
    with pytest.raises(ReflexError, match=r"contradicts itself|not a parity result"):
        as_json.result_from_json(data)


@of_each
def test_documents_from_before_claims_are_read(found: ParityResult) -> None:
    entry: Any = json.loads(json.dumps(dataclasses.replace(found, claim=None).to_json()))
    del entry["claim"], entry["coverage"]
    entry["gates"] = [gate for gate in entry["gates"] if gate["gate"] not in ("coverage", "claim")]
    old = {"schema_version": 4, "tool": "pytest-reflex", "version": "0.1.0", "passed": found.passed}
    old |= {"results": [entry], "not_compared": [], "problems": []}
    made = {**documents._from_version_4(old), "schema_version": 6}
    again = run_of(made).results[0].result
    assert (again.passed, again.claim, again.fixtures) == (found.passed, None, found.fixtures)
    jsonschema.validate(made, as_json.schema())
    assert "Claim" not in terminal.result_text(again)
