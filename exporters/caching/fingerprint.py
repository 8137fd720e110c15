"""What an export depends on, as one digest of its content: weights, code, options, versions."""

from __future__ import annotations

import enum
import functools
import hashlib
import os
import platform
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from exporters.bundle.installed import installed, versions_of
from exporters.caching.source_code import (
    LOADED,
    frozen,
    helpers,
    members,
    own_source,
    qualified,
    source_of,
    versioned,
)
from pytest_reflex.verdict import machine

__all__ = ["Fingerprint", "Unstable", "surroundings"]

_ATOMS: Final = (str, bytes, int, float, complex, bool, type(None), type(Ellipsis), range)
# What objects keep of the process that made them: transformers' hash of a generation config, diffusers' list
# of a set, in the set's order, and which module a runner has run.
_OF_THE_PROCESS: Final = ("_original_object_hash", "_use_default_values", "_reflex_ran")
# Told by their contents alone: what passes through PyTorch comes out as equal ones, no longer shared.
_PLAIN: Final = (list, tuple, set, frozenset, dict, types.MappingProxyType, deque)


class Unstable(Exception):
    """Something has no form that is the same in every process; names its type."""


class Fingerprint:
    """SHA-256 of values of any kind, the same in every process in which they are the same.

    Of an ``nn.Module`` it takes every parameter and buffer, every attribute but ``training``, hooks
    included, and its classes; of a class the file it is in and its members as they are now; of a function
    its code, its defaults, what it encloses and the helpers that it names; of any other object its class
    and its state. Tensors and objects that two places share are told from such as are equal in both.

    Args:
        strict: refuse what has no stable form, such as an open file; otherwise its type is all that is seen.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._hash = hashlib.sha256()
        self._strict = strict
        # By identity; kept alive, so that no identity is given out twice.
        self._seen: dict[int, tuple[int, Any]] = {}
        # The containers that are being walked through, by identity, with their depth.
        self._open: dict[int, int] = {}

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def add(self, value: Any) -> Fingerprint:
        """Take in a value.

        Raises:
            Unstable: it has no stable form, and that is asked for; or it is a tensor without data.
        """
        if isinstance(value, _ATOMS) and type(value) in _ATOMS:
            return self._say("atom", type(value).__name__, repr(value))
        if isinstance(value, (type, types.FunctionType, types.CodeType, types.ModuleType)):
            return self._code(value)
        if isinstance(value, (torch.dtype, torch.device, torch.Size, np.dtype, os.PathLike, enum.Enum)):
            return self._say("named", qualified(type(value)), str(value))
        if isinstance(value, _PLAIN) or frozen(value):
            if id(value) in self._open:
                return self._say("around", str(self._open[id(value)]))
            self._open[id(value)] = len(self._open)
            try:
                return self._plain(value)
            finally:
                del self._open[id(value)]
        if not self._first(value):
            return self
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray) and value.dtype.kind != "O":
            self._say("array", str(value.dtype), str(value.shape))
            return self._bytes(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
        if isinstance(value, nn.Module):
            self._class(type(value))
            return self.add(dict(_attributes(value)))
        return self._object(value)

    def _first(self, value: Any) -> bool:
        """Whether it is met for the first time; otherwise says where that was."""
        if id(value) in self._seen:
            self._say("again", str(self._seen[id(value)][0]))
            return False
        self._seen[id(value)] = len(self._seen), value
        return True

    def _plain(self, value: Any) -> Fingerprint:
        if type(value) in (list, tuple):
            self._say("sequence", type(value).__name__, str(len(value)))
            return self._all(value)
        if type(value) in (set, frozenset):
            self._say("set", type(value).__name__)
            return self._all(sorted(self._apart(item) for item in value))
        if type(value) in (dict, types.MappingProxyType):
            items = list(_lasting(value.items()))
            self._say("mapping", str(len(items)))
            return self._all(part for item in items for part in item)
        return self._object(value)

    def _object(self, value: Any) -> Fingerprint:
        """Its class, and what pickle would keep of it."""
        self._class(type(value))
        if isinstance(value, types.MethodType):
            return self.add(value.__func__).add(value.__self__)
        if isinstance(value, functools.partial):
            # What pickle would keep of it changes when someone has looked for its attributes.
            return self.add((value.func, value.args, value.keywords, vars(value)))
        try:
            made = value.__reduce_ex__(4)
        except Exception as error:
            # Whatever its own __reduce__ raises: it has no state that could be told.
            state = getattr(value, "__dict__", None)
            if isinstance(state, dict):
                return self.add(dict(state))
            if self._strict:
                raise Unstable(qualified(type(value))) from error
            return self
        if isinstance(made, str):
            return self._say("global", made)
        return self._all(tuple(_lasting(part)) if _is_iterator(part) else part for part in made[1:])

    def _code(self, value: Any) -> Fingerprint:
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.ModuleType):
            return self._say("module", value.__name__, source_of(value.__name__))
        if isinstance(value, types.FunctionType):
            if not self._first(value):
                return self
            self._say("function", value.__module__ or "", value.__qualname__, source_of(value.__module__))
            self.add(value.__code__).add(value.__defaults__).add(value.__kwdefaults__)
            self.add([_contents(cell) for cell in value.__closure__ or ()])
            return self._all(part for item in helpers(value) for part in item)
        self._say("code", value.co_name, value.co_code.hex(), *value.co_names)
        return self._all(value.co_consts)

    def _class(self, found: type) -> Fingerprint:
        for base in found.__mro__:
            if not versioned(base.__module__) and self._first(base):
                self._say("class", qualified(base), source_of(base.__module__))
                # As they are now: one that was replaced, or read before its file was edited, is another.
                self._all(part for item in members(base) for part in item)
        return self._say("type", qualified(found))

    def _tensor(self, value: torch.Tensor) -> Fingerprint:
        if value.is_meta:
            raise Unstable(f"a tensor of shape {list(value.shape)} without data (on the meta device)")
        self._say("tensor", qualified(type(value)), str(value.dtype), str(list(value.shape)))
        if value.layout is not torch.strided:
            return self._object(value)
        try:
            flat = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
            return self._bytes(flat.view(torch.uint8).numpy()) if flat.numel() else self
        except (RuntimeError, TypeError) as error:
            raise Unstable(f"a {qualified(type(value))} whose values cannot be read") from error

    def _apart(self, item: Any) -> str:
        """An item's own digest, for what has no order."""
        apart = Fingerprint(strict=self._strict)
        apart._seen, apart._open = dict(self._seen), dict(self._open)
        return apart.add(item).hexdigest()

    def _all(self, parts: Iterable[Any]) -> Fingerprint:
        for part in parts:
            self.add(part)
        return self._say("end")

    def _say(self, *words: str) -> Fingerprint:
        for word in words:
            encoded = word.encode("utf-8", "surrogatepass")
            self._hash.update(f"{len(encoded)}:".encode() + encoded)
        return self

    def _bytes(self, array: np.ndarray[Any, Any]) -> Fingerprint:
        self._hash.update(f"{array.nbytes}:".encode())
        self._hash.update(array.data)
        return self


