"""How arrays travel between a robot and a served policy: msgpack maps, as openpi's clients and servers speak.

An array is a map of its own with the keys ``__ndarray__``, ``data``, ``dtype`` and ``shape``, all of them
byte strings; a numpy scalar is one with ``__npgeneric__``, ``data`` and ``dtype``. What comes in is decoded
as a stranger's: no pickle, no dtype that is not on the list, and nothing is made larger than the message.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import InputError, MissingPackageError, a_type

__all__ = ["decode", "encode", "package"]

Array = np.ndarray[Any, Any]

# An observation is a few dozen arrays. Every item costs some sixty bytes, and may have cost the sender one.
MAX_ITEMS: Final = 10_000
MAX_LENGTH: Final = 1024  # of one map or list
MAX_DEPTH: Final = 16
MAX_TEXT: Final = 1 << 14
_MAX_RANK: Final = 32  # numpy 1 makes no array of more

_NAMES: Final = (
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
# What a message may call a dtype, looked up and never parsed: numpy's own syntax knows objects and structs.
_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    dtype.str: dtype for name in _NAMES for dtype in (np.dtype(name), np.dtype(name).newbyteorder(">"))
}

_ARRAY, _SCALAR = b"__ndarray__", b"__npgeneric__"
_DATA, _DTYPE, _SHAPE = b"data", b"dtype", b"shape"


def package(name: str) -> Any:
    """A module of the packages that serving needs.

    Raises:
        MissingPackageError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"serving needs {name.partition('.')[0]}, which is not installed; "
            "pip install 'pytest-reflex[serve]'"
        ) from error


def encode(value: object) -> bytes:
    """A message that :func:`decode` gives back: builtins, arrays and numpy scalars, in maps and lists.

    Raises:
        InputError: something in it cannot travel, such as an array of objects or of complex numbers.
        MissingPackageError: msgpack is not installed.
    """
    msgpack = package("msgpack")
    try:
        # Strict, or a numpy float64, which is a Python float too, would arrive as one.
        return bytes(msgpack.packb(value, default=_plain, strict_types=True))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"the message cannot be sent: {error}; send numbers, text and arrays") from error


