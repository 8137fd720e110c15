"""Which values of an ONNX graph stay finite where its inputs are finite, and which are never NaN.

What may be neither is what an operator makes of ordinary numbers: ``Exp`` of 100, ``Log`` of -1, a quotient
by 0. In float32 and float64 sums and products of values that are finite are taken to be finite (float16 ends
at 65504), as are the rows of a ``Softmax`` which only a mask could close as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pytest_reflex.runners.graph_sizes import STANDARD, is_random
from pytest_reflex.runners.graph_stated import graphs_inside
from pytest_reflex.runners.graph_weights import finite_constant

if TYPE_CHECKING:
    import onnx

    Array = np.ndarray[Any, Any]

__all__ = ["LARGE", "POWER", "WHOLE", "Finite"]

# A factor above it may make something infinite of ordinary numbers, and so may a divisor below _SMALL.
LARGE: Final = 1e6
_SMALL: Final = 1e-20
# A power above it may be infinite of ordinary numbers: 100 to the 20th is beyond float32.
POWER: Final = 16
# float16 ends at 65504; what a range says to end below it is finite in every type.
_SAFE: Final = 6e4

# They move, leave out or hold what they read: finite where it is, and never NaN where that is not.
_MOVES: Final = frozenset(
    {
        *("Identity", "Reshape", "Transpose", "Expand", "Unsqueeze", "Squeeze", "Slice", "Flatten", "Tile"),
        *("Concat", "Split", "Gather", "GatherND", "GatherElements", "Where", "Max", "Min", "Relu", "Neg"),
        *("Abs", "Floor", "Ceil", "Round", "Sign", "ReduceMax", "ReduceMin", "Trilu", "Pad", "Clip"),
        *("MaxPool", "GlobalMaxPool", "TopK", "ScatterND", "ScatterElements", "DepthToSpace", "SpaceToDepth"),
        *("ReverseSequence", "LeakyRelu", "Softplus", "ThresholdedRelu", "Dropout", "Elu", "Celu", "Selu"),
    }
)
# Of what is finite they make what is finite, but for an overflow.
_SUMS: Final = frozenset(
    {
        *("Add", "Sub", "Mul", "Sum", "Mean", "MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "CumSum"),
        *("ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceL1", "ReduceL2", "AveragePool", "PRelu"),
        *("GlobalAveragePool", "LayerNormalization", "RMSNormalization", "InstanceNormalization", "Gelu"),
        *("GroupNormalization", "Sin", "Cos", "Softmax", "Softsign", "Atan", "Asinh", "Mish", "HardSwish"),
        *(
            "Swish",
            "Resize",
            "DequantizeLinear",
            "DynamicQuantizeLinear",
            "OneHot",
            "RotaryEmbedding",
            "Shrink",
        ),
    }
)
# Where they give a smaller type than float32, what they make of ordinary numbers may be beyond it.
_GROWS: Final = (_SUMS - {"Sin", "Cos", "Softmax", "Softsign", "Atan", "Asinh"}) | {
    *("Div", "Reciprocal", "Pow", "LeakyRelu", "Elu", "Celu", "Selu", "Exp", "Range", "CastLike"),
}
_FACTORS: Final = frozenset({"Mul", "MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"})
# Finite of all that is not NaN.
_HELD: Final = frozenset({"Tanh", "Sigmoid", "Erf", "HardSigmoid"})
# What they give is of the order of 1 whatever the order of what they read.
_RESETS: Final = _HELD | {
    *("LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization", "Softmax"),
    *("Sin", "Cos", "Softsign", "Atan", "Asinh", "Reciprocal", "Sign"),
}
# What they give is whole numbers or booleans, or what was drawn.
_ALWAYS: Final = frozenset(
    {
        *("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "IsNaN", "IsInf", "Not", "And", "Or"),
        *("Xor", "ArgMax", "ArgMin", "Shape", "Size", "NonZero", "RandomNormal", "RandomUniform"),
        *("RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"),
    }
)
# onnx.TensorProto's numbers of FLOAT, DOUBLE and of whole numbers and booleans.
_WIDE: Final = frozenset({1, 11, 2, 3, 4, 5, 6, 7, 9, 12, 13})
WHOLE: Final = frozenset(_WIDE - {1, 11})


class Finite:
    """What is finite in one graph, read node by node.

    Attributes:
        finite: the values that are.
        ordered: those that are never NaN, though they may be infinite.
        discrete: those that whole numbers, booleans, constants and sizes make, and no value of floats.

    Args:
        given: what is finite to begin with: inputs, and constants that were looked at.
        ranges: the ranges of values; each says of a value that it is never NaN.
        kinds: the types of values; what has none may be of any.
        discrete: what is discrete to begin with.
    """

    def __init__(
        self,
        given: set[str],
        ranges: Mapping[str, tuple[Array, Array]],
        kinds: Mapping[str, int],
        discrete: Collection[str],
    ) -> None:
        self.discrete = set(discrete)
        self.finite, self._ranges, self._kinds = set(given), ranges, kinds
        self.ordered = set(given)
        # Sums of something finite and of something that may be -inf.
        self._masks: set[str] = set()
        # As which power of a value that went in the largest part of it grows, where that is not 1.
        self._powers: dict[str, int] = {}

    def read(self, node: onnx.NodeProto, *, fixed: bool) -> None:
        """Note what a node gives; what it reads has been noted.

        Args:
            fixed: whether it is made of constants alone.
        """
        names = [name for name in node.input if name]
        if self._discrete(node, names):
            self.discrete.update(node.output)
        power = self._power(node, names)
        if power > 1:
            self._powers.update(dict.fromkeys(node.output, power))
        if self._finite(node, names, fixed) and power <= POWER:
            self.finite.update(node.output)
            self.ordered.update(node.output)
        elif self._ordered(node, names):
            self.ordered.update(node.output)

    def is_finite(self, name: str) -> bool:
        ends = self._ranges.get(name)
        if ends is not None and all((np.abs(end.astype(np.float64)) <= _SAFE).all() for end in ends):
            return True
        return name in self.finite

    def is_ordered(self, name: str) -> bool:
        return name in self._ranges or name in self.ordered

    def _finite(self, node: onnx.NodeProto, names: list[str], fixed: bool) -> bool:
        op = node.op_type
        if node.domain not in STANDARD:
            return False
        if op in _ALWAYS or all(self._kinds.get(name) in WHOLE for name in node.output if name):
            return True
        every = all(self.is_finite(name) for name in names)
        if op == "Cast":
            to = next(a.i for a in node.attribute if a.name == "to")
            return to in WHOLE or (to in _WIDE and every)
        if op in _GROWS and not all(self._kinds.get(name) in _WIDE for name in node.output if name):
            return False
        if op == "Dropout" and is_random(node):  # what it keeps grows without end
            return False
        if op == "CastLike" or op in _MOVES:
            return every or (op == "Clip" and self._clipped(node))
        if op in _FACTORS and any(self._large(name) for name in names):
            return False
        if op == "Softmax" and not every:
            return self._unmasked(node)
        if op in _SUMS:
            if op == "Add" and not every:
                self._masked(node)
            return every
        if op in _HELD:
            return self.is_ordered(names[0])
        if op in ("Div", "Reciprocal", "Pow", "Sqrt"):
            return (fixed or every) and self._quotient(node, fixed)
        if op in ("Constant", "ConstantOfShape"):
            return finite_constant(node)
        return fixed and op in ("Exp", "Log", "Range") and every

    def _quotient(self, node: onnx.NodeProto, fixed: bool) -> bool:
        """Of finite numbers: whether a quotient, a power or a root of them is finite."""
        ends = self._ranges.get(node.input[0 if node.op_type in ("Reciprocal", "Sqrt") else 1])
        if ends is None:
            return fixed
        low, high = (end.astype(np.float64) for end in ends)  # float16 knows no _SMALL
        if node.op_type == "Sqrt":
            return bool((low >= 0).all())
        if node.op_type == "Pow":
            return bool(
                (low == high).all() and (low == np.round(low)).all() and ((low >= 0) & (low <= 8)).all()
            )
        return bool(((low >= _SMALL) | (high <= -_SMALL)).all())

    def _ordered(self, node: onnx.NodeProto, names: list[str]) -> bool:
        op = node.op_type
        if node.domain not in STANDARD:
            return False
        if op in _MOVES or op in ("Exp", "Cast", "CastLike"):
            return all(self.is_ordered(name) for name in names)
        if op in ("Add", "Sub"):
            return (
                all(self.is_ordered(name) for name in names)
                and sum(not self.is_finite(name) for name in names) < 2
            )
        return op == "Mul" and all(self.is_finite(name) for name in names)

    def _power(self, node: onnx.NodeProto, names: list[str]) -> int:
        if node.op_type in _RESETS or node.op_type in _ALWAYS:
            return 1
        power = max((self._powers.get(name, 1) for name in names), default=1)
        if node.op_type == "Pow":
            ends = self._ranges.get(node.input[1])
            exponent = float(ends[1].max()) if ends is not None else 1.0
            return power * int(exponent) if 1 <= exponent <= POWER else power
        squared = node.op_type in ("Mul", "MatMul") and names[0] == names[1]
        return min(2 * power if squared or node.op_type == "ReduceSumSquare" else power, 2 * POWER)

    def _clipped(self, node: onnx.NodeProto) -> bool:
        ends = node.input[1:]
        return (
            len(ends) == 2
            and self.is_ordered(node.input[0])
            and all(end and self.is_finite(end) for end in ends)
        )

    def _large(self, name: str) -> bool:
        """Whether it is known to be large; of a range without an end, such as ``Relu``'s, nothing is."""
        ends = self._ranges.get(name)
        if ends is None:
            return False
        sizes = [np.abs(end.astype(np.float64)) for end in ends]
        return any(((size > LARGE) & np.isfinite(size)).any() for size in sizes)

    def _masked(self, node: onnx.NodeProto) -> None:
        for one, other in (node.input, tuple(reversed(node.input))):
            ends = self._ranges.get(other)
            closed = ends is not None and bool((ends[1] < np.inf).all())
            if self.is_finite(one) and closed and other in self.discrete:
                self._masks.add(node.output[0])

    def _discrete(self, node: onnx.NodeProto, names: list[str]) -> bool:
        if node.domain not in STANDARD or is_random(node) or any(graphs_inside(node)):
            return False
        return node.op_type in ("Shape", "Size") or self.discrete.issuperset(names)

    def _unmasked(self, node: onnx.NodeProto) -> bool:
        """Whether only a mask that no values of floats make could make a row NaN, by closing it as a whole.

        PyTorch's attention guards against that wherever it has a mask, also one that no observation closes,
        such as a prompt's: what asks for it is a guard.
        """
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
        return axis == -1 and node.input[0] in self._masks
