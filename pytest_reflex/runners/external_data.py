"""Which files an ONNX graph takes its weights from, read off its bytes: a robot has no onnx.

A graph may name any path as the place of a weight. What is not among the bundle's own files was never
digested, so what it holds was never proven.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypedDict


class FileFacts(TypedDict):
    """What a manifest says of a file."""

    size: int
    sha256: str


# Numbers of the fields, from onnx.proto3, that lead to a tensor: what they hold, by message.
_MODEL: Final = {7: "graph", 25: "function"}
_PATHS: Final[dict[str, dict[int, str]]] = {
    "model": _MODEL,
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_KEY, _VALUE = 1, 2
_LOCATION: Final = b"location"
# Deeper than any graph in a graph.
_DEEPEST: Final = 64


def external_files(graph: Path) -> set[str]:
    """The places that an ONNX file names for weights that it does not hold.

    Raises:
        ValueError: the file is no protobuf message.
        OSError: it cannot be read.
    """
    return external_places(graph.read_bytes())


def external_places(graph: bytes) -> set[str]:
    """The same of an ONNX file's bytes.

    Raises:
        ValueError: they are no protobuf message.
    """
    # As the names of files are, so that a place is the file that ONNX Runtime opens, whatever its bytes.
    return {os.fsdecode(place) for place in _places(graph, 0, len(graph), "model", 0)}


def _places(data: bytes, at: int, end: int, message: str, depth: int) -> Iterator[bytes]:
    if depth > _DEEPEST:
        raise ValueError("its graphs lie too deep in each other")
    paths = _PATHS[message]
    for number, begin, stop in _fields(data, at, end):
        inner = paths.get(number)
        # Most messages are nodes, which name no place: those are not taken apart.
        if inner is None or data.find(_LOCATION, begin, stop) < 0:
            continue
        if inner == "entry":
            entry = {key: data[a:b] for key, a, b in _fields(data, begin, stop)}
            if entry.get(_KEY) == _LOCATION:
                yield entry.get(_VALUE, b"")
        else:
            yield from _places(data, begin, stop, inner, depth + 1)


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The length-delimited fields of a protobuf message: number, and where in ``data`` its content lies.

    The other fields are passed over.
    """
    while at < end:
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if kind == 2:
            size, at = _varint(data, at, end)
            if size > end - at:
                raise ValueError("a field is longer than what is there")
            yield tag >> 3, at, at + size
            at += size
        elif kind == 0:
            _, at = _varint(data, at, end)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} is none of ONNX's")
    if at > end:
        raise ValueError("its last field is cut off")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= end or shift > 63:
            raise ValueError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
