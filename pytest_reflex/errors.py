"""The two ways to say no: a verdict of fail (``ParityError``) and no verdict at all (``ReflexError``)."""

from __future__ import annotations

import os
import reprlib
from typing import Any, Final

# How the file begins that Git LFS leaves in place of one that it has not fetched.
_POINTER: Final = b"version https://git-lfs"


# So much of a value is named in a message.
_LONG: Final = 100


class ReflexError(Exception):
    """No verdict could be reached: a bad argument, an unreadable file, a model that does not run.

    The message is one line that names the value, what was expected and what to do. The command
    line exits 2 on it.
    """


class SettingsError(ReflexError):
    """A setting has a value that it cannot take."""


class InputError(ReflexError):
    """An input specification is wrong, or an array does not fit it."""


class RunnerError(ReflexError):
    """A model could not be opened or run."""


class BundleError(ReflexError):
    """A bundle is missing, incomplete, or is not what its manifest says."""


class CertificateError(ReflexError):
    """A certificate does not hold: of these files, by one of these keys, or on this machine."""


class CheckpointError(ReflexError):
    """A checkpoint could not be found, read, or fitted to its model class."""


class TracingError(ReflexError):
    """A module could not be turned into a graph that computes what it computes."""


class MissingPackageError(ReflexError, ImportError):
    """A package is not installed; an ``ImportError`` too, so that imports fail as imports do."""


class ParityError(AssertionError):
    """The candidate does not compute what the reference computes.

    Attributes:
        result: the whole :class:`~pytest_reflex.result.ParityResult`.
        pipeline: the :class:`~pytest_reflex.result.PipelineResult` that it is a stage of, or None.
    """

    def __init__(self, message: str, result: Any, pipeline: Any = None) -> None:
        super().__init__(message)
        self.result = result
        self.pipeline = pipeline


def lfs_pointer(file: str | os.PathLike[str]) -> str:
    """What to say of a file that Git LFS has not fetched, after "is"; empty of any other."""
    try:
        with open(file, "rb") as stream:
            if stream.read(len(_POINTER)) != _POINTER:
                return ""
    except OSError:
        return ""
    where = os.path.dirname(file) or "."
    return f"a Git LFS pointer, and not the file itself; run `git lfs pull` in {where}"


class _Brief(reprlib.Repr):
    """``repr`` of a value that somebody gave, with the middle left out where it is long."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = _LONG

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > 4 * _LONG:  # more digits than Python itself writes, where they are very many
            return f"a whole number of {x.bit_length()} bits"
        return super().repr_int(x, level)


def a_type(value: object) -> str:
    """What a value is, in a message: "an int", "a Linear", or "None"."""
    if value is None:
        return "None"
    name = type(value).__name__
    lower = name.lower()
    letters = lower.startswith("nd") or (name[:2].isupper() and name[0] in "FHLMNRX")  # ef, aitch, el ...
    vowel = lower[0] in "aeiou" and not lower.startswith(("uint", "uni", "use"))
    return f"{'an' if vowel or letters else 'a'} {name}"


def brief(value: object) -> str:
    """A value as a message names it: its ``repr``, in one line, shortened where it is long."""
    text = " ".join(_Brief().repr(value).splitlines())
    return text if len(text) <= 2 * _LONG else f"{text[:_LONG]}...{text[-_LONG // 2 :]}"
