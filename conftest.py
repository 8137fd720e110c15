"""The repository's own pytest configuration: what every test may use, and which tests may be left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec

import pytest

pytest_plugins = ["pytester"]

# The only causes that may keep a test from running, each with words of the reasons that tests give. Under CI
# any other reason fails the run: what is not installed, misspelt or forgotten must not pass for tested.
WITHOUT_LEROBOT, SYSTEM_LACKS, ELSE = "without lerobot", "for what the system lacks", "else"
ONCE = "that `make test` runs"
ONCE_ELSEWHERE = "marked once, and --once-elsewhere is given"
ALLOWED = {
    WITHOUT_LEROBOT: ("lerobot (Python 3.12 or later)",),
    ONCE: (ONCE_ELSEWHERE,),
    SYSTEM_LACKS: (
        "on Linux only",
        "/proc takes no directory from anyone",
        "this kernel does not count the pages of files",
        "this system has no renameat2",
        "this system cannot start",  # a Chromium, with the loader's message
    ),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--once-elsewhere",
        action="store_true",
        help="skip what is marked once: `make test` runs it, and this is `make test-lerobot`",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--once-elsewhere"):
        for item in items:
            if item.get_closest_marker("once"):
                item.add_marker(pytest.mark.skip(reason=ONCE_ELSEWHERE))


@pytest.fixture(scope="session")
def plugin_args() -> list[str]:
    """What an inner pytest needs to have the plugin: nothing where its entry point is installed."""
    installed = any(entry.name == "reflex" for entry in entry_points(group="pytest11"))
    return [] if installed else ["-p", "pytest_reflex.plugin"]


def _cause(reason: str) -> str:
    for cause, several in ALLOWED.items():
        if any(words in reason for words in several):
            # Where it is installed, its absence explains nothing.
            return ELSE if cause == WITHOUT_LEROBOT and find_spec("lerobot") else cause
    return ELSE


def _not_run(config: pytest.Config) -> dict[str, Counter[str]]:
    """By cause: how often each reason was given. A file that skips itself is one, whatever is in it."""
    found: dict[str, Counter[str]] = {cause: Counter() for cause in (*ALLOWED, ELSE)}
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    for report in terminal.stats.get("skipped", ()) if terminal else ():
        # (file, line, reason), also from a worker.
        given = report.longrepr[2] if isinstance(report.longrepr, (tuple, list)) else str(report.longrepr)
        reason = given.removeprefix("Skipped: ")
        found[_cause(reason)][reason] += 1
    return found


def _refused(config: pytest.Config) -> bool:
    return bool(os.environ.get("CI") and _not_run(config)[ELSE])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    # Workers have no say: only where all results come together is anything counted.
    if session.exitstatus == 0 and not hasattr(session.config, "workerinput") and _refused(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Iterator[None]:
    """One line, after all others."""
    yield
    parts = []
    for cause, reasons in _not_run(config).items():
        # These reasons all say the same.
        told = "" if cause in (WITHOUT_LEROBOT, ONCE) or not reasons else f" ({'; '.join(sorted(reasons))})"
        parts.append(f"{reasons.total()} {cause}{told}")
    refused = _refused(config)
    end = "; under CI these fail the run" if refused else ""
    terminalreporter.write_line(f"not run here: {', '.join(parts)}{end}", red=refused)
