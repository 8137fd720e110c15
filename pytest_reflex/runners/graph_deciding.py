"""What a node of an ONNX graph decides: conditions, limits and choices, as booleans. Needs onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners.graph_counting import DOUBLE, Added
from pytest_reflex.runners.graph_ranges import Range
from pytest_reflex.runners.graph_sizes import STANDARD

if TYPE_CHECKING:
    import onnx

__all__ = ["decided", "is_settled", "names_of"]

CONDITIONS: Final = frozenset(
    {
        *("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "IsNaN", "IsInf"),
        *("Not", "And", "Or", "Xor"),
    }
)
# They hold at an end of a small type what they compute in a larger one that they do not show.
_SATURATES: Final = frozenset({"QLinearMatMul", "QLinearConv"})
# Operators of com.microsoft that decide nothing.
_PLAIN: Final = frozenset(
    {
        *(
            "FusedMatMul",
            "Gelu",
            "FastGelu",
            "QuickGelu",
            "BiasGelu",
            "SkipLayerNormalization",
            "MatMulNBits",
        ),
        *("SkipSimplifiedLayerNormalization", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
    }
)
# Operators that hold what another gives.
_FUSED: Final = {"FusedGemm": "Gemm", "FusedConv": "Conv"}
# A little more than half a step of a quantised value is held.
_HALF: Final = 0.55
# onnx.TensorProto's number of the type.
INT8: Final = 3
_BY_SIGN: Final = frozenset({"Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu"})


@dataclass(frozen=True)
class Extreme:
    """The largest or the least of several values, element by element.

    Attributes:
        op: ``Max`` or ``Min``.
        names: the values.
    """

    op: str
    names: tuple[str, ...]


# What a condition is made of: a value by its name, a number, or the largest or least of several values.
Tested = str | float | Extreme
Decided = tuple[str, str, list[Tested]]


def decided(
    node: onnx.NodeProto, added: Added, kinds: Mapping[str, int], ranges: Mapping[str, Range]
) -> list[Decided]:
    """What a node decides: in a word, the tensor of booleans, and what that is made of.

    Of a limit and of a choice it is two values, and whether the one is below the other.

    Args:
        node: the node.
        added: takes the nodes that ask it.
        kinds: the types of values, as onnx.TensorProto numbers them.
        ranges: what values can be.

    Raises:
        RunnerError: nobody knows what the operator decides.
    """
    given = [*node.input, "", ""]
    if node.domain not in STANDARD:
        return _fused(node, added)
    if node.op_type in _SATURATES:
        raise RunnerError(
            f"what {_named(node)} holds at an end of its type is not known; a graph that quantises with "
            "QuantizeLinear shows it"
        )
    if node.op_type in CONDITIONS:
        return [("condition", node.output[0], list(node.input))]
    if node.op_type in ("Where", "If"):
        return [("condition", given[0], [given[0]])]
    kind = kinds.get(given[0], 0)
    if node.op_type == "Clip":
        low, high = given[1:3]
        found: list[Decided] = []
        if low:
            found.append(("lower limit", added.below(given[0], low, kind), [given[0], low]))
        if high:
            found.append(("upper limit", added.below(high, given[0], kind), [high, given[0]]))
        return found
    if node.op_type in ("Max", "Min"):
        return _choices(node, added, kind)
    if node.op_type == "QuantizeLinear":
        return _quantised(node, added, ranges)
    return _at_limits(node, given[0], added)


def _at_limits(node: onnx.NodeProto, name: str, added: Added) -> list[Decided]:
    """Of an operator that takes another branch below or above a number."""
    low_end, high_end = _limits(node)
    found: list[Decided] = []
    if low_end is not None:
        found.append(("lower limit", added.below(name, added.number(low_end)), [name, low_end]))
    if high_end is not None:
        found.append(("upper limit", added.below(added.number(high_end), name), [high_end, name]))
    return found


def _fused(node: onnx.NodeProto, added: Added) -> list[Decided]:
    """What ONNX Runtime's own operators decide, of which it makes a graph that it writes optimised."""
    held = {a.name: a for a in node.attribute}
    activation = held["activation"].s.decode() if "activation" in held else ""
    fuses = node.domain == "com.microsoft" and node.op_type in _FUSED
    if (node.domain == "com.microsoft" and node.op_type in _PLAIN) or (
        fuses and activation in ("", "Tanh", "Sigmoid")
    ):
        return []
    if fuses and activation in ("Relu", "LeakyRelu") and len(node.input) < 4:
        more = {name: _value_of(a) for name, a in held.items() if not name.startswith("activation")}
        name = added.node(_FUSED[node.op_type], node.input, **more)
        return [("lower limit", added.below(name, added.number(0.0)), [name, 0.0])]
    raise RunnerError(f"what {_named(node)} of the domain {node.domain} decides is not known")


