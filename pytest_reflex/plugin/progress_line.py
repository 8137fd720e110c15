"""How far the work is and how long it may take, in a line of the terminal below pytest's own.

The line is drawn on a copy of stderr, which pytest's capturing leaves alone, and is gone when pytest writes
again. The hooks that draw it are registered only where there is a terminal to show it on.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

import pytest

from pytest_reflex.progress import reporting_to

# Work that is done before this has no line.
DELAY_S: Final = 2.0
REFRESH_S: Final = 0.5

_LABEL: Final = 32


def line_for(config: pytest.Config) -> ProgressLine | None:
    """The plugin for this session, or None where a line of progress would be in somebody's way.

    Under ``-q`` nobody wants one. Under ``-s`` and with live logs a test writes to the terminal itself. A
    worker of xdist writes to nobody's terminal.
    """
    plugins = config.pluginmanager
    # Each of these can be turned off, and takes its options along.
    if not all(plugins.has_plugin(name) for name in ("terminal", "capture", "logging")):
        return None
    option = config.option
    spoken = option.capture == "no" or config.getini("log_cli")
    quiet = option.verbose < 0 or spoken or option.collectonly or hasattr(config, "workerinput")
    stream = terminal(quiet=quiet)
    return None if stream is None else ProgressLine(config, stream)


class ProgressLine:
    """Draws a line below pytest's own while a test compares or exports, and for no other test."""

    def __init__(self, config: pytest.Config, stream: TextIO) -> None:
        self._config = config
        self._stream = stream
        self._line: Line | None = None
        config.add_cleanup(stream.close)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        with self._drawn(item):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        with self._drawn(item):
            return (yield)

    def pytest_enter_pdb(self) -> None:
        if self._line is not None:
            self._line.end()

    @contextmanager
    def _drawn(self, item: pytest.Item) -> Iterator[None]:
        line = self._line = Line(self._stream, self._columns, self._column, f"{item.name[:_LABEL]}: ")
        try:
            with reporting_to(line.report_progress):
                yield
        finally:
            line.end()
            self._line = None

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            return 80

    def _column(self) -> int:
        """Where pytest has left the cursor: at the end of what it has written of its line."""
        return self._config.get_terminal_writer().width_of_current_line


class Stage:
    """One stage of the work: how far it is, and by what it has taken, how long it may still take."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.done = self.total = 0
        self._start = now

    def told(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    def words(self, now: float) -> str:
        """``candidate 3 of 12, 0:07, 0:21 left``."""
        taken = now - self._start
        said = f"{self.name} {self.done} of {self.total}, {clock(taken)}"
        # Before one run is done nobody knows how long it takes.
        return f"{said}, {clock(taken / self.done * (self.total - self.done))} left" if self.done else said


def clock(seconds: float) -> str:
    """``0:07``, ``12:40``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Line:
    """A line below the one that the cursor is in; the cursor stays where it is.

    Args:
        stream: the terminal.
        columns: how wide it is.
        at: the column that the cursor is in, from 0.
        label: what the line begins with.
    """

    def __init__(
        self, stream: TextIO, columns: Callable[[], int], at: Callable[[], int], label: str = ""
    ) -> None:
        self._stream, self._columns, self._at, self._label = stream, columns, at, label
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._stage: Stage | None = None
        self._drawn = False

    def report_progress(self, stage: str, done: int, total: int) -> None:
        """Take what ``progress`` callbacks are told; the first of it starts the clock."""
        with self._lock:
            now = time.monotonic()
            if self._stage is None or self._stage.name != stage:
                self._stage = Stage(stage, now)
            self._stage.told(done, total)
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(target=self._refresh, name="reflex-progress", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """Clear the line and draw no more."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            if self._drawn:
                self._write("")
                self._drawn = False

    def _refresh(self) -> None:
        wait = DELAY_S
        while not self._ended.wait(wait):
            wait = REFRESH_S
            with self._lock:
                if self._stage is not None:
                    self._write(f"{self._label}{self._stage.words(time.monotonic())}")
                    self._drawn = True

    def _write(self, text: str) -> None:
        """A line feed scrolls where there is no line below; up again and to the column, it is as it was."""
        columns = max(self._columns(), 2)
        column = self._at() % columns + 1
        safe = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)[: columns - 1]
        try:
            self._stream.write(f"\n\r\x1b[K{safe}\x1b[1A\x1b[{column}G")
            self._stream.flush()
        except (OSError, ValueError):
            self._ended.set()  # the terminal is gone, and no verdict hangs on it


def terminal(*, quiet: bool) -> TextIO | None:
    """A copy of stderr to draw on; None where it is no terminal, or is not to be drawn on.

    To be called while stderr is the process's own.
    """
    if quiet or os.environ.get("TERM") == "dumb":
        return None
    try:
        if not sys.stderr.isatty():
            return None
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="replace")
    except (OSError, ValueError, AttributeError):
        return None
