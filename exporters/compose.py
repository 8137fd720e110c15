"""Prefix and step, each traced once -> one model, for each layout.

``unrolled``  the prefix and N copies of the step in one graph. The copies share every weight.
``loop``      the prefix and an ONNX ``Loop`` around one copy; N is an optional input.
``stepwise``  two graphs, the encoder and the step; the host runs the loop.

The cost of tracing does not depend on N in any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import onnx_ir as ir

from exporters.flow import EulerSchedule
from pytest_reflex.errors import TracingError

Layout = Literal["unrolled", "loop", "stepwise"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

STEP_KEY = "pytest_reflex.step"
HALF_KEY = "pytest_reflex.half"
X_T, TIME, VELOCITY, STEPS = "x_t", "time", "velocity", "num_steps"


@dataclass(frozen=True)
class Loop:
    """What the composer has to know of the loop besides the two graphs."""

    schedule: EulerSchedule
    steps: int
    noise: str
    output: str


def compose(prefix: ir.Model, step: ir.Model, loop: Loop, layout: Layout) -> dict[str, ir.Model]:
    """Join the two halves; both models are consumed.

    Args:
        prefix: observation -> context, traced once.
        step: ``x_t``, ``time``, context -> ``velocity``, traced once.
        loop: the schedule, the number of steps, and the names of noise and output.
        layout: see the module's docstring.

    Returns:
        Models by file stem: ``{"model": ...}``, or ``{"encoder": ..., "step": ...}`` for ``stepwise``.

    Raises:
        TracingError: the halves do not fit each other.
    """
    _check_fit(prefix, step)
    _qualify(prefix, "prefix")
    _qualify(step, "step")
    encoder = _Encoder(prefix, step)
    if layout == "stepwise":
        return {"encoder": encoder.finish(), "step": encoder.step_model()}
    if layout == "unrolled":
        return {"model": _unrolled(encoder, loop)}
    return {"model": _looped(encoder, loop)}


def _check_fit(prefix: ir.Model, step: ir.Model) -> None:
    given = {v.name: v for v in prefix.graph.outputs}
    for value in step.graph.inputs:
        if value.name in (X_T, TIME):
            continue
        source = given.get(value.name)
        if source is None:
            raise TracingError(f"the step reads {value.name!r}, which the prefix does not give")
        if source.dtype != value.dtype or _dims(source) != _dims(value):
            raise TracingError(
                f"{value.name!r} is {source.dtype}{_dims(source)} out of the prefix "
                f"and {value.dtype}{_dims(value)} into the step"
            )
    for model in (prefix, step):
        if model.functions:
            raise TracingError(f"the graph calls local functions ({list(model.functions)}), which are not inlined")
        for node in model.graph:
            if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
                raise TracingError(f"node {node.name!r} ({node.op_type}) holds a graph of its own; trace it flat")


def _dims(value: ir.Value) -> list[int | str | None]:
    return [d if isinstance(d, int) else d.value for d in value.shape] if value.shape is not None else []


def _qualify(model: ir.Model, half: str) -> None:
    """Put the half's name before every node and value; weights keep the one name that both halves share."""
    for node in model.graph:
        node.name = f"{half}/{node.name}"
        node.metadata_props[HALF_KEY] = half
        for output in node.outputs:
            if not output.is_graph_output():
                output.name = f"{half}/{output.name}"
    for value in list(model.graph.initializers.values()):
        if not _is_weight(value):
            value.name = f"{half}/{value.name}"


def _is_weight(value: ir.Value) -> bool:
    """Whether an initializer carries a name of the policy's state dict, rather than one that tracing made up."""
    return value.name is not None and "." in value.name


