"""A run as Markdown for a job summary or a pull request: the verdict, a table, the failing fixtures."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pytest_reflex.report.compare import KINDS, Change, compare
from pytest_reflex.report.json.documents import Entry, Run, run_of
from pytest_reflex.report.json.values import plain
from pytest_reflex.report.order import to_read
from pytest_reflex.report.origins import UNALIKE, made_on, unalike
from pytest_reflex.report.scale import distance
from pytest_reflex.report.text.divergence import around, by_layer, where_line
from pytest_reflex.report.text.rounding import word_line
from pytest_reflex.report.text.summary import claims
from pytest_reflex.report.text.terminal import cosine, figure, limit_text
from pytest_reflex.verdict.divergence import Divergence
from pytest_reflex.verdict.results import RunResult, fixture_name

# GitHub takes a mebibyte for one step; a reader takes less.
_ROWS: Final = 100
_FIXTURES: Final = 10
_NAME: Final = 200
_LAYERS: Final = 12
_MACHINES: Final = 5


def markdown(made: Run | Mapping[str, Any], against: Run | Mapping[str, Any] | None = None) -> str:
    """A run, or one that reached no verdict, as GitHub's Markdown.

    Args:
        made: what to show: a run or its document.
        against: an earlier run, to say what changed since.
    """
    run = run_of(made)
    if run.error is not None:
        error = run.error
        return f"## ⚠️ parity: no verdict\n\n{text(error['type'])}: {text(error['message'])}\n"
    results = [entry.result for entry in to_read(run.results)]
    failing = [result for result in results if not result.passed]
    word = f"✅ {run.called} PASS" if run.passed else f"❌ {run.called} FAIL"
    unasked = [result for result in results if result.against != "policy"]
    parts = [
        f"## {word}",
        f"{len(results)} compared, {len(failing)} failing, {len(run.not_compared)} without a result.",
        f"PyTorch was not asked in {len(unasked)} of them." if unasked else "",
        _bullets(run.problems),
        "" if against is None else _changes(compare(run_of(against), run)),
        _overview(results),
        "\n".join(f"- claim: {': '.join(map(text, parts))}" for parts in claims(results)),
        "\n".join(f"- coverage: {text(r.coverage.text)}: {text(r.name)}" for r in results if r.coverage),
        _bullets(run.sessions[:_MACHINES]),
        _bullets(f"made on {line}" for line in made_on(results)[:_MACHINES]),
        *(_failure(result) for result in failing[:_FIXTURES]),
        _bullets(f"no result: {t['nodeid']}: {t['outcome']}: {t['reason']}" for t in run.not_compared),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def text(value: object) -> str:
    """Text from outside as text: no HTML, no Markdown, no mention, in one line."""
    line = " ".join(str(plain(str(value))).split())
    line = line if len(line) <= _NAME else f"{line[:120]} […] {line[-60:]}"
    # What writes from right to left is shut in, and every mark that Markdown reads is an entity.
    safe = re.sub(r"[^\w\s./:,\[\]()+=…-]", lambda m: f"&#{ord(m[0])};", html.unescape(line))
    safe = re.sub(r"[_*`\[\]]", lambda m: f"&#{ord(m[0])};", safe)
    return f"<bdi>{safe}</bdi>" if not safe.isascii() or "&#" in safe else safe


def _name(result: RunResult) -> str:
    """What a result is called, in which precision, and that PyTorch was not asked where it was not."""
    more = (result.precision.short, "" if result.against == "policy" else "against ONNX")
    return text(result.name) + "".join(f" ({text(one)})" for one in more if one)


def _overview(results: Sequence[RunResult]) -> str:
    header = ("verdict", "name", "max_abs_diff", "threshold", "distance", "fixtures failing", "floor")
    # The last column where anybody asked for it.
    width = len(header) if any(result.word for result in results) else -1
    rows = [
        (
            "✅ PASS" if result.passed else "❌ FAIL",
            _name(result),
            figure(*result.margin),
            limit_text(result, result.margin[1]),
            distance(*result.margin),
            f"{sum(not f.passed for f in result.fixtures)} of {result.count}",
            result.word or "-",
        )[:width]
        for result in results
    ]
    return _table(header[:width], rows)


def _failure(result: RunResult) -> str:
    """Why one result fails, and its failing fixtures, folded away."""
    causes = [line for line in (word_line(result), result.located and where_line(result.located)) if line]
    reasons = [f"{answer.gate}: {answer.refusal}" for answer in result.answers if not answer.passed]
    failing = [(f, refusal) for f in result.fixtures if (refusal := f.refusal) is not None]
    rows = [
        (
            fixture_name(f.fixture_idx),
            figure(f.max_abs_diff, result.threshold),
            figure(f.mean_abs_diff),
            cosine(f.cos),
            text(refusal.gate),
            text(refusal.refusal),
        )
        for f, refusal in failing
    ]
    table = _table(("fixture_idx", "max_abs_diff", "mean_abs_diff", "cos", "gate", "reason"), rows, _FIXTURES)
    parts = (_bullets([*causes, *reasons]), table, _growth(result), _layers(result.located))
    body = "\n\n".join(part for part in parts if part)
    return f"<details><summary>{text(result.name)}</summary>\n\n{body}\n\n</details>"


def _growth(result: RunResult) -> str:
    """How the error grew over the denoising steps, in a line; empty where nobody saw."""
    if not result.steps:
        return ""
    figures = ", ".join(figure(step.max_abs_diff) for step in result.steps)
    return f"max_abs_diff after each denoising step of fixture {result.steps_of}: {figures}."


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
    parts = (UNALIKE if origins else "", _bullets(origins), f"Since the earlier run: {counts}.", table)
    return "\n\n".join(part for part in parts if part)


def _seen(entry: Entry | None) -> str:
    if entry is None:
        return "-"
    return figure(*entry.result.margin)


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
