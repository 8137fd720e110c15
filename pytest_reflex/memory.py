"""Give back the memory of weights that are mapped from a file: they are read again when they are used.

A policy whose weights are mapped takes their size in memory once it has run. Before the candidate takes
its own, the pages are let go, without the policy being let go.
"""

from __future__ import annotations

import ctypes
import re
import sys
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_SMAPS: Final = Path("/proc/self/smaps")
_HEAD: Final = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ (\d+)")
_ANONYMOUS: Final = re.compile(r"^Anonymous:\s+(\d+) kB")
_MADV_DONTNEED: Final = 4


def release_mapped(addresses: Iterable[int]) -> int:
    """Let go of the pages of the file mappings that hold ``addresses``; elsewhere than on Linux, of none.

    A mapping of which a page was written to holds what no file holds, and is left alone.

    Returns:
        How many bytes of mappings were let go.
    """
    if sys.platform != "linux":
        return 0
    try:
        clean = _clean_mappings()
    except OSError:
        return 0
    starts = [start for start, _ in clean]
    chosen = set()
    for address in addresses:
        at = bisect_right(starts, address) - 1
        if at >= 0 and address < clean[at][1]:
            chosen.add(clean[at])
    libc = ctypes.CDLL(None, use_errno=True)
    released = 0
    for start, end in chosen:
        if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED) == 0:
            released += end - start
    return released


def _clean_mappings() -> list[tuple[int, int]]:
    """Start and end of each mapping of a file that has no page of its own, by address."""
    found: list[tuple[int, int]] = []
    at: tuple[int, int] | None = None
    with _SMAPS.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if head := _HEAD.match(line):
                start, end, inode = head.groups()
                at = (int(start, 16), int(end, 16)) if inode != "0" else None
            elif at is not None and (own := _ANONYMOUS.match(line)):
                if own[1] == "0":
                    found.append(at)
                at = None
    return sorted(found)
