"""A bundle's graphs as parts that run one after the other, and which of PyTorch's values theirs are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from exporters.divergence.interpreter import END, Key
from exporters.flow.schedule import BACKBONE
from exporters.graph.layouts import LAST_X
from exporters.graph.loop_invariant import holds_graph
from pytest_reflex.errors import BundleError, ReflexError
from pytest_reflex.runners.base import first_line

if TYPE_CHECKING:
    from exporters.bundle.store import StoredBundle

Array = np.ndarray[Any, Any]
_STEP = re.compile(r"step\.(\d+)/(.+)")


@dataclass(frozen=True)
class Part:
    """Nodes that run one after the other, once.

    Attributes:
        nodes: in order.
        step: the denoising step that all of them belong to, where the host or a Loop repeats them.
        following: the value that is the next step's ``x``, where they are a step.
        earlier: the value that the next step's update reads as ``earlier``, where it reads one.
    """

    nodes: Sequence[ir.Node]
    step: int | None = None
    following: ir.Value | None = None
    earlier: ir.Value | None = None


@dataclass(frozen=True)
class Graphs:
    """A bundle's graphs, flat.

    Attributes:
        parts: what runs, in order.
        inputs: every graph input, by name.
        output: what the graphs give in the end; None where the host's loop gives it.
        opsets: the operator sets.
    """

    parts: Sequence[Part]
    inputs: Mapping[str, ir.Value]
    output: ir.Value | None
    opsets: Mapping[str, int]
    last_step: int | None


def _loaded(file: Path) -> ir.Model:
    try:
        model = ir.load(file)
        ir.to_proto(model)  # what holds text that is no UTF-8 can be read, and not written as a part
    except Exception as error:
        raise BundleError(
            f"{file} cannot be looked into: {first_line(error.__cause__ or error)}; export the bundle again"
        ) from error
    return model


def open_graphs(bundle: StoredBundle, models: Mapping[str, ir.Model] | None = None) -> Graphs:
    """The graphs of a bundle; ``models`` to look into others than those on disk.

    Raises:
        ReflexError: a graph holds control flow that this package did not write.
    """
    read = dict(models or {role: _loaded(bundle.path / f) for role, f in bundle.stated.graphs.items()})
    backbone = read.pop(BACKBONE, None)
    behind = _behind(bundle, read)
    if backbone is None:
        return behind
    given = {str(value.name): value for value in backbone.graph.outputs}
    for name in given.keys() & behind.inputs.keys():
        ir.convenience.replace_all_uses_with(behind.inputs[name], given[name])
    inputs = {n: v for n, v in behind.inputs.items() if n not in given}
    inputs |= {str(value.name): value for value in backbone.graph.inputs}
    return replace(behind, parts=[Part(_flat(backbone.graph)), *behind.parts], inputs=inputs)


def _behind(bundle: StoredBundle, models: Mapping[str, ir.Model]) -> Graphs:
    """The graphs of a bundle but for its backbone."""
    steps = bundle.stated.steps or 0
    first = next(iter(models.values())).graph
    opsets = dict(first.opset_imports)
    if bundle.layout == "stepwise":
        encoder, step = models["encoder"].graph, models["step"].graph
        # The step reads by name what the encoder gives by name.
        given = {str(v.name): v for v in (*encoder.outputs, *encoder.inputs)}
        inputs = {str(v.name): v for v in encoder.inputs}
        parts = [Part(_flat(encoder))]
        nodes = _renamed_inputs(step, given)
        parts += [Part(nodes, index, step.outputs[0]) for index in range(steps)]
        own = {str(v.name): v for v in step.inputs if str(v.name) not in given}
        return Graphs(parts, inputs | own, None, opsets, steps - 1)
    inputs = {str(v.name): v for v in first.inputs}
    loop = next((n for n in first if n.op_type == "Loop"), None) if bundle.layout == "loop" else None
    if loop is None:
        return Graphs([Part(_flat(first))], inputs, first.outputs[0], opsets, steps - 1 if steps else None)
    body = loop.attributes["body"].as_graph()
    nodes = list(first)
    at = nodes.index(loop)
    # What the loop ends in, for the epilogue behind it.
    own = {str(v.name): v for v in (*body.inputs, loop.outputs[0])}
    ends = body.outputs[1:]
    parts = [Part(_flat(nodes[:at]))]
    parts += [Part(_flat(body), i, ends[0], ends[1] if len(ends) > 1 else None) for i in range(steps)]
    if nodes[at + 1 :]:
        parts.append(Part(_flat(nodes[at + 1 :])))
    output = first.outputs[0] if nodes[at + 1 :] else None
    return Graphs(parts, inputs | own, output, opsets, steps - 1)


def _flat(nodes: Iterable[ir.Node]) -> list[ir.Node]:
    found = list(nodes)
    for node in found:
        if holds_graph(node):
            raise ReflexError(
                f"node {node.name!r} ({node.op_type}) holds a graph of its own; locate reads none"
            )
    return found


def _renamed_inputs(step: ir.Graph, given: Mapping[str, ir.Value]) -> list[ir.Node]:
    """The step's nodes, reading the encoder's own values in place of the inputs of the same name."""
    for value in step.inputs:
        source = given.get(str(value.name))
        if source is not None:
            ir.convenience.replace_all_uses_with(value, source)
    return _flat(step)


class Names:
    """Which value of PyTorch's program a value of the graph is.

    Args:
        known: by half, every name that a value may have with the name that the program has for it.
        keys: every value that the program gives.
        graphs: the graphs.
    """

    def __init__(self, known: Mapping[str, Mapping[str, str]], keys: set[Key], graphs: Graphs) -> None:
        self._known = known
        self._keys = keys
        self._last = graphs.last_step
        self._output = graphs.output

    def key(self, value: ir.Value, step: int | None) -> Key | None:
        """The value's key, or None when PyTorch has no such value.

        Args:
            value: a value that a node gives.
            step: the step of the part that it is in.
        """
        name = str(value.name)
        if value is self._output and self._last is not None:
            return END if END in self._keys else Key("loop", self._last, "x_next")
        if name == LAST_X:
            return Key("loop", self._last, "x_next")
        if "model" in self._known:
            return self._of("model", None, name)
        if name.startswith("prefix/"):
            return self._of("prefix", None, name.removeprefix("prefix/"))
        if found := _STEP.fullmatch(name):
            return self._in_loop(int(found[1]), found[2])
        if name.startswith("epilogue/"):
            key = Key("epilogue", None, name.removeprefix("epilogue/"))
            return key if key in self._keys else None
        if name.startswith("loop/"):
            return self._in_loop(step, name.removeprefix("loop/").removeprefix("step/"))
        if name.startswith("step/"):
            return self._of("step", step, name.removeprefix("step/"))
        return self._of("step" if step is not None else "prefix", step, name)

    def _in_loop(self, step: int | None, name: str) -> Key | None:
        own = Key("loop", step, name)
        return own if own in self._keys else self._of("step", step, name)

    def _of(self, half: str, step: int | None, name: str) -> Key | None:
        found = self._known[half].get(name)
        if found is None:
            return None
        # Computed once before the loop on the one side, it may be computed in every step on the other.
        either = (Key(half, step, found), Key(half, None, found))
        return next((key for key in either if key in self._keys), None)
