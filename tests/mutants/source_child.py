"""What stands in the processes that judge a mutant of the source: a fork server, and pytest's plugin.

    python tests/mutants/source_child.py SOCKET

serves as ``tests/support/warm.py`` does, with pytest imported too, and measures the lines that a command
runs where its environment asks for that (``COVERAGE_PROCESS_START``), each under the name of the test that
started it (``REFLEX_TEST``). ``pytest -p source_child`` takes from the file that ``REFLEX_TOLD`` names which
tests to run in which order and how long each may take, and adds a line to a file when one has ended.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

TEST: Final = "REFLEX_TEST"
TOLD: Final = "REFLEX_TOLD"
MEASURE: Final = "COVERAGE_PROCESS_START"
TOO_LONG: Final = 88


def serve(path: str) -> None:
    import warm

    become = warm._become

    def measured(asked: dict[str, Any], files: Sequence[int], executable: str) -> None:
        if MEASURE in asked["env"]:
            import coverage

            os.environ.clear()
            os.environ.update(asked["env"])
            coverage.process_startup(force=True)
        become(asked, files, executable)

    warm._become = measured
    warm.READ_BY_IMPORTS = tuple(name for name in warm.READ_BY_IMPORTS if name != "COVERAGE_")
    warm.serve(path)


_told: dict[str, Any] = {}
_lock = threading.Lock()


def _say(**what: Any) -> None:
    with _lock, open(_told["ended"], "a", encoding="utf-8") as file:
        file.write(json.dumps(what) + "\n")


def pytest_configure() -> None:
    _told.update(json.loads(Path(os.environ[TOLD]).read_text(encoding="utf-8")))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = _told.get("tests")
    if order is not None:
        known = {item.nodeid: item for item in items}
        items[:] = [known[nodeid] for nodeid in order if nodeid in known]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    _context(item.nodeid)
    limit = _told.get("limits", {}).get(item.nodeid)
    watch = threading.Timer(limit, _too_long, [item.nodeid]) if limit else None
    if watch:
        watch.daemon = True
        watch.start()
    try:
        return (yield)
    finally:
        if watch:
            watch.cancel()
        _context("")


def _too_long(nodeid: str) -> None:
    _say(test=nodeid, outcome="too long", seconds=_told["limits"][nodeid])
    os._exit(TOO_LONG)


def _context(name: str) -> None:
    os.environ[TEST] = name
    if MEASURE in os.environ:
        import coverage

        running = coverage.Coverage.current()
        if running is not None:
            running.switch_context(name)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _say(test=report.nodeid, outcome=report.outcome, seconds=report.duration)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
    serve(sys.argv[1])