def surroundings(packages: Iterable[str]) -> Mapping[str, str]:
    """What else decides what an export gives: versions, the machine, and this project's own source.

    Versions also of every distribution that brings a family: an export function of someone's own may call it.
    The machine as far as last bits depend on it: a reference's answers are compared to the bit.
    """
    here = machine.here()
    return {
        **{name: _version(name) for name in packages},
        **{f"family {name}": str(versions_of(entries)) for name, entries in installed().items()},
        "python": platform.python_version(),
        "arch": platform.machine(),
        "processor": f"{here['processor']} {here['instructions']} {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
        # Where it was edited meanwhile, what runs is not what the files say: a key that no other process has.
        "source": own_source() if own_source() == LOADED else f"{LOADED} {own_source()}",
    }


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """What a module holds; its hooks by their order, as their ids are those of the process."""
    held = vars(module)
    tables = {name: part for name, part in held.items() if "_hooks" in name and isinstance(part, dict)}
    ids = sorted({key for table in tables.values() for key in table if isinstance(key, int)})
    order = {key: rank for rank, key in enumerate(ids)}
    for name, part in held.items():
        if name in tables:
            yield name, [(order.get(key, key), hook) for key, hook in part.items()]
        elif name != "training":
            yield name, part


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # not filled yet


def _lasting(items: Iterable[Any]) -> Iterator[Any]:
    """Items, or pairs of a mapping, without what belongs to the process."""
    for item in items:
        key = item[0] if isinstance(item, tuple) and item else None
        if not (isinstance(key, str) and key in _OF_THE_PROCESS):
            yield item


def _is_iterator(value: Any) -> bool:
    return hasattr(value, "__next__")
