"""The same PyTorch program with its arithmetic in float64: what float32 is a rounding of.

Nothing of the model is changed or copied. Two modes watch what it calls: the one sees Python's calls, the
other every operator below them, and widens the float32 that reaches it, a weight only for as long as its
operator runs. ``model.double()`` would take twice the memory, and fails on policies that cast inside.

What the program writes down in float32, a constant as much as a weight, keeps its values: an exported graph
holds the same ones. Only what is computed is computed in float64.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

__all__ = ["MOVES", "NotLifted", "lifted"]

# float16 and bfloat16 are left alone: who rounds to them means it, and ONNX has to round too. In a module
# that is in half precision itself, that rounding is what is measured.
NARROW = frozenset({torch.float32})
HALF = frozenset({torch.float16, torch.bfloat16})
_aten = torch.ops.aten
# They move elements and compute nothing, so no table is widened, or rounded, for the few rows that are read.
MOVES = frozenset(
    {_aten.embedding.default, _aten.index_select.default, _aten.gather.default, _aten.index.Tensor}
)
# They write numbers down.
_MAKERS = frozenset(
    {
        torch.tensor, torch.as_tensor, torch.scalar_tensor, torch.zeros, torch.ones, torch.full, torch.empty,
        torch.arange, torch.linspace, torch.logspace, torch.eye, torch.rand, torch.randn, torch.hann_window,
    }
)  # fmt: skip
# The same bits under another dtype: there is no float64 of that.
_BITS = frozenset({_aten.view.dtype})


class NotLifted(Exception):
    """The program does something that has no meaning in float64; the message says what."""


@contextlib.contextmanager
def lifted(*, half: bool = False) -> Iterator[None]:
    """Within, torch computes in float64 what the program asks for in float32.

    Weights, inputs and constants keep their values; every result is float64.
    torch's default dtype is float64 meanwhile, and is restored.

    Args:
        half: whether what it asks for in float16 or bfloat16 is computed in float64, too.

    Raises:
        NotLifted: (where the program does it) it writes to a float32 tensor from outside, or reads a
            float's bits as another dtype.
    """
    # Integers that are divided become floats of the default dtype.
    widen = _Widening(NARROW | HALF if half else NARROW)
    with _default(torch.float64), _wide_recurrence(), _WideCalls(widen), _WideOperators(widen):
        yield


class _WideCalls(TorchFunctionMode):
    """Makes constants as the program does, in float32, and hands them on in float64."""

    def __init__(self, widen: _Widening) -> None:
        super().__init__()
        self._wide = widen

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named = dict(kwargs or {})
        if func in _MAKERS:
            with _default(torch.float32):
                return self._wide(func(*args, **named))
        try:
            return func(*args, **named)
        except (RuntimeError, TypeError, ValueError):
            # Many compare the dtypes of their arguments, or choose a kernel by one, above every operator.
            wide = pytree.tree_map(self._wide, (args, named))
            if _writes(func, named) or not _differ(wide, (args, named)):
                raise
            return func(*wide[0], **wide[1])


def _writes(func: Callable[..., Any], named: Mapping[str, Any]) -> bool:
    """Whether a function may have written to an argument before it failed."""
    name = getattr(func, "__name__", "_")
    return (
        named.get("out") is not None
        or (name.endswith("_") and not name.endswith("__"))
        or name == "__setitem__"
    )


def _differ(one: Any, other: Any) -> bool:
    pairs = zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=True)
    return any(a is not b for a, b in pairs)


class _WideOperators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Widens what an operator reads, and every dtype that it is told to make."""

    def __init__(self, widen: _Widening) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._wide = widen

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _BITS:
            raise NotLifted(f"{func} reads a float's bits as another dtype")
        if func in MOVES or not any(isinstance(a, torch.Tensor) for a in pytree.tree_leaves((args, kwargs))):
            return self._wide(func(*args, **kwargs))
        if func.is_view:
            # A view of a weight stays one, and is widened by whoever computes with it.
            return func(*args, **kwargs)
        _refuse_outside_writes(func, args, kwargs, self._wide.kinds)
        args, kwargs = pytree.tree_map(self._wide, (args, kwargs))
        return self._wide(func(*args, **kwargs))


@contextlib.contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def _wide_recurrence() -> Iterator[None]:
    """Python's own check of an LSTM, a GRU or an RNN compares dtypes before its weights are widened."""
    checked: Any = torch.nn.RNNBase.check_input

    def of_any_width(layer: Any, given: torch.Tensor, sizes: torch.Tensor | None) -> None:
        with _disable_current_modes():  # it would be widened again
            narrow = given.to(layer._flat_weights[0].dtype)
        checked(layer, narrow, sizes)

    torch.nn.RNNBase.check_input = of_any_width  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        torch.nn.RNNBase.check_input = checked  # type: ignore[method-assign]


@dataclass(frozen=True)
class _Widening:
    """What is widened, as a function of a value."""

    kinds: frozenset[torch.dtype]

    def __call__(self, value: Any) -> Any:
        """One of the kinds, a tensor or the dtype, as float64; anything else as it is."""
        if isinstance(value, torch.Tensor) and value.dtype in self.kinds:
            return _aten._to_copy.default(value, dtype=torch.float64)
        if isinstance(value, torch.dtype) and value in self.kinds:
            return torch.float64
        if isinstance(value, (tuple, list)) and any(isinstance(v, torch.Tensor) for v in value):
            return type(value)(self(v) for v in value)
        return value


def _refuse_outside_writes(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], kinds: frozenset[torch.dtype]
) -> None:
    """What the program made itself is wide already: a float32 tensor that is written to is a buffer."""
    if not func._schema.is_mutable:
        return
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[index] if index < len(args) else kwargs.get(argument.name)
        if isinstance(value, torch.Tensor) and value.dtype in kinds:
            raise NotLifted(
                f"{func} writes to a {value.dtype} tensor of shape {list(value.shape)} that the model holds"
            )
