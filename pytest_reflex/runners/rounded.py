"""The same PyTorch program in a narrower precision: what rounding to float16, or bfloat16, must cost.

Nothing of the model is changed or copied. A mode watches every operator that the program calls and rounds to
values that the narrower type has; the operator itself computes in float32, as kernels of the narrower types
do: they multiply narrow numbers and add up in float32. What comes out, held against :mod:`.float64`'s, is the
error that an honest conversion makes. There are two of them:

``narrow``
    what is stored is rounded, and so is what every operator gives: a device that has kernels of that type.
``float32``
    only what is stored is: weights, constants, the loop's times. So it is on ONNX Runtime's CPU, which has
    next to no kernels of float16: it widens what they read, and leaves out every rounding between two.

What depends on neither an input nor a weight is computed as it is, and rounded where it is read: a graph has
it folded into a constant. So is what a program computes of numbers alone, such as the time of a denoising
step; but that reaches a graph as an input or as a constant of each step, so that a table of frequencies that
it meets is rounded before they are multiplied.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners.float64 import MOVES

__all__ = ["NARROW_TYPES", "Arithmetic", "NotRounded", "Spared", "narrow_type", "rounded", "stored_as"]

Arithmetic = Literal["narrow", "float32"]
# What a conversion leaves in float32: nothing, what depends on nothing but a step's time, or every constant.
Spared = Literal["nothing", "clock", "constants"]
_aten = torch.ops.aten
# They make a tensor of a number: torch.full, torch.tensor.
_NUMBERS: Final = frozenset({_aten.full.default, _aten.scalar_tensor.default, _aten.lift_fresh.default})
NARROW_TYPES: Final = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


class NotRounded(Exception):
    """The program does something that has no meaning in a narrower precision; the message says what."""


def narrow_type(precision: str) -> torch.dtype:
    """torch's type of that name.

    Raises:
        RunnerError: it is none that float32 could be rounded to.
    """
    if precision not in NARROW_TYPES:
        raise RunnerError(f"precision is {precision!r}; give one of {', '.join(NARROW_TYPES)}")
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def stored_as(array: np.ndarray[Any, Any], precision: str) -> np.ndarray[Any, Any]:
    """Float32 values, each as that precision stores it: at the end of the range where it lies beyond.

    Raises:
        RunnerError: it is none that float32 could be rounded to.
    """
    stored: np.ndarray[Any, Any] = _narrowed(torch.from_numpy(array.copy()), narrow_type(precision)).numpy()
    return stored


def _narrowed(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    top = torch.finfo(dtype).max
    narrow = value.clamp(-top, top).to(dtype).to(torch.float32)
    infinite = value.isinf()
    return torch.where(infinite, value, narrow) if infinite.any() else narrow


@contextlib.contextmanager
def rounded(
    dtype: torch.dtype,
    weights: Iterable[torch.Tensor],
    arithmetic: Arithmetic = "narrow",
    spared: Spared = "nothing",
    buffers: Iterable[torch.Tensor] = (),
) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """Within, torch computes as if what the program asks for in float32 were ``dtype``.

    What is stored is moved to the end of the range where it lies beyond, as converters do; what is computed
    overflows. float64, and a narrow type that the program itself asks for, are left alone.

    Args:
        dtype: a float type narrower than float32, such as ``torch.float16``.
        weights: the parameters. The program must not write to them, for they would keep rounded values.
        arithmetic: whether every operator's result is rounded, or only what is stored.
        spared: what is stored as it is. ``clock``: the time of a step and what is computed of it alone;
            ``constants``: all but the weights.
        buffers: tensors that the program holds besides: constants, not to be written to either.

    Yields:
        A function that takes each input, and gives the one to call the program with.

    Raises:
        NotRounded: (where the program does it) it writes to a weight or a buffer, or reads a float's
            bits as another dtype.
    """
    mode = _Rounding(dtype, weights, arithmetic, spared, buffers)
    # A fused attention rounds once; the graphs that are exported have it in its parts.
    with sdpa_kernel(SDPBackend.MATH), mode:
        yield mode.given


class _Rounding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Rounds what an operator reads of what is stored, and, where that is asked, what it gives."""

    def __init__(
        self,
        dtype: torch.dtype,
        weights: Iterable[torch.Tensor],
        arithmetic: Arithmetic,
        spared: Spared,
        buffers: Iterable[torch.Tensor],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._dtype = dtype
        self._narrow = arithmetic == "narrow"
        self._spared = spared
        self._weights = {tensor.untyped_storage()._cdata for tensor in weights}
        self._held = self._weights | {tensor.untyped_storage()._cdata for tensor in buffers}
        # What was computed of inputs and weights.
        self._computed = _Marked()
        # What was made of numbers of the program's text alone.
        self._told = _Marked()

    def given(self, value: torch.Tensor) -> torch.Tensor:
        """An input, as the program is to get it."""
        with torch.utils._python_dispatch._disable_current_modes():
            value = self._stored(value) if self._narrow else value
        self._computed.add(value)
        return value

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is _aten.view.dtype:
            raise NotRounded(f"{func} reads a float's bits as another dtype")
        if func in _NUMBERS and self._spared == "nothing":
            number = func(*args, **kwargs)
            self._told.add(number)
            return number
        if func.is_view:
            # A view of a weight stays one, and is rounded by whoever computes with it.
            return func(*args, **kwargs)
        read = [a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
        at_work = self._at_work(read)
        if not at_work and not (self._spared == "nothing" and _widens(read, kwargs)):
            return self._folded(func(*args, **kwargs), read)
        written = self._written(func, args, kwargs)
        own = {id(tensor) for tensor in written}
        if func in MOVES and self._is_weight(read[0]):
            moved = self._stored(func(*args, **kwargs))
            self._computed.add(moved)
            return moved

        def stored(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value if self._spared == "constants" else self._number(value)
            if id(value) in own or value in self._computed:
                return value
            if self._spared == "constants" and not self._is_weight(value):
                return value
            return self._stored(value)

        out = func(*pytree.tree_map(stored, args), **pytree.tree_map(stored, kwargs))
        for tensor in written:
            if self._narrow:
                tensor.copy_(self._result(tensor))
            self._computed.add(tensor)
        if written:
            return out
        if self._narrow:
            out = pytree.tree_map(self._result, out)
        if at_work:
            pytree.tree_map_only(torch.Tensor, lambda made: self._computed.add(made), out)
        return out

    def _folded(self, made: Any, read: list[torch.Tensor]) -> Any:
        """What a graph has as a constant, told where it was made of what was told."""
        if any(tensor in self._told for tensor in read):
            pytree.tree_map_only(torch.Tensor, lambda one: self._told.add(one), made)
        return made

    def _at_work(self, read: list[torch.Tensor]) -> bool:
        """Whether a graph has this operator: whatever reads only constants is folded into another."""
        if any(tensor in self._computed or self._is_weight(tensor) for tensor in read):
            return True
        told = [tensor in self._told for tensor in read]
        return any(told) and not all(told)

    def _is_weight(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._weights

    def _written(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        """The tensors that the operator writes to."""
        if not func._schema.is_mutable:
            return []
        found = []
        for index, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            value = args[index] if index < len(args) else kwargs.get(argument.name)
            if isinstance(value, torch.Tensor):
                if value.untyped_storage()._cdata in self._held:
                    shape = list(value.shape)
                    raise NotRounded(f"{func} writes to a tensor of shape {shape} that the model holds")
                found.append(value)
        return found

    def _stored(self, value: torch.Tensor) -> torch.Tensor:
        """A weight, a constant or an input, as it is stored: within the range."""
        return _narrowed(value, self._dtype) if value.dtype == torch.float32 else value

    def _number(self, value: Any) -> Any:
        """A number that the program has in its text is a constant of the graph."""
        if not isinstance(value, float) or not math.isfinite(value):
            return value
        return self._stored(torch.tensor(value, dtype=torch.float32)).item()

    def _result(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            return value.to(self._dtype).to(torch.float32)
        return value


class _Marked:
    """Tensors, known by their storage for as long as that is there."""

    def __init__(self) -> None:
        # The references keep an address from being used again.
        self._storages: dict[int, StorageWeakRef] = {}
        self._room = 64

    def __contains__(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._storages

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._storages:
            return
        if len(self._storages) >= self._room:
            # What a dead storage leaves behind lies where a tensor was, and the next would not fit there.
            alive = {at: kept for at, kept in self._storages.items() if not kept.expired()}  # type: ignore[no-untyped-call]
            self._storages, self._room = alive, 2 * len(alive) + 64
        self._storages[storage._cdata] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]


def _widens(read: list[torch.Tensor], kwargs: dict[str, Any]) -> bool:
    """Whether float32 becomes float64: a graph stores what is read, and computes on from there."""
    if not any(tensor.dtype == torch.float32 for tensor in read):
        return False
    return kwargs.get("dtype") == torch.float64 or any(tensor.dtype == torch.float64 for tensor in read)
