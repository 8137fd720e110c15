"""What stands in the processes that judge a mutant of the source: a fork server, and pytest's plugin.

    python tests/mutants/source_child.py SOCKET

serves as ``tests/support/warm.py`` does, with pytest imported too, and measures the lines that a command
runs where its environment asks for that (``COVERAGE_PROCESS_START``), each under the name of the test that
started it (``REFLEX_TEST``). ``pytest -p source_child`` takes from the file that ``REFLEX_TOLD`` names which
tests to run in which order and how long each may take, and adds a line to a file when one has ended.

Where ``REFLEX_FORKS`` names a socket, the tests that were collected are run by forks, one for each who asks
there: a change within functions needs no new process, for their code is exchanged in the fork.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import socket
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from inspect import CO_NEWLOCALS
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final

import pytest

TEST: Final = "REFLEX_TEST"
TOLD: Final = "REFLEX_TOLD"
MEASURE: Final = "COVERAGE_PROCESS_START"
FORKS: Final = "REFLEX_FORKS"
TOO_LONG: Final = 88
# What was changed is more than the code of functions.
NOT_HERE: Final = 89


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
    # What pytest's plugins and many of the tests import, and nothing that is changed.
    warm.PRELOADED += ("hypothesis.extra.numpy", "jsonschema", "ml_dtypes", "xdist.plugin")
    warm.READ_BY_IMPORTS = tuple(name for name in warm.READ_BY_IMPORTS if name != "COVERAGE_")
    warm.serve(path)


_told: dict[str, Any] = {}
_functions: list[FunctionType] = []
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


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    path = os.environ.pop(FORKS, "")
    if not path:
        return None
    items = {item.nodeid: item for item in session.items}
    _functions.extend(one for one in gc.get_objects() if isinstance(one, FunctionType))
    gc.collect()
    gc.freeze()  # a fork that looks through all of it copies all of it
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{path}.new")
        listening.listen()
        os.rename(f"{path}.new", path)
        while True:
            caller, _ = listening.accept()
            with caller, caller.makefile("rw") as lines:
                asked = json.loads(lines.readline())
                child = os.fork()
                if not child:
                    code = 70
                    try:
                        _told.update(asked)
                        code = _run_here(session, [items[test] for test in asked["tests"] if test in items])
                    finally:
                        os._exit(code)
                lines.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")


def _run_here(session: pytest.Session, items: Sequence[pytest.Item]) -> int:
    if changed := _told["changed"]:
        file = Path(changed["file"])
        if not exchange_code(str(file), changed["honest"], file.read_text(encoding="utf-8")):
            return NOT_HERE
    for item, after in zip(items, [*items[1:], None], strict=True):
        item.ihook.pytest_runtest_protocol(item=item, nextitem=after)
        if session.testsfailed:
            return int(pytest.ExitCode.TESTS_FAILED)
    return int(pytest.ExitCode.OK if items else pytest.ExitCode.NO_TESTS_COLLECTED)


def exchange_code(file: str, honest: str, changed: str) -> bool:
    """Give the functions of a file the code that they have in another text of it.

    Returns:
        Whether that is all of the difference: what runs at an import is not run again.
    """
    pairs: list[tuple[CodeType, CodeType]] = []
    if not _differences(compile(honest, file, "exec"), compile(changed, file, "exec"), pairs):
        return False
    functions = [f for f in _functions if f.__code__.co_filename == file]
    # One that lies in another is made of its code when that runs again; some may be there already.
    for number, (was, becomes) in enumerate(pairs):
        found = [f for f in functions if f.__code__ == was]
        if len(was.co_freevars) != len(becomes.co_freevars) or not (found or number):
            return False
        for function in found:
            function.__code__ = becomes
    return True


def _differences(was: CodeType, becomes: CodeType, found: list[tuple[CodeType, CodeType]]) -> bool:
    """Collect the functions that differ, the outer ones first; False where something else does."""
    if was == becomes:
        return True
    if was.co_flags & CO_NEWLOCALS:
        found.append((was, becomes))
    elif list(_itself(was)) != list(_itself(becomes)):
        return False
    one, other = ([c for c in code.co_consts if isinstance(c, CodeType)] for code in (was, becomes))
    return len(one) != len(other) or all(map(_differences, one, other, itertools.repeat(found)))


def _itself(code: CodeType) -> Iterator[object]:
    """What code is made of but for the functions in it."""
    yield from (code.co_code, code.co_names, code.co_exceptiontable)
    yield from (repr(one) for one in code.co_consts if not isinstance(one, CodeType))


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
