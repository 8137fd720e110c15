"""What values can be in an ONNX graph, from those that its inputs can be and those that operators give.

Interval arithmetic, element by element: of each value a least and a largest array. What such a value is where
both are equal no input can change; so a condition that is decided by constants is found also where it is made
of a mask and of constants that overrule it, or where an operator gives nothing beyond a limit, as ``Tanh``
nothing above 1. Sums of floats are not followed, whose last digits hang on their order. Needs onnx.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import onnx

Array = np.ndarray[Any, Any]
Range = tuple[Array, Array]

__all__ = ["Range", "ranges_of"]

# No less where each of its inputs is no less: the least of what goes in gives the least of what comes out.
_GROWING: Final = frozenset(
    {
        *("And", "Or", "Cast", "Concat", "Reshape", "Transpose", "Expand", "Unsqueeze", "Squeeze", "Slice"),
        *(
            "ReduceMax",
            "ReduceMin",
            "ReduceSum",
            "Add",
            "Max",
            "Min",
            "CumSum",
            "Identity",
            "Flatten",
            "Tile",
        ),
        *("Gather", "GatherND", "Constant", "ConstantOfShape", "Range", "Shape", "Size", "Trilu"),
    }
)
# Of these the first input alone may be one that is not known to the last digit.
_PLACED: Final = frozenset(
    {
        *(
            "Reshape",
            "Expand",
            "Unsqueeze",
            "Squeeze",
            "Slice",
            "Gather",
            "GatherND",
            "Tile",
            "CumSum",
            "Trilu",
        ),
        *("ReduceMax", "ReduceMin", "ReduceSum", "ConstantOfShape", "Range"),
    }
)
_ORDER: Final[Mapping[str, Callable[..., Array]]] = {
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
}
# What an operator gives, whatever it reads.
_WITHIN: Final[Mapping[str, tuple[float, float]]] = {
    **dict.fromkeys(("Tanh", "Sin", "Cos", "Erf", "Softsign"), (-1.0, 1.0)),
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "Softmax"), (0.0, 1.0)),
    **dict.fromkeys(("Relu", "Abs", "Sqrt", "Exp", "Softplus"), (0.0, float("inf"))),
}
_PLACES: Final = frozenset({"ArgMax", "ArgMin"})
_SUMS: Final = frozenset({"ReduceSum", "CumSum"})
# What is larger is a table of weights, which decides nothing; and so are more floats.
_MOST: Final = 1 << 22
# onnx.TensorProto's number of the type.
_BOOL: Final = 9
_MOST_FLOATS: Final = 64


def ranges_of(graph: onnx.GraphProto, inputs: Mapping[str, Range], place: Path | None) -> dict[str, Range]:
    """The range of each value that can be followed.

    Args:
        graph: a graph; those inside of it are not looked into.
        inputs: the ranges of its inputs, and of what it reads of graphs around it, as far as they are known.
        place: where weights lie that are not in the graph.
    """
    found: dict[str, Range] = {}
    for tensor in graph.initializer:
        array = _held(tensor, place)
        if array is not None:
            found[tensor.name] = array, array
    found |= inputs
    shapes = _shapes(graph)
    for node in graph.node:
        if len(node.output) != 1 or node.domain not in ("", "ai.onnx"):
            continue
        given = [found.get(name) for name in node.input if name]
        try:
            made = _of_operator(node, given, shapes)
            if made is None and not any(one is None for one in given):
                made = _range(node, [one for one in given if one is not None])
        except Exception:  # what cannot be worked out is not known
            continue
        if made is not None and _followed(made):
            found[node.output[0]] = made
    return found


def _followed(made: Range) -> bool:
    if made[0].size > _MOST:
        return False
    return not any(one.dtype.kind == "f" and np.isnan(one).any() for one in made)


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """The sizes of each value that has them written down."""
    found = {}
    for value in itertools.chain(graph.value_info, graph.input, graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            found[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
    return found


def _of_operator(
    node: onnx.NodeProto, given: list[Range | None], shapes: Mapping[str, tuple[int, ...]]
) -> Range | None:
    """What can be said though something of what a node reads is not known."""
    # Without sizes one number stands for all; with them it is seen everywhere, and kept once.
    sizes = shapes.get(node.output[0], ())
    if node.op_type in _WITHIN:
        low, high = (np.broadcast_to(np.float64(end), sizes) for end in _WITHIN[node.op_type])
        return low, high
    if node.op_type in _PLACES:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        read = shapes.get(node.input[0])
        last = read[axis] - 1 if read else np.iinfo(np.int64).max
        return np.broadcast_to(np.int64(0), sizes), np.broadcast_to(np.int64(last), sizes)
    if node.op_type == "Where" and given[0] is None and given[1] is not None and given[2] is not None:
        (a_low, a_high), (b_low, b_high) = given[1], given[2]
        low, high = np.minimum(a_low, b_low), np.maximum(a_high, b_high)
        return np.broadcast_to(low, sizes or low.shape), np.broadcast_to(high, sizes or high.shape)
    return None


def _held(tensor: onnx.TensorProto, place: Path | None) -> Array | None:
    """A tensor of whole numbers or booleans, or of a few floats; None of any other."""
    from onnx import TensorProto, numpy_helper

    whole = (TensorProto.BOOL, TensorProto.INT32, TensorProto.INT64)
    most = _MOST if tensor.data_type in whole else _MOST_FLOATS
    if np.prod([*tensor.dims], dtype=float) > most:
        return None
    try:
        array: Array = numpy_helper.to_array(tensor, str(place or ""))
    except Exception:
        return None
    return array


def _range(node: onnx.NodeProto, given: list[Range]) -> Range | None:
    op = node.op_type
    if op in _ORDER:
        (a, b), compare = given, _ORDER[op]
        ends = [np.asarray(compare(x, y)) for x in a for y in b]
        return np.logical_and.reduce(ends), np.logical_or.reduce(ends)
    if op == "Equal":
        (a_low, a_high), (b_low, b_high) = given
        sure = (a_low == a_high) & (b_low == b_high) & (a_low == b_low)
        return np.asarray(sure), np.asarray((a_low <= b_high) & (b_low <= a_high))
    if op == "Not":
        return np.logical_not(given[0][1]), np.logical_not(given[0][0])
    if op == "Xor":
        return None
    if op in ("Sub", "Mul"):
        (a, b), compute = given, np.subtract if op == "Sub" else np.multiply
        ends = [np.asarray(compute(x, y)) for x, y in itertools.product(a, b)]
        return np.minimum.reduce(ends), np.maximum.reduce(ends)
    if op == "Where":
        condition, one, other = given
        ways = [np.where(c, x, y) for c in condition for x, y in ((one[0], other[0]), (one[1], other[1]))]
        return np.minimum.reduce(ways), np.maximum.reduce(ways)
    if op == "Cast" and next(a.i for a in node.attribute if a.name == "to") == _BOOL:
        low, high = given[0]
        return np.asarray((low > 0) | (high < 0)), np.asarray((low != 0) | (high != 0))
    if op in _SUMS and given[0][0].dtype.kind not in "biu" and given[0][0] is not given[0][1]:
        return None
    if op not in _GROWING or (op in _PLACED and any(low is not high for low, high in given[1:])):
        return None
    low = _evaluated(node, [one[0] for one in given])
    known = all(a is b for a, b in given)
    return (low, low) if known else (low, _evaluated(node, [one[1] for one in given]))


def _evaluated(node: onnx.NodeProto, given: list[Array]) -> Array:
    from onnx.reference import ReferenceEvaluator

    names = [name for name in node.input if name]
    made: Any = ReferenceEvaluator(node).run(None, dict(zip(names, given, strict=True)))
    return np.asarray(made[0])
