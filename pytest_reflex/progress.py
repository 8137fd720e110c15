"""Who is told how far the work is.

A test says nothing of it: ``check`` and ``export``, given no callback, tell whoever watches the process
(:func:`reporting_to`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

# (what is being done, how much of it is done, of how much)
Progress = Callable[[str, int, int], None]

_watchers: list[Progress] = []


def progress_callback(progress: Progress | None) -> Progress:
    """What is to be told: the callback that was given, else whoever watches, else nobody."""
    if progress is not None:
        return progress
    return _watchers[-1] if _watchers else lambda stage, done, total: None


@contextmanager
def reporting_to(progress: Progress) -> Iterator[None]:
    """While open, ``progress`` is told of all work that was given no callback of its own."""
    _watchers.append(progress)
    try:
        yield
    finally:
        _watchers.remove(progress)
