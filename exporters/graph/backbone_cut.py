"""One graph -> a backbone and the rest: what a policy makes of its images and tokens, as a graph of its own.

The two run one after the other, and what the first gives the second reads by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from exporters.flow.schedule import BACKBONE
from exporters.graph.loop_invariant import clone, twin
from pytest_reflex.errors import TracingError


def cut(prefix: ir.Model, features: Mapping[str, str]) -> tuple[ir.Model, ir.Model]:
    """Cut a prefix where it has its features.

    Args:
        prefix: observation -> context.
        features: names of outputs of the prefix, each with the name that both graphs have for it.

    Returns:
        Observation -> features; and features and the rest of the observation -> context. An input that only
        one of them reads is an input of that one.

    Raises:
        TracingError: the prefix gives no such output.
    """
    given = {str(value.name): value for value in prefix.graph.outputs}
    if missing := [name for name in features if name not in given]:
        raise TracingError(f"the prefix gives no {missing[0]!r}, where its backbone should end")
    ends = {given[name]: called for name, called in features.items()}
    first = _part(prefix, {}, ends, BACKBONE)
    second = _part(prefix, ends, {v: str(v.name) for v in prefix.graph.outputs}, str(prefix.graph.name))
    return first, second


def _part(
    model: ir.Model, begins: Mapping[ir.Value, str], ends: Mapping[ir.Value, str], title: str
) -> ir.Model:
    """What leads from the graph's inputs, and from the values that it begins with, to those it ends in."""
    graph = model.graph
    nodes, read = _leading(graph, set(begins), [value for value in ends if value not in begins])
    here: dict[ir.Value, ir.Value] = {}
    inputs = []
    for value, name in [*begins.items(), *((v, str(v.name)) for v in graph.inputs if v in read)]:
        here[value] = ir.Value(name=name, shape=value.shape, type=value.type)
        inputs.append(here[value])
    weights = [value for value in graph.initializers.values() if value in read]
    here.update((value, twin(value, value.const_value)) for value in weights)
    copies = clone(nodes, here, {})
    outputs = []
    for value, name in ends.items():
        found = here[value]
        if value in begins:
            # What goes in comes out too, under another name; a graph has one name for one value.
            node = ir.node("Identity", [found], name=f"{title}/{name}")
            copies.append(node)
            found = node.outputs[0]
            found.shape, found.type = value.shape, value.type
        found.name = name
        outputs.append(found)
    made = ir.Graph(
        inputs, outputs, nodes=copies, initializers=[here[value] for value in weights],
        opset_imports=dict(model.opset_imports), name=title,
    )  # fmt: skip
    return ir.Model(made, ir_version=model.ir_version, producer_name=model.producer_name)


def _leading(
    graph: ir.Graph, begins: set[ir.Value], ends: Sequence[ir.Value]
) -> tuple[list[ir.Node], set[ir.Value]]:
    """The nodes that lead to ``ends``, in order, and all that they read."""
    wanted, nodes = set(ends), []
    for node in reversed(list(graph)):
        if any(value in wanted and value not in begins for value in node.outputs):
            nodes.append(node)
            wanted.update(value for value in node.inputs if value is not None)
    return nodes[::-1], wanted
