"""Watches the decisions of an ONNX graph: which of its conditions, limits and choices went both ways.

A copy of the graph is opened that counts beside what it computes. What a decision is:

- a condition: each element of ``Less``, ``Equal``, ``And`` and their kin is true or false, of ``Where`` the
  one value or the other, of ``If`` the one branch or the other;
- a limit: ``Clip`` and ``Relu`` hand an element on, or hold it at an end;
- a choice: ``Max`` and ``Min`` take the one element or the other;
- a count: ``Loop`` runs so many times, and another time as many others;
- a row: ``Gather`` reads one row of a table of weights, and another time another.

Two kinds are told apart. A decision that constants take, or what inputs and operators can give at all
(:mod:`.graph_ranges`), no input can turn round. And a guard looks for NaN or infinity, or acts where one was
found: nothing that is finite turns it round. Needs onnx.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners.base import first_line
from pytest_reflex.runners.graph_file import inlined
from pytest_reflex.runners.graph_ranges import Range, ranges_of
from pytest_reflex.verdict.coverage import Decision

if TYPE_CHECKING:
    import onnx

    Array = np.ndarray[Any, Any]

__all__ = ["Decisions", "decisions_of"]

_CONDITIONS: Final = frozenset(
    {
        *("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "IsNaN", "IsInf"),
        *("Not", "And", "Or", "Xor"),
    }
)
_GUARDS: Final = frozenset({"IsNaN", "IsInf"})
_RANDOM: Final = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
# They look at sizes alone, which a graph without free axes has written down.
_SIZES: Final = frozenset({"Shape", "Size"})
_ZERO: Final = np.zeros(()), np.zeros(())
_PREFIX: Final = "reflex_watch/"
# Sums take their axes as an input from here on.
_OPSET: Final = 13
_SCOPES: Final = "pkg.torch.onnx.name_scopes"
# onnx.TensorProto's numbers of types.
_FLOAT, _INT64, _DOUBLE = 1, 7, 11


@dataclass
class Decisions:
    """The decisions of one graph, and the ways that they went so far.

    Attributes:
        model: the graph that counts them beside what it computes, as bytes; where its weights lie beside the
            file they still do.
        outputs: the names of what it was to compute.
    """

    model: bytes
    outputs: tuple[str, ...]
    _conditions: list[Decision]
    _counted: str
    _values: dict[str, Decision]
    _yes_no: Any = None
    _seen: dict[str, set[int]] = field(default_factory=dict)

    def take(self, made: Mapping[str, Array]) -> dict[str, Array]:
        """Note which ways a run went; what is left is what the graph was to compute."""
        if self._counted:
            counts = made[self._counted]
            self._yes_no = counts if self._yes_no is None else self._yes_no + counts
        for name in self._values:
            seen = self._seen.setdefault(name, set())
            if len(seen) < 2:
                seen.update(made[name].reshape(-1).tolist())
        return {name: made[name] for name in self.outputs}

    @property
    def found(self) -> list[Decision]:
        """Each decision, with the ways that it went."""
        every = []
        counts = [[0, 0]] * len(self._conditions) if self._yes_no is None else self._yes_no.tolist()
        for decision, (yes, no) in zip(self._conditions, counts, strict=True):
            every.append(replace(decision, went=(*(("yes",) if yes else ()), *(("no",) if no else ()))))
        for name, decision in self._values.items():
            seen = len(self._seen.get(name, ()))
            every.append(replace(decision, went=("one", "another")[:seen]))
        return every


def decisions_of(model: Path | bytes, inputs: Mapping[str, Range] | None = None) -> Decisions:
    """The decisions of a graph.

    Args:
        model: the path of its file, or its bytes.
        inputs: of inputs of whole numbers and booleans the least and the largest value of each element.

    Raises:
        RunnerError: onnx is not installed, or the graph cannot be read.
    """
    try:
        import onnx
    except ImportError as error:
        raise RunnerError("the decisions of a graph need onnx; pip install onnx") from error
    try:
        made = inlined(model)
    except Exception as error:
        raise RunnerError(f"this is no ONNX model that can be read: {first_line(error)}") from error
    opset = next((o.version for o in made.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _OPSET:
        raise RunnerError(f"decisions are watched from opset {_OPSET} on, and this graph has {opset}")
    outputs = tuple(value.name for value in made.graph.output)
    sized = all(d.HasField("dim_value") for i in made.graph.input for d in i.type.tensor_type.shape.dim)
    names = {value.name for value in made.graph.input}
    given = {name: one for name, one in (inputs or {}).items() if name in names} if sized else {}
    watcher = _Watcher(sized, None if isinstance(model, bytes) else model.parent)
    counted, conditions = watcher.graph(made.graph, None, given)
    if counted:
        made.graph.output.append(onnx.helper.make_tensor_value_info(counted, _INT64, None))
    for name in watcher.values:
        made.graph.output.append(onnx.helper.make_tensor_value_info(name, _INT64, None))
    return Decisions(made.SerializeToString(), outputs, conditions, counted, watcher.values)


class _Watcher:
    """Adds to graphs what counts their decisions.

    Args:
        sized: whether the graph's inputs have one size each.
        place: where weights lie that are not in the graph.
    """

    def __init__(self, sized: bool, place: Path | None) -> None:
        self._sized, self._place = sized, place
        self._numbers = itertools.count()
        # Of the outermost graph: whole numbers of which one and another are two ways.
        self.values: dict[str, Decision] = {}

    def graph(
        self, graph: onnx.GraphProto, outer: frozenset[str] | None, around: Mapping[str, Range]
    ) -> tuple[str, list[Decision]]:
        """Its conditions, and the name of what counts them, ``[conditions, 2]``; empty without any.

        Args:
            graph: it is written to.
            outer: the constants of the graphs around it; None where there is none around it.
            around: the ranges of its inputs, or of what is around it.
        """
        given = {value.name for value in graph.input}
        inside = {name for node in graph.node for name in node.output} | (
            given if outer is not None else set()
        )
        seen = {name: one for name, one in around.items() if name not in inside}
        ranges = ranges_of(graph, seen, self._place)
        settled = {name for name, (low, high) in ranges.items() if (low == high).all()}
        tables = {value.name for value in graph.initializer} - given
        fixed = (set(outer or ()) | settled | tables) - given
        guards: set[str] = set()
        added = _Added(self._numbers)
        parts: list[str] = []
        found: list[Decision] = []
        for node in graph.node:
            if self._constant(node, fixed):
                fixed.update(node.output)
            for what, condition, tested in _conditions(node, added):
                guard = node.op_type in _GUARDS or condition in guards
                guards.update([condition] if guard else [])
                constant = condition in fixed or fixed.issuperset(filter(None, tested))
                constant = constant or (what != "condition" and _settled(tested, ranges))
                found.append(_decision(node, "guard" if guard else what, constant=constant))
                parts.append(added.counted(condition))
            part, inner = self._inner(node, frozenset(fixed), ranges, added)
            parts += [part] if part else []
            found += inner
            if outer is None:
                self._value(node, fixed, tables, added)
        joined = added.node("Concat", parts, axis=0) if parts else ""
        graph.node.extend(added.nodes)
        return joined, found

    def _constant(self, node: onnx.NodeProto, fixed: set[str]) -> bool:
        """Whether no input changes what it gives."""
        if node.op_type in _RANDOM or any(a.HasField("g") or a.graphs for a in node.attribute):
            return False
        return (self._sized and node.op_type in _SIZES) or fixed.issuperset(filter(None, node.input))

    def _inner(
        self, node: onnx.NodeProto, fixed: frozenset[str], ranges: Mapping[str, Range], added: _Added
    ) -> tuple[str, list[Decision]]:
        """What the graphs inside of a node decide, handed out of it."""
        import onnx

        graphs = {attribute.name: attribute.g for attribute in node.attribute if attribute.HasField("g")}
        if node.op_type == "Loop":
            body = graphs["body"]
            part, found = self.graph(body, fixed, ranges)
            if not found:
                return "", []
            outside = _handed_out(node, len(body.output) - 1, added)
            body.output.append(onnx.helper.make_tensor_value_info(part, _INT64, None))
            # One row for each time that it ran, and none where it never did.
            return added.node("ReduceSum", [outside, added.numbers(0)], keepdims=0), found
        if node.op_type == "If":
            branches = [graphs["then_branch"], graphs["else_branch"]]
            every = [self.graph(branch, fixed, ranges) for branch in branches]
            if not any(found for _, found in every):
                return "", []
            outside = _handed_out(node, len(branches[0].output), added)
            for which, branch in enumerate(branches):
                inside = _Added(self._numbers)
                # The other branch was not run: its conditions went no way.
                parts = [
                    part if own == which else inside.zeros(len(found))
                    for own, (part, found) in enumerate(every)
                    if found
                ]
                name = inside.node("Concat", parts, axis=0)
                branch.node.extend(inside.nodes)
                branch.output.append(onnx.helper.make_tensor_value_info(name, _INT64, None))
            return outside, [decision for _, found in every for decision in found]
        return "", []

    def _value(self, node: onnx.NodeProto, fixed: set[str], tables: set[str], added: _Added) -> None:
        """Note a number of which one and another are two ways: how often a loop runs, which row is read."""
        if node.op_type == "Loop" and node.input[0]:
            what, value = "count", node.input[0]
        elif node.op_type == "Gather" and node.input[0] in tables and node.input[1] not in fixed:
            what, value = "row", node.input[1]
        else:
            return
        name = added.node("Cast", [value], to=_INT64)
        self.values[name] = _decision(node, what, constant=value in fixed)


class _Added:
    """Nodes that are put at the end of a graph, where everything that they read is known."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._numbers = numbers

    def name(self) -> str:
        return f"{_PREFIX}{next(iter(self._numbers))}"

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A node, by the name of its output."""
        import onnx

        name = self.name()
        self.nodes.append(onnx.helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def numbers(self, *values: int) -> str:
        """A list of whole numbers."""
        return self.node("Constant", [], value_ints=list(values))

    def zeros(self, rows: int) -> str:
        return self.node("ConstantOfShape", [self.numbers(rows, 2)], value=_whole(0))

    def counted(self, condition: str) -> str:
        """How many elements of a condition are true, and how many are not: ``[1, 2]``."""
        flat = self.node("Reshape", [condition, self.numbers(-1)])
        sums = []
        for held in (flat, self.node("Not", [flat])):
            ones = self.node("Cast", [held], to=_INT64)
            sums.append(self.node("ReduceSum", [ones, self.numbers(0)], keepdims=1))
        return self.node("Reshape", [self.node("Concat", sums, axis=0), self.numbers(1, 2)])

    def below(self, one: str, other: str) -> str:
        """Where one tensor is below another, whatever type of number they are."""
        return self.node("Less", [self.node("Cast", [name], to=_DOUBLE) for name in (one, other)])


def _whole(value: int) -> onnx.TensorProto:
    import onnx

    return onnx.helper.make_tensor("", _INT64, [1], [value])


def _handed_out(node: onnx.NodeProto, outputs: int, added: _Added) -> str:
    """A further output of a node with graphs inside, which may have left out the last of those it has."""
    node.output.extend([""] * (outputs - len(node.output)))
    node.output.append(added.name())
    return str(node.output[-1])


def _conditions(node: onnx.NodeProto, added: _Added) -> list[tuple[str, str, list[str]]]:
    """What a node decides: in a word, the tensor of booleans, and what that is made of.

    Of a limit and of a choice it is two values, and whether the one is below the other.
    """
    given = [*node.input, "", ""]
    if node.op_type in _CONDITIONS:
        return [("condition", node.output[0], list(node.input))]
    if node.op_type in ("Where", "If"):
        return [("condition", given[0], [given[0]])]
    if node.op_type == "Relu":
        return [
            (
                "lower limit",
                added.below(given[0], added.node("Constant", [], value_float=0.0)),
                [given[0], ""],
            )
        ]
    if node.op_type == "Clip":
        low, high = given[1:3]
        found = [("lower limit", added.below(given[0], low), [given[0], low])] if low else []
        return found + ([("upper limit", added.below(high, given[0]), [high, given[0]])] if high else [])
    if node.op_type in ("Max", "Min"):
        first, *others = node.input
        return [("choice", added.below(first, other), [first, other]) for other in others]
    return []


def _settled(tested: Sequence[str], ranges: Mapping[str, Range]) -> bool:
    """Whether the first of two values is always below the second, or never; 0 has no name."""
    if not all(name in ranges for name in tested if name):
        return False
    (low, high), (least, most) = (ranges[name] if name else _ZERO for name in tested)
    try:
        return bool((high < least).all() or not (low < most).any())
    except ValueError:  # sizes that are not known
        return False


def _decision(node: onnx.NodeProto, what: str, *, constant: bool) -> Decision:
    scopes: list[object] = []
    for prop in node.metadata_props:
        if prop.key == _SCOPES:
            with suppress(ValueError, SyntaxError):
                scopes = list(ast.literal_eval(prop.value))
    modules = [str(scope) for scope in scopes[:-1] if scope]
    module = modules[-1].removeprefix("owner.") if modules else ""
    return Decision(
        "" if module == "owner" else module, node.name or node.output[0], node.op_type, what, constant
    )
