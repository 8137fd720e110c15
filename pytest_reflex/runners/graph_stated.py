"""Which types and sizes follow from what an ONNX graph reads, in place of those that it states.

ONNX Runtime warns where a graph's ``value_info`` says another size than there is, and goes on. Needs onnx.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import onnx

__all__ = ["graphs_inside", "restate"]

# Weights of more numbers are no sizes, and inference is spared them.
_MOST: Final = 4096


def graphs_inside(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds: bodies and branches."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def restate(model: onnx.ModelProto) -> None:
    """Take what a model states of its values for what its inputs and weights make of them, where that is known.

    What its inputs are is left, which ONNX Runtime insists on; of graphs inside nothing is.
    """
    import onnx

    _forget(model.graph)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        size = 1
        for dim in tensor.dims:
            size *= dim
        if size > _MOST:
            tensor.ClearField("raw_data")
    try:
        found = onnx.shape_inference.infer_shapes(copy, check_type=False, strict_mode=False, data_prop=True)
    except Exception:  # nothing is known then
        return
    _take(model.graph, found.graph)


def _forget(graph: onnx.GraphProto, inputs: int | None = None) -> None:
    """Drop the sizes that a graph states, but those of so many of its inputs; of None of all."""
    del graph.value_info[:]
    given = [] if inputs is None else graph.input[inputs:]
    for value in (*graph.output, *given):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    for node in graph.node:
        for inner in graphs_inside(node):
            # Which time it is and whether to go on are one number each, and ONNX Runtime wants that said.
            _forget(inner, 2 if node.op_type == "Loop" else 0)


def _take(graph: onnx.GraphProto, found: onnx.GraphProto) -> None:
    graph.value_info.extend(found.value_info)
    for value, other in zip(graph.output, found.output, strict=True):
        value.type.CopyFrom(other.type)
    for node, known in zip(graph.node, found.node, strict=True):
        for inner, other_graph in zip(graphs_inside(node), graphs_inside(known), strict=True):
            _take(inner, other_graph)
