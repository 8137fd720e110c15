"""Watches the decisions of an ONNX graph: which of its conditions, limits and choices went both ways.

A copy of the graph is opened that counts beside what it computes. What a decision is:

- a condition: each element of ``Less``, ``Equal``, ``And`` and their kin is true or false, of ``Where`` the
  one value or the other, of ``If`` the one branch or the other;
- a limit: ``Clip`` and ``Relu`` hand an element on, or hold it at an end; of all ``QuantizeLinear`` of a
  graph whether any element is held is one decision for each end;
- a choice: ``Max`` and ``Min`` take the one element or the other; of three or more each is beaten or not;
- a count: ``Loop`` runs so many times, and another time as many others;
- a row: ``Gather`` reads one row of a table of weights, and another time another.

Two kinds are told apart. A decision that constants take, or what inputs and operators can give at all
(:mod:`.graph_ranges`), no input can turn round. And a guard looks for NaN or infinity, or acts where one was
found: nothing that is finite turns it round. Needs onnx.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pytest_reflex.errors import MissingPackageError, RunnerError
from pytest_reflex.runners.base import first_line
from pytest_reflex.runners.graph_around import Around, begin, discrete_inputs, inside_of, known_of
from pytest_reflex.runners.graph_counting import NEVER, Added, handed_out
from pytest_reflex.runners.graph_deciding import decided, is_settled, names_of
from pytest_reflex.runners.graph_file import inlined
from pytest_reflex.runners.graph_origin import line_of, module_of, said_of
from pytest_reflex.runners.graph_ranges import Known, Range
from pytest_reflex.runners.graph_sizes import STANDARD, shape_of
from pytest_reflex.runners.graph_stated import free_names, graphs_inside, restate, state_nothing
from pytest_reflex.verdict.coverage import Decision

if TYPE_CHECKING:
    import onnx

    Array = np.ndarray[Any, Any]

__all__ = ["Decisions", "decisions_of"]

_GUARDS: Final = frozenset({"IsNaN", "IsInf"})
_KINDS: Final = ("conditions", "values")
# Sums take their axes as an input from here on.
_OPSET: Final = 13
# onnx.TensorProto's number of the type.
_INT64: Final = 7


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
    _watched: dict[str, Watched]
    # Conditions, by node and what they are, whose elements are constants: of one kind, or of both.
    _held: frozenset[tuple[str, str]] = frozenset()
    _seen: dict[str, Array] = field(default_factory=dict)
    # Of each condition, in which ways some run went throughout.
    _throughout: Array | None = None

    def take(self, made: Mapping[str, Array]) -> dict[str, Array]:
        """Note which ways a run went; what is left is what the graph was to compute."""
        for kind, watched in self._watched.items():
            if watched.output:
                rows, before = made[watched.output], self._seen.get(kind)
                if kind == "conditions":
                    only = (rows > 0) & (rows[:, ::-1] == 0)
                    self._throughout = only if self._throughout is None else self._throughout | only
                if before is not None:
                    rows = before + rows if kind == "conditions" else np.minimum(before, rows)
                self._seen[kind] = rows
        return {name: made[name] for name in self.outputs}

    @property
    def found(self) -> list[Decision]:
        """Each decision, with the ways that it went."""
        conditions, values = (self._watched[kind].decisions for kind in _KINDS)
        every = []
        counts = self._rows("conditions", 0)
        for place, (decision, (yes, no)) in enumerate(zip(conditions, counts, strict=True)):
            if decision.constant and self._stays(place, decision):
                no = 0  # what is a constant's own went no other way
            every.append(replace(decision, went=(*(("yes",) if yes else ()), *(("no",) if no else ()))))
        for decision, (least, turned) in zip(values, self._rows("values", NEVER), strict=True):
            seen = 0 if least == NEVER else 1 if least == -turned else 2
            every.append(replace(decision, went=("one", "another")[:seen]))
        return every

    def _stays(self, place: int, decision: Decision) -> bool:
        """Whether a condition's own constants, of both kinds, explain that it went both ways."""
        held = (decision.node, decision.what) in self._held
        return held and self._throughout is not None and not self._throughout[place].all()

    def _rows(self, kind: str, unseen: int) -> list[list[int]]:
        seen = self._seen.get(kind)
        held: list[list[int]] = (
            [[unseen, unseen]] * len(self._watched[kind].decisions) if seen is None else seen.tolist()
        )
        return held


