"""What values can be in an ONNX graph, from those that its inputs can be and those that operators give.

Interval arithmetic, element by element: of each value a least and a largest array. What such a value is where
both are equal no input can change; so a condition that is decided by constants is found also where it is made
of a mask and of constants that overrule it, or where an operator gives nothing beyond a limit, as ``Tanh``
nothing above 1. Sums of floats are not followed, whose last digits hang on their order; whole numbers that
may wrap, and what a type may not hold that it is cast to, can be any number of their type. Needs onnx.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pytest_reflex.runners.graph_finite import Finite
from pytest_reflex.runners.graph_sizes import STANDARD, Sizes
from pytest_reflex.runners.graph_weights import MOST, held

if TYPE_CHECKING:
    import onnx

Array = np.ndarray[Any, Any]
Range = tuple[Array, Array]

__all__ = ["Known", "Range", "ranges_of"]

# They move, leave out or hold elements: no less where each of their inputs is no less.
_MOVES: Final = frozenset(
    {
        *(
            "Concat",
            "Reshape",
            "Transpose",
            "Expand",
            "Unsqueeze",
            "Squeeze",
            "Slice",
            "ReduceMax",
            "ReduceMin",
        ),
        *("Max", "Min", "Identity", "Flatten", "Tile", "Gather", "GatherND"),
    }
)
# So are these, and what they give hangs on how large what they read is.
_COUNTED: Final = frozenset({"ReduceSum", "CumSum", "Trilu"})
_ARITHMETIC: Final[Mapping[str, Callable[..., Array]]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
}
# Made of constants alone.
_MADE: Final = frozenset({"Constant", "ConstantOfShape", "Range"})
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
        *("ReduceMax", "ReduceMin", "ReduceSum"),
    }
)
_ORDER: Final[Mapping[str, Callable[..., Array]]] = {
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
}
# What an operator gives, whatever it reads; a sum of shares may be above 1 by some last digits.
_WITHIN: Final[Mapping[str, tuple[float, float]]] = {
    **dict.fromkeys(("Tanh", "Sin", "Cos", "Erf", "Softsign"), (-1.0, 1.0)),
    **dict.fromkeys(("Sigmoid", "HardSigmoid"), (0.0, 1.0)),
    "Softmax": (0.0, 1.0009765625),
    **dict.fromkeys(("Relu", "Abs", "Sqrt", "Exp", "Softplus"), (0.0, float("inf"))),
}
# Of infinity they make NaN.
_OF_FINITE: Final = frozenset({"Sin", "Cos", "Softsign", "Softmax"})
_PLACES: Final = frozenset({"ArgMax", "ArgMin"})
# onnx.TensorProto's numbers of types.
_INTEGERS: Final[Mapping[int, type[np.integer[Any]]]] = {
    2: np.uint8,
    3: np.int8,
    4: np.uint16,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    12: np.uint32,
    13: np.uint64,
}
_NUMPY: Final[Mapping[int, type[np.floating[Any]]]] = {1: np.float32, 10: np.float16, 11: np.float64}
_BOOL: Final = 9


def ranges_of(
    graph: onnx.GraphProto, inputs: Mapping[str, Range], place: Path | None, known: Known
) -> dict[str, Range]:
    """The range of each value that can be followed; none of a value that may be NaN.

    Args:
        graph: a graph; those inside of it are not looked into.
        inputs: the ranges of its inputs, and of what it reads of graphs around it, as far as they are known.
        place: where weights lie that are not in the graph.
        known: which of its values are fixed, sized and finite; the latter is added to.
    """
    found = known.ranges
    given = {value.name for value in graph.input}
    for tensor in graph.initializer:
        # Of an input it is what holds where none is given.
        array = None if tensor.name in given else held(tensor, place)
        if array is not None and _followed((array, array)):
            found[tensor.name] = array, array
    found |= inputs
    values = _Values(known)
    for node in graph.node:
        made = values.of(node)
        if made is not None:
            found[node.output[0]] = made
        known.finite.read(node, fixed=known.sizes.fixed.issuperset(node.output))
    return found


class Known:
    """What is known of a graph's values beside their ranges.

    Args:
        sizes: which are fixed, and which have one size; read to its end.
        finite: what is finite to begin with.
        kinds: their types, as onnx.TensorProto numbers them.
        shapes: how large they are; of those that have one size it is kept.
        discrete: what whole numbers, booleans and constants make, to begin with.
    """

    def __init__(
        self,
        sizes: Sizes,
        finite: set[str],
        kinds: Mapping[str, int],
        shapes: Mapping[str, tuple[int, ...]],
        discrete: Collection[str],
    ) -> None:
        self.sizes, self.kinds = sizes, kinds
        self.shapes = {name: shape for name, shape in shapes.items() if name in sizes.sized}
        self.ranges: dict[str, Range] = {}
        # Of these each element is one number, however many they are.
        self.settled: set[str] = set()
        self.finite = Finite(finite, self.ranges, kinds, discrete)


class _Values:
    """The ranges of a graph's values, node by node.

    Of a value whose size is not known one number stands for all of it: what hangs on the size is not known.
    """

    def __init__(self, known: Known) -> None:
        self._found, self._known = known.ranges, known
        self._shapes, self._kinds = known.shapes, known.kinds
        self._stand_ins: set[str] = set()

    def of(self, node: onnx.NodeProto) -> Range | None:
        if len(node.output) != 1 or node.domain not in STANDARD:
            return None
        given = [self._found.get(name) for name in node.input if name]
        try:
            made = self._of_operator(node, given)
            if made is None and not any(one is None for one in given):
                made = self._of_ranges(node, [one for one in given if one is not None])
        except Exception:  # what cannot be worked out is not known
            return None
        if made is None or not _followed(made):
            return None
        strange = not self._stand_ins.isdisjoint(node.input)
        return self._seen(node, *made) if strange else made

    def _of_operator(self, node: onnx.NodeProto, given: list[Range | None]) -> Range | None:
        """What can be said though something of what a node reads is not known."""
        op = node.op_type
        if op in _WITHIN:
            return self._within(node, given[0])
        if op in _PLACES:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            shape = self._shapes.get(node.input[0])
            last = shape[axis] - 1 if shape else np.iinfo(np.int64).max
            return self._seen(node, np.int64(0), np.int64(last))
        if op == "DequantizeLinear":
            return self._dequantised(node, given)
        if op == "Cast":
            return self._cast(node, given[0])
        if op == "Where" and given[0] is None and given[1] is not None and given[2] is not None:
            (a_low, a_high), (b_low, b_high) = given[1], given[2]
            return self._seen(node, np.minimum(a_low, b_low), np.maximum(a_high, b_high))
        return self._positive(node, given)

    def _within(self, node: onnx.NodeProto, read: Range | None) -> Range | None:
        """What an operator gives whatever it reads, in the type that it gives it in."""
        op, finite = node.op_type, self._known.finite
        kind = self._kinds.get(node.output[0], 0)
        if kind in _INTEGERS and op in ("Relu", "Abs"):
            return self._above(node, np.iinfo(_INTEGERS[kind]), read)
        if kind not in _NUMPY or not (finite.is_finite if op in _OF_FINITE else finite.is_ordered)(
            node.input[0]
        ):
            return None
        if op == "Sqrt":  # of what is below 0 it is NaN
            if read is None or (read[0] < 0).any():
                return None
            return np.sqrt(read[0]), np.sqrt(read[1])
        return self._seen(node, *(_NUMPY[kind](end) for end in _WITHIN[op]))

    def _above(self, node: onnx.NodeProto, ends: np.iinfo[Any], read: Range | None) -> Range:
        """Of whole numbers: their least has no size that their type holds."""
        relu = node.op_type == "Relu"
        if read is None or not (relu or (read[0] > ends.min).all() or ends.min == 0):
            least = 0 if relu else ends.min
            return self._seen(node, np.asarray(least, ends.dtype), np.asarray(ends.max, ends.dtype))
        low, high = read
        none = np.zeros((), ends.dtype)
        if relu or ends.min == 0:
            return np.maximum(low, none), np.maximum(high, none)
        return np.maximum(np.maximum(low, -high), none), np.maximum(-low, high)

    def _positive(self, node: onnx.NodeProto, given: list[Range | None]) -> Range | None:
        """Squares, their means, and what is made by dividing by more than 0: none is below 0."""
        op, read = node.op_type, given[0] if given else None
        if op == "Reciprocal" and read is not None and (read[0] > 0).all():
            return 1 / read[1], 1 / read[0]
        kind = self._kinds.get(node.output[0], 0)
        if kind not in _NUMPY:  # a square of whole numbers may wrap
            return None
        if op == "ReduceMean":
            positive = read is not None and bool((read[0] >= 0).all())
        elif op == "Pow":
            power = given[1]
            positive = power is not None and bool((power[0] == power[1]).all() and (power[0] == 2).all())
        else:
            positive = (op == "Mul" and node.input[0] == node.input[1]) or op in (
                "ReduceSumSquare",
                "ReduceL2",
            )
        if positive and self._known.finite.is_ordered(node.input[0]):
            return self._seen(node, _NUMPY[kind](0), _NUMPY[kind](np.inf))
        return None

    def _dequantised(self, node: onnx.NodeProto, given: list[Range | None]) -> Range | None:
        """What the ends of a small type stand for, where its steps are constants."""
        steps, kind = given[1:3], self._kinds.get(node.output[0], 0)
        if len(steps) < 2 or kind not in _NUMPY or any(one is None for one in steps):
            return None
        (scale, same), (zero, alike) = (one for one in steps if one is not None)
        if scale is not same or zero is not alike or scale.size != 1 or not scale.item() > 0:
            return None
        ends = np.iinfo(zero.dtype)
        stands = [(end - int(zero.item())) * float(scale.item()) for end in (ends.min, ends.max)]
        return self._seen(node, *(_NUMPY[kind](end) for end in stands))

    def _cast(self, node: onnx.NodeProto, read: Range | None) -> Range | None:
        """Of a type that does not hold the whole range it may be any number of that type."""
        to = next(a.i for a in node.attribute if a.name == "to")
        if to == _BOOL:
            if read is None:
                return None
            low, high = read
            return np.asarray((low > 0) | (high < 0)), np.asarray((low != 0) | (high != 0))
        if to in _INTEGERS:
            ends = np.iinfo(_INTEGERS[to])
            whole = read is not None and all(_holds(end, ends) for end in read)
            if not whole:
                return self._seen(node, np.asarray(ends.min, ends.dtype), np.asarray(ends.max, ends.dtype))
        if read is None:
            return None
        low = _evaluated(node, [read[0]])
        return (low, low) if read[0] is read[1] else (low, _evaluated(node, [read[1]]))

    def _of_ranges(self, node: onnx.NodeProto, given: list[Range]) -> Range | None:
        """What follows from the ranges of all that a node reads."""
        op = node.op_type
        known = all(low is high for low, high in given)
        strange = not self._stand_ins.isdisjoint(node.input)
        if op in ("Shape", "Size"):
            return (
                _once(_evaluated(node, [given[0][0]]))
                if node.input[0] in self._known.sizes.sized and not strange
                else None
            )
        if op in _MADE:
            return _once(_evaluated(node, [low for low, _ in given])) if known and not strange else None
        if op in _MOVES and strange:
            return self._moved(node, given)
        if op in _MOVES or op in _COUNTED:
            if strange or (op in _PLACED and any(low is not high for low, high in given[1:])):
                return None
            if known:
                return _once(_evaluated(node, [low for low, _ in given]))
            return self._grown(node, given)
        return self._each(node, given)

    def _moved(self, node: onnx.NodeProto, given: list[Range]) -> Range | None:
        """One number for all of a value: it is moved anywhere."""
        values = given[:1] if node.op_type in _PLACED else given
        low = np.minimum.reduce([one[0].min() for one in values])
        return self._seen(node, low, np.maximum.reduce([one[1].max() for one in values]))

    def _grown(self, node: onnx.NodeProto, given: list[Range]) -> Range | None:
        if node.op_type in _COUNTED - {"Trilu"}:
            read = given[0][0]
            if read.dtype.kind not in "iu":  # sums of floats hang on their order
                return None
            bounds = [
                _evaluated(node, [end.astype(np.float64), *(one[0] for one in given[1:])]) for end in given[0]
            ]
            if not all(_holds(end, np.iinfo(read.dtype)) for end in bounds):
                return self._seen(node, *_all_of(read.dtype))
        return _evaluated(node, [one[0] for one in given]), _evaluated(node, [one[1] for one in given])

    def _each(self, node: onnx.NodeProto, given: list[Range]) -> Range | None:
        """Operators that look at each element by itself."""
        op = node.op_type
        if op in _ORDER:
            (a, b), compare = given, _ORDER[op]
            ends = [np.asarray(compare(x, y)) for x in a for y in b]
            return np.logical_and.reduce(ends), np.logical_or.reduce(ends)
        if op == "Equal":
            (a_low, a_high), (b_low, b_high) = given
            sure = (a_low == a_high) & (b_low == b_high) & (a_low == b_low)
            return np.asarray(sure), np.asarray((a_low <= b_high) & (b_low <= a_high))
        if op in ("And", "Or"):
            (a, b), join = given, np.logical_and if op == "And" else np.logical_or
            return np.asarray(join(a[0], b[0])), np.asarray(join(a[1], b[1]))
        if op == "Not":
            return np.logical_not(given[0][1]), np.logical_not(given[0][0])
        if op == "Where":
            condition, one, other = given
            ways = [np.where(c, x, y) for c in condition for x, y in ((one[0], other[0]), (one[1], other[1]))]
            return np.minimum.reduce(ways), np.maximum.reduce(ways)
        return self._arithmetic(node, given) if op in _ARITHMETIC else None

    def _arithmetic(self, node: onnx.NodeProto, given: list[Range]) -> Range | None:
        """Sums, differences and products; of whole numbers that may wrap, any of their type."""
        compute, finite = _ARITHMETIC[node.op_type], self._known.finite
        infinite = sum(not finite.is_finite(name) for name in node.input)
        most = 0 if node.op_type == "Mul" else 1
        if given[0][0].dtype.kind not in "fiu":
            return None
        if given[0][0].dtype.kind == "f" and infinite > most and any(low is not high for low, high in given):
            return None  # it may be NaN
        a, b = given
        if a[0] is a[1] and b[0] is b[1]:
            return _once(np.asarray(compute(a[0], b[0])))
        with np.errstate(all="ignore"):
            ends = [np.asarray(compute(x, y)) for x, y in itertools.product(a, b)]
            if a[0].dtype.kind in "iu":
                whole = [
                    compute(x.astype(np.float64), y.astype(np.float64)) for x, y in itertools.product(a, b)
                ]
                if not all(_holds(np.asarray(end), np.iinfo(ends[0].dtype)) for end in whole):
                    low, high = _all_of(ends[0].dtype)
                    return np.broadcast_to(low, ends[0].shape), np.broadcast_to(high, ends[0].shape)
        return np.minimum.reduce(ends), np.maximum.reduce(ends)

    def _seen(self, node: onnx.NodeProto, low: Any, high: Any) -> Range:
        """One range for each element, where the sizes are known; else the widest, once for all."""
        low, high = np.asarray(low), np.asarray(high)
        name = node.output[0]
        if name in self._shapes:
            with suppress(ValueError):
                return np.broadcast_to(low, self._shapes[name]), np.broadcast_to(high, self._shapes[name])
        self._stand_ins.add(name)
        return np.asarray(low.min()), np.asarray(high.max())


def _once(value: Array) -> Range:
    return value, value


def _holds(values: Array, ends: np.iinfo[Any]) -> bool:
    """Whether whole numbers of a type hold these; what rounds in float64 counts as beyond."""
    held = values.astype(np.float64)
    below = float(ends.max) if ends.bits < 54 else np.nextafter(float(ends.max), 0)
    above = float(ends.min) if ends.bits < 54 else np.nextafter(float(ends.min), 0)
    if values.dtype.kind in "iu" and ends.bits == 64 and values.dtype.kind == ends.kind:
        return True
    return bool(((above <= held) & (held <= below)).all())


def _all_of(dtype: np.dtype[Any]) -> Range:
    ends = np.iinfo(dtype)
    return np.asarray(ends.min, dtype), np.asarray(ends.max, dtype)


def _followed(made: Range) -> bool:
    if made[0].size > MOST:
        return False
    return not any(one.dtype.kind == "f" and np.isnan(one).any() for one in made)


def _evaluated(node: onnx.NodeProto, given: list[Array]) -> Array:
    from onnx.reference import ReferenceEvaluator

    names = [name for name in node.input if name]
    made: Any = ReferenceEvaluator(node).run(None, dict(zip(names, given, strict=True)))
    return np.asarray(made[0])
