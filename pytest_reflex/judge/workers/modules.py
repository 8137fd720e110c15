"""Whether two processes have the same modules: their files, their functions and the plain values in them.

Functions and classes are pickled by name, so a worker imports their modules anew: from wherever its path
leads, as their files are by now, and without what was set in them since.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import os
import site
import sys
import sysconfig
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import PurePath
from types import CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import RunnerError

__all__ = ["Loaded", "Module", "Modules"]

# Of these packages the version is compared, and the files; what their modules hold besides is their own.
_OWN: Final = ("pytest_reflex", "exporters")
# Larger arrays are weights, and more elements a cache.
_LARGEST_BYTES: Final = 1 << 16
_MOST_ELEMENTS: Final = 10_000
# A longer text is kept as its beginning and its digest.
_LONGEST: Final = 60
# What a function is, before its digest; and how a name is kept whose value is nothing that can be compared.
_CODE: Final = "function "
_REWRITTEN: Final = f"{_CODE}with pytest's asserts"
_OPAQUE: Final = ""
_INSTEAD: Final = "pass it as an argument or an attribute of what is judged, or give --workers 1"


@dataclasses.dataclass(frozen=True)
class Module:
    """A module as a process has it.

    Attributes:
        file: where it was loaded from.
        sha256: of that file, as it is now.
        held: of each name in it and in its classes what it is, as text: a plain value, or a function.
    """

    file: str
    sha256: str
    held: dict[str, str]


# By their names.
Modules = Mapping[str, Module]


def loaded(named: Container[str] = ()) -> dict[str, Module]:
    """The user's modules that this process has loaded, and those with such names, whosever they are."""
    found = {}
    for name, module in list(sys.modules.items()):
        file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
        if name in ("__main__", "__mp_main__") or not isinstance(file, str) or not os.path.isabs(file):
            continue
        users = _of_user(file)
        if (users or name in named) and (digest := _digest(file)):
            known = users and name.partition(".")[0] not in _OWN
            found[name] = Module(file, digest, dict(_held(name, module)) if known else {})
    return found


class Loaded:
    """What a worker has loaded, beside what the first process has.

    Args:
        ours: the first process's modules.
    """

    def __init__(self, ours: Modules) -> None:
        self._ours, self._before = ours, dict[str, Module]()

    def require_same_files(self) -> None:
        """Refuse modules of other files, and keep what they hold before anything runs.

        Raises:
            RunnerError: one is another than the first process's.
        """
        self._before = loaded(self._ours)
        if said := other_files(self._ours, self._before):
            raise RunnerError(said)

    def require_same(self) -> None:
        """The same of what was loaded since; and refuse other values in them than the first process has.

        A value may be what it is there at first or now: some are only set when something runs.

        Raises:
            RunnerError: one is another.
        """
        now = loaded(self._ours)
        if said := other_files(self._ours, now) or other_values(self._ours, self._before, now):
            raise RunnerError(said)


def other_files(ours: Modules, theirs: Modules) -> str:
    """The first module whose file is another, in words; empty where none is."""
    for name, one in ours.items():
        other = theirs.get(name, one)
        if one.sha256 != other.sha256:
            where = os.path.dirname(one.file)
            return (
                f"module {name} is {other.file} there and {one.file} here, and these are not the same; have "
                f"what is in {where} there too, before others on its path (PYTHONPATH), or give --workers 1"
            )
    return ""


def other_values(ours: Modules, before: Modules, now: Modules) -> str:
    """The first name in a module that is neither at first nor now what it is here; empty where none is."""
    for name in now:
        if name not in ours:
            continue
        here, last = ours[name].held, now[name].held
        first = before[name].held if name in before else last
        # What makes its names as they are asked for has some of them only there, or only here.
        absent = _OPAQUE if "__getattr__" in here else "nothing"
        for key in {**here, **last}:
            mine, seen = here.get(key, absent), [one.get(key, absent) for one in (first, last)]
            if any(_alike(mine, one) for one in seen) or (absent == _OPAQUE in (mine, *seen)):
                continue
            if _CODE in (mine[: len(_CODE)], seen[1][: len(_CODE)]):
                return (
                    f"{name}.{key} is not there what it is here, where it was set or its file changed since "
                    f"it was imported, and a worker imports it anew; have {ours[name].file} say so, or give "
                    "--workers 1"
                )
            return (
                f"{name}.{key} is {seen[1]} there and {mine} here, where it was set after the import, and a "
                f"worker imports the module anew; {_INSTEAD}"
            )
    return ""


def _alike(one: str, other: str) -> bool:
    if _REWRITTEN in (one, other):
        return one.startswith(_CODE) and other.startswith(_CODE)
    opaque = _OPAQUE in (one, other)
    # A model that is loaded once has nothing in its place before; a function is there from the beginning.
    return one == other or (opaque and not any(text.startswith(_CODE) for text in (one, other)))


@functools.cache
def _places() -> tuple[str, ...]:
    """Where Python's own modules are, and installed ones."""
    paths = sysconfig.get_paths()
    found = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    found += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(os.path.join(one, "") for one in found)