@dataclass
class Watched:
    """Decisions of one kind, and the name of what counts them, ``[decisions, 2]``; empty without any."""

    output: str
    decisions: list[Decision]


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
        raise MissingPackageError(
            "coverage reads the graph with onnx, which is not installed; pip install 'pytest-reflex[export]'"
        ) from error
    try:
        made = inlined(model)
    except Exception as error:
        raise RunnerError(f"this is no ONNX model that can be read: {first_line(error)}") from error
    opset = next((o.version for o in made.opset_import if o.domain in STANDARD), 0)
    if opset < _OPSET:
        raise RunnerError(f"decisions are watched from opset {_OPSET} on, and this graph has {opset}")
    restate(made)
    outputs = tuple(value.name for value in made.graph.output)
    whole = {value.name for value in made.graph.input if shape_of(value) is not None}
    sized = len(whole) == len(made.graph.input)
    names = {value.name for value in made.graph.input}
    given = {name: one for name, one in (inputs or {}).items() if name in names} if sized else {}
    watcher = _Watcher(None if isinstance(model, bytes) else model.parent, opset, free_names(made.graph))
    around = Around(frozenset(), frozenset(whole), frozenset(names), given, {}, discrete_inputs(made.graph))
    watched = watcher.graph(made.graph, around)
    for one in watched.values():
        if one.output:
            made.graph.output.append(onnx.helper.make_tensor_value_info(one.output, _INT64, None))
    state_nothing(made.graph)  # ONNX Runtime works it out
    return Decisions(made.SerializeToString(), outputs, watched, frozenset(watcher.held))


class _Watcher:
    """Adds to graphs what counts their decisions.

    Args:
        place: where weights lie that are not in the graph.
        opset: the version of the operators.
        names: what the graph and those inside of it name nothing.
    """

    def __init__(self, place: Path | None, opset: int, names: Iterator[str]) -> None:
        self._place, self._opset, self._names = place, opset, names
        self.held: set[tuple[str, str]] = set()

    def graph(self, graph: onnx.GraphProto, around: Around) -> dict[str, Watched]:
        """Its decisions by kind; the graph is written to."""
        known = known_of(graph, around, self._place)
        ranges, fixed = known.ranges, known.sizes.fixed
        settled = fixed | known.settled
        guards: set[str] = set()
        held_ends: dict[str, list[tuple[Decision, str]]] = {}
        added = Added(self._names, self._opset)
        parts: dict[str, list[str]] = {kind: [] for kind in _KINDS}
        found: dict[str, list[Decision]] = {kind: [] for kind in _KINDS}
        for node in graph.node:
            for what, condition, tested in decided(node, added, known.kinds, ranges):
                guard = condition in guards or _guards(node, known)
                guards.update([condition] if guard else [])
                names = {name for value in tested for name in names_of(value)}
                held = condition in settled or settled.issuperset(names) or fixed.issuperset(node.output)
                constant = (
                    held or _is_empty(node, known) or (what != "condition" and is_settled(tested, ranges))
                )
                decision = _decision(node, "guard" if guard else what, constant=constant)
                self.held.update([(decision.node, decision.what)] if held else [])
                if node.op_type == "QuantizeLinear" and not constant:
                    held_ends.setdefault(what, []).append((decision, added.counted(condition)))
                    continue
                found["conditions"].append(decision)
                parts["conditions"].append(added.counted(condition))
            if node.op_type == "Gather" and node.input[0] in fixed and node.input[1] not in settled:
                axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
                found["values"].append(_decision(node, "row", constant=_is_empty(node, known)))
                parts["values"].append(added.spread(added.row(node.input[0], node.input[1], axis)))
            for kind, one in self._inner(node, known, added).items():
                found[kind] += one.decisions
                parts[kind] += [one.output] if one.output else []
        for ends in held_ends.values():
            found["conditions"].append(_one_of(ends))
            parts["conditions"].append(added.summed([count for _, count in ends]))
        joined = {kind: added.node("Concat", each, axis=0) if each else "" for kind, each in parts.items()}
        graph.node.extend(added.nodes)
        return {kind: Watched(joined[kind], found[kind]) for kind in _KINDS}

    def _inner(self, node: onnx.NodeProto, known: Known, added: Added) -> dict[str, Watched]:
        """What the graphs inside of a node decide, handed out of it."""
        graphs = {attribute.name: attribute.g for attribute in node.attribute if attribute.HasField("g")}
        if node.op_type in ("Loop", "Scan"):
            return self._body(node, graphs["body"], known, added)
        if node.op_type == "If":
            return self._branches(node, [graphs["then_branch"], graphs["else_branch"]], known, added)
        for inside in graphs_inside(node):
            if any(one.decisions for one in self.graph(inside, inside_of(known)).values()):
                name = node.name or node.output[0]
                raise RunnerError(f"the decisions inside of {node.op_type} {name} cannot be watched")
        return {}

    def _body(
        self, node: onnx.NodeProto, body: onnx.GraphProto, known: Known, added: Added
    ) -> dict[str, Watched]:
        """Of what runs several times: all times together, and of a loop how many they are."""
        outer = begin(node, body, known, self._place)
        outputs = len(body.output) - (node.op_type == "Loop")
        watched = self.graph(body, outer)
        found = {}
        for kind, one in watched.items():
            if one.decisions:
                rows = self._further(node, body, one.output, outputs, added)
                outputs += 1
                count = added.over_times(kind, rows, len(one.decisions))
                found[kind] = Watched(count, one.decisions)
        if node.op_type != "Loop":
            return found
        times = Added(self._names, self._opset)
        once = times.numbers(1)
        body.node.extend(times.nodes)
        rows = self._further(node, body, once, outputs, added)
        constant = _runs_always_alike(node, body, known.sizes.fixed)
        counted = Watched(
            added.spread(added.node("Size", [rows])), [_decision(node, "count", constant=constant)]
        )
        values = found.get("values")
        if values is not None:
            joined = added.node("Concat", [values.output, counted.output], axis=0)
            counted = Watched(joined, values.decisions + counted.decisions)
        return {**found, "values": counted}

    def _further(
        self, node: onnx.NodeProto, body: onnx.GraphProto, name: str, outputs: int, added: Added
    ) -> str:
        """A further output of a body, by the name of what its times are joined to."""
        import onnx

        body.output.append(onnx.helper.make_tensor_value_info(name, _INT64, None))
        for attribute in node.attribute:
            if attribute.name in ("scan_output_axes", "scan_output_directions"):
                attribute.ints.append(0)
        return handed_out(node, outputs, added)

    def _branches(
        self, node: onnx.NodeProto, branches: list[onnx.GraphProto], known: Known, added: Added
    ) -> dict[str, Watched]:
        """Of both branches; the one that was not run went no way."""
        import onnx

        every = [self.graph(branch, inside_of(known)) for branch in branches]
        result = {}
        outputs = len(branches[0].output)
        for kind, neutral in zip(_KINDS, (0, NEVER), strict=True):
            if not any(found[kind].decisions for found in every):
                continue
            for which, branch in enumerate(branches):
                inside = Added(self._names, self._opset)
                parts = [
                    found[kind].output
                    if own == which
                    else inside.filled(neutral, len(found[kind].decisions), 2)
                    for own, found in enumerate(every)
                    if found[kind].decisions
                ]
                name = inside.node("Concat", parts, axis=0)
                branch.node.extend(inside.nodes)
                branch.output.append(onnx.helper.make_tensor_value_info(name, _INT64, None))
            outside = handed_out(node, outputs, added)
            outputs += 1
            result[kind] = Watched(outside, [one for found in every for one in found[kind].decisions])
        return result


