"""The families that other distributions bring, by the entry points that name them.

A distribution that is broken is nobody's fault who does not ask for its family: what is wrong with it is
said when it is asked for.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Final

# Where another distribution names its families.
GROUP: Final = "pytest_reflex.families"
_UNKNOWN: Final = "unknown"


def installed() -> dict[str, list[EntryPoint]]:
    """The entry points of the group by the families that they name; more than one of a name is too many."""
    return {name: [*entries] for name, entries in _read(tuple(map(_as_it_is, sys.path))).items()}


@functools.lru_cache(maxsize=1)
def _read(path: tuple[tuple[str, int], ...]) -> dict[str, list[EntryPoint]]:
    """Read anew only where something was installed since, for every check asks."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        found.setdefault(entry.name, []).append(entry)
    return found


def _as_it_is(folder: str) -> tuple[str, int]:
    """A place of ``sys.path`` and when a distribution last came to it or left it."""
    with contextlib.suppress(OSError):
        return folder, os.stat(folder or ".").st_mtime_ns
    return folder, 0


def versions_of(entries: list[EntryPoint]) -> dict[str, str]:
    """The distributions of entry points, by name, with their versions."""
    return dict(map(_version, entries))


def _version(entry: EntryPoint) -> tuple[str, str]:
    with contextlib.suppress(Exception):  # whatever reading broken metadata leads to
        name, version = entry.dist.name, entry.dist.version  # type: ignore[union-attr]
        if name and version:
            return name, version
    return entry.value, _UNKNOWN
