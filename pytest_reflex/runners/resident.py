"""How much memory something takes: the most that the process held beyond what it held before."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
# What the kernel is told to begin the peak anew (proc(5), clear_refs).
_PEAK: Final = "5"


class Resident:
    """Measures from when it is made: the pages in memory, mapped files among them.

    What was let go before is given back to the system first, so that none of it is taken for room that is
    there already. A policy that the process holds counts as before, and so does what a runtime keeps of an
    earlier session. Linux counts pages by the core and adds them up some 64 at a time (percpu_counter), so a
    figure is good to a fraction of a megabyte.
    """

    def __init__(self) -> None:
        self._has_peak = False
        if sys.platform != "linux":
            return
        gc.collect()
        with suppress(AttributeError, OSError):  # a C library without it
            ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError):  # where the kernel does not let a process do so, what is held now is told
            _CLEAR.write_text(_PEAK)
            self._has_peak = True
        self._before = _bytes("VmRSS")

    def taken(self) -> int | None:
        """Bytes at the peak since then, beyond what there was; None elsewhere than on Linux."""
        if sys.platform != "linux" or self._before is None:
            return None
        now = _bytes("VmHWM" if self._has_peak else "VmRSS")
        return None if now is None else max(0, now - self._before)


def _bytes(name: str) -> int | None:
    with suppress(OSError):
        for line in _STATUS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) << 10
    return None
