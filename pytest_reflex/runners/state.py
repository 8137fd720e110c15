"""What a module holds besides its inputs, by name, so that two looks at it can be compared."""

from __future__ import annotations

import hashlib
import random
import types
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

__all__ = ["state_of"]

# What is larger is known by where it lies and how often it was written to: a policy's weights are not read.
_SMALL: Final = 1 << 16
# So many values of a larger one are looked at.
_SOME: Final = 1 << 12
_DEEP: Final = 6
_MANY: Final = 256
# What a class is made of, of which no more than its kind could be said.
_CODE: Final = (types.FunctionType, property, classmethod, staticmethod)
_TORCHS_OWN: Final = frozenset(vars(torch.nn.Module()))


def state_of(model: torch.nn.Module) -> dict[str, object]:
    """Buffers, parameters and attributes of a module and all below it.

    Returns:
        ``"buffer 'norm.mean'"``, ``"attribute 'calls'"`` and so on to something that is equal as long as the
        value is. Looked at are numbers, text, arrays, generators, collections of these and objects that hold
        some themselves.
    """
    found: dict[str, object] = {}
    classes: dict[type, None] = {}
    seen: dict[int, object] = {}  # one configuration is an attribute of many modules

    def known(value: object) -> object:
        if id(value) not in seen:
            seen[id(value)] = _known(value)
        return seen[id(value)]

    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        found |= {f"buffer {prefix + name!r}": _known(tensor) for name, tensor in module._buffers.items()}
        for name, weight in module._parameters.items():
            found[f"parameter {prefix + name!r}"] = None if weight is None else _written(weight)
        own = {name: value for name, value in vars(module).items() if name not in _TORCHS_OWN}
        found |= {f"attribute {prefix + name!r}": known(value) for name, value in own.items()}
        classes |= dict.fromkeys(type(module).__mro__)
    for kind in classes:
        # torch's own hold no state of a policy, and what every class has is no state either.
        if kind.__module__.partition(".")[0] not in ("torch", "builtins"):
            own = {
                name: value
                for name, value in vars(kind).items()
                if not name.startswith("__") and type(value) not in _CODE
            }
            found |= {
                f"attribute {f'{kind.__qualname__}.{name}'!r}": _known(value) for name, value in own.items()
            }
    return found


def _known(value: Any, depth: int = 0) -> object:
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value if value == value else "nan"
    if isinstance(value, torch.Tensor):
        return _tensor(value)
    if isinstance(value, np.ndarray):
        small = value.nbytes <= _SMALL and not value.dtype.hasobject
        return (value.dtype.str, value.shape, value.tobytes() if small else id(value))
    if isinstance(value, torch.Generator):
        return _tensor(value.get_state())
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False))
    if isinstance(value, random.Random):
        return hash(value.getstate())
    if isinstance(value, Mapping | list | tuple | deque | set | frozenset) and depth < _DEEP:
        return (len(value), *_items(value, depth))
    if depth == 0 and hasattr(value, "__dict__") and not isinstance(value, type | torch.nn.Module):
        # An object of the policy's own: what it holds itself, and no further.
        return tuple((name, _known(held, _DEEP)) for name, held in list(vars(value).items())[:_MANY])
    return type(value).__qualname__


def _items(value: Any, depth: int) -> Iterator[object]:
    for number, item in enumerate(value.items() if isinstance(value, Mapping) else value):
        if number == _MANY:
            return
        yield _known(item, depth + 1)


@dataclass(frozen=True, eq=False)
class _Large:
    """A tensor of which some values are known, where it lies, and how often it was written to.

    One that is made anew by each run, such as the last activations, is the same while its values are; one
    that was written to where it lies is another.
    """

    written: object
    at: int
    some: object

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Large):
            return False
        return self.written == other.written if self.at == other.at else self.some == other.some

    __hash__ = None  # type: ignore[assignment]


def _tensor(tensor: torch.Tensor) -> object:
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return _written(tensor)
    if tensor.nbytes <= _SMALL:
        return _digest(tensor, tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1))
    if not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
        return _written(tensor)
    flat = tensor.detach().reshape(-1)
    some = flat[:: -(-flat.numel() // _SOME)].contiguous()
    return _Large(_written(tensor), tensor.data_ptr(), _digest(tensor, some))


def _digest(tensor: torch.Tensor, values: torch.Tensor) -> object:
    held = hashlib.blake2b(values.view(torch.uint8).numpy().tobytes(), digest_size=16).digest()
    return str(tensor.dtype), tuple(tensor.shape), held


def _written(tensor: torch.Tensor) -> object:
    """Which memory it is and how often it was written to."""
    at = tensor.data_ptr() if tensor.layout == torch.strided else 0
    return at, tuple(tensor.shape), 0 if tensor.is_inference() else tensor._version
