"""A result or a whole run as HTML that needs nothing else: no network, light and dark, without a mouse.

The templates escape every text; ``view.py`` says what they show. The page's one script is allowed by
its digest and nothing else is, so a name from outside stays text whatever it holds.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_reflex.report import scale
from pytest_reflex.report.compare import KINDS, Change, compare
from pytest_reflex.report.json.documents import TOOL, Entry, Run, run_of
from pytest_reflex.report.json.values import plain
from pytest_reflex.report.order import to_read
from pytest_reflex.report.origins import UNALIKE, made_on, unalike
from pytest_reflex.report.text.terminal import figure, limit_text

if TYPE_CHECKING:
    from jinja2 import Environment

    from pytest_reflex.verdict.divergence import Divergence
    from pytest_reflex.verdict.results import RunResult

_TEMPLATES: Final = Path(__file__).parent / "templates"
# A name longer than this is shown by both its ends; the whole of it stands with the facts.
_LONG: Final = 160
_NOTEBOOK_ROWS: Final = 20
# How many results of a page have pictures, those that are looked at first before others: a page of a thousand
# opens as one of ten does.
PICTURED: Final = 100
# How many of the processes and machines that had a part in a run are named, and how many unchanged results.
_NAMED: Final = 3
_SAME: Final = 500
# A link to a result is its name, and where that is longer than this its end.
_ANCHOR: Final = 64


def page(made: Run | Mapping[str, Any], against: Run | Mapping[str, Any] | None = None) -> str:
    """The page of a run, or of one that reached no verdict.

    Args:
        made: what to show: a run or its document.
        against: an earlier run, to say what got worse and what got better since.
    """
    run = run_of(made)
    if run.error is not None or not (run.results or against):
        return _bare_page(run)
    script = template_text("page.js")
    shown = {
        "tool": TOOL,
        "version": run.version,
        "style": template_text("style.css"),
        "script": script,
        "digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **_run(run, None if against is None else run_of(against)),
    }
    return rendered("page.html", shown)


def result_html(result: RunResult) -> str:
    """A fragment for a notebook: the verdict, the table and the heat map, with its own style."""
    from pytest_reflex.report.html.view import result_view

    view = result_view(result, openable=0)
    rows = sorted(view["fixtures"], key=lambda f: f["passed"])[:_NOTEBOOK_ROWS]
    rows.sort(key=lambda f: f["idx"])
    shown = {"r": view, "rows": rows, "style": template_text("style.css")}
    return rendered("fragment.html", shown)


def divergence_html(divergence: Divergence) -> str:
    """The same of where two sides part: the place, the error along the run, and its tables."""
    from pytest_reflex.report.html.causes import where_view

    shown = {"r": {"where": where_view(divergence), "rounding": None}, "style": template_text("style.css")}
    return rendered("where.html", shown)


def _bare_page(run: Run) -> str:
    """Why there is nothing to show. A session without parity tests pays for no more: no jinja2."""
    if run.error is not None:
        head = "parity error"
        lines = [f"{run.error['type']}: {run.error['message']}"]
    else:
        head = "parity FAIL"
        lines = ["Nothing was compared, so nothing is proven.", *run.problems]
        lines += [f"no result: {t['nodeid']}: {t['outcome']}: {t['reason']}" for t in run.not_compared]
    lines += _sessions(run)
    said = "\n".join(f"<p><bdi>{escape(line)}</bdi></p>" for line in lines)
    version = escape(str(run.version))
    shown = template_text("bare.html").format(
        style=template_text("style.css"), head=head, said=said, tool=TOOL, version=version
    )
    return shown + "\n"


def _run(run: Run, against: Run | None) -> dict[str, Any]:
    from pytest_reflex.report.html.view import INPUT_CELLS, OPENABLE, result_view

    entries = to_read(run.results)
    results = [entry.result for entry in entries]
    share = {
        "openable": max(OPENABLE // max(len(results), 1), 3),
        "input_cells": INPUT_CELLS // max(len(results), 1),
    }
    figures: list[float | None] = []
    for result in results:
        floor = scale.ulp_step(result)
        figures += [*result.margin, floor[0] if floor else None]
    # One axis for all, so that a row can be compared with the row above it.
    along = scale.axis(figures)
    own = None if len(results) == 1 else along
    urgent = sorted(range(len(results)), key=lambda i: _urgency(results[i], i))
    pictured = set(urgent[:PICTURED])
    names = anchors(result.name for result in results)
    views = [
        result_view(result, along=own, anchor=names[i], pictured=i in pictured, **share)
        for i, result in enumerate(results)
    ]
    failing = sum(not view["passed"] for view in views)
    led = {id(entry): name for entry, name in zip(entries, names, strict=True)}
    return {
        "passed": run.passed,
        "results": views,
        "failing": failing,
        "worst": urgent[0] if urgent else None,
        "called": run.called,
        "sentence": _sentence(run.passed, len(views), failing)
        + _unasked(sum(result.against != "policy" for result in results), len(results)),
        "sessions": _sessions(run),
        "not_compared": run.not_compared,
        "problems": run.problems,
        "fixture_count": sum(view["count"] for view in views),
        "changes": None if against is None else changes_view(against, run, led),
    }


def anchors(names: Iterable[str]) -> list[str]:
    """For each name a fragment that leads to it, the same one on the page of any other run; no two alike."""
    made: dict[str, None] = {}
    for name in names:
        anchor = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "result"
        if len(anchor) > _ANCHOR:
            # The end of a test's name tells it from others; its digest does where that does not.
            digest = hashlib.sha256(str(plain(name)).encode()).hexdigest()[:8]
            anchor = f"{anchor[-_ANCHOR:].lstrip('-')}-{digest}"
        once_more = (f"{anchor}.{again}" for again in range(2, len(made) + 3))
        made[next(one for one in (anchor, *once_more) if one not in made)] = None
    return list(made)


def _sessions(run: Run) -> list[str]:
    """When the run was made, how long it took and of which source, a line for each process."""
    lines = [str(one) for one in run.sessions[:_NAMED]]
    more = len(run.sessions) - len(lines)
    return lines + [f"and {more} more"] * bool(more)


def _urgency(result: RunResult, place: int) -> tuple[bool, float, int]:
    """Orders results by what to look at first: failing before passing, then the farthest up the scale."""
    value, limit = result.margin
    ratio = float("inf") if value is None or value != value or not limit else value / limit
    return result.passed, -ratio, place


def _sentence(passed: bool, count: int, failing: int) -> str:
    if not count:
        return "Nothing was compared, so nothing is proven."
    what = "export" if count == 1 else f"{count} exports"
    if failing:
        subject = "The export" if count == 1 else f"{failing} of {what}"
        verb = "does" if failing == 1 else "do"
        return f"{subject} {verb} not compute what the reference computes."
    if not passed:
        return f"What was compared agrees ({what}), but the run itself did not end well."
    subject = "The export computes" if count == 1 else f"All {what} compute"
    return f"{subject} what the reference computes, on every fixture that was run."


def _unasked(unasked: int, count: int) -> str:
    if not unasked:
        return ""
    of = "" if unasked == count else f" in {unasked} of them"
    return f" PyTorch was not asked{of}: an agreement of two graphs proves no parity with any policy."


def changes_view(before: Run, now: Run, led: Mapping[int, str] | None = None) -> dict[str, Any]:
    """What a page shows of two runs beside each other: how each was made, and every result in both.

    Args:
        before: the earlier run.
        now: the later one.
        led: where a link leads to an entry of the later one, by the entry's identity.
    """
    changes = compare(before, now)
    along = scale.axis(v for run in (before, now) for entry in run.results for v in entry.result.margin)
    rows = [_change(change, along, led or {}) for change in changes]
    same = [row for row in rows if row["kind"] == "same"]
    return {
        "unalike": UNALIKE,
        "origins": unalike(changes),
        "sides": [_told("Before", before), _told("Now", now)],
        "counts": {kind: sum(change.kind == kind for change in changes) for kind in KINDS},
        "rows": [row for row in rows if row["kind"] != "same"],
        "same": same[:_SAME],
        "same_left_out": len(same[_SAME:]),
    }


def _told(title: str, run: Run) -> dict[str, Any]:
    """One of two runs: its verdict, how much it compared, when, where and of what."""
    failing = sum(not entry.result.passed for entry in run.results)
    return {
        "title": title,
        "passed": run.passed,
        "called": run.called,
        "compared": f"{len(run.results)} compared, {failing} failing, "
        f"{len(run.not_compared)} without a result",
        "lines": [
            *_sessions(run),
            *made_on(entry.result for entry in run.results)[:_NAMED],
            f"{TOOL} {run.version}" if run.version else "",
        ],
    }


def _change(change: Change, along: scale.Axis, led: Mapping[int, str]) -> dict[str, Any]:
    from pytest_reflex.report.html import pictures

    entries = change.before, change.after
    before, now = (None if entry is None else entry.result for entry in entries)
    return {
        "kind": change.kind,
        "name": change.name,
        "words": change.words,
        "anchor": led.get(id(change.after), ""),
        "figures": [_figure(entry) for entry in entries],
        "passed": [None if entry is None else entry.result.passed for entry in entries],
        "svg": pictures.pair(before, now, along),
    }


def _figure(entry: Entry | None) -> str:
    if entry is None:
        return "-"
    seen, limit = entry.result.margin
    return f"{figure(seen, limit)} of {limit_text(entry.result, limit)}"


def shortened(text: object) -> str:
    """A name for a heading or a row: its two ends where it is long."""
    whole = str(text)
    return whole if len(whole) <= _LONG else f"{whole[:100]} […] {whole[-40:]}"


def rendered(template: str, shown: Mapping[str, Any]) -> str:
    # Plain: a name that is no text (an undecodable file's) could not be written as UTF-8.
    return str(plain(_environment().get_template(template).render(shown)))


def template_text(name: str) -> str:
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
