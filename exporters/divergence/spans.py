"""What was compared as one where a value is wrong: one operator on both sides, or several together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from torch import fx

from exporters.divergence.alignment import Alignment
from exporters.divergence.attributes import told_otherwise
from exporters.divergence.interpreter import Interpreter, Key, Step
from exporters.divergence.reads import End, folded, maker, theirs, unread
from exporters.divergence.scopes import Origin, origin_in_program, origin_of, source_in_program, source_of
from exporters.divergence.weights import held_otherwise

Array = np.ndarray[Any, Any]
# So many operators are named; of more, how many there are.
_NAMED = 6
_PASSED_ON = ("Identity", "Constant")
# They give something else in another order, and have the same order on both sides.
_ORDERED = (
    *("Sub", "Div", "Pow", "MatMul", "Concat", "Where"),
    *("Greater", "Less", "GreaterOrEqual", "LessOrEqual"),
)


@dataclass(frozen=True)
class Compared:
    """See :class:`pytest_reflex.verdict.divergence.Location`, whose fields these are."""

    module: str
    source: str
    node: str
    operator: str
    together: tuple[str, ...] = ()
    span: str = ""
    unpaired: str = ""


class Spans:
    """Which values have a counterpart, and what lies between those.

    Args:
        aligned: which operator of the graph is which of the policy's, by half.
        interpreter: the policy's side.
    """

    def __init__(self, aligned: Mapping[str, Alignment], interpreter: Interpreter) -> None:
        self._aligned, self._interpreter = aligned, interpreter
        self._paired: dict[ir.Value, str] = {}
        self._unfit: dict[ir.Value, str] = {}

    def note(self, keys: Mapping[ir.Value, Key], cut: Sequence[ir.Value], steps: Mapping[Key, Step]) -> None:
        """Which of a chunk's values were compared with which, and which could not be for their shape."""
        self._paired |= {value: keys[value].name for value in cut}
        for value in keys.keys() - set(cut):
            step = steps.get(keys[value])
            if step is not None and (said := _unlike(value, step)):
                self._unfit[value] = said

    def behind(self, value: ir.Value, step: Step, given: Callable[[ir.Value], Array | None]) -> Compared:
        """What was compared where ``value`` is wrong.

        Args:
            value: the value.
            step: PyTorch's.
            given: what an input of the nodes was fed with.
        """
        node, alignment = value.producer(), self._aligned.get(step.key.half)
        if node is None:
            return Compared("", "", "", "")
        source = source_in_program(step.node) or source_of(node)
        alone = Compared("", source, str(node.name), node.op_type)
        if alignment is None or step.node is None:
            return alone
        nodes, front = self._made_of(value)
        end = End(node, step, step.node, origin_in_program(maker(step.node)), alignment, nodes, front)
        odd = [(n, why) for n in nodes if (why := self._why_odd(n, alignment)) is not None]
        was = origin_of(node)
        if odd:
            return self._unpaired(end, odd, source)
        if other := self._fed_otherwise(end, given):
            module, source, why = other
            return Compared(module, source, "", "", _operators(nodes), self._span(end), why)
        if was is not None and was.kind != end.own.kind:
            module = end.own.module or self._interpreter.code(step.key.half)
            said = f"the graph computes {_called(was)}, the policy {', '.join(map(_called, theirs(end)))}"
            return Compared(module, source, alone.node, alone.operator, unpaired=said)
        if folded(end) and (before := theirs(end)):
            own = " and ".join(map(_in, [*before, end.own]))
            said = f"the graph's {node.op_type} is the policy's {own} in one"
            return Compared("", source, alone.node, alone.operator, unpaired=said)
        said = told_otherwise(node, step.node) or self._turned(node, step.node)
        said = said or held_otherwise(end, self._interpreter.program(step.key.half))
        return replace(alone, unpaired=said)

    def _turned(self, node: ir.Node, own: fx.Node) -> str:
        """Of an operator that reads the same values in another order, that it does so."""
        read = [self._paired.get(value, "") for value in node.inputs if value is not None]
        wanted = [one.name for one in own.all_input_nodes]
        if node.op_type not in _ORDERED or read == wanted or sorted(read) != sorted(wanted):
            return ""
        return (
            f"the graph's {node.op_type} reads {' and '.join(read)} in another order than the policy's does"
        )

    def _made_of(self, value: ir.Value) -> tuple[list[ir.Node], list[ir.Value]]:
        """The nodes that make ``value`` of values that have counterparts, in order, and these."""
        nodes: list[ir.Node] = []
        front: dict[ir.Value, None] = {}
        seen: set[ir.Node] = set()
        # A node, and again after all that it reads.
        waiting: list[tuple[ir.Value, bool]] = [(value, False)]
        while waiting:
            wanted, done = waiting.pop()
            node = wanted.producer()
            if done and node is not None:
                nodes.append(node)
            elif wanted is not value and (wanted in self._paired or node is None):
                if not wanted.is_initializer():
                    front[wanted] = None
            elif node is not None and node not in seen:
                seen.add(node)
                waiting.append((wanted, True))
                waiting += [(read, False) for read in reversed(node.inputs) if read is not None]
        return nodes, list(front)

    def _why_odd(self, node: ir.Node, alignment: Alignment) -> str | None:
        origin = origin_of(node)
        unfit = next((self._unfit[v] for v in node.outputs if v in self._unfit), None)
        if unfit is not None:
            return unfit
        if origin is None:
            known = any(v in self._paired for v in node.outputs) or node.op_type in _PASSED_ON
            return None if known else "is of no operator of the policy"
        if origin.name in alignment.graph and origin.name not in alignment.pairs:
            return "has no counterpart in the policy"
        return None

    def _unpaired(self, end: End, odd: Sequence[tuple[ir.Node, str]], source: str) -> Compared:
        """The first of the graph's nodes that has no counterpart is the suspect, and not what it ends in."""
        (node, why), half = odd[0], end.step.key.half
        origin = origin_of(node)
        if origin is None:
            module, said = "", f"the graph's {node.op_type} {node.name} {why}"
        else:
            module = origin.module or self._interpreter.code(half)
            alike = [n.op_type for n, w in odd if w == why and _module(n) == origin.module]
            verb = why.replace("has ", "have ") if len(set(alike)) > 1 else why
            said = f"the graph's {_listed(alike)} in `{module}`{_made(origin)} {verb}"
            other = theirs(end)
            if other:
                source = self._line(end, other[0]) or source
                said += f", which computes {', '.join(map(_called, other))} there"
        return Compared(
            module, source, str(node.name), node.op_type, _operators(end.nodes), self._span(end), said
        )

    def _fed_otherwise(
        self, end: End, given: Callable[[ir.Value], Array | None]
    ) -> tuple[str, str, str] | None:
        """What the policy's operator reads and the graph's does not: its module, its line, and in words."""
        fixed = self._interpreter.program(end.step.key.half).fixed
        for read in unread(end, self._paired, fixed, given):
            origin = origin_in_program(read)
            module = origin.module or self._interpreter.code(end.step.key.half)
            if read.op == "placeholder":
                own = end.own.module or self._interpreter.code(end.step.key.half)
                called = self._interpreter.program(end.step.key.half).input_name(read)
                said = f"the policy's {end.own.kind} in `{own}` reads {called}, and the graph's does not"
                return own, source_in_program(end.made), said
            if origin.name in end.alignment.found:
                reads = f"reads what its {origin.kind} in `{module}` gives"
                said = f"the policy's {end.own.kind} {reads}, and the graph's does not"
                return module, source_in_program(read), said
            said = f"the policy's {origin.kind} in `{module}`{_made(origin)} has no counterpart in the graph"
            return module, source_in_program(read), said
        return None

    def _span(self, end: End) -> str:
        """``between `0` and `2` ``: what made the values in front, and where the wrong one is."""
        half = end.step.key.half
        front = list(dict.fromkeys(self._maker(value, half) for value in end.front))
        named = ", ".join(front[:2]) + (", ..." if len(front) > 2 else "")
        last = f"`{end.own.module or self._interpreter.code(half)}`"
        return f"in {last}" if front == [last] else f"between {named or 'constants'} and {last}"

    def _maker(self, value: ir.Value, half: str) -> str:
        node = value.producer()
        if node is None:
            return f"the input {value.name}"
        return f"`{_module(node) or self._interpreter.code(half)}`"

    def _line(self, end: End, origin: Origin) -> str:
        nodes = (n for n in end.made.graph.nodes if n.name == origin.name)
        return source_in_program(next(nodes, None))