class _Encoder:
    """The prefix, grown by all of the step that does not change from step to step.

    A node of the step that reads neither ``x_t`` nor ``time``, directly or through others, gives the
    same bits in every step. It is moved behind the prefix and computed once: attention masks, rotary
    tables, projected state, and the keys and values of cross-attention where a policy has it.
    """

    def __init__(self, prefix: ir.Model, step: ir.Model) -> None:
        self.model = prefix
        self.graph = prefix.graph
        self._step = step
        context = {v.name: v for v in self.graph.outputs}
        inputs = {v.name: v for v in step.graph.inputs}
        self._placeholders = {inputs[X_T], inputs[TIME]}

        varying, fixed = _split(step.graph, self._placeholders)
        initializers = dict(self.graph.initializers)
        # What a step's value is called in this graph.
        here: dict[ir.Value, ir.Value] = {
            value: context[name] for name, value in inputs.items() if name in context and name is not None
        }
        for value in step.graph.initializers.values():
            name = value.name or ""
            if name not in initializers:
                initializers[name] = ir.Value(
                    name=name, shape=value.shape, type=value.type, const_value=value.const_value
                )
            here[value] = initializers[name]
        self._initializers = initializers
        for node in fixed:
            copy = _copy(node, here, node.name or "", {HALF_KEY: "step"})
            for old, new in zip(node.outputs, copy.outputs, strict=True):
                new.name = old.name
                here[old] = new
            self.graph.append(copy)
        self.varying = varying
        self.velocity = step.graph.outputs[0]
        self.x_t, self.time = inputs[X_T], inputs[TIME]
        self.here = here
        self.opset = dict(prefix.opset_imports)
        self.graph.outputs.clear()

    @property
    def reads(self) -> list[ir.Value]:
        """The step's values, made before the loop and no weights, that its varying nodes read; in reading order."""
        made = {output for node in self.varying for output in node.outputs}
        found: dict[ir.Value, None] = {}
        for node in self.varying:
            for value in node.inputs:
                if value is None or value in made or value in self._placeholders or value.is_initializer():
                    continue
                found[value] = None
        return list(found)

    def unroll_once(
        self, x_t: ir.Value, time: ir.Value, prefix: str, metadata: Mapping[str, str]
    ) -> tuple[list[ir.Node], ir.Value]:
        """A copy of the varying nodes that reads ``x_t`` and ``time``; its nodes and its velocity."""
        here = dict(self.here)
        here[self.x_t], here[self.time] = x_t, time
        nodes = []
        for node in self.varying:
            copy = _copy(node, here, f"{prefix}/{_bare(node.name)}", metadata)
            for old, new in zip(node.outputs, copy.outputs, strict=True):
                new.name = f"{prefix}/{_bare(old.name)}"
                here[old] = new
            nodes.append(copy)
        return nodes, here[self.velocity]

    def finish(self) -> ir.Model:
        """The encoder as a model of its own: observation -> what the step reads."""
        for value in self.reads:
            own = self.here[value]
            self.graph.outputs.append(own)
        self._register(_used(self.graph))
        return self.model

    def step_model(self) -> ir.Model:
        """The varying nodes as a model of their own: ``x_t``, ``time`` and what :meth:`finish` gives -> ``velocity``."""
        inputs = [_twin(self.x_t), _twin(self.time)]
        here: dict[ir.Value, ir.Value] = {self.x_t: inputs[0], self.time: inputs[1]}
        for value in self.reads:
            here[value] = _twin(self.here[value])
            inputs.append(here[value])
        for value in self._step.graph.initializers.values():
            here[value] = _twin(value)
            here[value].const_value = value.const_value
        nodes = []
        for node in self.varying:
            copy = _copy(node, here, node.name or "", {HALF_KEY: "step"})
            for old, new in zip(node.outputs, copy.outputs, strict=True):
                new.name = old.name
                here[old] = new
            nodes.append(copy)
        output = here[self.velocity]
        output.name = VELOCITY
        weights = [v for v in here.values() if v.const_value is not None and v.producer() is None]
        used = {id(v) for node in nodes for v in node.inputs}
        graph = ir.Graph(
            inputs,
            [output],
            nodes=nodes,
            initializers=[v for v in weights if id(v) in used],
            opset_imports=self.opset,
            name="step",
        )
        return ir.Model(graph, ir_version=self.model.ir_version, producer_name=self.model.producer_name)

    def close(self, output: ir.Value, name: str) -> ir.Model:
        """Make ``output`` the graph's only output."""
        output.name = name
        self.graph.outputs.append(output)
        self._register(_used(self.graph))
        return self.model

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """A small constant tensor of the graph."""
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.tensor(array, name=name),
        )
        self._initializers[name] = value
        return value

    def _register(self, used: set[int]) -> None:
        """Hold exactly the initializers that some node reads."""
        for name, value in self._initializers.items():
            if id(value) in used and name not in self.graph.initializers:
                self.graph.register_initializer(value)
            elif id(value) not in used and name in self.graph.initializers:
                del self.graph.initializers[name]


