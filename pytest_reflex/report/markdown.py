"""A run as Markdown for a job summary or a pull request: the verdict, a table, the failing fixtures."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pytest_reflex.report.compare import KINDS, Change, compare
from pytest_reflex.report.json.results import result_from_json
from pytest_reflex.report.json.values import number
from pytest_reflex.report.origins import UNALIKE, made_on, unalike
from pytest_reflex.report.scale import distance
from pytest_reflex.report.text.divergence import around, by_layer, where_line
from pytest_reflex.report.text.rounding import word_line
from pytest_reflex.report.text.terminal import bound, cosine, figure
from pytest_reflex.verdict.divergence import Divergence

# GitHub takes a mebibyte for one step; a reader takes less.
_ROWS: Final = 100
_FIXTURES: Final = 10
_NAME: Final = 200
_LAYERS: Final = 12
_MACHINES: Final = 5


def markdown(document: Mapping[str, Any], against: Mapping[str, Any] | None = None) -> str:
    """A run document, or an error document, as GitHub's Markdown.

    Args:
        document: what to show.
        against: an earlier run document, to say what changed since.
    """
    if "error" in document:
        error = document["error"]
        return f"## ⚠️ parity: no verdict\n\n{text(error['type'])}: {text(error['message'])}\n"
    results = document["results"]
    failing = [entry for entry in results if entry["passed"] is not True]
    word = "✅ parity PASS" if document["passed"] else "❌ parity FAIL"
    parts = [
        f"## {word}",
        f"{len(results)} compared, {len(failing)} failing, {len(document['not_compared'])} not compared.",
        _bullets(document["problems"]),
        "" if against is None else _changes(compare(against, document)),
        _overview([*failing, *(entry for entry in results if entry["passed"] is True)]),
        _bullets(f"made on {line}" for line in made_on(results)[:_MACHINES]),
        *(_failure(entry) for entry in failing[:_FIXTURES]),
        _bullets(
            f"not compared: {t['nodeid']}: {t['outcome']}: {t['reason']}" for t in document["not_compared"]
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def text(value: object) -> str:
    """Text from outside as text: no HTML, no Markdown, no mention, in one line."""
    line = " ".join(str(value).split())
    line = line if len(line) <= _NAME else f"{line[:120]} […] {line[-60:]}"
    # What writes from right to left is shut in, and every mark that Markdown reads is an entity.
    safe = re.sub(r"[^\w\s./:,\[\]()+=…-]", lambda m: f"&#{ord(m[0])};", html.unescape(line))
    safe = re.sub(r"[_*`\[\]]", lambda m: f"&#{ord(m[0])};", safe)
    return f"<bdi>{safe}</bdi>" if not safe.isascii() or "&#" in safe else safe


def _overview(results: Sequence[Mapping[str, Any]]) -> str:
    header: tuple[str, ...] = ("verdict", "name", "max_abs_diff", "threshold", "distance", "fixtures failing")
    rows: list[tuple[str, ...]] = [
        (
            "✅ PASS" if entry["passed"] is True else "❌ FAIL",
            text(entry["name"]),
            figure(number(entry["max_abs_diff_across_all"]), entry["threshold"]),
            bound(entry["threshold"]),
            distance(number(entry["max_abs_diff_across_all"]), entry["threshold"]),
            f"{sum(not f['passed'] for f in entry['fixtures'])} of {len(entry['fixtures'])}",
        )
        for entry in results
    ]
    if any(entry["word"] for entry in results):
        header = (*header, "floor")
        rows = [(*row, entry["word"] or "-") for row, entry in zip(rows, results, strict=True)]
    return _table(header, rows)


def _failure(entry: Mapping[str, Any]) -> str:
    """Why one result fails, and its failing fixtures, folded away."""
    result = result_from_json(entry)
    causes = [line for line in (word_line(result), result.located and where_line(result.located)) if line]
    reasons = [f"{gate['gate']}: {gate['reason']}" for gate in entry["gates"] if gate["passed"] is not True]
    failing = [f for f in entry["fixtures"] if not f["passed"]]
    rows = [
        (
            str(f["fixture_idx"]),
            figure(number(f["max_abs_diff"]), entry["threshold"]),
            figure(number(f["mean_abs_diff"])),
            cosine(number(f["cos"])),
            text(f["gate"]),
            text(f["reason"]),
        )
        for f in failing
    ]
    table = _table(("fixture_idx", "max_abs_diff", "mean_abs_diff", "cos", "gate", "reason"), rows, _FIXTURES)
    parts = (_bullets([*causes, *reasons]), table, _growth(entry), _layers(result.located))
    body = "\n\n".join(part for part in parts if part)
    return f"<details><summary>{text(entry['name'])}</summary>\n\n{body}\n\n</details>"


def _growth(entry: Mapping[str, Any]) -> str:
    """How the error grew over the denoising steps, in a line; empty where nobody saw."""
    if not entry["steps"]:
        return ""
    figures = ", ".join(figure(number(step["max_abs_diff"])) for step in entry["steps"])
    return f"max_abs_diff after each denoising step of fixture {entry['steps_of']}: {figures}."


def _layers(divergence: Divergence | None) -> str:
    """How the error grew along the layers, around the first wrong one; empty where nobody looked."""
    if divergence is None or not divergence.growth:
        return ""
    rows = [
        (text(g.module), "-" if g.step is None else str(g.step), f"{g.propagated:.1e}", f"{g.local:.1e}")
        for g in around(by_layer(divergence.growth), divergence, _LAYERS)
    ]
    return _table(("module", "worst step", "propagated", "local"), rows)


def _changes(changes: Sequence[Change]) -> str:
    counts = ", ".join(f"{sum(c.kind == kind for c in changes)} {kind}" for kind in KINDS)
    rows = [
        (c.kind, text(c.name), c.words, _seen(c.before), _seen(c.after)) for c in changes if c.kind != "same"
    ]
    table = _table(("change", "name", "in words", "before", "now"), rows)
    origins = unalike(changes)
    head = UNALIKE if origins else ""
    parts = (head, _bullets(origins), f"Since the earlier run: {counts}.", table)
    return "\n\n".join(part for part in parts if part)


def _seen(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "-"
    return figure(number(entry["max_abs_diff_across_all"]), entry["threshold"])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], most: int = _ROWS) -> str:
    if not rows:
        return ""
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows[:most]]
    if len(rows) > most:
        lines += ["", f"… {len(rows) - most} more."]
    return "\n".join(lines)


def _bullets(lines: Iterable[object]) -> str:
    return "\n".join(f"- {text(line)}" for line in lines)