def _unlike(value: ir.Value, step: Step) -> str:
    """How the graph's value is not of PyTorch's shape or type, where both are known; else empty."""
    dims = [n if isinstance(n, int) else None for n in value.shape or ()]
    if value.shape is None or value.dtype is None:
        return ""
    mine, theirs = "x".join("?" if n is None else str(n) for n in dims), "x".join(map(str, step.tensor.shape))
    fits = len(dims) == step.tensor.dim() and all(
        n in (None, m) for n, m in zip(dims, step.tensor.shape, strict=True)
    )
    kind = origin_in_program(step.node).kind if step.node is not None else "value"
    if not fits:
        return f"gives {mine} where the policy's {kind} gives {theirs}"
    return f"gives {value.dtype.name.lower()} where the policy's {kind} gives {str(step.tensor.dtype)[6:]}"


def _module(node: ir.Node) -> str:
    origin = origin_of(node)
    return origin.module if origin is not None else ""


def _made(origin: Origin) -> str:
    return f" (a {origin.made})" if origin.made else ""


def _in(origin: Origin) -> str:
    return f"`{origin.module}` ({origin.made})" if origin.module else origin.kind


def _called(origin: Origin) -> str:
    return f"{origin.kind} ({origin.made})" if origin.made else origin.kind


def _operators(nodes: Sequence[ir.Node]) -> tuple[str, ...]:
    return tuple(n.op_type for n in nodes if n.op_type not in _PASSED_ON)


def _listed(words: Sequence[str]) -> str:
    named = list(dict.fromkeys(words))
    return ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")