def _named(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]}"


def _value_of(attribute: onnx.AttributeProto) -> Any:
    from onnx import helper

    return helper.get_attribute_value(attribute)


def _quantised(node: onnx.NodeProto, added: Added, ranges: Mapping[str, Range]) -> list[Decided]:
    """Whether a value is held at an end of a small type: more than half a step from what stands for it.

    Nearly so is taken not to be, as the last digit of a quotient tells.
    """
    from onnx import helper

    places = {a.name: a.i for a in node.attribute if a.name in ("axis", "block_size")}
    read, scale = node.input[:2]
    zero = [*node.input[2:3]]
    ones = added.node(
        "ConstantOfShape", [added.node("Shape", [read])], value=helper.make_tensor("", INT8, [1], [1])
    )
    step = added.node("Cast", [added.node("DequantizeLinear", [ones, scale], **places)], to=DOUBLE)
    stands = added.node("DequantizeLinear", [node.output[0], scale, *zero], **places)
    apart = added.node("Sub", [added.node("Cast", [name], to=DOUBLE) for name in (read, stands)])
    half = added.node("Mul", [step, added.node("Cast", [added.number(_HALF)], to=DOUBLE)])
    low, high = _ends_of(node, ranges)
    return [
        ("lower limit", added.below(apart, added.node("Neg", [half])), [read, low]),
        ("upper limit", added.below(half, apart), [high, read]),
    ]


def _ends_of(node: onnx.NodeProto, ranges: Mapping[str, Range]) -> tuple[Tested, Tested]:
    """Below and above which a value is held, where the steps are constants; else names of nothing."""
    unknown = "", ""
    if len(node.input) < 3 or any(name not in ranges for name in node.input[1:3]):
        return unknown
    (scale, same), (zero, alike) = (ranges[name] for name in node.input[1:3])
    if scale is not same or zero is not alike or scale.size != 1 or zero.dtype.kind not in "iu":
        return unknown
    ends, step, middle = np.iinfo(zero.dtype), float(scale.item()), int(zero.item())
    return (ends.min - middle - _HALF) * step, (ends.max - middle + _HALF) * step


def names_of(value: Tested) -> tuple[str, ...]:
    """The values that something is made of."""
    if isinstance(value, Extreme):
        return value.names
    return (value,) if isinstance(value, str) else ()


def is_settled(tested: Sequence[Tested], ranges: Mapping[str, Range]) -> bool:
    """Whether the first of two values is always below the second, or never."""
    ends: list[Range] = []
    try:
        for value in tested:
            if not all(name in ranges for name in names_of(value)):
                return False
            if isinstance(value, Extreme):
                reduce = np.maximum.reduce if value.op == "Max" else np.minimum.reduce
                lows, highs = zip(*(ranges[name] for name in value.names), strict=True)
                ends.append((reduce([*np.broadcast_arrays(*lows)]), reduce([*np.broadcast_arrays(*highs)])))
            else:
                ends.append(
                    ranges[value] if isinstance(value, str) else (np.asarray(value), np.asarray(value))
                )
        (low, high), (least, most) = ends
        return bool(np.all(high < least) or not np.any(low < most))
    except ValueError:  # sizes that are not known
        return False


def _choices(node: onnx.NodeProto, added: Added, kind: int) -> list[Decided]:
    """Of two values which one is taken; of more, of each whether it is beaten by the others."""
    names = tuple(node.input)
    if len(names) < 3:
        return [("choice", added.below(names[0], other, kind), [names[0], other]) for other in names[1:]]
    found: list[Decided] = []
    for place, name in enumerate(names):
        others = Extreme(node.op_type, (*names[:place], *names[place + 1 :]))
        best = added.node(node.op_type, others.names)
        tested: list[Tested] = [name, others] if node.op_type == "Max" else [others, name]
        low, high = (name, best) if node.op_type == "Max" else (best, name)
        found.append(("choice", added.below(low, high, kind), tested))
    return found


def _limits(node: onnx.NodeProto) -> tuple[float | None, float | None]:
    """Below and above which an operator takes another branch, as ONNX's operators define it."""
    held = {a.name: a.f for a in node.attribute}
    op = node.op_type
    if op in _BY_SIGN:
        return 0.0, None
    if op == "ThresholdedRelu":
        return held.get("alpha", 1.0), None
    if op == "HardSwish":
        return -3.0, 3.0
    if op == "Shrink":
        return -held.get("lambd", 0.5), held.get("lambd", 0.5)
    slope, start = held.get("alpha", 0.2), held.get("beta", 0.5)
    if op != "HardSigmoid" or slope == 0:
        return None, None
    low, high = sorted((-start / slope, (1 - start) / slope))
    return low, high
