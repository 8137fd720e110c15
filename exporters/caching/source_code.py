"""The code that an export depends on: the files it was read from, and what is loaded of them."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch

__all__ = ["LOADED", "frozen", "helpers", "members", "own_source", "qualified", "source_of", "versioned"]

_OURS: Final = ("exporters", "pytest_reflex")
# Whose code is known by its version.
_VERSIONED: Final = (*sys.stdlib_module_names, "torch", "numpy")
_INSTALLED: Final = ("site-packages", "dist-packages")
_ATOMS: Final = (str, bytes, int, float, complex, bool, type(None), type(Ellipsis), range)


def members(found: type) -> Iterator[tuple[str, Any]]:
    """A class's functions and settings as they are now; all that it has where no file tells the rest."""
    everything = not source_of(found.__module__)
    for name, given in sorted(vars(found).items()):
        member = given.__func__ if isinstance(given, (staticmethod, classmethod)) else given
        if isinstance(member, property):
            yield name, [member.fget, member.fset, member.fdel]
        elif isinstance(member, functools.cached_property):
            yield name, member.func
        elif isinstance(member, types.FunctionType):
            yield name, member
        elif name.startswith("__") or name == "_abc_impl":
            continue  # the interpreter's own
        elif everything or _setting(member):
            yield name, member


def helpers(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a user's function names of its module: settings, functions and classes, other modules.

    Not what an installed one names: its file and its package's version stand for that, and the walk would
    end in the state of loggers and progress bars.
    """
    home = function.__module__
    if _installed(home):
        return
    everything = not source_of(home)
    for name in sorted(_names(function.__code__)):
        if name not in function.__globals__ or name.startswith("__"):
            continue
        value = function.__globals__[name]
        if isinstance(value, (types.FunctionType, type)):
            theirs = value.__module__ or ""
            yield name, (theirs, value.__qualname__, source_of(theirs)) if _installed(theirs) else value
        elif everything or _setting(value) or isinstance(value, types.ModuleType):
            yield name, value


def versioned(module: str | None) -> bool:
    """Whether a version that is in every key says what the module's code is."""
    return (module or "").partition(".")[0] in _VERSIONED


def source_of(module: str | None) -> str:
    """Digest of the file that a module was read from; empty where there is none, or a version says it."""
    file = _file_of(module)
    if not file or not os.path.isfile(file) or versioned(module):
        return ""
    return _digest(file, _stamp(Path(file)))


def own_source() -> str:
    """Digest of this project's own source."""
    ours = hashlib.sha256()
    for name in _OURS:
        home = Path(sys.modules[name].__path__[0])
        for file in sorted(home.rglob("*.py")):
            ours.update(f"{file.relative_to(home)}:{_digest(str(file), _stamp(file))};".encode())
    return ours.hexdigest()


def qualified(found: type) -> str:
    return f"{found.__module__}.{found.__qualname__}"


def frozen(value: Any) -> bool:
    """Whether it is a dataclass that is equal by what it holds and stays so."""
    made = getattr(type(value), "__dataclass_params__", None)
    return dataclasses.is_dataclass(type(value)) and made is not None and bool(made.frozen)


def _setting(value: Any) -> bool:
    """Whether it is made of numbers, words and the like alone, which a running program seldom changes."""
    if type(value) in (dict, types.MappingProxyType):
        return all(_setting(part) for item in value.items() for part in item)
    if type(value) in (list, tuple, set, frozenset):
        return all(map(_setting, value))
    return isinstance(value, (*_ATOMS, enum.Enum, torch.dtype, torch.device)) or frozen(value)


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return {*code.co_names}.union(*inner)


def _installed(module: str | None) -> bool:
    if versioned(module) or (module or "").partition(".")[0] in _OURS:
        return True
    return not set(_INSTALLED).isdisjoint(Path(_file_of(module)).parts)


def _file_of(module: str | None) -> str:
    return getattr(sys.modules.get(module or ""), "__file__", None) or ""


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=4096)
def _digest(file: str, stamp: tuple[int, int]) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


# As it was loaded, or as good as.
LOADED: Final = own_source()