def _of_user(file: str) -> bool:
    installed = {"site-packages", "dist-packages"}.intersection(file.split(os.sep))
    return not installed and not file.startswith((*_places(), "<"))


def _digest(file: str) -> str:
    try:
        seen = os.stat(file)
        return _digest_of(file, seen.st_mtime_ns, seen.st_size)
    except OSError:  # in an archive, or no more there
        return ""


@functools.lru_cache(maxsize=4096)
def _digest_of(file: str, _changed: int, _size: int) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _held(name: str, module: ModuleType) -> Iterator[tuple[str, str]]:
    """What a module's names are, and those of its classes."""
    left: list[tuple[str, Mapping[str, Any]]] = [("", vars(module))]
    seen: set[int] = set()
    while left:
        prefix, names = left.pop()
        for key, value in list(names.items()):
            function = _function(value)
            if function is not None:
                yield prefix + key, _code(name, function)
            elif isinstance(value, type) and value.__module__ == name and id(value) not in seen:
                seen.add(id(value))
                left.append((f"{prefix}{key}.", vars(value)))
            elif not key.startswith(("__", "@", "_abc_")):
                text = plain(value)
                yield prefix + key, _OPAQUE if text is None else _kept(text)


def _function(value: object) -> FunctionType | None:
    if isinstance(value, property):
        value = value.fget
    elif isinstance(value, staticmethod | classmethod):
        value = value.__func__
    return value if isinstance(value, FunctionType) else None


def _code(module: str, function: FunctionType) -> str:
    """A function of this module as what it does; of another one as its name."""
    if function.__module__ != module:
        return f"{_CODE}{function.__module__}.{function.__qualname__}"
    instructions = _instructions(function.__code__)
    if "'@py" in instructions:  # a name that only pytest gives, where it writes asserts anew
        return _REWRITTEN
    text = f"{instructions} {plain(function.__defaults__)} {plain(function.__kwdefaults__)}"
    return _CODE + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _instructions(code: CodeType) -> str:
    """A function's instructions and constants, and those of the ones within it; not where they stand."""
    constants = [_instructions(one) if isinstance(one, CodeType) else plain(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {constants} {code.co_names} {code.co_varnames} {code.co_freevars}"


def _kept(text: str) -> str:
    if len(text) <= 2 * _LONGEST:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{text[:_LONGEST]}... (sha256 {digest})"


def plain(value: Any, depth: int = 6) -> str | None:
    """A value as text that is the same in every process; None where it is more than numbers and words."""
    kind = type(value)
    if kind is int:
        return repr(value) if value.bit_length() < 4096 else hex(value)
    if value is None or value is ... or kind in (bool, float, complex, str, bytes):
        return repr(value)
    if isinstance(value, enum.Enum):
        return f"{kind.__qualname__}.{value.name}"
    if isinstance(value, PurePath | np.dtype):
        return repr(value)
    if (array := _array(value)) is not None:
        shown = np.array2string(array, threshold=4, edgeitems=2, precision=4, separator=" ").split()
        return (
            f"{array.dtype}{array.shape} {' '.join(shown)} {hashlib.sha256(array.tobytes()).hexdigest()[:12]}"
        )
    parts = _parts(value) if depth else None
    if parts is None:
        return None
    texts = [plain(one, depth - 1) for one in parts]
    known = [one for one in texts if one is not None]
    if len(known) < len(texts):
        return None
    if kind is set or kind is frozenset:
        known.sort()
    if kind is dict:
        known = [f"{key}: {one}" for key, one in zip(known[::2], known[1::2], strict=True)]
    return f"{kind.__name__}({', '.join(known)})"


def _parts(value: Any) -> list[object] | None:
    """What a collection holds, or a dataclass; None where it is neither or is very large."""
    if type(value) in (list, tuple, set, frozenset, dict):
        if len(value) > _MOST_ELEMENTS:
            return None
        return [one for pair in value.items() for one in pair] if type(value) is dict else [*value]
    names: Iterable[str] | None = _fields(value)
    if names is None:
        return None
    return [one for name in names for one in (name, getattr(value, name, None))]


def _fields(value: Any) -> list[str] | None:
    if isinstance(value, SimpleNamespace):
        return [*vars(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in dataclasses.fields(value)]
    return None


def _array(value: Any) -> np.ndarray[Any, Any] | None:
    """A small array, numpy's or torch's, which it is no use to share."""
    torch = sys.modules.get("torch")
    if torch is not None and type(value) in (torch.Tensor, torch.nn.Parameter):
        if value.device.type != "cpu" or value.layout is not torch.strided or value.nbytes > _LARGEST_BYTES:
            return None
        flat: np.ndarray[Any, Any] = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        return flat
    if (
        not isinstance(value, np.ndarray | np.generic)
        or value.nbytes > _LARGEST_BYTES
        or value.dtype.hasobject
    ):
        return None
    return np.asarray(value)
