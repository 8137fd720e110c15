"""The files that a runner reads, watched from its opening on: what is hashed is what ran.

ONNX Runtime maps weights from their file, so what is written there later is what it computes with.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from pytest_reflex.errors import RunnerError, lfs_pointer

# Up to here a file is read again whenever it is asked about; a larger one is known by its stamp.
_READ_ANEW_BYTES: Final = 16 << 20
# A file system may give two writes within this time one stamp.
_SAME_STAMP_NS: Final = 2_000_000_000

_Stamp = tuple[int, int, int, int, int]
# What large files held, by their path, while their stamps stay.
_known: dict[str, tuple[_Stamp, str]] = {}


class _Seen(NamedTuple):
    """A file at one time; the digest of a large one is still to be made."""

    stamp: _Stamp
    digest: str


class OpenedFiles:
    """Files as they were when they were opened.

    Args:
        files: where they are, by the names that reports give them.

    Raises:
        OSError: one cannot be read.
        RunnerError: one is still to be fetched by Git LFS.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        for path in files.values():
            if said := lfs_pointer(path):
                raise RunnerError(f"{path} is {said}")
        self._files = dict(files)
        self._then = {name: _seen(path) for name, path in self._files.items()}

    def changed(self) -> str:
        """Which of them holds something else by now, in words; empty while none does."""
        for name, then in self._then.items():
            try:
                now = _seen(self._files[name])
            except OSError as error:
                return f"{self._files[name]} is gone since it was opened ({error.strerror or error})"
            if now.digest != then.digest or (not now.digest and now.stamp != then.stamp):
                return f"{self._files[name]} was written to after it was opened"
        return ""

    def digests(self) -> dict[str, str]:
        """SHA-256, in hex, of each, by name.

        Raises:
            OSError: one cannot be read.
        """
        return {name: then.digest or file_digest(self._files[name]) for name, then in self._then.items()}


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256, in hex, of a file as it is now; of a large one made once, while it is not written to.

    Raises:
        OSError: it cannot be read.
    """
    place, begun = os.path.realpath(path), time.time_ns()
    stamp = _stamp(place)
    if place in _known and _known[place][0] == stamp:
        return _known[place][1]
    with open(place, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    settled = max(stamp[-2:]) < begun - _SAME_STAMP_NS
    if stamp[2] > _READ_ANEW_BYTES and settled and _stamp(place) == stamp:
        _known[place] = (stamp, digest)
    return digest


def _seen(path: Path) -> _Seen:
    stamp = _stamp(path)
    return _Seen(stamp, file_digest(path) if stamp[2] <= _READ_ANEW_BYTES else "")


def _stamp(path: str | os.PathLike[str]) -> _Stamp:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