def _one_of(held: Sequence[tuple[Decision, str]]) -> Decision:
    """One decision for one end of all tensors of a graph that are quantised.

    Their scales are those of the largest values that were met, beyond which inputs take some and cannot take
    others, such as their own declared ranges; nothing in the graph tells these apart.
    """
    first = held[0][0]
    return first if len(held) == 1 else replace(first, node=f"{first.node} and {len(held) - 1} more")


def _is_empty(node: onnx.NodeProto, known: Known) -> bool:
    """Whether nothing is decided, as what is made of it has no element, whatever the inputs are."""
    return 0 in known.shapes.get(node.output[0], ())


def _guards(node: onnx.NodeProto, known: Known) -> bool:
    """Whether it looks for what nothing finite makes."""
    if node.op_type not in _GUARDS:
        return False
    name = node.input[0]
    return known.finite.is_finite(name) or (node.op_type == "IsNaN" and known.finite.is_ordered(name))


def _runs_always_alike(node: onnx.NodeProto, body: onnx.GraphProto, fixed: Collection[str]) -> bool:
    """Whether a loop's count is constant, and nothing ends it sooner."""
    most, begins = [*node.input, "", ""][:2]
    if not most or most not in fixed or (begins and begins not in fixed):
        return False
    name, made = body.output[0].name, {name: one for one in body.node for name in one.output}
    while name in made and made[name].op_type == "Identity":
        name = made[name].input[0]
    held = {one.name for one in body.initializer} | {body.input[1].name, *fixed}
    return name in held or (name in made and made[name].op_type == "Constant")


def _decision(node: onnx.NodeProto, what: str, *, constant: bool) -> Decision:
    said = said_of(node)
    name = node.name or node.output[0]
    return Decision(module_of(said), name, node.op_type, what, constant, source=line_of(said))
