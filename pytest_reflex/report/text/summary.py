"""A whole run in a few lines: one for each result, and what else has to be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_reflex.report.json.values import number
from pytest_reflex.report.text.terminal import bound, figure, printable

# Passing results beyond this many are counted, not listed.
LISTED: Final = 50


def summary_lines(made: Mapping[str, Any], written: Sequence[tuple[str, str]] = ()) -> list[tuple[str, str]]:
    """A run document in lines, each with how it is meant: pass, fail, warning or plain.

    Args:
        made: the document.
        written: lines that stand before the errors: where the report is.
    """
    lines: list[tuple[str, str]] = []
    if made["results"]:
        lines.append(("verdict  max_abs_diff  threshold  name", "plain"))
    passing = 0
    for entry in made["results"]:
        passed = entry["passed"] is True
        passing += passed
        if passed and passing > LISTED:
            continue
        seen = figure(number(entry["max_abs_diff_across_all"]), entry["threshold"])
        text = (
            f"{'PASS' if passed else 'FAIL':7}  {seen:>12}  {bound(entry['threshold']):>9}  {_label(entry)}"
        )
        lines.append((text, "pass" if passed else "fail"))
    if passing > LISTED:
        lines.append((f"... {passing - LISTED} more PASS", "plain"))
    for test in made["not_compared"]:
        if test["outcome"] == "passed":
            lines.append((f"warning: {test['nodeid']}: {test['reason']}", "warning"))
        else:
            lines.append((f"not compared: {test['nodeid']}: {test['outcome']}: {test['reason']}", "warning"))
    lines += [*written, *((f"error: {problem}", "fail") for problem in made["problems"])]
    # One line each: nothing that a file holds may stand in the summary as a line of its own.
    return [(printable(text).replace("\n", "\\n"), kind) for text, kind in lines]


def _label(entry: Mapping[str, Any]) -> str:
    """The test, and after it the result's own name when it was given one."""
    name, nodeid = " ".join(entry["name"].split()), entry.get("nodeid", "")
    return name if name.startswith(nodeid) else f"{nodeid} ({name})"
