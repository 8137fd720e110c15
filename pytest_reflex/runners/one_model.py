"""Are two modules one? The same object, or the same code over the same memory, asked in the same way."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import nn

__all__ = ["forward_of", "same_call", "same_module"]

_PLAIN: Final = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
_DEEP: Final = 6
# What torch keeps of a module that decides nothing of what it computes.
_ASIDE: Final = frozenset({"training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"})


def same_module(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules are one object, or objects of the same classes that hold the same memory.

    Other weights, a copy of the weights, another class or attribute, and what cannot be looked into make them
    two.
    """
    if one is other:
        return True
    ours, theirs = dict(one.named_modules()), dict(other.named_modules())
    if ours.keys() != theirs.keys() or not any(True for _ in one.parameters()):
        return False
    return all(_same_parts(ours[name], theirs[name]) for name in ours)


def same_call(one: Callable[..., Any] | None, other: Callable[..., Any] | None) -> bool:
    """Whether two functions are one: the same code, over what is the same."""
    return _same(one, other, 0)


def forward_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a call of it computes with: of a module its ``forward``."""
    return function.forward if isinstance(function, nn.Module) else function


def _same_parts(one: nn.Module, other: nn.Module) -> bool:
    if one is other:
        return True
    held, theirs = ({**m._parameters, **m._buffers} for m in (one, other))
    own, others = ({n: v for n, v in vars(m).items() if n not in _ASIDE} for m in (one, other))
    return type(one) is type(other) and _same(held, theirs, 0) and _same(own, others, 0)


def _same(one: Any, other: Any, depth: int) -> bool:
    if one is other:
        return True
    if type(one) is not type(other) or depth > _DEEP:
        return False
    if isinstance(one, nn.Module):
        return same_module(one, other)
    if isinstance(one, torch.Tensor):
        return _one_memory(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[k], other[k], depth + 1) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other, [depth + 1] * len(one)))
    if isinstance(one, functools.partial):
        ours, theirs = ([f.func, f.args, f.keywords] for f in (one, other))
        return _same(ours, theirs, depth + 1)
    if isinstance(one, types.MethodType):
        return one.__func__ is other.__func__ and _same(one.__self__, other.__self__, depth + 1)
    if isinstance(one, types.FunctionType):
        return one.__code__ is other.__code__ and _same(_kept(one), _kept(other), depth + 1)
    return isinstance(one, _PLAIN) and bool(one == other)


def _kept(function: types.FunctionType) -> list[Any]:
    """What a function computes with besides its arguments and its module's globals."""
    held: list[Any] = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # it has no value yet
            held.append(cell.cell_contents)
    return [held, function.__defaults__, function.__kwdefaults__]


def _one_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    forms = [(t.layout, t.dtype, t.shape, t.device) for t in (one, other)]
    if forms[0] != forms[1] or one.layout != torch.strided:
        return False
    return one.data_ptr() == other.data_ptr() and one.stride() == other.stride()
