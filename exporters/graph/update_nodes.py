"""An update as nodes of a graph: what :mod:`exporters.flow.update` says, in ONNX's own operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from exporters.flow.update import Update, rank_of
from exporters.graph.loop_invariant import Encoder, dims
from pytest_reflex.errors import TracingError


@dataclass(frozen=True)
class Scope:
    """Where the loop's own nodes go, what their names begin with, and what is noted on them."""

    name: str
    append: Callable[[ir.Node], object]
    metadata: dict[str, str]

    def emit(
        self, op: str, inputs: Sequence[ir.Value], name: str, like: ir.Value, **attributes: int
    ) -> ir.Value:
        """The output, of type and shape as ``like``, of a new node."""
        output = ir.Value(name=f"{self.name}/{name}", shape=like.shape, type=like.type)
        node = ir.node(
            op, inputs, attributes, name=output.name, outputs=[output], metadata_props=self.metadata
        )
        self.append(node)
        return output


def typed(name: str, dtype: ir.DataType, shape: Sequence[int] = ()) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def emitted(
    encoder: Encoder, scope: Scope, update: Update, values: dict[str, ir.Value]
) -> dict[str, ir.Value]:
    """The update as nodes: every value by its name."""
    for op, name, reads in update:
        arrays = [values[r] for r in reads if isinstance(r, str)]
        numbers = [r for r in reads if not isinstance(r, str)]
        values[name] = _node(encoder, scope, op, name, arrays, numbers)
    return values


def _node(
    encoder: Encoder, scope: Scope, op: str, name: str, arrays: list[ir.Value], numbers: list[float]
) -> ir.Value:
    """One operation. What it gives is as large as the larger of what it reads: a coefficient is a scalar."""
    like = max(arrays, key=lambda value: len(dims(value)))

    def constant(what: str, value: object, dtype: str) -> ir.Value:
        return encoder.constant(f"{scope.name}/{name}/{what}", np.asarray(value, dtype))

    if op == "Clip":
        low, high = (constant(what, n, "float32") for what, n in zip(("low", "high"), numbers, strict=True))
        return scope.emit(op, [*arrays, low, high], name, like)
    if op == "Slice":
        axis, start, stop = map(int, numbers)
        ends = [constant(w, [n], "int64") for w, n in (("start", start), ("stop", stop), ("axis", axis))]
        return scope.emit(op, [*arrays, *ends], name, _shaped(like, axis, stop - start))
    if op == "Squeeze":
        axis = int(numbers[0])
        return scope.emit(op, [*arrays, constant("axis", [axis], "int64")], name, _shaped(like, axis, None))
    if op == "Threshold":
        return _thresholded(encoder, scope, name, arrays[0], *numbers)
    return scope.emit(op, arrays, name, like)


def _shaped(like: ir.Value, axis: int, size: int | None) -> ir.Value:
    """A value as ``like`` with another size along an axis, or without the axis."""
    sizes = list(like.shape or ())
    sizes[axis : axis + 1] = [] if size is None else [size]
    return ir.Value(name="shaped", shape=ir.Shape(sizes), type=like.type)


def _thresholded(
    encoder: Encoder, scope: Scope, name: str, value: ir.Value, ratio: float, most: float
) -> ir.Value:
    """Dynamic thresholding: :func:`exporters.flow.update.updated` does the same with arrays.

    Raises:
        TracingError: an axis besides the batch is free, so that nobody knows where the quantile lies.
    """
    sizes = dims(value)[1:]
    if not all(isinstance(n, int) for n in sizes):
        raise TracingError(f"thresholding takes a quantile of {sizes}, sizes that have to be fixed")
    count = math.prod(n for n in sizes if isinstance(n, int))
    low, high, weight = rank_of(ratio, count)

    def of(size: int) -> ir.Value:
        """A row of so many for each of the batch."""
        return ir.Value(
            name="row", shape=ir.Shape([(value.shape or ir.Shape([1]))[0], size]), type=value.type
        )

    def emit(op: str, what: str, inputs: list[ir.Value], like: ir.Value, **attributes: int) -> ir.Value:
        return scope.emit(op, inputs, f"{name}/{what}" if what else name, like, **attributes)

    def constant(what: str, number: object, dtype: str = "float32") -> ir.Value:
        return encoder.constant(f"{scope.name}/{name}/{what}", np.asarray(number, dtype))

    flat = emit("Flatten", "flat", [value], of(count), axis=1)
    size = emit("Abs", "size", [flat], of(count))
    # From the largest down, as far as the quantile's lower neighbour.
    top = ir.Value(name=f"{scope.name}/{name}/top", shape=of(count - low).shape, type=value.type)
    places = ir.Value(name=f"{scope.name}/{name}/places", type=ir.TensorType(ir.DataType.INT64))
    scope.append(
        ir.node(
            "TopK", [size, constant("count", [count - low], "int64")], name=str(top.name),
            outputs=[top, places], metadata_props=scope.metadata,
        )
    )  # fmt: skip
    below = emit("Gather", "below", [top, constant("low", [count - low - 1], "int64")], of(1), axis=1)
    above = emit("Gather", "above", [top, constant("high", [count - high - 1], "int64")], of(1), axis=1)
    apart = emit("Sub", "apart", [above, below], of(1))
    near = weight < np.float32(0.5)
    part = constant("weight", weight if near else np.float32(1) - weight)
    moved = emit("Mul", "moved", [apart, part], of(1))
    quantile = emit(
        *(("Add", "quantile", [below, moved]) if near else ("Sub", "quantile", [above, moved])), of(1)
    )
    bound = emit("Clip", "bound", [quantile, constant("least", 1.0), constant("most", most)], of(1))
    # Within the bounds on both sides, whatever each row's are.
    held = emit("Min", "held", [flat, bound], of(count))
    held = emit("Max", "bounded", [held, emit("Neg", "under", [bound], of(1))], of(count))
    scaled = emit("Div", "scaled", [held, bound], of(count))
    shape = emit("Shape", "shape", [value], typed("shape", ir.DataType.INT64, [1 + len(sizes)]))
    return emit("Reshape", "", [scaled, shape], value)
