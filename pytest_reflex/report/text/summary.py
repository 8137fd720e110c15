"""A whole run in a few lines: one for each result, and what else has to be said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pytest_reflex.report.json.documents import Entry, Run
from pytest_reflex.report.order import natural
from pytest_reflex.report.text.layout import NARROW
from pytest_reflex.report.text.terminal import WIDTH, figure, limit_text, printable
from pytest_reflex.verdict.results import RunResult

# Passing results beyond this many are counted, not listed; and so are claims.
LISTED: Final = 50
CLAIMS: Final = 5


def summary_lines(
    run: Run, written: Sequence[tuple[str, str]] = (), width: int = WIDTH
) -> list[tuple[str, str]]:
    """A run in lines, each with how it is meant: pass, fail, warning or plain.

    Args:
        run: the run.
        written: lines that stand before the errors: where the report is.
        width: columns; on few of them a name stands below its figures.
    """
    lines: list[tuple[str, str]] = []
    if run.results:
        lines.append(("verdict  max_abs_diff  threshold  name", "plain"))
    passing = 0
    for entry in sorted(run.results, key=lambda one: natural(one.nodeid or one.result.name)):
        result = entry.result
        passed = result.passed
        passing += passed
        if passed and passing > LISTED:
            continue
        seen, limit = result.margin
        shown = f"{figure(seen, limit):>12}  {limit_text(result, limit):>9}"
        kind = "pass" if passed else "fail"
        text = f"{'PASS' if passed else 'FAIL':7}  {shown}"
        if width < NARROW:
            lines += [(text, kind), (f"  {_label(entry)}", kind)]
        else:
            lines.append((f"{text}  {_label(entry)}", kind))
    if passing > LISTED:
        lines.append((f"... {passing - LISTED} more PASS", "plain"))
    lines += [(f"claim: {': '.join(parts)}", "plain") for parts in claims([e.result for e in run.results])]
    for test in run.not_compared:
        if test["outcome"] == "passed":
            lines.append((f"warning: {test['nodeid']}: {test['reason']}", "warning"))
        elif test["outcome"] == "expected":
            lines.append((f"expected fail: {test['reason']}", "plain"))
        else:
            lines.append((f"no result: {test['nodeid']}: {test['outcome']}: {test['reason']}", "warning"))
    lines += [*written, *((f"error: {problem}", "fail") for problem in run.problems)]
    # One line each: nothing that a file holds may stand in the summary as a line of its own.
    return [(printable(text).replace("\n", "\\n"), kind) for text, kind in lines]


def claims(results: Sequence[RunResult]) -> list[tuple[str, ...]]:
    """What the fixtures of results establish, and whose it is where there are several; the weakest first."""
    found: dict[str, list[RunResult]] = {}
    for result in results:
        if result.claim is not None:
            found.setdefault(result.claim.text, []).append(result)
    weakest = sorted(found.items(), key=lambda it: -max(_bound(result) for result in it[1]))
    said: list[tuple[str, ...]] = [(text, *_whose(own, len(results))) for text, own in weakest[:CLAIMS]]
    more = len(weakest) - CLAIMS
    return [*said, (f"... {more} other{'s' if more > 1 else ''}",)] if more > 0 else said


def _bound(result: RunResult) -> float:
    return 1.0 if result.claim is None else result.claim.bound


def _whose(own: Sequence[RunResult], every: int) -> list[str]:
    if every == 1:
        return []
    return [" ".join(own[0].name.split()) if len(own) == 1 else f"each of {len(own)} results"]


def _label(entry: Entry) -> str:
    """The test, and after it the result's own name when it was given one."""
    name, nodeid = " ".join(entry.result.name.split()), entry.nodeid or ""
    label = name if name.startswith(nodeid) else f"{nodeid} ({name})"
    return label if entry.result.against == "policy" else f"{label} [against ONNX: PyTorch was not asked]"
