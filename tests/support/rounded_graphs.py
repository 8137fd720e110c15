"""An ONNX graph in a narrower precision, written so that no runtime rounds less: with casts there and back.

ONNX Runtime's CPU runs a float16 graph in float32 and leaves out its roundings, and has next to no kernels of
bfloat16. A cast that the graph itself holds between two float32 operators it does run.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

_TYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def rounded_graph(model: onnx.ModelProto, precision: str, *, every_result: bool = True) -> onnx.ModelProto:
    """``model`` with its weights rounded to ``precision``, and every float32 that a node gives, too."""
    made = ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True))
    for value in made.graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
            stored = narrowed(value.const_value.numpy(), precision)
            value.const_value = ir.Tensor(stored, name=value.name)
    if every_result:
        for value in list(made.graph.inputs):
            _cast(made.graph, None, value, precision)
        for node in list(made.graph):
            for value in node.outputs:
                _cast(made.graph, node, value, precision)
    return ir.to_proto(made)


def narrowed(array: np.ndarray[Any, Any], precision: str) -> np.ndarray[Any, Any]:
    """The nearest values of ``precision``, within its range, as float32."""
    top = float(ml_dtypes.finfo(_TYPES[precision]).max)
    near = np.clip(array, -top, top).astype(_TYPES[precision]).astype(np.float32)
    return np.where(np.isinf(array), array, near)


def _cast(graph: ir.Graph, node: ir.Node | None, value: ir.Value, precision: str) -> None:
    """Put two casts behind a value, for all who read it."""
    readers, last = list(value.uses()), value.is_graph_output()
    if value.dtype != ir.DataType.FLOAT or not (readers or last):
        return
    there = ir.node("Cast", [value], {"to": int(ir.DataType[precision.upper()])})
    back = ir.node("Cast", [there.outputs[0]], {"to": int(ir.DataType.FLOAT)})
    back.outputs[0].dtype, back.outputs[0].shape = value.dtype, value.shape
    for reader, index in readers:
        reader.replace_input_with(index, back.outputs[0])
    if last:
        place = [id(output) for output in graph.outputs].index(id(value))
        back.outputs[0].name, value.name = value.name, f"{value.name}/unrounded"
        graph.outputs[place] = back.outputs[0]
    if node is None:
        graph.insert_before(graph[0], [there, back])
    else:
        graph.insert_after(node, [there, back])