def decode(message: bytes) -> Any:
    """What :func:`encode`, or a client of openpi, made a message of.

    Arrays are C-contiguous, aligned and in this machine's byte order; they are views of the message's
    bytes, and so not writable, wherever these are like that already.

    Raises:
        InputError: it is not msgpack, is larger in items or depth than any observation, or holds an array
            whose dtype, shape or bytes are not in order; the message names the field.
        MissingPackageError: msgpack is not installed.
    """
    msgpack = package("msgpack")
    items = 0

    def counted(found: list[Any]) -> list[Any]:
        nonlocal items
        items += len(found)
        if items > MAX_ITEMS:
            raise InputError(f"the message holds more than {MAX_ITEMS} items; send arrays as arrays")
        return found

    def as_map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        made = dict(counted(pairs))
        if len(made) < len(pairs):
            names = [key for key, _ in pairs]
            twice = next(key for key in names if names.count(key) > 1)
            raise InputError(f"field {_text(twice)} is there twice; send it once")
        return made

    try:
        found = msgpack.unpackb(
            message,
            object_pairs_hook=as_map,
            list_hook=counted,
            strict_map_key=True,
            max_str_len=MAX_TEXT,
            max_bin_len=len(message),
            max_array_len=MAX_LENGTH,
            max_map_len=MAX_LENGTH,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        said = str(error).strip().splitlines()
        why = said[0][:200] if said else type(error).__name__
        raise InputError(f"the message is not msgpack of maps, arrays and text: {why}") from None
    return _value(found, "", 0)


def _plain(value: object) -> object:
    """What msgpack does not know, as what it knows."""
    if isinstance(value, np.ndarray):
        dtype = _sendable(value.dtype)
        # Little-endian and in C order on every wire.
        data = value.astype(dtype, copy=False).tobytes()
        return {_ARRAY: True, _DATA: data, _DTYPE: dtype.str, _SHAPE: list(value.shape)}
    if isinstance(value, np.generic):
        return {_SCALAR: True, _DATA: value.item(), _DTYPE: _sendable(value.dtype).str}
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{a_type(value)} has no form on the wire")


def _sendable(dtype: np.dtype[Any]) -> np.dtype[Any]:
    little = dtype.newbyteorder("<")
    if little.str not in _DTYPES:
        raise TypeError(f"arrays of {dtype} have no form on the wire")
    return little


def _value(found: Any, at: str, depth: int) -> Any:
    """``found`` with its arrays made; ``at`` is where it stands in the message."""
    if depth > MAX_DEPTH:
        raise InputError(f"{_named(at)}: it is nested more than {MAX_DEPTH} deep; send it flat")
    if isinstance(found, dict):
        if _ARRAY in found:
            return _array(found, at)
        if _SCALAR in found:
            return _scalar(found, at)
        return {key: _value(inner, _below(at, key), depth + 1) for key, inner in found.items()}
    if isinstance(found, list):
        return [_value(inner, _below(at, i), depth + 1) for i, inner in enumerate(found)]
    if found is None or isinstance(found, bool | int | float | str | bytes):
        return found
    raise InputError(f"{_named(at)}: {type(found).__name__} is neither number, text nor array")


def _below(at: str, key: object) -> str:
    name = key if isinstance(key, str) else repr(key)
    return f"{at}.{name}"[-200:] if at else name[:200]


def _named(at: str) -> str:
    return f"field {at!r}" if at else "the message"


def _text(key: object) -> str:
    return repr(key if len(str(key)) <= 200 else str(key)[:200])


def _array(found: Mapping[Any, Any], at: str) -> Array:
    dtype = _dtype(found, at, {_ARRAY, _DATA, _DTYPE, _SHAPE})
    shape, data = found[_SHAPE], found[_DATA]
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise InputError(f"{_named(at)}: its shape is no list of whole numbers")
    if len(shape) > _MAX_RANK:
        raise InputError(f"{_named(at)}: it has {len(shape)} dimensions; {_MAX_RANK} at most can travel")
    if not isinstance(data, bytes):
        raise InputError(f"{_named(at)}: its data is no bytes but {type(data).__name__}")
    # In Python's integers, which do not wrap around to a length that fits.
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        size = expected if expected < 1 << 63 else "more than 2^63"
        raise InputError(
            f"{_named(at)}: {len(data)} bytes came for shape {shape} of {dtype.name}, which has {size}"
        )
    try:
        array: Array = np.frombuffer(data, dtype).reshape(shape)
    except ValueError:
        # numpy counts the other dimensions of an empty array too.
        raise InputError(f"{_named(at)}: no array can have shape {shape}") from None
    if dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise InputError(f"{_named(at)}: a bool is neither 0 nor 1")
    return np.require(array, dtype.newbyteorder("="), ["C", "A"])


def _scalar(found: Mapping[Any, Any], at: str) -> np.generic:
    dtype = _dtype(found, at, {_SCALAR, _DATA, _DTYPE}).newbyteorder("=")
    data = found[_DATA]
    kinds: dict[str, tuple[type, ...]] = {"b": (bool,), "i": (int,), "u": (int,), "f": (int, float)}
    if type(data) not in kinds[dtype.kind]:
        raise InputError(f"{_named(at)}: {a_type(data)} came for a {dtype.name}")
    # numpy 1 wraps what numpy 2 refuses.
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= data <= np.iinfo(dtype).max:
        raise InputError(f"{_named(at)}: {data} is no {dtype.name}")
    made: np.generic = dtype.type(data)
    return made


def _dtype(found: Mapping[Any, Any], at: str, keys: set[bytes]) -> np.dtype[Any]:
    if set(found) != keys:
        wanted = ", ".join(sorted(key.decode() for key in keys))
        raise InputError(f"{_named(at)}: it is no whole array; its keys are {wanted}")
    named = found[_DTYPE]
    dtype = _DTYPES.get(named) if isinstance(named, str) else None
    if dtype is None:
        shown = repr(named[:20]) if isinstance(named, str) else a_type(named)
        raise InputError(f"{_named(at)}: dtype {shown} cannot travel; send one of {', '.join(_NAMES)}")
    return dtype
