"""Progress inside pytest: a line on a terminal while it takes long, and nothing anywhere else."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_reflex.plugin import progress_line
from pytest_reflex.plugin.progress_line import Line, Stage, clock
from pytest_reflex.progress import progress_callback, reporting_to

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[3]
SLOW = """
import time

import numpy as np
import pytest
import pytest_reflex as reflex
from pytest_reflex import InputSpec
from pytest_reflex.plugin import progress_line
from pytest_reflex.progress import progress_callback

progress_line.DELAY_S = progress_line.REFRESH_S = 0.05


class Slow:
    name = "slow"

    def open(self): pass
    def close(self): pass
    def facts(self): return {}

    def run(self, inputs):
        time.sleep(0.04)
        return {"actions": inputs["x"] * 2}


@pytest.fixture
def made():
    tell = progress_callback(None)
    for done in range(4):
        tell("trace", done, 4)
        time.sleep(0.05)


def test_before(): pass


@reflex.parity
def test_slow(parity, made):
    print("a word from the test")
    parity.check(Slow(), Slow(), inputs=[InputSpec("x", (2, 3))], fixtures=10)


def test_after(): pass
"""
LINE = r"test_slow: {} of {}, 0:0\d"


def screen(drawn: str) -> list[str]:
    """What stands on a terminal in the end, by the few sequences that are used."""
    lines, row, column = [""], 0, 0
    for part in re.findall(
        r"\x1b\[[\d;]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[\r\n]|[^\x1b\r\n]+", drawn
    ):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[K":
            lines[row] = lines[row][:column]
        elif part == "\x1b[1A":
            row -= 1
        elif part.startswith("\x1b[") and part.endswith("G"):
            column = int(part[2:-1]) - 1
        elif part.startswith(("\x1b]", "\x1b[")):
            assert part.startswith("\x1b]") or part.endswith("m"), part
        else:
            text = lines[row].ljust(column)
            lines[row] = text[:column] + part + text[column + len(part) :]
            column += len(part)
    return [re.sub(r"in \d+\.\d+s|=+", "", line).rstrip() for line in lines]


def on_a_terminal(python: list[str], place: Path, *options: str, term: str = "xterm") -> str:
    """A run of pytest with both its streams on a terminal; every byte that reached it."""
    (place / "test_it.py").write_text(SLOW)
    terminal, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": term}
    env.pop("COLUMNS", None)
    command = [*python, "-m", "pytest", "-p", "no:cacheprovider", *options]
    process = subprocess.Popen(command, stdout=side, stderr=side, env=env, cwd=place)
    os.close(side)
    drawn = b""
    try:
        while chunk := os.read(terminal, 1 << 16):
            drawn += chunk
    except OSError:  # how reading ends once the other side is closed
        pass
    finally:
        os.close(terminal)
    text = drawn.decode()
    assert process.wait(timeout=60) == 0, text
    return text


@pytest.mark.parametrize("options", [(), ("-v",)])
def test_a_line_is_drawn_while_it_runs_and_leaves_no_trace(
    options: tuple[str, ...], tmp_path: Path, python: list[str]
) -> None:
    drawn = on_a_terminal(python, tmp_path, *options)
    for stage, total in (("trace", 4), ("reference", 12), ("candidate", 13)):
        assert re.search(LINE.format(rf"{stage} [1-9]\d*", total) + r", 0:0\d left", drawn), stage
    assert "a word from the test" not in drawn
    plain = on_a_terminal(python, tmp_path, *options, term="dumb")
    assert "\x1b[1A" not in plain
    assert screen(drawn) == screen(plain)
    assert "3 passed" in "".join(screen(drawn))


def test_a_narrow_terminal_cuts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_line, "DELAY_S", 0.0)
    monkeypatch.setattr(progress_line, "REFRESH_S", 0.01)
    stream = io.StringIO()
    line = Line(stream, lambda: 24, lambda: 29, "test_slow\x1b[2J: ")
    line.report_progress("reference", 1, 2)
    while "test_slow" not in stream.getvalue():
        time.sleep(0.01)
    line.end()
    drawn = re.findall(r"\n\r\x1b\[K([^\x1b]*)\x1b\[1A\x1b\[(\d+)G", stream.getvalue())
    # What the name holds is obeyed by no terminal, and a line that was wrapped ends where it ends.
    assert drawn[0] == ("test_slow?[2J: referenc", "6")
    assert drawn[-1] == ("", "6")


@pytest.mark.parametrize("option", ["-q", "-s", "-n1", "-pno:logging"])
def test_it_is_in_nobody_s_way(option: str, tmp_path: Path, python: list[str]) -> None:
    assert "\x1b[1A" not in on_a_terminal(python, tmp_path, option)


def test_nothing_is_drawn_where_there_is_no_terminal(tmp_path: Path, python: list[str]) -> None:
    (tmp_path / "test_it.py").write_text(SLOW)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    command = [*python, "-m", "pytest", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "of 12" not in done.stdout


def test_a_callback_that_is_given_is_told_and_no_other() -> None:
    told: list[tuple[str, int, int]] = []
    with reporting_to(lambda *a: told.append(a)):
        progress_callback(None)("reference", 1, 2)
        progress_callback(lambda *a: None)("candidate", 1, 2)
    progress_callback(None)("reference", 2, 2)
    assert told == [("reference", 1, 2)]


def test_how_long_it_may_take() -> None:
    stage = Stage("candidate", now=100.0)
    assert stage.words(107.0) == "candidate 0 of 0, 0:07"
    stage.told(0, 12)
    assert stage.words(107.0) == "candidate 0 of 12, 0:07"
    stage.told(3, 12)
    assert stage.words(107.0) == "candidate 3 of 12, 0:07, 0:21 left"
    assert [clock(s) for s in (0, 59.6, 760, 3723)] == ["0:00", "1:00", "12:40", "1:02:03"]


def test_quick_work_has_no_line_and_a_lost_terminal_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    line = Line(stream, lambda: 80, lambda: 0)
    line.report_progress("reference", 1, 2)
    line.end()
    assert stream.getvalue() == ""
    monkeypatch.setattr(progress_line, "DELAY_S", 0.0)
    stream.close()
    line = Line(stream, lambda: 80, lambda: 0)
    line.report_progress("reference", 1, 2)
    line.end()


def test_a_line_that_was_told_nothing_is_ended_as_any_other() -> None:
    stream = io.StringIO()
    Line(stream, lambda: 80, lambda: 0).end()
    assert stream.getvalue() == ""


def test_a_line_waits_two_seconds_and_is_drawn_twice_a_second_until_it_ends() -> None:
    waits: list[float] = []

    class Counted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return len(waits) > 3 and super().wait()

    stream = io.StringIO()
    line = Line(stream, lambda: 80, lambda: 5)
    line._ended = Counted()
    line.report_progress("reference", 1, 2)
    while len(waits) < 4:
        time.sleep(0.001)
    line.end()
    assert waits == [2.0, 0.5, 0.5, 0.5]
    drawn = re.findall(r"\n\r\x1b\[K([^\x1b]*)\x1b\[1A\x1b\[6G", stream.getvalue())
    assert [text.partition(",")[0] for text in drawn] == ["reference 1 of 2"] * 3 + [""]
    assert "reflex-progress" not in {thread.name for thread in threading.enumerate()}


ALL_PLUGINS = ("terminal", "capture", "logging")


def session(*plugins: str, ini: object = False, worker: bool = False, **option: object) -> Any:
    """A pytest session with these plugins and options."""
    given = {"capture": "fd", "verbose": 0, "collectonly": False, **option}
    return SimpleNamespace(
        pluginmanager=SimpleNamespace(has_plugin=plugins.__contains__),
        option=SimpleNamespace(**given),
        getini={"log_cli": ini}.__getitem__,
        add_cleanup=lambda clean: None,
        get_terminal_writer=lambda: SimpleNamespace(width_of_current_line=7),
        **({"workerinput": {}} if worker else {}),
    )


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        (session(*ALL_PLUGINS), True),
        (session(*ALL_PLUGINS, verbose=1), True),
        (session(*ALL_PLUGINS, verbose=-1), False),
        (session(*ALL_PLUGINS, capture="no"), False),
        (session(*ALL_PLUGINS, ini=True), False),
        (session(*ALL_PLUGINS, collectonly=True), False),
        (session(*ALL_PLUGINS, worker=True), False),
        (session("capture", "logging"), False),
        (session("terminal", "logging"), False),
        (session("terminal", "capture"), False),
    ],
)
def test_a_session_has_a_line_where_nobody_else_writes(
    config: Any, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_line, "terminal", lambda *, quiet: None if quiet else io.StringIO())
    assert (progress_line.line_for(config) is not None) is shown


def test_a_terminal_is_a_copy_of_stderr_where_that_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, side = pty.openpty()
    with open(side, "w") as stderr, monkeypatch.context() as patched:
        patched.setattr("sys.stderr", stderr)
        patched.setenv("TERM", "xterm")
        found = progress_line.terminal(quiet=False)
        assert found is not None
        assert os.isatty(found.fileno())
        assert found.fileno() != stderr.fileno()
        found.close()
        assert progress_line.terminal(quiet=True) is None
        patched.setenv("TERM", "dumb")
        assert progress_line.terminal(quiet=False) is None
        patched.setenv("TERM", "xterm")
        patched.setattr("sys.stderr", io.StringIO())
        assert progress_line.terminal(quiet=False) is None
    os.close(ours)


def test_a_test_s_line_begins_with_the_first_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_line, "DELAY_S", 0.0)
    stream = io.StringIO()
    drawing = progress_line.ProgressLine(session(*ALL_PLUGINS), stream)
    item: Any = SimpleNamespace(name="test_" + "x" * 40)
    for hook in (drawing.pytest_runtest_setup, drawing.pytest_runtest_call):
        stream.truncate(0)
        running = hook(item)
        next(running)
        progress_callback(None)("reference", 1, 2)
        while "reference" not in stream.getvalue():
            time.sleep(0.001)
        drawing.pytest_enter_pdb()
        with pytest.raises(StopIteration):
            next(running)
        # Where pytest has left the cursor it is left.
        assert re.search(
            r"\x1b\[Ktest_x{27}: reference 1 of 2, 0:00, 0:00 left\x1b\[1A\x1b\[8G", stream.getvalue()
        )
        progress_callback(None)("reference", 2, 2)
