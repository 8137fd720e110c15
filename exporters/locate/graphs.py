"""A bundle's graphs as pieces that run by themselves, on their own way or cut at every value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from exporters.encoder import clone
from exporters.locate.scratch import Scratch
from exporters.locate.tape import Key
from pytest_reflex.errors import ReflexError

if TYPE_CHECKING:
    from exporters.bundle import Bundle

Array = np.ndarray[Any, Any]
_STEP = re.compile(r"step\.(\d+)/(.+)")
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_LOOP_OWN = ("time", "delta", "x_next")


@dataclass(frozen=True)
class Part:
    """Nodes that run one after the other, once.

    Attributes:
        nodes: in order.
        step: the denoising step that all of them belong to, where the host or a Loop repeats them.
        following: the value that is the next step's ``x``, where they are a step.
    """

    nodes: Sequence[ir.Node]
    step: int | None = None
    following: ir.Value | None = None


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


def open_graphs(bundle: Bundle, models: Mapping[str, ir.Model] | None = None) -> Graphs:
    """The graphs of a bundle; ``models`` to look into others than those on disk.

    Raises:
        ReflexError: a graph holds control flow that this package did not write.
    """
    models = models or {role: ir.load(bundle.path / f) for role, f in bundle.manifest["graphs"].items()}
    steps = bundle.manifest["steps"]
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
    rest = [node for node in first if node is not loop]
    own = {str(v.name): v for v in body.inputs}
    parts = [Part(_flat(rest))]
    parts += [Part(_flat(body), index, body.outputs[1]) for index in range(steps)]
    return Graphs(parts, inputs | own, None, opsets, steps - 1)


def _flat(nodes: Iterable[ir.Node]) -> list[ir.Node]:
    found = list(nodes)
    for node in found:
        if any(a.type in _GRAPHS for a in node.attributes.values()):
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
            return Key("loop", self._last, "x_next")
        if "model" in self._known:
            return self._of("model", None, name)
        if name.startswith("prefix/"):
            return self._of("prefix", None, name.removeprefix("prefix/"))
        if found := _STEP.fullmatch(name):
            return self._in_loop(int(found[1]), found[2])
        if name.startswith("loop/"):
            return self._in_loop(step, name.removeprefix("loop/").removeprefix("step/"))
        if name.startswith("step/"):
            return self._of("step", step, name.removeprefix("step/"))
        return self._of("step" if step is not None else "prefix", step, name)

    def _in_loop(self, step: int | None, name: str) -> Key | None:
        return Key("loop", step, name) if name in _LOOP_OWN else self._of("step", step, name)

    def _of(self, half: str, step: int | None, name: str) -> Key | None:
        found = self._known[half].get(name)
        if found is None:
            return None
        # Computed once before the loop on the one side, it may be computed in every step on the other.
        either = (Key(half, step, found), Key(half, None, found))
        return next((key for key in either if key in self._keys), None)


@dataclass(frozen=True)
class Piece:
    """Some nodes as a model that runs by itself.

    Attributes:
        model: the model.
        inputs: its inputs: each one's name, and the value of the graphs that it stands for.
        outputs: its outputs, likewise.
    """

    model: ir.Model
    inputs: Mapping[str, ir.Value]
    outputs: Mapping[str, ir.Value]


def piece(
    nodes: Sequence[ir.Node],
    graphs: Graphs,
    *,
    outputs: Sequence[ir.Value],
    cut: frozenset[ir.Value] = frozenset(),
    example: Callable[[ir.Value], Array],
) -> Piece:
    """A model of ``nodes``.

    Args:
        nodes: a run of nodes of one part.
        graphs: what they are from.
        outputs: which of their values it gives.
        cut: values that it gives, and that every later node reads from an input instead.
        example: an array of the shape and dtype that a value from before has.
    """
    here: dict[ir.Value, ir.Value] = {}
    inputs: dict[str, ir.Value] = {}
    placed: list[ir.Value] = []
    made: dict[ir.Value, ir.Value] = {}
    weights: dict[str, ir.Value] = {}

    def given(value: ir.Value, name: str) -> ir.Value:
        array = example(value)
        twin = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        )
        inputs[name] = value
        placed.append(twin)
        return twin

    copies: list[ir.Node] = []
    for node in nodes:
        for value in node.inputs:
            if value is None or value in here:
                continue
            if value.const_value is not None and value.producer() is None:
                twin = ir.Value(
                    name=value.name, shape=value.shape, type=value.type, const_value=value.const_value
                )
                weights[str(value.name)] = here[value] = twin
            else:
                here[value] = given(value, f"given/{value.name}")
        copies += clone([node], here, {})
        for output in node.outputs:
            made[output] = here[output]
            if output in cut:
                here[output] = given(output, f"cut/{output.name}")
    wanted = {str(made[value].name): value for value in outputs}
    used = {id(v) for node in copies for v in node.inputs}
    kept = [v for v in placed if id(v) in used]
    graph = ir.Graph(
        kept,
        [made[value] for value in outputs],
        nodes=copies,
        initializers=list(weights.values()),
        opset_imports=dict(graphs.opsets),
        name="piece",
    )
    names = {str(v.name) for v in kept}
    return Piece(
        ir.Model(graph, ir_version=10, producer_name="pytest-reflex"),
        {name: value for name, value in inputs.items() if name in names},
        wanted,
    )


def run_piece(
    made: Piece, feed: Mapping[str, Array], folder: Path, scratch: Scratch
) -> dict[ir.Value, Array]:
    """Run a piece as it is written: no operator fused, nothing packed, weights mapped from ``folder``.

    What it gives lies in ``scratch``, and is lost when that is cleared.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    session = onnxruntime.InferenceSession(
        ir.to_proto(made.model).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        enable_fallback=0,
    )
    binding = session.io_binding()
    for name in made.inputs:
        binding.bind_cpu_input(name, np.ascontiguousarray(feed[name]))
    found: dict[ir.Value, Array] = {}
    for name, value in made.outputs.items():
        shape, dtype = _fixed_shape(value), value.dtype.numpy() if value.dtype else None
        # What numpy has no type for, or nobody knows the size of, ONNX Runtime finds a place for.
        if shape is None or dtype is None or dtype.isbuiltin != 1:
            binding.bind_output(name)
            continue
        array = found[value] = scratch.array(shape, dtype)
        binding.bind_output(name, "cpu", 0, dtype, shape, array.ctypes.data)
    session.run_with_iobinding(binding)
    for value, given in zip(made.outputs.values(), binding.get_outputs(), strict=True):
        if value not in found:
            found[value] = given.numpy()
    return found


def _fixed_shape(value: ir.Value) -> list[int] | None:
    """The value's sizes; None where one is free, or 0, or not known."""
    sizes = [n for n in value.shape or () if isinstance(n, int) and n > 0]
    return sizes if value.shape is not None and len(sizes) == len(value.shape) else None
