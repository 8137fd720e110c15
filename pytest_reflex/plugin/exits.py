"""The ways out of the process that go past pytest's end: ``os._exit``, and another program in its place.

Whoever calls them decides the exit code of the session, and it would be 0 with no verdict said.
"""

from __future__ import annotations

import functools
import operator
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

_ENDS: Final = ("_exit", "execv", "execve")
_FAILED: Final = 1


class WatchedExits:
    """Asks, before this process ends by one of them with 0, whether it may.

    A process that was forked from this one leaves as it always did: its exit code is nobody's verdict.

    Args:
        why_not: why the session must not end with 0 now; empty where it may.
        say: told that, for people, before the process ends with 1.

    Attributes:
        held: whether :meth:`restore` has to wait.
    """

    def __init__(self, why_not: Callable[[], str], say: Callable[[str], None]) -> None:
        self._why_not, self._say = why_not, say
        self._session = os.getpid()
        self._code = 0
        self.held = False
        self._before = {name: getattr(os, name) for name in _ENDS if hasattr(os, name)}
        self._instead = {name: self._asking(name, before) for name, before in self._before.items()}
        # os has them from a module of the system's own, where they can be had, too.
        own = sys.modules.get(os.name)
        self._places = [(os, self._before)]
        if own is not None:
            self._places.append(
                (own, {name: getattr(own, name, before) for name, before in self._before.items()})
            )
        for place, _ in self._places:
            for name, instead in self._instead.items():
                setattr(place, name, instead)

    def ended(self, code: int) -> None:
        """The session has ended with this code. A fail stays one where the process ends with the session."""
        self._code = int(code)
        self.held = code != 0 and _process_ends_with_pytest()
        self.restore()

    def restore(self) -> None:
        """Have all as it was, unless it is held."""
        for place, before in self._places:
            for name, instead in self._instead.items():
                if not self.held and getattr(place, name) is instead:
                    setattr(place, name, before[name])

    def _asking(self, name: str, before: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(before)
        def instead(*given: Any, **named: Any) -> Any:
            fails = name == "_exit" and _fails([*given, *named.values()])
            if fails or os.getpid() != self._session:
                return before(*given, **named)
            if not self._code and (why := self._why_not()):
                self._code = _FAILED
                self._say(why)
            if self._code:
                self._before["_exit"](self._code)
            return before(*given, **named)

        # As which it is pickled, for a process that is to run it.
        instead.__module__ = "os"
        return instead


def _fails(given: list[Any]) -> bool:
    """Whether it is an exit code that whoever waits for the process sees as another than 0."""
    try:
        return bool(operator.index(given[0]) & 0xFF)
    except (IndexError, TypeError):
        return True  # an error of its own


def _process_ends_with_pytest() -> bool:
    """Whether pytest was started as a command, and not called by a program that goes on."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and not _is(frame, "main", "_main"):
        frame = frame.f_back
    return (
        frame is not None and frame.f_back is not None and _is(frame.f_back, "console_main", "_console_main")
    )


def _is(frame: FrameType, *names: str) -> bool:
    return frame.f_code.co_name in names and frame.f_globals.get("__name__") == "_pytest.config"
