"""A whole run in a few lines: one for each result, and what else has to be said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pytest_reflex.report.json.documents import Entry, Run
from pytest_reflex.report.order import natural
from pytest_reflex.report.text.layout import NARROW, wrapped
from pytest_reflex.report.text.terminal import WIDTH, figure, limit_text, printable
from pytest_reflex.verdict.results import RunResult

# Passing results beyond this many are counted, not listed; and so are claims.
LISTED: Final = 50
CLAIMS: Final = 5


def summary_lines(
    run: Run,
    written: Sequence[tuple[str, str]] = (),
    width: int = WIDTH,
    *,
    rollouts: Sequence[tuple[str, str, str]] = (),
    notes: bool = False,
    where: str = "",
) -> list[tuple[str, str]]:
    """A run in lines, each with how it is meant: pass, fail, warning or plain.

    Args:
        run: the run.
        written: lines that stand before the errors: where the report is.
        width: columns; on few of them a name stands below its figures.
        rollouts: of each closed loop its verdict in one line, how that is meant, and a note or nothing.
        notes: whether the notes of passing results stand below their rows, in place of their number.
        where: where else they can be read.
    """
    lines: list[tuple[str, str]] = []
    if run.results:
        lines.append(("verdict  max_abs_diff  threshold  name", "plain"))
    ordered = sorted(run.results, key=lambda one: natural(one.nodeid or one.result.name))
    passing = [entry for entry in ordered if entry.result.passed]
    # By what they are: to compare results with each other is to look through all that they hold.
    dropped = {id(entry) for entry in passing[LISTED:]}
    for entry in ordered:
        if id(entry) not in dropped:
            lines += _rows(entry, width, notes=notes)
    left_out = [entry.result for entry in passing[LISTED:]]
    if left_out:
        lines.append((f"... {len(left_out)} more PASS{_counted(left_out)}", "plain"))
    told = left_out if notes else [entry.result for entry in passing]
    if where and _counted(told):
        lines += [(line, "plain") for line in wrapped(f"notes: {where}", width, rest="  ")]
    for said, kind, note in rollouts:
        lines += [(line, kind) for line in wrapped(said, width, rest="  ")]
        lines += [(line, kind) for line in wrapped(note and f"note: {note}", width, first="  ", rest="    ")]
    lines += [(f"claim: {': '.join(parts)}", "plain") for parts in claims([e.result for e in run.results])]
    driven = [said for said, _, _ in rollouts]
    for test in run.not_compared:
        if test["reason"] in driven:
            continue  # it has a row
        if test["outcome"] == "passed":
            lines.append((f"warning: {test['nodeid']}: {test['reason']}", "warning"))
        elif test["outcome"] == "expected":
            lines.append((f"expected fail: {test['reason']}", "plain"))
        else:
            lines.append((f"no result: {test['nodeid']}: {test['outcome']}: {test['reason']}", "warning"))
    lines += [*written, *((f"error: {problem}", "fail") for problem in run.problems)]
    # One line each: nothing that a file holds may stand in the summary as a line of its own.
    return [(printable(text).replace("\n", "\\n"), kind) for text, kind in lines]


def _rows(entry: Entry, width: int, *, notes: bool) -> list[tuple[str, str]]:
    """The lines of one result; with its notes where it passed and they are wanted."""
    result = entry.result
    kind = "pass" if result.passed else "fail"
    seen, limit = result.margin
    text = f"{kind.upper():7}  {figure(seen, limit):>12}  {limit_text(result, limit):>9}"
    counted = _counted([result]) if result.passed else _refused_by(result)
    label = f"{_label(entry)}{counted}"
    if width >= NARROW:
        lines = [f"{text}  {label}"]
    elif len(label) + 2 <= width or not counted:
        lines = [text, f"  {label}"]
    else:
        lines = [text, f"  {_label(entry)}", f" {counted}"]
    if notes and counted and result.passed:
        own, doubts = _noted(result)
        for said in [*(f"note: {note}" for note in own), *(f"doubt: {doubt}" for doubt in doubts)]:
            lines += wrapped(said, width, first="  ", rest="    ")
    return [(line, kind) for line in lines]


def _refused_by(result: RunResult) -> str:
    """`` (refused by coverage)``; empty where the figures of the row say why by themselves."""
    gate = next((answer.gate for _, answer in result.refusals), "threshold")
    return "" if gate == "threshold" else f" (refused by {gate})"


def _noted(result: RunResult) -> tuple[list[str], list[str]]:
    """A result's notes without its doubts, which a plain run has among them, and its doubts."""
    doubts = [doubt.said for doubt in result.doubts]
    return [note for note in result.notes if note not in doubts], doubts


def _counted(results: Sequence[RunResult]) -> str:
    """`` (2 notes, 1 doubt)``; empty where there are none."""
    noted = [_noted(result) for result in results]
    counts = {"note": sum(len(notes) for notes, _ in noted), "doubt": sum(len(d) for _, d in noted)}
    said = [f"{count} {what}{'s' if count > 1 else ''}" for what, count in counts.items() if count]
    return f" ({', '.join(said)})" if said else ""


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
