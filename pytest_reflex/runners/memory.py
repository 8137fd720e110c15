"""Give back the memory of weights that are mapped from a file: they are read again when they are used.

A policy whose weights are mapped takes their size in memory once it has run. Before the candidate takes
its own, the pages are let go, without the policy being let go.
"""

from __future__ import annotations

import ctypes
import re
import sys
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

_MAPS: Final = Path("/proc/self/maps")
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
    held = list(addresses)
    try:
        # Most policies are mapped from no file, and what smaps adds costs a walk over every page.
        if not _holding(_file_mappings(), held):
            return 0
        chosen = _holding(_clean_mappings(), held)
    except OSError:
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    released = 0
    for start, end in chosen:
        if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED) == 0:
            released += end - start
    return released


def _holding(mappings: list[tuple[int, int]], addresses: Sequence[int]) -> set[tuple[int, int]]:
    """Those of the mappings, by address, that hold one of the addresses."""
    starts = [start for start, _ in mappings]
    found = ((bisect_right(starts, address) - 1, address) for address in addresses)
    return {mappings[at] for at, address in found if at >= 0 and address < mappings[at][1]}


def _file_mappings() -> list[tuple[int, int]]:
    """Start and end of each mapping of a file, by address."""
    heads = map(_HEAD.match, _MAPS.read_text(encoding="utf-8", errors="replace").splitlines())
    return sorted((int(head[1], 16), int(head[2], 16)) for head in heads if head and head[3] != "0")


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
