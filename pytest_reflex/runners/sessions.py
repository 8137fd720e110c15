"""Does what is called PyTorch hold an ONNX Runtime session? Then it may compute with that."""

from __future__ import annotations

import functools
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_reflex.runners.onnx import OnnxRunner

__all__ = ["session_doubt"]

# How many steps from a module, or a function, it may be away; and how many things are looked at.
_DEEP: Final = 4
_MANY: Final = 20_000
_ATOMS: Final = (str, bytes, int, float, complex, type(None), types.ModuleType, types.BuiltinFunctionType)
_PLAIN: Final = frozenset({str, bytes, bool, int, float, type(None)})
_TABLES: Final = frozenset({dict, OrderedDict, list, tuple, set})
_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})
# What torch keeps of a module beside its parts: tensors and hooks.
_TENSORS: Final = frozenset({"_parameters", "_buffers"})


def session_doubt(name: str, *held: object) -> list[str]:
    """A doubt where one of ``held``, modules or functions, reaches a session; nothing where none is found.

    Looked at are attributes of modules, of their classes and of objects that they hold, containers, and what
    a function of someone's own encloses or names of its module.
    """
    where = None
    for place, one in enumerate(held):
        # What is reached by way of one that was walked already was reached then, from nearer by.
        where = where or _session_in(one, held[:place])
    if where is None:
        return []
    return [
        f"{name} holds an ONNX Runtime session, {where!r}, and may compute with that what PyTorch should; "
        "give the policy that the candidate was made from"
    ]


def _session_in(held: object, walked: Sequence[object]) -> str | None:
    runtime = sys.modules.get("onnxruntime")  # without it nobody has made a session
    if runtime is None:
        return None
    kinds = (runtime.InferenceSession, OnnxRunner)
    seen: dict[int, object] = {id(one): one for one in walked}
    waiting = deque([("", held, 0)])
    while waiting and len(seen) < _MANY:
        path, value, depth = waiting.popleft()
        if id(value) in seen or isinstance(value, _ATOMS):
            continue
        seen[id(value)] = value
        if isinstance(value, kinds):
            return path or type(value).__name__
        if depth < _DEEP:
            waiting += [
                (f"{path}.{name}".strip("."), part, depth + step)
                for name, part, step in _parts(value)
                if not _holds_nothing(part) and id(part) not in seen
            ]
    return None


def _holds_nothing(value: Any) -> bool:
    """Whether no session can be in it, seen at once: torch keeps a dozen empty tables of each module."""
    kind = type(value)
    return kind in _PLAIN or (kind in _TABLES and not value)


def _parts(value: Any) -> Iterator[tuple[str, Any, int]]:
    """What a thing holds: by name, and how many steps it is away."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return
    if torch is not None and isinstance(value, torch.nn.Module):
        for name, part in value._modules.items():
            yield name, part, 0
        yield from ((name, part, 1) for name, part in vars(value).items() if name not in _TENSORS)
        yield from _of_class(type(value))
    elif isinstance(value, Mapping | types.SimpleNamespace):
        held = value if isinstance(value, Mapping) else vars(value)
        yield from ((str(name), part, 1) for name, part in list(held.items()))
    elif isinstance(value, list | tuple | set | frozenset | deque):
        yield from ((str(place), part, 1) for place, part in enumerate(list(value)))
    elif isinstance(value, types.MethodType):
        yield from (("", value.__self__, 0), ("", value.__func__, 0))
    elif isinstance(value, functools.partial):
        yield from (("", part, 1) for part in (value.func, value.args, value.keywords))
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, types.SimpleNamespace):
        yield from ((name, part, 1) for name, part in _own(value).items())
    elif not isinstance(value, type) and not _installed(type(value).__module__):
        yield from ((name, part, 1) for name, part in _own(value).items())
        yield from _of_class(type(value))


def _own(value: object) -> Mapping[str, Any]:
    held = getattr(value, "__dict__", {})
    return held if isinstance(held, dict) else {}


def _of_class(kind: type) -> Iterator[tuple[str, Any, int]]:
    for base in kind.__mro__:
        if not _installed(base.__module__):
            yield from (
                (name, part, 1)
                for name, part in vars(base).items()
                if not name.startswith("__") or name == "__call__"
            )


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any, int]]:
    if _installed(function.__module__):
        return
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents, 1
        except ValueError:  # it has no value yet
            continue
    yield from (("", default, 1) for default in function.__defaults__ or ())
    yield from ((name, default, 1) for name, default in (function.__kwdefaults__ or {}).items())
    known = function.__globals__
    yield from ((name, known[name], 1) for name in _names(function.__code__) if name in known)


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return {*code.co_names}.union(*inner)


@functools.cache
def _installed(module: str | None) -> bool:
    """Whether a module comes with Python or with a distribution, whose code is nobody's own."""
    name = module or ""
    file = getattr(sys.modules.get(name), "__file__", None)
    of_python = name.partition(".")[0] in (*sys.stdlib_module_names, "torch", "numpy") and name != "__main__"
    return of_python or not _INSTALLED.isdisjoint(Path(file or "").parts)
