"""Prefix and step, each traced once -> one model, for each layout.

``unrolled``  the prefix and N copies of the step in one graph. The copies share every weight.
``loop``      the prefix and an ONNX ``Loop`` around one copy; N is an optional input.
``stepwise``  two graphs, the encoder and the step; the host runs the loop.

The cost of tracing does not depend on N in any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from exporters.flow.schedule import BucketedSchedule, Layout, Loop, Schedule
from exporters.graph.loop_invariant import HALF_KEY, Encoder, check_fit, dims, qualify

STEP_KEY = "pytest_reflex.step"
STEPS = "num_steps"


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
    check_fit(prefix, step)
    qualify(prefix, "prefix")
    qualify(step, "step")
    encoder = Encoder(prefix, step)
    if layout == "stepwise":
        return {"encoder": encoder.finish(), "step": encoder.step_model()}
    if layout == "unrolled":
        return {"model": _unrolled(encoder, loop)}
    return {"model": _looped(encoder, loop)}


def _unrolled(encoder: Encoder, loop: Loop) -> ir.Model:
    graph = encoder.graph
    x = _noise_input(encoder, loop.noise)
    dt = encoder.constant("schedule/dt", np.asarray(loop.dt, np.float32))
    batch = _static_batch(encoder.time)
    for index, now in enumerate(loop.times):
        scope = f"step.{index}"
        metadata = {HALF_KEY: "step", STEP_KEY: str(index)}
        if batch is not None:
            time = encoder.constant(f"{scope}/time", np.full((batch,), now, np.float32))
        else:
            scalar = encoder.constant(f"{scope}/time_scalar", np.asarray(now, np.float32))
            time = _time_for_batch(encoder, graph.append, scalar, x, scope, metadata)
        nodes, velocity = encoder.step(x, time, scope, metadata)
        graph.extend(nodes)
        x = _advance(graph.append, x, velocity, dt, scope, metadata)
    return encoder.close(x, loop.output)


def _looped(encoder: Encoder, loop: Loop) -> ir.Model:
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

    def emit(
        op: str, inputs: Sequence[ir.Value], name: str, dtype: ir.DataType, **attributes: int
    ) -> ir.Value:
        node = ir.node(op, inputs, attributes=attributes, name=f"loop/{name}")
        node.metadata_props.update(metadata)
        node.outputs[0].name = f"loop/{name}"
        node.outputs[0].type, node.outputs[0].shape = ir.TensorType(dtype), ir.Shape([])
        body.append(node)
        return node.outputs[0]

    dt, scalar = _clock(encoder, loop.schedule, emit, steps, counter)
    time = _time_for_batch(encoder, body.append, scalar, x, "loop", metadata)
    nodes, velocity = encoder.step(x, time, "loop/step", metadata)
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


def _clock(
    encoder: Encoder, schedule: Schedule, emit: Callable[..., ir.Value], steps: ir.Value, counter: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """``dt`` and the time of step ``counter``, float32 scalars of the loop's body.

    Counted in float64, as the upstream's Python floats are, operation for operation, and rounded once.
    """
    whole, double, single = ir.DataType.INT64, ir.DataType.DOUBLE, ir.DataType.FLOAT

    def constant(name: str, value: float) -> ir.Value:
        return encoder.constant(f"schedule/{name}", np.asarray(value, np.float64))

    steps64 = emit("Cast", [steps], "steps", double, to=int(double))
    index = emit("Cast", [counter], "index64", double, to=int(double))
    if isinstance(schedule, BucketedSchedule):
        dt64 = emit("Div", [constant("span", 1.0), steps64], "dt64", double)
        fraction = emit("Div", [index, steps64], "fraction", double)
        buckets = emit("Mul", [fraction, constant("buckets", schedule.buckets)], "buckets", double)
        # A cast to an integer cuts off, as Python's int() does.
        time = emit("Cast", [buckets], "bucket", whole, to=int(whole))
    else:
        dt64 = emit("Div", [constant("span", schedule.end - schedule.start), steps64], "dt64", double)
        elapsed = emit("Mul", [index, dt64], "elapsed", double)
        time = emit("Add", [constant("start", schedule.start), elapsed], "time64", double)
    dt = emit("Cast", [dt64], "dt", single, to=int(single))
    return dt, emit("Cast", [time], "time_scalar", single, to=int(single))


def _noise_input(encoder: Encoder, name: str) -> ir.Value:
    value = ir.Value(name=name, shape=encoder.x_t.shape, type=encoder.x_t.type)
    encoder.graph.inputs.append(value)
    return value


def _static_batch(time: ir.Value) -> int | None:
    batch = dims(time)[0]
    return batch if isinstance(batch, int) else None


def _time_for_batch(
    encoder: Encoder,
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
