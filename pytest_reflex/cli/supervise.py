"""Runs a command in a child process: what ends that, by a crash or an exit, is no word of the one who asked.

A model is a program for ONNX Runtime, and a hostile or damaged one can end the process that opens it, or
have the system end it for its memory; and the script that makes a policy can call ``os._exit(0)``. Nobody
may take that for anything but an error, so the child hands over what it has to say, and how it ended is not
enough.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import IO, Any, Final

_PR_SET_PDEATHSIG: Final = 1
_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def supervised() -> int | None:
    """Fork; what follows runs in the child, and this process waits for it.

    To be called while there is one thread and nothing heavy is loaded.

    Returns:
        None in the child, and where there is no fork. In the parent, once the child has ended: its exit
        code, or minus the number of the signal that ended it.
    """
    if not hasattr(os, "fork"):
        return None
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it is None where it was closed
            stream.flush()
    # Whoever started this may ignore it, and the system would then not say how the child ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _end_with(parent)
        return None
    before = {
        number: signal.signal(number, lambda number, _: os.kill(child, number)) for number in _PASSED_ON
    }
    _, status = os.waitpid(child, 0)
    for number, handler in before.items():
        signal.signal(number, handler)
    return os.waitstatus_to_exitcode(status)


class Handover:
    """A file without a name, made before the fork, in which the child leaves what is to be printed."""

    def __init__(self) -> None:
        self._taker = os.getpid()
        self._file = _nameless()

    @property
    def here(self) -> bool:
        """Whether this is the process that prints, for want of a child."""
        return os.getpid() == self._taker

    def give(self, **said: Any) -> bool:
        """Leave what is to be printed, builtins only; False in a process that the child has forked itself."""
        if os.getppid() != self._taker:
            return False
        self._file.write(json.dumps(said).encode())
        self._file.flush()
        return True

    def taken(self) -> dict[str, Any] | None:
        """What the child left; None when it left nothing, or ended half-way."""
        self._file.seek(0)
        try:
            said = json.loads(self._file.read())
        except ValueError:
            return None
        return said if isinstance(said, dict) else None


def _nameless() -> IO[bytes]:
    if not hasattr(os, "memfd_create"):
        import tempfile

        return tempfile.TemporaryFile()
    import fcntl

    made = os.memfd_create("reflex")
    # Never in the place of a stdout or stderr that was closed: what is printed to those goes nowhere.
    above = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(made)
    return os.fdopen(above, "w+b")


def _end_with(parent: int) -> None:
    """Have the system end this process with its parent, and leave the terminal's signals to that one."""
    # In a group of its own: an interrupt at the terminal would else come twice, the parent passes it on.
    os.setpgid(0, 0)
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def death(code: int) -> str:
    """The name of the signal that ended a child, from what :func:`supervised` gave; empty when none did."""
    if code >= 0:
        return ""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
