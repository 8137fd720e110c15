"""The hooks that show progress while a test runs; registered only where there is a terminal to show it on."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

import pytest

from pytest_reflex.progress import Line, terminal, watching

_LABEL: Final = 32


def live(config: pytest.Config) -> Live | None:
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
    return None if stream is None else Live(config, stream)


class Live:
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
            with watching(line.tell):
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
