"""A result or a whole run as HTML that needs nothing else: no network, light and dark, without a mouse.

The templates escape every text; ``view.py`` says what they show. The page's one script is allowed by
its digest and nothing else is, so a name from outside stays text whatever it holds.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_reflex.report import scale
from pytest_reflex.report.compare import KINDS, Change, compare
from pytest_reflex.report.json.results import result_to_json
from pytest_reflex.report.json.values import number
from pytest_reflex.report.origins import UNALIKE, unalike
from pytest_reflex.report.text.terminal import bound, figure

if TYPE_CHECKING:
    from jinja2 import Environment

    from pytest_reflex.verdict.results import RunResult

_TEMPLATES: Final = Path(__file__).parent / "templates"
_BARE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{head}</title>
<style>
{style}
</style>
</head>
<body class="reflex page">
<header class="top fail"><h1>✕ {head}</h1></header>
<main>
{said}
</main>
<footer class="small">{tool} {version}</footer>
</body>
</html>
"""
# A name longer than this is shown by both its ends; the whole of it stands with the facts.
_LONG: Final = 160
_NOTEBOOK_ROWS: Final = 20


def page(document: Mapping[str, Any], against: Mapping[str, Any] | None = None) -> str:
    """The page for a run document of :func:`pytest_reflex.report.json.document`, or for an error document.

    Args:
        document: what to show.
        against: an earlier run document, to say what got worse and what got better since.
    """
    if "error" in document or not (document["results"] or against):
        return _bare_page(document)
    script = _read("page.js")
    shown = {
        "tool": document["tool"],
        "version": document["version"],
        "style": _read("style.css"),
        "script": script,
        "digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **_run(document, against),
    }
    return _environment().get_template("page.html").render(shown)


def result_html(result: RunResult) -> str:
    """A fragment for a notebook: the verdict, the table and the heat map, with its own style."""
    from pytest_reflex.report.html.view import result_view

    entry = result_to_json(result)
    view = result_view(entry, openable=0)
    rows = sorted(view["fixtures"], key=lambda f: f["passed"])[:_NOTEBOOK_ROWS]
    rows.sort(key=lambda f: f["idx"])
    shown = {"r": view, "rows": rows, "style": _read("style.css")}
    return _environment().get_template("fragment.html").render(shown)


def _bare_page(document: Mapping[str, Any]) -> str:
    """Why there is nothing to show. A session without parity tests pays for no more than this."""
    if "error" in document:
        head = "parity error"
        lines = [f"{document['error']['type']}: {document['error']['message']}"]
    else:
        head = "parity FAIL"
        tests = document["not_compared"]
        lines = ["Nothing was compared, so nothing is proven.", *document["problems"]]
        lines += [f"not compared: {t['nodeid']}: {t['outcome']}: {t['reason']}" for t in tests]
    said = "\n".join(f"<p><bdi>{escape(line)}</bdi></p>" for line in lines)
    return _BARE.format(
        style=_read("style.css"),
        head=head,
        said=said,
        tool=escape(str(document["tool"])),
        version=escape(str(document["version"])),
    )


def _run(document: Mapping[str, Any], against: Mapping[str, Any] | None) -> dict[str, Any]:
    from pytest_reflex.report.html.view import INPUT_CELLS, OPENABLE, result_view

    results = document["results"]
    share = {
        "openable": max(OPENABLE // max(len(results), 1), 3),
        "input_cells": INPUT_CELLS // max(len(results), 1),
    }
    figures: list[float | None] = []
    for entry in results:
        floor = scale.ulp_step(entry)
        figures += [number(entry["max_abs_diff_across_all"]), entry["threshold"], floor[0] if floor else None]
    # One axis for all, so that a row can be compared with the row above it.
    along = scale.axis(figures)
    own = None if len(results) == 1 else along
    views = [result_view(entry, along=own, **share) for entry in results]
    worst = min(range(len(views)), key=lambda i: _urgency(results[i], i), default=None)
    failing = sum(not view["passed"] for view in views)
    return {
        "passed": document["passed"],
        "results": views,
        "failing": failing,
        "worst": worst,
        "sentence": _sentence(document, len(views), failing),
        "not_compared": document["not_compared"],
        "problems": document["problems"],
        "fixture_count": sum(view["count"] for view in views),
        "changes": None if against is None else changes_view(compare(against, document)),
    }


def _urgency(entry: Mapping[str, Any], place: int) -> tuple[bool, float, int]:
    """Orders results by what to look at first: failing before passing, then the farthest up the scale."""
    value = number(entry["max_abs_diff_across_all"])
    ratio = float("inf") if value is None or value != value else value / entry["threshold"]
    return entry["passed"] is True, -ratio, place


def _sentence(document: Mapping[str, Any], count: int, failing: int) -> str:
    if not count:
        return "Nothing was compared, so nothing is proven."
    what = "export" if count == 1 else f"{count} exports"
    if failing:
        subject = "The export" if count == 1 else f"{failing} of {what}"
        verb = "does" if failing == 1 else "do"
        return f"{subject} {verb} not compute what the reference computes."
    if not document["passed"]:
        return f"What was compared agrees ({what}), but the run itself did not end well."
    subject = "The export computes" if count == 1 else f"All {what} compute"
    return f"{subject} what the reference computes, on every fixture that was run."


def changes_view(changes: Sequence[Change]) -> dict[str, Any]:
    """What a comparison shows: how the runs were made, how many of each kind, a row for each that changed."""
    counts = {kind: sum(change.kind == kind for change in changes) for kind in KINDS}
    rows = [
        {
            "kind": change.kind,
            "name": change.name,
            "before": _figure(change.before),
            "after": _figure(change.after),
            "words": change.words,
        }
        for change in changes
        if change.kind != "same"
    ]
    return {"unalike": UNALIKE, "origins": unalike(changes), "counts": counts, "rows": rows}


def _figure(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "-"
    word = "PASS" if entry["passed"] is True else "FAIL"
    seen = figure(number(entry["max_abs_diff_across_all"]), entry["threshold"])
    return f"{word} {seen} (threshold {bound(entry['threshold'])})"


def shortened(text: object) -> str:
    """A name for a heading or a row: its two ends where it is long."""
    whole = str(text)
    return whole if len(whole) <= _LONG else f"{whole[:100]} […] {whole[-40:]}"


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8").strip()


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["short"] = shortened
    return made
