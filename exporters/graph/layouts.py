"""Prefix and step, each traced once -> one model, for each layout.

``unrolled``  the prefix and N copies of the step in one graph. The copies share every weight.
``loop``      the prefix and an ONNX ``Loop`` around one copy; N is an optional input.
``stepwise``  two graphs, the encoder and the step; the host runs the loop.

The cost of tracing does not depend on N in any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class _Scope:
    """Where the loop's own nodes go, what their names begin with, and what is noted on them."""

    name: str
    append: Callable[[ir.Node], object]
    metadata: dict[str, str]

    def emit(
        self, op: str, inputs: Sequence[ir.Value], name: str, like: ir.Value, **attributes: int
    ) -> ir.Value:
        """The output, of type and shape as ``like``, of a new node."""
        output = ir.Value(name=f"{self.name}/{name}", shape=like.shape, type=like.type)
        node = ir.node(
            op, inputs, attributes, name=output.name, outputs=[output], metadata_props=self.metadata
        )
        self.append(node)
        return output


def _typed(name: str, dtype: ir.DataType, shape: Sequence[int] = ()) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def _unrolled(encoder: Encoder, loop: Loop) -> ir.Model:
    graph = encoder.graph
    x = _noise_input(encoder, loop.noise)
    dt = encoder.constant("schedule/dt", np.asarray(loop.dt, np.float32))
    batch = _static_batch(encoder.time)
    for index, now in enumerate(loop.times):
        scope = _Scope(f"step.{index}", graph.append, {HALF_KEY: "step", STEP_KEY: str(index)})
        if batch is not None:
            time = encoder.constant(f"{scope.name}/time", np.full((batch,), now, np.float32))
        else:
            scalar = encoder.constant(f"{scope.name}/time_scalar", np.asarray(now, np.float32))
            time = _time_for_batch(encoder, scope, scalar, x)
        nodes, velocity = encoder.step(x, time, scope.name, scope.metadata)
        graph.extend(nodes)
        x = _advance(scope, x, velocity, dt)
    return encoder.close(x, loop.output)


def _looped(encoder: Encoder, loop: Loop) -> ir.Model:
    graph = encoder.graph
    noise = _noise_input(encoder, loop.noise)
    # An input that is also an initializer is one with a default.
    steps = encoder.constant(STEPS, np.asarray(loop.steps, np.int64))
    graph.inputs.append(steps)
    graph.register_initializer(steps)

    counter, going = _typed("loop/index", ir.DataType.INT64), _typed("loop/going", ir.DataType.BOOL)
    x = ir.Value(name="loop/x_t", shape=noise.shape, type=noise.type)
    body: list[ir.Node] = []
    scope = _Scope("loop", body.append, {HALF_KEY: "step"})
    dt, scalar = _clock(encoder, loop.schedule, scope, steps, counter)
    time = _time_for_batch(encoder, scope, scalar, x)
    nodes, velocity = encoder.step(x, time, "loop/step", scope.metadata)
    body.extend(nodes)
    following = _advance(scope, x, velocity, dt)
    still = scope.emit("Identity", [going], "still_going", going)
    inner = ir.Graph([counter, going, x], [still, following], nodes=body, name="denoising_step")

    true = encoder.constant("schedule/true", np.asarray(True))
    actions = ir.Value(name=loop.output, shape=noise.shape, type=noise.type)
    node = ir.node("Loop", [steps, true, noise], {"body": inner}, name="denoise", outputs=[actions])
    node.metadata_props.update(scope.metadata)
    graph.append(node)
    return encoder.close(actions, loop.output)


def _clock(
    encoder: Encoder, schedule: Schedule, scope: _Scope, steps: ir.Value, counter: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """``dt`` and the time of step ``counter``, float32 scalars of the loop's body.

    Counted in float64, as the upstream's Python floats are, operation for operation, and rounded once.
    """

    def emit(op: str, inputs: Sequence[ir.Value], name: str, dtype: ir.DataType) -> ir.Value:
        to = {"to": int(dtype)} if op == "Cast" else {}
        return scope.emit(op, inputs, name, _typed(name, dtype), **to)

    def constant(name: str, value: float) -> ir.Value:
        return encoder.constant(f"schedule/{name}", np.asarray(value, np.float64))

    whole, double, single = ir.DataType.INT64, ir.DataType.DOUBLE, ir.DataType.FLOAT
    steps64 = emit("Cast", [steps], "steps", double)
    index = emit("Cast", [counter], "index64", double)
    if isinstance(schedule, BucketedSchedule):
        dt64 = emit("Div", [constant("span", 1.0), steps64], "dt64", double)
        fraction = emit("Div", [index, steps64], "fraction", double)
        buckets = emit("Mul", [fraction, constant("buckets", schedule.buckets)], "buckets", double)
        # A cast to an integer cuts off, as Python's int() does.
        time = emit("Cast", [buckets], "bucket", whole)
    else:
        dt64 = emit("Div", [constant("span", schedule.end - schedule.start), steps64], "dt64", double)
        elapsed = emit("Mul", [index, dt64], "elapsed", double)
        time = emit("Add", [constant("start", schedule.start), elapsed], "time64", double)
    return emit("Cast", [dt64], "dt", single), emit("Cast", [time], "time_scalar", single)


def _noise_input(encoder: Encoder, name: str) -> ir.Value:
    value = ir.Value(name=name, shape=encoder.x_t.shape, type=encoder.x_t.type)
    encoder.graph.inputs.append(value)
    return value


def _static_batch(time: ir.Value) -> int | None:
    batch = dims(time)[0]
    return batch if isinstance(batch, int) else None


def _time_for_batch(encoder: Encoder, scope: _Scope, scalar: ir.Value, x_t: ir.Value) -> ir.Value:
    """``scalar`` repeated over the batch of ``x_t``."""
    batch = _static_batch(encoder.time)
    if batch is not None:
        shape = encoder.constant("schedule/batch", np.asarray([batch], np.int64))
    else:
        shape = scope.emit("Shape", [x_t], "batch", _typed("batch", ir.DataType.INT64, [1]), start=0, end=1)
    return scope.emit("Expand", [scalar, shape], "time", encoder.time)


def _advance(scope: _Scope, x: ir.Value, velocity: ir.Value, dt: ir.Value) -> ir.Value:
    """``x + dt * velocity``: two roundings, as in torch."""
    return scope.emit("Add", [x, scope.emit("Mul", [dt, velocity], "delta", x)], "x_next", x)
