"""Mutants of a graph that flip or freeze one decision: a condition, a limit, a choice, a row.

The decisions are those of :mod:`pytest_reflex.runners.graph_decisions` that some input can turn round. A
frozen one goes the same way whatever the inputs, so that fixtures which only ever took that way miss it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pytest_reflex.runners.graph_decisions import decisions_of

# Takes the node's graph and the node's place in it, and changes that node.
Change = Callable[[onnx.GraphProto, int], None]
_PREFIX = "mutant/"


def decision_mutants(
    data: bytes, ranges: Mapping[str, tuple[Any, Any]] | None = None
) -> list[tuple[str, Callable[[], bytes]]]:
    """What can be done to a graph's decisions: in words, and what makes the graph with that one change."""
    reachable = {
        (found.node, found.what)
        for found in decisions_of(data, ranges).found
        if found.reachable and found.what != "guard"
    }
    made = []
    model = onnx.ModelProto.FromString(data)
    for way, node in _nodes(model.graph):
        name = node.name or node.output[0]
        for what, kind, change in _changes(node):
            if (name, what) in reachable:
                made.append(
                    (f"{node.op_type} {name}, {what}: {kind}", lambda w=way, c=change: _changed(data, w, c))
                )
    return made


def _nodes(
    graph: onnx.GraphProto, way: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], onnx.NodeProto]]:
    """Every node with the way to it: places of nodes, and between them the graph inside that is meant."""
    for place, node in enumerate(graph.node):
        yield (*way, place), node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g, (*way, place, attribute.name))


def _changed(data: bytes, way: tuple[Any, ...], change: Change) -> bytes:
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    for place, inside in zip(way[:-1:2], way[1::2], strict=True):
        graph = next(a.g for a in graph.node[place].attribute if a.name == inside)
    change(graph, way[-1])
    return bytes(model.SerializeToString())


def _changes(node: onnx.NodeProto) -> Iterator[tuple[str, str, Change]]:
    """What of a node's decisions can be changed: which of them, in words, and how."""
    op = node.op_type
    if op in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "Not", "And", "Or", "Xor"):
        for kind in ("flipped", "always yes", "always no"):
            yield "condition", kind, lambda graph, place, kind=kind: _decide_output(graph, place, kind)
    elif op in ("Where", "If"):
        for kind in ("flipped", "always yes", "always no"):
            yield "condition", kind, lambda graph, place, kind=kind: _decide_input(graph, place, kind)
    elif op == "Relu":
        yield "lower limit", "never held", _identity
        yield "lower limit", "always held", lambda graph, place: _scaled_input(graph, place, 0, 0.0)
    elif op == "Clip":
        for index, what in ((1, "lower limit"), (2, "upper limit")):
            yield what, "never held", lambda graph, place, index=index: _without_limit(graph, place, index)
    elif op in ("Max", "Min") and len(node.input) == 2:
        yield "choice", "flipped", _other_extreme
        for index, kind in ((1, "always the first"), (0, "always the other")):
            yield "choice", kind, lambda graph, place, index=index: _one_alone(graph, place, index)
    elif op == "Gather":
        yield "row", "always the first", lambda graph, place: _scaled_input(graph, place, 1, 0)


_fresh = itertools.count()


def _name() -> str:
    return f"{_PREFIX}{next(_fresh)}"


def _constant(graph: onnx.GraphProto, value: Any) -> str:
    made = numpy_helper.from_array(np.asarray(value), _name())
    graph.initializer.append(made)
    return str(made.name)


def _decision(graph: onnx.GraphProto, given: str, kind: str, out: str) -> onnx.NodeProto:
    if kind == "flipped":
        return helper.make_node("Not", [given], [out], name=_name())
    op, value = ("Or", True) if kind == "always yes" else ("And", False)
    return helper.make_node(op, [given, _constant(graph, value)], [out], name=_name())


def _insert(graph: onnx.GraphProto, place: int, node: onnx.NodeProto) -> None:
    nodes = [*graph.node]
    nodes.insert(place, node)
    del graph.node[:]
    graph.node.extend(nodes)


def _decide_output(graph: onnx.GraphProto, place: int, kind: str) -> None:
    out = graph.node[place].output[0]
    decided = _name()
    graph.node[place].output[0] = decided
    _insert(graph, place + 1, _decision(graph, decided, kind, out))


def _decide_input(graph: onnx.GraphProto, place: int, kind: str) -> None:
    given = graph.node[place].input[0]
    decided = _name()
    graph.node[place].input[0] = decided
    _insert(graph, place, _decision(graph, given, kind, decided))


def _identity(graph: onnx.GraphProto, place: int) -> None:
    graph.node[place].op_type = "Identity"


def _scaled_input(graph: onnx.GraphProto, place: int, index: int, by: float) -> None:
    """An input in its own type, times a number: the type is that of the value that the graph casts like."""
    given = graph.node[place].input[index]
    number, scaled = _name(), _name()
    like = helper.make_node("CastLike", [_constant(graph, np.float32(by)), given], [number], name=_name())
    graph.node[place].input[index] = scaled
    _insert(graph, place, helper.make_node("Mul", [given, number], [scaled], name=_name()))
    _insert(graph, place, like)


def _without_limit(graph: onnx.GraphProto, place: int, index: int) -> None:
    graph.node[place].input[index] = ""


def _other_extreme(graph: onnx.GraphProto, place: int) -> None:
    graph.node[place].op_type = "Min" if graph.node[place].op_type == "Max" else "Max"


def _one_alone(graph: onnx.GraphProto, place: int, index: int) -> None:
    """The one input, in the shape of both: the other one is added, times nothing."""
    _scaled_input(graph, place, index, 0.0)
    node = next(n for n in graph.node[place:] if n.op_type in ("Max", "Min"))
    node.op_type = "Add"
