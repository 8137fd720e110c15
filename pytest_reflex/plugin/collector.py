"""What a whole session found: collected from test reports, written to files, and the session's last word.

Everything in here is made of builtins, because under xdist it came through a pipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pytest_reflex.report.json.documents import Entry, Run

# The attribute of a test report that carries what the test found to the process that writes the files.
ATTRIBUTE: Final = "reflex"


class Collector:
    """Takes entries in any order and gives them back sorted, so that workers change nothing.

    Attributes:
        problems: what went wrong with the run itself, one line each; any problem fails the session.
        strict: whether the session must have compared something.
    """

    def __init__(self, *, strict: bool, json: Path | None, report: Path | None) -> None:
        self.strict = strict
        self.problems: list[str] = []
        self._json = json
        self._report = report
        self._results: list[dict[str, Any]] = []
        self._entries: list[Entry] = []
        self._not_compared: list[dict[str, str]] = []
        self._written: list[Path] = []
        self._failures: list[dict[str, Any]] = []

    @property
    def empty(self) -> bool:
        return not (self._results or self._not_compared or self.problems)

    def add(self, payload: Mapping[str, Any]) -> None:
        """Take what one test report carries: lists of dicts, ``results``, ``not_compared``, ``failures``."""
        self._results += payload["results"]
        self._not_compared += payload["not_compared"]
        self._failures += payload.get("failures", [])

    def problem(self, line: str) -> None:
        if line not in self.problems:
            self.problems.append(line)

    def run(self) -> Run:
        """The run as it is known now; each result is read from what came through the pipe once."""
        from pytest_reflex.report.json.documents import Entry, Run
        from pytest_reflex.report.merge import merge

        self._entries += map(Entry.of, self._results[len(self._entries) :])
        return merge([Run(tuple(self._entries), tuple(self._not_compared), tuple(self.problems))])

    def close(self) -> None:
        """Say what is missing from the session, then write the files; one that cannot be is a problem."""
        if self.strict and not self._results:
            self.problem("no parity result in this session; --reflex-strict wants at least one")
        if self._json is None and self._report is None:
            return
        from pytest_reflex.report.files import write_text
        from pytest_reflex.report.json.values import dumps

        run = self.run()
        made = run.to_json()
        files = {} if self._json is None else {self._json: dumps(made)}
        if self._report is not None:
            from pytest_reflex.report.html.pages import page

            files[self._report / "parity.json"] = dumps(made)
            files[self._report / "index.html"] = page(run)
        for path, text in files.items():
            try:
                write_text(path, text)
            except OSError as error:
                self.problem(f"{path}: the report could not be written ({error.strerror or error})")
            else:
                self._written.append(path)

    def tell_github(self) -> list[str]:
        """In a GitHub job, write its summary; the lines that put failures beside the code."""
        from pytest_reflex.report import github

        if self.empty or not github.running():
            return []
        if problem := github.add_summary(self.run()):
            self.problem(problem)
        failures = sorted(self._failures, key=lambda f: (f["nodeid"], f["line"], f["reason"]))
        lines = [
            github.annotation(
                f["reason"], title=f["nodeid"], file=github.from_workspace(f["file"]), line=f["line"]
            )
            for f in failures
        ]
        return lines + [github.annotation(problem, title="reflex") for problem in sorted(self.problems)]

    def summary(self) -> list[tuple[str, str]]:
        """The terminal section's lines, each with how it is meant: pass, fail, warning or plain."""
        written = [(f"report: {path}", "plain") for path in self._written if path.name != "parity.json"]
        from pytest_reflex.report.text.summary import summary_lines

        return summary_lines(self.run(), written)