def _split(graph: ir.Graph, varying_inputs: Iterable[ir.Value]) -> tuple[list[ir.Node], list[ir.Node]]:
    """The graph's nodes that depend on ``varying_inputs``, and those that do not, each in order."""
    touched = set(varying_inputs)
    varying, fixed = [], []
    for node in graph:
        if any(value in touched for value in node.inputs if value is not None):
            touched.update(node.outputs)
            varying.append(node)
        else:
            fixed.append(node)
    return varying, fixed


def _unrolled(encoder: _Encoder, loop: Loop) -> ir.Model:
    graph = encoder.graph
    x = _noise_input(encoder, loop.noise)
    dt = encoder.constant("schedule/dt", np.asarray(loop.schedule.dt(loop.steps), np.float32))
    batch = _static_batch(encoder.time)
    for index in range(loop.steps):
        scope = f"step.{index}"
        metadata = {HALF_KEY: "step", STEP_KEY: str(index)}
        now = np.float32(loop.schedule.time(index, loop.steps))
        if batch is not None:
            time = encoder.constant(f"{scope}/time", np.full((batch,), now, np.float32))
        else:
            scalar = encoder.constant(f"{scope}/time_scalar", np.asarray(now, np.float32))
            time = _time_for_batch(encoder, graph.append, scalar, x, scope, metadata)
        nodes, velocity = encoder.unroll_once(x, time, scope, metadata)
        graph.extend(nodes)
        x = _advance(graph.append, x, velocity, dt, scope, metadata)
    return encoder.close(x, loop.output)


def _looped(encoder: _Encoder, loop: Loop) -> ir.Model:
    graph = encoder.graph
    noise = _noise_input(encoder, loop.noise)
    steps = ir.Value(
        name=STEPS,
        shape=ir.Shape([]),
        type=ir.TensorType(ir.DataType.INT64),
        const_value=ir.tensor(np.asarray(loop.steps, np.int64), name=STEPS),
    )
    graph.inputs.append(steps)
    # An input that is also an initializer is one with a default.
    graph.register_initializer(steps)

    def typed(name: str, dtype: ir.DataType, shape: Sequence[int] = ()) -> ir.Value:
        return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))

    counter, going = typed("loop/index", ir.DataType.INT64), typed("loop/going", ir.DataType.BOOL)
    x = ir.Value(name="loop/x_t", shape=noise.shape, type=noise.type)
    body: list[ir.Node] = []
    metadata = {HALF_KEY: "step"}

    def emit(op: str, inputs: Sequence[ir.Value], name: str, dtype: ir.DataType, **attributes: int) -> ir.Value:
        node = ir.node(op, inputs, attributes=attributes, name=f"loop/{name}")
        node.metadata_props.update(metadata)
        node.outputs[0].name = f"loop/{name}"
        node.outputs[0].type, node.outputs[0].shape = ir.TensorType(dtype), ir.Shape([])
        body.append(node)
        return node.outputs[0]

    # Counted in float64, as the upstream's Python floats are, and rounded once.
    double = ir.DataType.DOUBLE
    start = encoder.constant("schedule/start", np.asarray(loop.schedule.start, np.float64))
    span = encoder.constant("schedule/span", np.asarray(loop.schedule.end - loop.schedule.start, np.float64))
    dt64 = emit("Div", [span, emit("Cast", [steps], "steps", double, to=int(double))], "dt64", double)
    index = emit("Cast", [counter], "index64", double, to=int(double))
    time64 = emit("Add", [start, emit("Mul", [index, dt64], "elapsed", double)], "time64", double)
    single = ir.DataType.FLOAT
    dt = emit("Cast", [dt64], "dt", single, to=int(single))
    scalar = emit("Cast", [time64], "time_scalar", single, to=int(single))
    time = _time_for_batch(encoder, body.append, scalar, x, "loop", metadata)
    nodes, velocity = encoder.unroll_once(x, time, "loop/step", metadata)
    body.extend(nodes)
    following = _advance(body.append, x, velocity, dt, "loop", metadata)
    still = emit("Identity", [going], "still_going", ir.DataType.BOOL)
    inner = ir.Graph([counter, going, x], [still, following], nodes=body, name="denoising_step")

    true = encoder.constant("schedule/true", np.asarray(True))
    node = ir.node(
        "Loop",
        [steps, true, noise],
        attributes={"body": inner},
        name="denoise",
    )
    node.metadata_props.update(metadata)
    node.outputs[0].type, node.outputs[0].shape = noise.type, noise.shape
    graph.append(node)
    return encoder.close(node.outputs[0], loop.output)


