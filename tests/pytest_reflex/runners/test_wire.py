"""What travels arrives as it was; what a stranger sends is taken for nothing but what it is."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_reflex.errors import InputError, MissingPackageError
from pytest_reflex.runners import wire
from pytest_reflex.runners.wire import decode, encode

pytestmark = pytest.mark.once

DTYPES = [
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
]


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Any dtype, byte order, shape down to no dimension and no element, and stride."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES))).newbyteorder(draw(st.sampled_from("<>")))
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    strides = [draw(st.sampled_from([1, 2, -1])) for _ in shape]
    count = int(np.prod([n * abs(s) for n, s in zip(shape, strides, strict=True)]))
    raw = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    held = bytes(b & 1 for b in raw) if dtype.kind == "b" else raw
    whole = np.frombuffer(held, dtype).reshape([n * abs(s) for n, s in zip(shape, strides, strict=True)])
    return whole[tuple(slice(None, None, s) for s in strides)]


plain = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
leaves = (
    plain | st.text(max_size=20) | st.binary(max_size=20) | arrays() | arrays().map(lambda a: a.ravel()[:1])
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.floating) and isinstance(other, np.floating) and np.isnan(one) and np.isnan(other):
        return one.dtype == other.dtype  # sent as a Python float, a NaN is quiet when it arrives
    if isinstance(one, np.ndarray | np.generic):
        little = one.astype(one.dtype.newbyteorder("="))
        form = isinstance(other, np.generic) is isinstance(one, np.generic)
        return form and (little.dtype, little.shape, little.tobytes()) == (
            other.dtype, other.shape, other.tobytes()
        )  # fmt: skip
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=8), values, max_size=5))
@example({"state": np.array(1.5, np.float32)})
@example({"none": np.zeros((0, 3), np.float32)})
@example({"loud": np.array([np.nan, np.inf, -0.0], np.float16)})
def test_what_is_sent_arrives(value: dict[str, Any]) -> None:
    assert same(value, decode(encode(value)))


@settings(deadline=None)
@given(arrays())
def test_an_array_arrives_whole_aligned_and_native(array: np.ndarray) -> None:
    found = decode(encode({"x": array}))["x"]
    assert found.flags.c_contiguous
    assert found.flags.aligned
    assert found.dtype.isnative


@pytest.mark.parametrize("name", DTYPES)
def test_a_numpy_scalar_arrives_as_one(name: str) -> None:
    value = np.dtype(name).type(1)
    assert same(value, decode(encode(value)))
    if np.dtype(name).kind in "iu":
        assert same(np.iinfo(name).max, int(decode(encode(np.dtype(name).type(np.iinfo(name).max)))))


@pytest.mark.parametrize(
    "value",
    [np.array([None]), np.array(["a"]), np.array([1j]), np.zeros(1, "f4,f4"), {1, 2}, 2**64, "\ud800"],
    ids=lambda value: str(getattr(value, "dtype", type(value).__name__)),
)
def test_what_has_no_form_is_not_sent(value: object) -> None:
    with pytest.raises(InputError, match="the message cannot be sent"):
        encode({"x": value})


def array_map(**changes: object) -> bytes:
    """A packed array of one float32 zero, with some of its four keys otherwise."""
    whole = {b"__ndarray__": True, b"data": b"\0" * 4, b"dtype": "<f4", b"shape": [1]}
    for key, value in changes.items():
        whole[key.encode()] = value
    return bytes(msgpack.packb({"state": {k: v for k, v in whole.items() if v is not ...}}))


def scalar_map(data: object, dtype: object) -> bytes:
    return bytes(msgpack.packb({"state": {b"__npgeneric__": True, b"data": data, b"dtype": dtype}}))


HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "the message is not msgpack"),
    "a byte msgpack never uses": (b"\xc1", "the message is not msgpack"),
    "a pickle": (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.", "the message is not msgpack"),
    "something after the end": (b"\x80\x80", "received extra data"),
    "cut off": (array_map()[:-3], "incomplete"),
    "2^32 - 1 bytes that are not there": (b"\xc6\xff\xff\xff\xff", "incomplete"),
    "a list of 2^32 - 1": (b"\xdd\xff\xff\xff\xff", "exceeds max_array_len"),
    "a map of 2^32 - 1": (b"\xdf\xff\xff\xff\xff", "exceeds max_map_len"),
    "nested 100,000 deep": (b"\x91" * 100_000, "StackError"),
    "maps nested 100,000 deep": (b"\x81\xa1a" * 100_000, "StackError"),
    "nested 30 deep": (b"\x81\xa1a" * 30 + b"\x01", "nested more than 16 deep"),
    "empty maps without end": (
        b"\xdc\x03\xe8" + (b"\xdc\x03\xe8" + b"\x80" * 1000) * 1000,
        "more than 10000 items",
    ),
    "text that is not UTF-8": (b"\x81\xa1\xff\x01", "can't decode"),
    "a number for a name": (b"\x81\x01\x01", "strict_map_key"),
    "a name of 100,000 letters": (b"\x81\xdb\x00\x01\x86\xa0" + b"a" * 100_000, "exceeds max_str_len"),
    "a name twice": (b"\x82\xa5state\x01\xa5state\x02", "field 'state' is there twice"),
    "an extension": (b"\x81\xa5state\xd4\x05\x00", "max_ext_len"),
    "an empty extension": (b"\x81\xa5state\xc7\x00\x05", "field 'state': ExtType"),
    "objects": (array_map(dtype="|O"), r"field 'state': dtype '\|O' cannot travel"),
    "a struct": (array_map(dtype="<f4,<f4"), "field 'state': dtype"),
    "a dtype by its name": (array_map(dtype="float32"), "field 'state': dtype"),
    "text": (array_map(dtype="<U1"), "field 'state': dtype"),
    "complex": (array_map(dtype="<c8"), "field 'state': dtype"),
    "a dtype that is a list": (array_map(dtype=[["a", "<f4"]]), "field 'state': dtype a list"),
    "no dtype": (array_map(dtype=...), "field 'state': it is no whole array"),
    "no data": (array_map(data=...), "field 'state': it is no whole array"),
    "one key more": (array_map(more=1), "field 'state': it is no whole array"),
    "data is text": (array_map(data="\0\0\0\0"), "field 'state': its data is no bytes but str"),
    "shape is a number": (array_map(shape=1), "field 'state': its shape"),
    "shape is below zero": (array_map(shape=[-1]), "field 'state': its shape"),
    "shape is a float": (array_map(shape=[1.0]), "field 'state': its shape"),
    "shape is a bool": (array_map(shape=[True]), "field 'state': its shape"),
    "33 dimensions": (array_map(shape=[1] * 33), "field 'state': it has 33 dimensions"),
    "too few bytes": (array_map(shape=[2]), r"field 'state': 4 bytes came for shape \[2\] of float32"),
    "too many bytes": (array_map(data=b"\0" * 8), "field 'state': 8 bytes came"),
    "a huge shape": (array_map(shape=[2**40]), "field 'state': 4 bytes came"),
    "a shape that wraps around": (array_map(shape=[2**63, 2**63, 1]), "which has more than 2"),
    "a shape whose product is 1 in 64 bits": (
        array_map(shape=[274177, 67280421310721]),
        "field 'state': 4 bytes came",
    ),
    "empty and huge": (array_map(shape=[0, 2**62, 2**62], data=b""), "no array can have shape"),
    "a bool of 2": (array_map(dtype="|b1", data=b"\2"), "field 'state': a bool is neither"),
    "a scalar of text": (scalar_map("1", "<f4"), "field 'state': a str came for a float32"),
    "a scalar too large": (scalar_map(300, "|u1"), "field 'state': 300 is no uint8"),
    "a scalar below zero": (scalar_map(-1, "<u8"), "field 'state': -1 is no uint64"),
    "a scalar bool": (scalar_map(1, "|b1"), "field 'state': an int came for a bool"),
    "a scalar object": (scalar_map(1, "|O"), "field 'state': dtype"),
}


@pytest.mark.parametrize(("message", "said"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_message_is_one_line(message: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        decode(message)
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    "message", [message for message, _ in HOSTILE.values() if len(message) > 100_000 or b"\xff" in message]
)
def test_nothing_is_made_larger_than_the_message(message: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(InputError):
        decode(message)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(message) + (1 << 20)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200) | st.tuples(st.integers(0, 80), st.integers(0, 255)).map(
    lambda change: array_map()[: change[0]] + bytes([change[1]]) + array_map()[change[0] + 1 :]
))  # fmt: skip
def test_any_bytes_are_a_value_or_an_input_error(message: bytes) -> None:
    said = "a value"
    try:
        decode(message)
    except InputError as error:
        said = str(error)
    assert len(said.splitlines()) == 1


def test_a_field_is_named_by_its_place() -> None:
    inner = msgpack.unpackb(array_map(dtype="|O"), strict_map_key=False)["state"]
    with pytest.raises(InputError, match=r"field 'a.b.1': dtype"):
        decode(msgpack.packb({"a": {"b": [0, inner]}}))


def test_a_missing_package_says_how_to_get_it() -> None:
    with pytest.raises(MissingPackageError, match=r"pip install 'pytest-reflex\[serve\]'"):
        wire.package("no_such_package_of_ours.sync")
