"""When a run was made, how long it took, and of which source: what tells two reports of the same tests apart.

It is said beside the verdict and decides nothing. What is not known is not said.
"""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

# A source tree that git needs longer for than this is one whose commit is not said.
GIT_SECONDS: Final = 10.0
# What a CI says of a checkout that has no repository, or no branch: GitHub's names, then GitLab's.
_COMMIT: Final = ("GITHUB_SHA", "CI_COMMIT_SHA")
_BRANCH: Final = ("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME")
_STAMP: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Session:
    """One process that compared something.

    Attributes:
        started: when it began, in UTC, ``2026-11-29T09:02:11Z``; None where it is not known.
        seconds: how long it took; None where it is not known.
        commit: the commit that was checked out where it ran; None outside of a repository.
        changed: whether files of that commit were changed; None where that is not known.
        branch: the branch; None where none was checked out and no CI names one.
    """

    started: str | None = None
    seconds: float | None = None
    commit: str | None = None
    changed: bool | None = None
    branch: str | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What :meth:`to_json` wrote.

        Raises:
            TypeError: a value is of another type.
            KeyError: there is a key that it does not have, or one is missing.
        """
        if data.keys() != cls().to_json().keys():
            raise KeyError(f"a session has the keys {', '.join(cls().to_json())}, and not {', '.join(data)}")
        for key in ("started", "commit", "branch"):
            if not isinstance(data[key], str | None):
                raise TypeError(f"{key} of a session is {data[key]!r}")
        seconds = data["seconds"]
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if seconds is not None and not (number and 0 <= seconds < math.inf):
            raise TypeError(f"seconds of a session is {seconds!r}")
        if not isinstance(data["changed"], bool | None):
            raise TypeError(f"changed of a session is {data['changed']!r}")
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def words(self) -> tuple[tuple[str, str], ...]:
        """What is known, each with what it is called: ``("took", "12.3 s")``."""
        found = (
            ("made", _minute(self.started) if self.started else None),
            ("took", None if self.seconds is None else lasting(self.seconds)),
            ("branch", self.branch),
            ("commit", self._commit),
        )
        return tuple((name, said) for name, said in found if said is not None)

    @property
    def _commit(self) -> str | None:
        if self.commit is None:
            return None
        return self.commit[:12] + (" and changes to it" if self.changed else "")

    def __str__(self) -> str:
        """In one line: ``2026-11-29 09:02 UTC, took 12.3 s, branch main, commit 3f2a1bc0d4e5``."""
        return ", ".join(said if name == "made" else f"{name} {said}" for name, said in self.words)


def session(place: Path, began: float, seconds: float) -> Session:
    """The session that ran in a directory.

    Args:
        place: a directory of the source that was tested; its commit is asked of git.
        began: when it began, in seconds since 1970. ``SOURCE_DATE_EPOCH`` in the environment takes its place,
            and then it took no time that is said, so that the same run gives the same bytes
            (reproducible-builds.org).
        seconds: how long it took.
    """
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    stamped = fixed.isascii() and fixed.isdigit() and len(fixed) < 12
    started = datetime.fromtimestamp(int(fixed) if stamped else began, UTC).strftime(_STAMP)
    commit, changed, branch = _checked_out(place)
    return Session(
        started,
        None if stamped else round(seconds, 3),
        commit or _told(_COMMIT),
        changed,
        branch or _told(_BRANCH),
    )


def lasting(seconds: float) -> str:
    """How long something took, for people: ``12.3 s``, ``3 min 20 s``, ``1 h 4 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s"


def in_order(sessions: Iterable[Session]) -> tuple[Session, ...]:
    """Each once, the earliest first."""
    return tuple(sorted(set(sessions), key=lambda one: (one.started or "", repr(one))))


def _minute(started: str) -> str:
    """A moment to the minute; what is none as it stands."""
    try:
        return datetime.strptime(started, _STAMP).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return started


def _told(names: Iterable[str]) -> str | None:
    return next(filter(None, map(os.environ.get, names)), None)


def _checked_out(place: Path) -> tuple[str | None, bool | None, str | None]:
    """The commit in a directory, whether its files were changed, and the branch; None is not known."""
    # Nothing of a repository is run or written: no monitor of its files, no lock on its index.
    quiet = ("-c", "core.fsmonitor=false", "--no-optional-locks")
    asked = ("status", "--porcelain=v2", "--branch", "--untracked-files=no", "--ignore-submodules=all")
    try:
        done = subprocess.run(
            ["git", *quiet, "-C", str(place), *asked],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None, None, None
    if done.returncode:
        return None, None, None
    lines = done.stdout.decode("utf-8", "backslashreplace").splitlines()
    said = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# ") and " " in line[2:])
    commit, branch = said.get("branch.oid"), said.get("branch.head")
    return (
        None if commit == "(initial)" else commit,
        any(not line.startswith("#") for line in lines),
        None if branch == "(detached)" else branch,
    )
