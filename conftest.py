"""The repository's own pytest configuration: what every test may use, and which tests may be left out."""

from __future__ import annotations

import os
import sys
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

# What Linux has, so that a test which misses it there has another reason.
LINUX_HAS = ("on Linux only", "/proc takes no directory from anyone")
NARROWING = ("-k", "-m", "--deselect", "--ignore", "--ignore-glob", "--last-failed", "--stepwise")
OUTCOMES = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
SESSION = pytest.StashKey[pytest.Session]()
# Files that take longest, in this order: they begin first, so that at the end no worker waits long for one.
LONGEST = (
    "tests/exporters/families/test_lerobot_parity.py",
    "tests/exporters/test_repair.py",
    "tests/exporters/families/test_lerobot_faults.py",
    "tests/known_bad/test_known_bad.py",
    "tests/exporters/families/test_feature_families.py",
    "tests/exporters/families/test_pi0.py",
    "tests/mutants/test_mutants.py",
    "tests/exporters/families/test_real_time.py",
    "tests/exporters/families/test_groot.py",
    "tests/pytest_reflex/cli/test_cli.py",
    "tests/exporters/divergence/test_locate_families.py",
    "tests/test_docs.py",
    "tests/exporters/flow/test_diffusion.py",
    "tests/exporters/families/test_lerobot_load.py",
    "tests/test_traced_once.py",
    "tests/known_bad/test_ways_past_pytest.py",
    "tests/exporters/families/test_groot_faults.py",
    "tests/pytest_reflex/judge/test_sequence.py",
    "tests/exporters/families/test_groot_whole.py",
    "tests/exporters/divergence/test_locate.py",
    "tests/pytest_reflex/plugin/test_plugin.py",
    "tests/exporters/caching/test_cached.py",
    "tests/exporters/serving/test_serve.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--once-elsewhere",
        action="store_true",
        help="skip what is marked once: `make test` runs it, and this is `make test-lerobot`",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    place = {file: idx for idx, file in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))
    if config.getoption("--once-elsewhere"):
        for item in items:
            if item.get_closest_marker("once"):
                item.add_marker(pytest.mark.skip(reason=ONCE_ELSEWHERE))


@pytest.fixture(scope="session")
def plugin_args() -> list[str]:
    """What an inner pytest needs to have the plugin: nothing where its entry point is installed."""
    installed = any(entry.name == "reflex" for entry in entry_points(group="pytest11"))
    return [] if installed else ["-p", "pytest_reflex.plugin"]


def _cause(reason: str, *, once: bool, once_elsewhere: bool) -> str:
    """A reason's cause; one that is given where it cannot be true explains nothing.

    Args:
        reason: why a test was skipped.
        once: whether it is marked so.
        once_elsewhere: whether what is marked so runs in the other environment.
    """
    cause = next((c for c, several in ALLOWED.items() if any(words in reason for words in several)), ELSE)
    untrue = {
        # Marked once too, it would be left out here for want of lerobot and there for being marked.
        WITHOUT_LEROBOT: bool(find_spec("lerobot")) or once,
        ONCE: not (once and once_elsewhere),
        SYSTEM_LACKS: sys.platform == "linux" and any(words in reason for words in LINUX_HAS),
    }
    return ELSE if untrue.get(cause) else cause


def _not_run(config: pytest.Config) -> dict[str, Counter[str]]:
    """By cause: how often each reason was given. A file that skips itself is one, whatever is in it."""
    found: dict[str, Counter[str]] = {cause: Counter() for cause in (*ALLOWED, ELSE)}
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    stats = terminal.stats if terminal else {}
    for report in stats.get("skipped", ()):
        # (file, line, reason), also from a worker.
        given = report.longrepr[2] if isinstance(report.longrepr, (tuple, list)) else str(report.longrepr)
        reason = given.removeprefix("Skipped: ")
        once = "once" in getattr(report, "keywords", ())
        found[_cause(reason, once=once, once_elsewhere=config.getoption("--once-elsewhere"))][reason] += 1
    for outcome in ("xfailed", "xpassed", "deselected"):
        if several := len(stats.get(outcome, ())):
            found[ELSE][outcome] += several
    # With workers nobody else counts what these leave out.
    found[ELSE] += Counter(f"{option} is given" for option in NARROWING if config.getoption(option, None))
    # A test that fails in its teardown too has two reports; a file that skips itself was not collected.
    reports = [report for outcome in OUTCOMES for report in stats.get(outcome, ())]
    ran = {report.nodeid for report in reports if isinstance(report, pytest.TestReport)}
    found[ELSE] += Counter({"never begun": config.stash[SESSION].testscollected - len(ran)})
    return found


def _refused(config: pytest.Config) -> bool:
    return bool(os.environ.get("CI") and _not_run(config)[ELSE])


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[SESSION] = session


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
