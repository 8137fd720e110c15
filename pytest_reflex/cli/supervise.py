"""Runs a command in a child process: what crashes that cannot crash the one who asked.

A model is a program for ONNX Runtime, and a hostile or damaged one can end the process that opens it, or
have the system end it for its memory. Nobody may take that for anything but an error.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

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
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _end_with(parent)
        return None
    for number in _PASSED_ON:
        signal.signal(number, lambda number, _: os.kill(child, number))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


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
