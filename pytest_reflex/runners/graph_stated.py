"""Which types and sizes follow from what an ONNX graph reads, in place of those that it states.

ONNX Runtime warns where a graph's ``value_info`` says another size than there is, and goes on. Needs onnx.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import onnx

__all__ = ["free_names", "graphs_inside", "restate", "state_nothing"]

# Weights of more numbers are no sizes, and inference is spared them.
_MOST: Final = 4096


def graphs_inside(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds: bodies and branches."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def free_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names without end that nothing has in a graph, nor in those inside of it."""
    prefix = "reflex_watch/"
    taken = {*_names(graph)}
    while any(name.startswith(prefix) for name in taken):
        prefix = f"_{prefix}"
    return (f"{prefix}{number}" for number in itertools.count())


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.output, *graph.initializer):
        yield value.name
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)
        for inner in graphs_inside(node):
            yield from _names(inner)


def restate(model: onnx.ModelProto) -> None:
    """State in ``value_info`` what a model's inputs and weights make of its values, and nothing else.

    Its inputs and outputs too are stated there; what its inputs are ONNX Runtime insists on.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _forget(copy.graph)
    for tensor in copy.graph.initializer:
        size = 1
        for dim in tensor.dims:
            size *= dim
        if size > _MOST:
            tensor.ClearField("raw_data")
    with suppress(Exception):  # no more is known then
        copy = onnx.shape_inference.infer_shapes(copy, check_type=False, strict_mode=False, data_prop=True)
    _take(model.graph, copy.graph)


def state_nothing(graph: onnx.GraphProto) -> None:
    """Drop what a graph, and those inside of it, say of their values beside inputs and outputs."""
    del graph.value_info[:]
    for node in graph.node:
        for inner in graphs_inside(node):
            state_nothing(inner)


def _forget(graph: onnx.GraphProto, inputs: int | None = None) -> None:
    """Drop the sizes that a graph states, but those of so many of its inputs; of None of all."""
    del graph.value_info[:]
    given = [] if inputs is None else graph.input[inputs:]
    for value in (*graph.output, *given):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    for node in graph.node:
        for inner in graphs_inside(node):
            # Which time it is and whether to go on are one number each.
            _forget(inner, 2 if node.op_type == "Loop" else 0)


def _take(graph: onnx.GraphProto, found: onnx.GraphProto) -> None:
    del graph.value_info[:]
    graph.value_info.extend([*found.input, *found.value_info, *found.output])
    for node, known in zip(graph.node, found.node, strict=True):
        for inner, other in zip(graphs_inside(node), graphs_inside(known), strict=True):
            _take(inner, other)
