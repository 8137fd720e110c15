"""A float32 graph in another precision: float16, bfloat16 weights, or int8. Inputs and outputs stay float32.

``float16``       onnxruntime's converter. What depends on nothing but a step's time stays as it is: the sine
                  of 100,000 times a float16 is noise.
``bfloat16``      the weights are stored so, and widened where they are read; arithmetic stays float32, for
                  ONNX Runtime's CPU has kernels of bfloat16 for hardly any operator.
``int8``          onnxruntime's quantiser, products alone, with scales that given inputs calibrate.
``int8-dynamic``  the same with the scales of activations taken at each run: nothing to calibrate.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

from exporters.graph.graph_passes import INLINE_BYTES, write_graph
from exporters.graph.loop_invariant import TIME
from exporters.graph.precisions import Kept, Precision
from pytest_reflex.errors import SettingsError, TracingError

__all__ = [
    "clock_of",
    "in_bfloat16",
    "in_float16",
    "in_int8",
    "narrow_values",
    "narrowed",
    "nodes_that_round",
    "weight_test",
]

Array = np.ndarray[Any, Any]
# The converter keeps a model in one message, which protobuf bounds; weights from this size on go around it.
_AROUND: Final = 1024
# What the converter calls the casts that it puts around nodes that are kept.
_WIDENED = re.compile(r"_cast_to_fp32_node$|^graph_output_cast\d+$")
_ROUNDED = re.compile(r"_cast_to_fp16_node$|^graph_input_cast\d+$")
# What a weight that is transposed when it is written has behind its name.
_TRANSPOSED = re.compile(r"\.T(\[[\d, ]*\])?$")
# What a quantiser gains by: all else is cheap, and costs accuracy.
_PRODUCTS: Final = ["MatMul", "Gemm", "Conv"]


def narrow_values(array: Array, dtype: Any) -> Array:
    """The nearest values of a narrower type; what is finite stays so, at the end of the range."""
    top = float(ml_dtypes.finfo(dtype).max)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(np.isinf(array), array, np.clip(array, -top, top)).astype(dtype)


def narrowed(
    models: Mapping[str, ir.Model],
    precision: Precision,
    weights: Collection[str],
    work: Path,
    calibration: Sequence[Mapping[str, Array]],
    keep: Kept | None = None,
) -> dict[str, ir.Model]:
    """A bundle's graphs in another precision; they are consumed.

    Args:
        models: the graphs, by role.
        precision: which.
        weights: names of the weights, as their owner has them.
        work: an empty directory, which must stay until the graphs are written.
        calibration: inputs of the bundle, for ``int8``.
        keep: names of the nodes that stay in float32, by role, and no others; by default the clock of a
            float16 graph.

    Raises:
        SettingsError: ``keep`` names what is no node.
        TracingError: the tools cannot do it for these graphs.
    """
    is_weight = weight_test(weights)
    if precision == "int8" and len(models) > 1:
        raise TracingError(
            "int8 is calibrated with a bundle's own inputs, which the graph of a step does not take; "
            "export it unrolled, or as int8-dynamic"
        )
    _require_nodes(models, keep or {})
    made = {}
    for stem, model in models.items():
        kept = (keep or {}).get(stem, ())
        if precision == "float16":
            made[stem] = in_float16(model, is_weight, kept, clock=keep is None)
        elif precision == "bfloat16":
            made[stem] = in_bfloat16(model, is_weight, kept)
        elif precision == "int8":
            made[stem] = in_int8(model, work, calibration, stem, kept)
        elif precision == "int8-dynamic":
            made[stem] = in_int8(model, work, None, stem, kept)
        else:
            made[stem] = model
    return made


def weight_test(weights: Collection[str]) -> Callable[[str], bool]:
    """Whether an initializer of that name is one of the weights, transposed or not."""
    known = frozenset(weights)
    return lambda name: _TRANSPOSED.sub("", name) in known


def nodes_that_round(
    graph: ir.Graph, precision: Precision, is_weight: Callable[[str], bool]
) -> list[ir.Node]:
    """The nodes that a precision makes an error in by themselves: they read what is stored, or given, in it.

    Of int8 that is every product.
    """
    given = set(graph.inputs)

    def rounds(node: ir.Node) -> bool:
        if precision.startswith("int8"):
            return node.op_type in _PRODUCTS
        held = [v for v in node.inputs if v is not None and (v.is_initializer() or v in given)]
        narrow = [v for v in held if v.dtype == ir.DataType.FLOAT]
        return any(precision == "float16" or is_weight(str(v.name)) for v in narrow)

    return [node for node in ir.traversal.RecursiveGraphIterator(graph) if rounds(node)]


def _require_nodes(models: Mapping[str, ir.Model], keep: Kept) -> None:
    for role, names in keep.items():
        if role not in models:
            raise SettingsError(f"keep names the graph {role!r}, expected one of {', '.join(models)}")
        known = {str(node.name) for node in ir.traversal.RecursiveGraphIterator(models[role].graph)}
        unknown = sorted(set(names) - known)
        if unknown:
            raise SettingsError(f"keep names {unknown[0]!r}, which is no node of the graph {role!r}")


def clock_of(graph: ir.Graph, is_weight: Callable[[str], bool]) -> list[ir.Node]:
    """The nodes that depend on no weight and on no input but a step's time."""
    known = {value for value in graph.initializers.values() if not is_weight(str(value.name))}
    known.update(value for value in graph.inputs if value.name == TIME)
    found = []
    for node in graph:
        if all(value is None or value in known for value in node.inputs):
            known.update(node.outputs)
            found.append(node)
    return found


