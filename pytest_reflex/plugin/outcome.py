"""One parity test from setup to teardown: what it found, and whether it found anything at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest

from pytest_reflex.plugin.collector import ATTRIBUTE

if TYPE_CHECKING:
    from pytest_reflex.result import ParityResult

NOTHING: Final = "nothing was compared: the test never called parity.check"


class Outcome:
    """Stands beside one test item and puts what it found onto the item's reports."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._start()

    def _start(self) -> None:
        self._count = 0
        self._pending: list[dict[str, Any]] = []
        self._outcome = ("passed", NOTHING)
        self._failure: dict[str, Any] | None = None

    def record(self, result: ParityResult) -> None:
        """Take one result; JUnit sees its verdict, later calls of the same test with their number."""
        entry = {"nodeid": str(self._item.nodeid), "call": self._count, **result.to_json()}
        self._count += 1
        self._pending.append(entry)
        suffix = "" if self._count == 1 else f"_{self._count}"
        largest = entry["max_abs_diff_across_all"]
        self._item.user_properties += [
            (f"reflex_verdict{suffix}", "PASS" if result.passed else "FAIL"),
            (f"reflex_max_abs_diff{suffix}", "not measured" if largest is None else largest),
            (f"reflex_threshold{suffix}", entry["threshold"]),
        ]

    def see(self, report: pytest.TestReport, *, strict: bool) -> None:
        """Look at a report of the test: refuse it where strict says so, and put what was found onto it."""
        if strict:
            why = self._silent(report)
            if why:
                refuse(report, why)
        if report.failed and self._outcome[0] != "failed":
            self._outcome = ("failed", _reason(report))
            self._failure = {
                "nodeid": str(self._item.nodeid),
                "file": str(self._item.path),
                "line": _line_in(self._item, report),
                "reason": self._outcome[1],
            }
        elif report.skipped and self._outcome[0] == "passed":
            self._outcome = ("skipped", _reason(report))
        last = report.when == "teardown"
        not_compared = []
        if last and not self._count:
            outcome, reason = self._outcome
            not_compared = [{"nodeid": str(self._item.nodeid), "outcome": outcome, "reason": reason}]
        if self._pending or not_compared or self._failure is not None:
            failures = [] if self._failure is None else [self._failure]
            found = {"results": self._pending, "not_compared": not_compared, "failures": failures}
            # As text: xdist's pipe has no room for every number that an int64 output can hold.
            setattr(report, ATTRIBUTE, json.dumps(found, allow_nan=False))
            self._pending, self._failure = [], None
        if last:
            self._start()  # the same item may be run again

    def _silent(self, report: pytest.TestReport) -> str:
        """How this report would let a parity test by without a verdict; empty when it does not."""
        if hasattr(report, "wasxfail"):
            ended = "and did" if report.skipped else "but passed"
            return f"expected to fail, {ended}: {report.wasxfail or 'no reason given'}"
        if report.skipped:
            return f"skipped: {_reason(report)}"
        if report.when == "call" and report.passed and not self._count:
            return NOTHING
        return ""


def refuse(report: pytest.TestReport | pytest.CollectReport, why: str) -> None:
    """Turn a report into the failure that ``--reflex-strict`` makes of it."""
    # A real exception, so that the short summary and JUnit show the message as they do for any other.
    try:
        raise pytest.fail.Exception(f"parity FAIL: {why} (--reflex-strict)")
    except pytest.fail.Exception:
        shown = verdict_first(pytest.ExceptionInfo.from_current()).getrepr(style="value")
    report.outcome = "failed"
    report.longrepr = shown
    if hasattr(report, "wasxfail"):
        del report.wasxfail


_Info = TypeVar("_Info", bound=pytest.ExceptionInfo[BaseException])


def verdict_first(info: _Info) -> _Info:
    """Let pytest show the message without the exception's name before it, as it does for a plain assert."""
    kind = info.type
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    # Not public: where pytest knows no such attribute the name stays, and nothing else changes.
    info._striptext = f"{name}: "
    return info


def _line_in(item: pytest.Item, report: pytest.TestReport) -> int:
    """The line, from 1, at which a test failed in its own file; its first line where it did not get there."""
    entries = getattr(getattr(report.longrepr, "reprtraceback", None), "reprentries", ())
    places = [place for entry in entries if (place := getattr(entry, "reprfileloc", None)) is not None]
    own = [int(place.lineno) for place in places if Path(item.config.rootpath, place.path) == item.path]
    own += [int(place.lineno) for place in places if Path(place.path).absolute() == item.path]
    return own[-1] if own else (item.location[1] or 0) + 1


def _reason(report: pytest.TestReport) -> str:
    """Why a report says what it says, in one line."""
    if hasattr(report, "wasxfail"):
        return f"xfail: {report.wasxfail or 'no reason given'}"
    longrepr = report.longrepr
    if isinstance(longrepr, tuple):
        text = str(longrepr[2]).removeprefix("Skipped: ")
    else:
        crash = getattr(longrepr, "reprcrash", None)
        text = str(crash.message if crash is not None else longrepr)
    lines = text.strip().splitlines()
    return lines[0] if lines else "no reason given"
