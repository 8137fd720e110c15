"""What a whole session found: collected from test reports, written to files, and the session's last word.

Everything in here is made of builtins, because under xdist it came through a pipe.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_reflex.errors import ReflexError

if TYPE_CHECKING:
    from pytest_reflex.report.json.documents import Entry, Run
    from pytest_reflex.report.session import Session

# The attribute of a test report that carries what the test found to the process that writes the files.
ATTRIBUTE: Final = "reflex"
UNFINISHED: Final = "this run has not finished: it is under way, or it was ended before its verdict"


class Told:
    """What a process that runs tests says when its session ends, beside its reports.

    Attributes:
        collected: the node ids of its parity tests.
        fails: of each test that must have failed, by what the last attempt found, the first reason.
        problems: what went wrong where no report could say it.
        notes: what a reader should know.
    """

    # No dataclass: importing the plugin would take a tenth longer to make one.
    def __init__(
        self,
        collected: Iterable[str] = (),
        fails: Mapping[str, str] = MappingProxyType({}),
        problems: Iterable[str] = (),
        notes: Iterable[str] = (),
    ) -> None:
        self.collected, self.fails = list(collected), dict(fails)
        self.problems, self.notes = list(problems), list(notes)


_TOLD: Final = pytest.StashKey[Told]()


def told_by(config: pytest.Config) -> Told:
    """What this process has to say so far."""
    return config.stash.setdefault(_TOLD, Told())


class Collector:
    """Takes entries in any order and gives them back sorted, so that workers change nothing.

    Args:
        strict: whether the session must have compared something, and every parity test of it.
        json: where the document is written.
        report: the directory where the page is written, with the document beside it.
        root: where the tests are; None for where the process runs.

    Attributes:
        problems: what went wrong with the run itself, one line each; any problem fails the session.
        strict: whether the session must have compared something, and every parity test of it.
        closed: whether the session came to its end.
        workers: xdist's workers that have not said yet what they collected.
    """

    def __init__(
        self, *, strict: bool, json: Path | None, report: Path | None, root: Path | None = None
    ) -> None:
        self.strict = strict
        self.problems: list[str] = []
        self.closed = False
        self.workers: set[str] = set()
        self._json = json
        self._report = report
        self._results: dict[str, None] = {}  # as text, each once
        self._entries: list[Entry] = []
        # By test: the attempt, and what of it stands in not_compared.
        self._beside: dict[str, tuple[int, list[dict[str, str]]]] = {}
        # By test: the attempt, and of its closed loops each with how it is meant and a note.
        self._rollouts: dict[str, tuple[int, list[tuple[str, str, str]]]] = {}
        self._written: list[Path] = []
        self._failures: list[dict[str, Any]] = []
        self._told = Told()
        self._ended: set[str] = set()
        self._failed: set[str] = set()
        self.uncollected = ""  # the first that could not be
        self._unfinished = ""
        self._root = root or Path()
        self._began = time.time(), time.monotonic()
        self._sessions: tuple[Session, ...] = ()

    @property
    def empty(self) -> bool:
        return not (self._results or self._not_compared or self._rollouts or self.problems)

    @property
    def compared(self) -> bool:
        """Whether there is a result of any comparison."""
        return bool(self._results)

    @property
    def _not_compared(self) -> list[dict[str, str]]:
        """What the last attempt of each test has left beside results: an earlier one's is a note."""
        return [test for _, several in self._beside.values() for test in several]

    def saw(self, report: pytest.TestReport) -> None:
        """Take what one test report says and carries."""
        if report.failed:
            self._failed.add(report.nodeid)
        if report.failed or report.when == "teardown":
            self._ended.add(report.nodeid)
        payload: str | None = getattr(report, ATTRIBUTE, None)
        if payload:
            found = json.loads(payload)
            self._results |= dict.fromkeys(found["results"])
            attempt, several = self._beside.get(report.nodeid, (0, []))
            if found["attempt"] >= attempt:
                kept = several if found["attempt"] == attempt else []
                self._beside[report.nodeid] = found["attempt"], kept + found["not_compared"]
            if found["rollouts"] and found["attempt"] >= self._rollouts.get(report.nodeid, (0,))[0]:
                self._rollouts[report.nodeid] = found["attempt"], [tuple(one) for one in found["rollouts"]]
            self._failures += [failure for failure in found["failures"] if failure not in self._failures]

    def hear(self, told: Told) -> None:
        """Take what a process has said at its end."""
        self._told.collected += told.collected
        self._told.fails |= told.fails
        self._told.notes += told.notes
        for line in told.problems:
            self.problem(line)

    def problem(self, line: str) -> None:
        if line not in self.problems:
            self.problems.append(line)

    def run(self) -> Run:
        """The run as it is known now; each result is read from what came through the pipe once."""
        from pytest_reflex.report.json.documents import Entry, Run
        from pytest_reflex.report.merge import merge

        self._entries += [Entry.of(json.loads(text)) for text in list(self._results)[len(self._entries) :]]
        # One line says that it is no pass; where it is none anyway, a second would only be long.
        problems = self.problems or [self._unfinished] * bool(self._unfinished)
        found = tuple(self._entries), tuple(self._not_compared), tuple(problems)
        return merge([Run(*found, sessions=self._sessions)])

    def begin(self) -> None:
        """Have the files say that the run has not finished, and not what an earlier one found."""
        if self._json is None and self._report is None:
            return
        from pytest_reflex.report.json.documents import error_document

        self._write(error_document(ReflexError(UNFINISHED)))  # what cannot be written is told of at the end

    def close(self) -> None:
        """Say what is missing from the session, then write the files; one that cannot be is a problem."""
        self.closed = True
        for nodeid, fail in sorted(self._told.fails.items()):
            if nodeid not in self._failed:
                self.problem(f"{nodeid}: no report said its fail: {fail}")
        if self.strict and not self._results:
            drove = "a rollout is no parity: add parity.check" if self._rollouts else ""
            why = drove or "a check() without the parity fixture is no test's: take parity.check"
            if self.uncollected:
                why = f"{self.uncollected} could not be collected, as is said above"
            self.problem(f"no parity result in this session; --reflex-strict wants at least one; {why}")
        self._unfinished = self._left_out()
        if self.strict and self._unfinished and not self.problems:
            self.problem(f"{self._unfinished}; --reflex-strict wants every one")
        if self._json is None and self._report is None:
            return
        from pytest_reflex.report.session import session

        moment, counted = self._began
        self._sessions = (session(self._root, moment, time.monotonic() - counted),)
        self._written, problems = self._write(self.run())
        for problem in problems:
            self.problem(problem)

    def _left_out(self) -> str:
        """Which parity tests were not run to their end; empty when all were."""
        missing = sorted(set(self._told.collected) - self._ended)
        if missing:
            named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            return f"of the parity tests that were collected, {len(missing)} did not come to an end: {named}"
        silent = ", ".join(sorted(self.workers))
        return f"nobody knows what was collected by {silent}" if silent else ""

    def overruled(self, code: int, config: pytest.Config) -> str:
        """Why the session cannot end with this exit code; empty when it can."""
        if code != pytest.ExitCode.OK:
            return ""
        if not self.closed:
            self.hear(told_by(config))
        if self.problems:
            return self.problems[0]
        if self._told.fails:
            return min(f"{nodeid}: {fail}" for nodeid, fail in self._told.fails.items())
        if not self.closed and (left_out := self._left_out()):
            return left_out
        if not self.strict:
            return ""
        failed = sorted(self._failed.intersection(self._told.collected))
        return (
            f"{failed[0]} failed" if failed else "" if self.closed else "the session did not come to its end"
        )

    def _write(self, made: Run | dict[str, Any]) -> tuple[list[Path], list[str]]:
        """Write the files that were asked for: those that are there now, and why the others are not."""
        from pytest_reflex.report.files import write_text
        from pytest_reflex.report.json.values import dumps

        text = dumps(made if isinstance(made, dict) else made.to_json())
        files = {} if self._json is None else {self._json: text}
        if self._report is not None:
            from pytest_reflex.report.html.pages import page

            files |= {self._report / "parity.json": text, self._report / "index.html": page(made)}
        written, problems = [], []
        for path, content in files.items():
            try:
                write_text(path, content)
            except OSError as error:
                problems.append(f"{path}: the report could not be written ({error.strerror or error})")
            else:
                written.append(path)
        return written, problems

    def tell_github(self) -> list[str]:
        """In a GitHub job, write its summary; the lines that put failures beside the code."""
        from pytest_reflex.report import github

        if self.empty or not github.running():
            return []
        from pytest_reflex.report.text.terminal import headline, verdict_lines

        run = self.run()
        if problem := github.add_summary(run):
            self.problem(problem)
        failing = [entry for entry in run.results if not entry.result.passed]
        # Beside the code stands the place too, where one was looked for.
        whole = {(entry.nodeid, headline(entry.result)): verdict_lines(entry.result) for entry in failing}
        failures = sorted(self._failures, key=lambda f: (f["nodeid"], f["line"], f["reason"]))
        lines = [
            github.annotation(
                whole.get((f["nodeid"], f["reason"]), f["reason"]),
                title=f["nodeid"],
                file=github.from_workspace(f["file"]),
                line=f["line"],
            )
            for f in failures
        ]
        return lines + [github.annotation(problem, title="reflex") for problem in sorted(self.problems)]

    def summary(self, width: int, *, notes: bool) -> list[tuple[str, str]]:
        """The terminal section's lines, each with how it is meant: pass, fail, warning or plain.

        Args:
            width: columns.
            notes: whether the notes of passing results are printed.
        """
        written = [(f"report: {path}", "plain") for path in self._written if path.name != "parity.json"]
        from pytest_reflex.report.text.summary import summary_lines

        warnings = [(f"warning: {note}", "warning") for note in sorted(self._told.notes)]
        kept = "in the report" if written else "--reflex-report DIR keeps them"
        return summary_lines(
            self.run(),
            [*warnings, *written],
            width,
            rollouts=[one for _, several in self._rollouts.values() for one in several],
            notes=notes,
            where=kept if notes else f"{kept}; -v or -rA prints them here",
        )
