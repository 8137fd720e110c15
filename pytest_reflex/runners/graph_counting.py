"""Nodes that count, beside what an ONNX graph computes, how its decisions went. Needs onnx.

Of a condition that is how many of its elements are true and how many are not: ``[1, 2]``, summed over times.
Of a whole number it is the least and the largest that it was, the latter with its sign turned: ``[1, 2]``, of
which the least is taken over times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import onnx

__all__ = ["NEVER", "Added", "handed_out"]

# Of a number that never was.
NEVER: Final = 1 << 62
# onnx.TensorProto's numbers of types.
INT64, DOUBLE = 7, 11
# float64 does not hold all of INT64 and UINT64.
_LONG: Final = frozenset({INT64, 13})
# The least of an axis takes it as an input from here on.
_AXES_GIVEN: Final = 18


class Added:
    """Nodes that are put at the end of a graph, where everything that they read is known.

    Args:
        names: names that nothing in the graph has.
        opset: the version of the operators.
    """

    def __init__(self, names: Iterator[str], opset: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._names, self._opset = names, opset

    def name(self) -> str:
        return next(self._names)

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A node, by the name of its output."""
        import onnx

        name = self.name()
        self.nodes.append(onnx.helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def numbers(self, *values: int) -> str:
        """A list of whole numbers."""
        return self.node("Constant", [], value_ints=list(values))

    def number(self, value: float) -> str:
        return self.node("Constant", [], value_float=value)

    def filled(self, value: int, *sizes: int) -> str:
        import onnx

        tensor = onnx.helper.make_tensor("", INT64, [1], [value])
        return self.node("ConstantOfShape", [self.numbers(*sizes)], value=tensor)

    def counted(self, condition: str) -> str:
        """How many elements of a condition are true, and how many are not: ``[1, 2]``."""
        flat = self.node("Reshape", [condition, self.numbers(-1)])
        sums = []
        for held in (flat, self.node("Not", [flat])):
            ones = self.node("Cast", [held], to=INT64)
            sums.append(self.node("ReduceSum", [ones, self.numbers(0)], keepdims=1))
        return self.node("Reshape", [self.node("Concat", sums, axis=0), self.numbers(1, 2)])

    def summed(self, counts: Sequence[str]) -> str:
        """Several such counts as one."""
        return self.node("ReduceSum", [self.node("Concat", counts, axis=0), self.numbers(0)], keepdims=1)

    def spread(self, value: str) -> str:
        """The least of whole numbers, and the largest with its sign turned: ``[1, 2]``."""
        flat = self.node("Reshape", [self.node("Cast", [value], to=INT64), self.numbers(-1, 1)])
        both = self.node("Concat", [flat, self.node("Neg", [flat])], axis=1)
        return self.node("Unsqueeze", [self._least(both, self.filled(NEVER, 1, 2)), self.numbers(0)])

    def over_times(self, kind: str, rows: str, found: int) -> str:
        """Of one row for each time that something ran, and none where it never did: all times together."""
        if kind == "conditions":
            return self.node("ReduceSum", [rows, self.numbers(0)], keepdims=0)
        return self._least(rows, self.filled(NEVER, 1, found, 2))

    def _least(self, rows: str, never: str) -> str:
        held = self.node("Concat", [rows, never], axis=0)
        if self._opset < _AXES_GIVEN:
            return self.node("ReduceMin", [held], axes=[0], keepdims=0)
        return self.node("ReduceMin", [held, self.numbers(0)], keepdims=0)

    def row(self, table: str, places: str, axis: int) -> str:
        """Which rows are read, those that are counted from the end as from the beginning."""
        places = self.node("Cast", [places], to=INT64)
        rows = self.node("Gather", [self.node("Shape", [table]), self.numbers(axis)])
        flat = self.node("Reshape", [places, self.numbers(-1)])
        from_end = self.node("Less", [flat, self.numbers(0)])
        return self.node("Where", [from_end, self.node("Add", [flat, rows]), flat])

    def below(self, one: str, other: str, kind: int = DOUBLE) -> str:
        """Where one tensor is below another, whatever type of number they are.

        Args:
            one: its name.
            other: that of the other.
            kind: the type of both; 0 where it is not known.
        """
        if kind in _LONG:
            return self.node("Less", [one, other])
        ends = [self.node("Cast", [name], to=DOUBLE) for name in (one, other)]
        less = self.node("Less", ends)
        if kind:
            return less
        # Of large whole numbers that are one in float64 the last digits decide.
        digits = self.node("Less", [self.node("Cast", [name], to=INT64) for name in (one, other)])
        return self.node("Or", [less, self.node("And", [self.node("Equal", ends), digits])])


def handed_out(node: onnx.NodeProto, outputs: int, added: Added) -> str:
    """A further output of a node with graphs inside, which may have left out the last of those it has."""
    node.output.extend([""] * (outputs - len(node.output)))
    node.output.append(added.name())
    return str(node.output[-1])
