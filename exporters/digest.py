"""What an export depends on, as one digest of its content: weights, code, options, versions."""

from __future__ import annotations

import enum
import functools
import hashlib
import os
import platform
import sys
import types
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

__all__ = ["Digest", "Unstable", "surroundings"]

_OURS: Final = ("exporters", "pytest_reflex")
# Whose code is known by its version.
_VERSIONED: Final = ("builtins", "torch", "numpy", "collections", "functools", "abc", "typing")
_ATOMS: Final = (str, bytes, int, float, complex, bool, type(None), type(Ellipsis), range)


class Unstable(Exception):
    """Something has no form that is the same in every process; names its type."""


class Digest:
    """SHA-256 of values of any kind, the same in every process in which they are the same.

    Of an ``nn.Module`` it takes every parameter and buffer, every attribute but ``training``, hooks
    included, and the source of its classes; of a function its code, its defaults and what it encloses; of
    any other object its class and its state. What two places share is told from what is equal in both.

    Args:
        strict: refuse what has no stable form, such as an open file; otherwise its type is all that is seen.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._hash = hashlib.sha256()
        self._strict = strict
        # By identity; kept alive, so that no identity is given out twice.
        self._seen: dict[int, tuple[int, Any]] = {}

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def add(self, value: Any) -> Digest:
        """Take in a value.

        Raises:
            Unstable: it has no stable form, and that is asked for; or it is a tensor without data.
        """
        if isinstance(value, _ATOMS) and type(value) in _ATOMS:
            return self._say("atom", type(value).__name__, repr(value))
        if isinstance(value, (type, types.FunctionType, types.CodeType, types.ModuleType)):
            return self._code(value)
        if isinstance(value, (torch.dtype, torch.device, torch.Size, np.dtype, os.PathLike, enum.Enum)):
            return self._say("named", _qualified(type(value)), str(value))
        if id(value) in self._seen:
            return self._say("again", str(self._seen[id(value)][0]))
        self._seen[id(value)] = len(self._seen), value
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray) and value.dtype.kind != "O":
            self._say("array", str(value.dtype), str(value.shape))
            return self._bytes(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
        if type(value) in (list, tuple):
            self._say("sequence", type(value).__name__, str(len(value)))
            return self._all(value)
        if type(value) in (set, frozenset):
            return self._all(sorted(self._apart(item) for item in value))
        if isinstance(value, (dict, types.MappingProxyType)) and type(value).__module__ == "builtins":
            self._say("mapping", str(len(value)))
            return self._all(part for item in value.items() for part in item)
        if isinstance(value, nn.Module):
            self._class(type(value))
            return self.add({name: part for name, part in vars(value).items() if name != "training"})
        return self._object(value)

    def _object(self, value: Any) -> Digest:
        """Its class, and what pickle would keep of it."""
        self._class(type(value))
        if isinstance(value, types.MethodType):
            return self.add(value.__func__).add(value.__self__)
        try:
            made = value.__reduce_ex__(4)
        except Exception as error:
            # Whatever its own __reduce__ raises: it has no state that could be told.
            state = getattr(value, "__dict__", None)
            if isinstance(state, dict):
                return self.add(dict(state))
            if self._strict:
                raise Unstable(_qualified(type(value))) from error
            return self
        if isinstance(made, str):
            return self._say("global", made)
        return self._all(tuple(part) if _is_iterator(part) else part for part in made[1:])

    def _code(self, value: Any) -> Digest:
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.ModuleType):
            return self._say("module", value.__name__)
        if isinstance(value, types.FunctionType):
            self._say("function", value.__module__, value.__qualname__, _source(value.__module__))
            cells = [_contents(cell) for cell in value.__closure__ or ()]
            return self.add(value.__code__).add(value.__defaults__).add(value.__kwdefaults__).add(cells)
        self._say("code", value.co_name, value.co_code.hex(), *value.co_names)
        return self._all(value.co_consts)

    def _class(self, found: type) -> Digest:
        for base in found.__mro__:
            if base.__module__.partition(".")[0] in _VERSIONED:
                continue
            source = _source(base.__module__)
            self._say("class", _qualified(base), source)
            if not source and id(base) not in self._seen:
                # Written in a notebook or a shell: its functions are all there is of it.
                self._seen[id(base)] = len(self._seen), base
                own = (f for f in vars(base).values() if isinstance(f, (types.FunctionType, *_ATOMS)))
                self._all(own)
        return self._say("type", _qualified(found))

    def _tensor(self, value: torch.Tensor) -> Digest:
        if value.is_meta:
            raise Unstable(f"a tensor of shape {list(value.shape)} without data (on the meta device)")
        self._say("tensor", _qualified(type(value)), str(value.dtype), str(list(value.shape)))
        flat = value.detach().cpu().contiguous().reshape(-1)
        return self._bytes(flat.view(torch.uint8).numpy()) if flat.numel() else self

    def _apart(self, item: Any) -> str:
        """An item's own digest, for what has no order."""
        return Digest(strict=self._strict).add(item).hexdigest()

    def _all(self, parts: Iterable[Any]) -> Digest:
        for part in parts:
            self.add(part)
        return self._say("end")

    def _say(self, *words: str) -> Digest:
        for word in words:
            encoded = word.encode("utf-8", "surrogatepass")
            self._hash.update(f"{len(encoded)}:".encode() + encoded)
        return self

    def _bytes(self, array: np.ndarray[Any, Any]) -> Digest:
        self._hash.update(f"{array.nbytes}:".encode())
        self._hash.update(array.data)
        return self


def surroundings(packages: Iterable[str]) -> Mapping[str, str]:
    """What else decides what an export gives: versions, the machine, and this project's own source."""
    found = {name: _version(name) for name in packages}
    ours = hashlib.sha256()
    for name in _OURS:
        home = Path(sys.modules[name].__path__[0])
        for file in sorted(home.rglob("*.py")):
            ours.update(f"{file.relative_to(home)}:{_file(str(file), _stamp(file))};".encode())
    return {
        **found,
        "python": platform.python_version(),
        "arch": platform.machine(),
        "source": ours.hexdigest(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _source(module: str) -> str:
    """Digest of the file that a module was read from; empty where there is none."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file or not os.path.isfile(file):
        return ""
    return _file(file, _stamp(Path(file)))


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=4096)
def _file(file: str, stamp: tuple[int, int]) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _qualified(found: type) -> str:
    return f"{found.__module__}.{found.__qualname__}"


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # not filled yet


def _is_iterator(value: Any) -> bool:
    return hasattr(value, "__next__")