def in_float16(
    model: ir.Model, is_weight: Callable[[str], bool], keep: Collection[str] = (), *, clock: bool = True
) -> ir.Model:
    """The model in float16, but for its clock; it is consumed.

    Args:
        model: a float32 model whose nodes have names.
        is_weight: whether an initializer of that name is a weight, and no constant.
        keep: names of further nodes that stay float32.
        clock: whether the clock does.

    Raises:
        TracingError: the graph holds a loop.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    graph = model.graph
    _refuse_loop(graph, "float16")
    kept = {str(node.name) for node in clock_of(graph, is_weight)} if clock else set()
    kept |= set(keep)
    ends = [str(v.name) for v in (*graph.inputs, *graph.outputs) if v.dtype == ir.DataType.FLOAT]
    around: dict[str, ir.TensorProtocol] = {}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.dtype == ir.DataType.FLOAT and tensor.size >= _AROUND:
            around[name] = tensor
            del graph.initializers[name]
            value.const_value, value.dtype, value.shape = None, tensor.dtype, ir.Shape(tensor.shape.numpy())
            graph.inputs.append(value)
    _hold(graph, lambda tensor: True)
    converted = convert_float_to_float16(
        ir.to_proto(model),
        keep_io_types=ends,
        node_block_list=sorted(kept),
        op_block_list=DEFAULT_OP_BLOCK_LIST,
    )
    made = _typed_anew(converted)
    for value in list(made.graph.inputs):
        if str(value.name) in around:
            _put_back(made.graph, value, around[str(value.name)])
    _join_kept(made.graph)
    return made


def _typed_anew(model: onnx.ModelProto) -> ir.Model:
    """The converter puts casts behind all that read them, and calls float32 what it made float16."""
    del model.graph.value_info[:]
    made = ir.from_proto(model)
    made.graph.sort()
    return ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(made)))


def _refuse_loop(graph: ir.Graph, precision: str) -> None:
    if any(node.op_type == "Loop" for node in graph):
        raise TracingError(
            f"onnxruntime's tools make no valid {precision} of a graph with a loop in it; export it unrolled "
            "or stepwise, or in bfloat16"
        )


def _join_kept(graph: ir.Graph) -> None:
    """Hand float32 on as it is between nodes that were kept: the converter rounds there and widens again."""
    for back in list(graph):
        rounded = back.inputs[0] if _WIDENED.search(str(back.name)) else None
        there = rounded.producer() if rounded is not None else None
        whole = there.inputs[0] if there is not None and _ROUNDED.search(str(there.name)) else None
        if there is None or whole is None:
            continue
        given = back.outputs[0]
        ir.convenience.replace_all_uses_with(given, whole, replace_graph_outputs=True)
        graph.remove(back, safe=True)
        if whole.is_graph_output():
            whole.name = given.name
        if not there.outputs[0].uses() and not there.outputs[0].is_graph_output():
            graph.remove(there, safe=True)


def _put_back(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """A weight that went around the converter, narrow for most, as it was for nodes that were kept."""
    wide: ir.Value | None = None
    for node, _ in list(value.uses()):
        if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
            if wide is None:
                wide = _initializer(graph, f"{value.name}/float32", tensor)
            ir.convenience.replace_all_uses_with(node.outputs[0], wide)
            graph.remove(node, safe=True)
    graph.inputs.remove(value)
    if value.uses():
        value.const_value = _lazy(tensor, ir.DataType.FLOAT16, str(value.name))
        value.dtype = ir.DataType.FLOAT16
        graph.register_initializer(value)


def in_bfloat16(model: ir.Model, is_weight: Callable[[str], bool], keep: Collection[str] = ()) -> ir.Model:
    """The model with its weights in bfloat16, each widened by one cast; it is consumed.

    Nodes named in ``keep`` read theirs in float32.
    """
    kept = set(keep)
    graph = model.graph
    casts = []
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or not is_weight(name):
            continue
        every = list(value.uses())
        readers = [use for use in every if str(use.node.name) not in kept]
        if not readers and every:
            continue
        stored = _initializer(graph, f"{name}/bfloat16", _lazy(tensor, ir.DataType.BFLOAT16, name))
        cast = ir.node("Cast", [stored], {"to": int(ir.DataType.FLOAT)}, name=f"{name}/widened")
        widened = cast.outputs[0]
        widened.name, widened.dtype = f"{name}/wide", ir.DataType.FLOAT
        widened.shape = ir.Shape(tensor.shape.numpy())
        for node, index in readers:
            node.replace_input_with(index, widened)
        if len(readers) == len(every):
            del graph.initializers[name]
        casts.append(cast)
    if casts:
        graph.insert_before(graph[0], casts)
    return model


def _initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    made = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(tensor.shape.numpy()),
        const_value=tensor,
    )
    graph.register_initializer(made)
    return made


def _lazy(tensor: ir.TensorProtocol, dtype: ir.DataType, name: str) -> ir.LazyTensor:
    """The tensor narrowed when it is written, so that one weight at a time is in memory."""

    def read() -> ir.TensorProtocol:
        return ir.Tensor(narrow_values(tensor.numpy(), dtype.numpy()), dtype=dtype, name=name)

    return ir.LazyTensor(read, dtype=dtype, shape=ir.Shape(tensor.shape.numpy()), name=name)


def in_int8(
    model: ir.Model,
    work: Path,
    calibration: Sequence[Mapping[str, Array]] | None,
    stem: str = "model",
    keep: Collection[str] = (),
) -> ir.Model:
    """The model with its products in int8; it is consumed.

    Args:
        model: a float32 model.
        work: an empty directory, which must stay until the model that is given back is written.
        calibration: inputs of the graph that scales are taken from; None: at each run anew.
        stem: of the files in ``work``.
        keep: names of products that stay in float32.

    Raises:
        SettingsError: ``calibration`` is empty.
        TracingError: the quantiser failed, or the graph holds a loop.
    """
    _refuse_loop(model.graph, "int8")
    if calibration is not None and not calibration:
        raise SettingsError("calibration is empty; give at least one set of inputs, or int8-dynamic")
    write_graph(model, work, stem)
    source, target = work / f"{stem}.onnx", work / f"{stem}.int8.onnx"
    options: dict[str, Any] = {"op_types_to_quantize": _PRODUCTS, "use_external_data_format": True}
    # The quantiser turns a Gemm into a MatMul, which is called so, before it looks at what to leave.
    options["nodes_to_exclude"] = sorted({*keep, *(f"{name}_MatMul" for name in keep)})
    try:
        _quantised(source, target, calibration, options)
    except Exception as error:
        raise TracingError(
            f"onnxruntime could not quantise the graph: {type(error).__name__}: {error}"
        ) from error
    made = ir.load(target)
    _hold(made.graph, lambda tensor: tensor.nbytes < INLINE_BYTES)
    return made


def _hold(graph: ir.Graph, which: Callable[[ir.TensorProtocol], bool]) -> None:
    """Read tensors that lie in a file, for whoever does not read it."""
    for value in graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor) and which(value.const_value):
            value.const_value = ir.Tensor(np.array(value.const_value.numpy()), name=value.name)


def _quantised(
    source: Path,
    target: Path,
    calibration: Sequence[Mapping[str, Array]] | None,
    options: Mapping[str, Any],
) -> None:
    import logging

    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

    class Feed(CalibrationDataReader):
        def __init__(self, inputs: Sequence[Mapping[str, Array]]) -> None:
            self._left = iter(inputs)

        def get_next(self) -> dict[str, Array] | None:
            found = next(self._left, None)
            return None if found is None else dict(found)

    # It advises a step of its own preprocessing, on the root logger.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        if calibration is None:
            # Unsigned, so that every processor computes the same: beside bytes without a sign, an x86 without
            # VNNI sums two products in 16 bits, which saturates.
            quantize_dynamic(source, target, weight_type=QuantType.QUInt8, **options)
        else:
            quantize_static(source, target, Feed(calibration), **options)
    finally:
        logging.disable(before)