def _noise_input(encoder: _Encoder, name: str) -> ir.Value:
    value = ir.Value(name=name, shape=encoder.x_t.shape, type=encoder.x_t.type)
    encoder.graph.inputs.append(value)
    return value


def _static_batch(time: ir.Value) -> int | None:
    dims = _dims(time)
    return dims[0] if isinstance(dims[0], int) else None


def _time_for_batch(
    encoder: _Encoder,
    append: Callable[[ir.Node], object],
    scalar: ir.Value,
    x_t: ir.Value,
    scope: str,
    metadata: Mapping[str, str],
) -> ir.Value:
    """``scalar`` repeated over the batch of ``x_t``."""
    batch = _static_batch(encoder.time)
    if batch is not None:
        shape = encoder.constant("schedule/batch", np.asarray([batch], np.int64))
    else:
        size = ir.node("Shape", [x_t], attributes={"start": 0, "end": 1}, name=f"{scope}/batch")
        size.outputs[0].name = f"{scope}/batch"
        size.outputs[0].type, size.outputs[0].shape = ir.TensorType(ir.DataType.INT64), ir.Shape([1])
        size.metadata_props.update(metadata)
        append(size)
        shape = size.outputs[0]
    node = ir.node("Expand", [scalar, shape], name=f"{scope}/time")
    node.outputs[0].name = f"{scope}/time"
    node.outputs[0].type, node.outputs[0].shape = encoder.time.type, encoder.time.shape
    node.metadata_props.update(metadata)
    append(node)
    return node.outputs[0]


def _advance(
    append: Callable[[ir.Node], object],
    x: ir.Value,
    velocity: ir.Value,
    dt: ir.Value,
    scope: str,
    metadata: Mapping[str, str],
) -> ir.Value:
    """``x + dt * velocity``: two roundings, as in torch."""
    result = x
    for op, inputs, name in (("Mul", None, "delta"), ("Add", x, "x_next")):
        left, right = (dt, velocity) if inputs is None else (inputs, result)
        node = ir.node(op, [left, right], name=f"{scope}/{name}")
        node.outputs[0].name = f"{scope}/{name}"
        node.outputs[0].type, node.outputs[0].shape = x.type, x.shape
        node.metadata_props.update(metadata)
        append(node)
        result = node.outputs[0]
    return result


def _copy(node: ir.Node, here: Mapping[ir.Value, ir.Value], name: str, metadata: Mapping[str, str]) -> ir.Node:
    """``node`` over the values that ``here`` puts in place of its inputs."""
    copy = ir.Node(
        node.domain,
        node.op_type,
        [None if value is None else here[value] for value in node.inputs],
        node.attributes.values(),
        overload=node.overload,
        num_outputs=len(node.outputs),
        name=name,
    )
    copy.metadata_props.update(node.metadata_props)
    copy.metadata_props.update(metadata)
    for old, new in zip(node.outputs, copy.outputs, strict=True):
        new.type, new.shape = old.type, old.shape
    return copy


def _twin(value: ir.Value) -> ir.Value:
    return ir.Value(name=value.name, shape=value.shape, type=value.type)


def _bare(name: str | None) -> str:
    return (name or "").removeprefix("step/")


def _used(graph: ir.Graph) -> set[int]:
    """The identities of all values that the graph's nodes read, those of its bodies included."""
    used: set[int] = set()
    for node in ir.traversal.RecursiveGraphIterator(graph):
        used.update(id(value) for value in node.inputs if value is not None)
    return used | {id(value) for value in graph.outputs}
