"""What a node of an ONNX graph decides: conditions, limits and choices, as booleans. Needs onnx."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_reflex.runners.graph_counting import Added

if TYPE_CHECKING:
    import onnx

__all__ = ["Extreme", "Tested", "decided"]

CONDITIONS: Final = frozenset(
    {
        *("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "IsNaN", "IsInf"),
        *("Not", "And", "Or", "Xor"),
    }
)
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


def decided(node: onnx.NodeProto, added: Added) -> list[tuple[str, str, list[Tested]]]:
    """What a node decides: in a word, the tensor of booleans, and what that is made of, by name or as number.

    Of a limit and of a choice it is two values, and whether the one is below the other.
    """
    given = [*node.input, "", ""]
    if node.op_type in CONDITIONS:
        return [("condition", node.output[0], list(node.input))]
    if node.op_type in ("Where", "If"):
        return [("condition", given[0], [given[0]])]
    if node.op_type == "Clip":
        low, high = given[1:3]
        found: list[tuple[str, str, list[Tested]]] = []
        if low:
            found.append(("lower limit", added.below(given[0], low), [given[0], low]))
        if high:
            found.append(("upper limit", added.below(high, given[0]), [high, given[0]]))
        return found
    if node.op_type in ("Max", "Min"):
        return _choices(node, added)
    low_end, high_end = _limits(node)
    found = []
    if low_end is not None:
        found.append(("lower limit", added.below(given[0], added.number(low_end)), [given[0], low_end]))
    if high_end is not None:
        found.append(("upper limit", added.below(added.number(high_end), given[0]), [high_end, given[0]]))
    return found


def _choices(node: onnx.NodeProto, added: Added) -> list[tuple[str, str, list[Tested]]]:
    """Of two values which one is taken; of more, of each whether it is beaten by the others."""
    names = tuple(node.input)
    if len(names) < 3:
        return [("choice", added.below(names[0], other), [names[0], other]) for other in names[1:]]
    found: list[tuple[str, str, list[Tested]]] = []
    for place, name in enumerate(names):
        others = Extreme(node.op_type, (*names[:place], *names[place + 1 :]))
        best = added.node(node.op_type, others.names)
        tested: list[Tested] = [name, others] if node.op_type == "Max" else [others, name]
        ends = (name, best) if node.op_type == "Max" else (best, name)
        found.append(("choice", added.below(*ends), tested))
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
