"""Prefix and step, each traced once -> one model, for each layout.

``unrolled``  the prefix and N copies of the step in one graph. The copies share every weight.
``loop``      the prefix and an ONNX ``Loop`` around one copy; N is an optional input.
``stepwise``  two graphs, the encoder and the step; the host runs the loop.

The cost of tracing does not depend on N in any of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from exporters.flow.schedule import BACKBONE, BucketedSchedule, EulerSchedule, Layout, Loop
from exporters.flow.update import EARLIER, MODEL, NOISE, START, X_NEXT, X
from exporters.graph.backbone_cut import cut
from exporters.graph.loop_invariant import HALF_KEY, Encoder, check_fit, dims, qualify
from exporters.graph.update_nodes import Scope, emitted, typed

STEP_KEY = "pytest_reflex.step"
STEPS = "num_steps"
# What an ONNX Loop ends in, where an epilogue follows.
LAST_X = "loop/x"


def compose(
    prefix: ir.Model,
    step: ir.Model,
    loop: Loop,
    layout: Layout,
    features: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, ir.Model]:
    """Join the two halves; both models are consumed.

    Args:
        prefix: observation -> context, traced once.
        step: ``x_t``, ``time``, context -> ``velocity``, traced once.
        loop: the schedule, the number of steps, and the names of noise and output.
        layout: see the module's docstring.
        features: where the prefix is cut; see :func:`exporters.graph.backbone_cut.cut`.

    Returns:
        Models by file stem: ``{"model": ...}``, or ``{"encoder": ..., "step": ...}`` for ``stepwise``. Before
        them ``backbone``, where the prefix was cut.

    Raises:
        TracingError: the halves do not fit each other.
    """
    check_fit(prefix, step)
    qualify(prefix, "prefix")
    qualify(step, "step")
    first: dict[str, ir.Model] = {}
    if features:
        first[BACKBONE], prefix = cut(prefix, features)
    encoder = Encoder(prefix, step)
    if layout == "stepwise":
        return {**first, "encoder": encoder.finish(), "step": encoder.step_model()}
    if layout == "unrolled":
        return {**first, "model": _unrolled(encoder, loop)}
    return {**first, "model": _looped(encoder, loop)}


def _unrolled(encoder: Encoder, loop: Loop) -> ir.Model:
    graph = encoder.graph
    x, *noises = [_noise_input(encoder, loop, name) for name in loop.noises]
    start = earlier = x
    batch = _static_batch(encoder.time)
    columns = loop.schedule.columns(loop.steps)
    shared = {
        name: encoder.constant(f"schedule/{name}", np.asarray(column, np.float32))
        for name, column in columns.items()
        if not isinstance(column, Sequence)
    }
    dtype = np.dtype(loop.schedule.dtype)
    for index, now in enumerate(loop.times):
        scope = Scope(f"step.{index}", graph.append, {HALF_KEY: "step", STEP_KEY: str(index)})
        if batch is not None:
            time = encoder.constant(f"{scope.name}/time", np.full((batch,), now, dtype))
        else:
            scalar = encoder.constant(f"{scope.name}/time_scalar", np.asarray(now, dtype))
            time = _time_for_batch(encoder, scope, scalar, x)
        nodes, velocity = encoder.step(x, time, scope.name, scope.metadata)
        graph.extend(nodes)
        values = {X: x, MODEL: velocity, EARLIER: earlier, START: start, **shared}
        for name, number in loop.row(index).items():
            if name not in shared:
                values[name] = encoder.constant(f"{scope.name}/{name}", np.asarray(number, np.float32))
        if noises:
            which = encoder.constant(
                f"{scope.name}/draw", np.asarray(min(index, loop.schedule.draws - 1), np.int64)
            )
            values[NOISE] = scope.emit("Gather", [noises[0], which], "noise", x, axis=1)
        made = emitted(encoder, scope, loop.schedule.update, values)
        x, earlier = made[X_NEXT], made[loop.schedule.earlier or X_NEXT]
    return encoder.close({loop.output: _finished(encoder, loop, x)})


def _looped(encoder: Encoder, loop: Loop) -> ir.Model:
    graph, schedule = encoder.graph, loop.schedule
    noise, *noises = [_noise_input(encoder, loop, name) for name in loop.noises]
    steps = encoder.constant(STEPS, np.asarray(loop.steps, np.int64))
    if not schedule.fixed:
        # An input that is also an initializer is one with a default.
        graph.inputs.append(steps)
        graph.register_initializer(steps)

    counter, going = typed("loop/index", ir.DataType.INT64), typed("loop/going", ir.DataType.BOOL)
    x = ir.Value(name="loop/x_t", shape=noise.shape, type=noise.type)
    states = [x]
    if schedule.earlier is not None:
        states.append(ir.Value(name="loop/earlier", shape=noise.shape, type=noise.type))
    body: list[ir.Node] = []
    scope = Scope("loop", body.append, {HALF_KEY: "step"})
    values, scalar = _clock(encoder, loop, scope, steps, counter)
    time = _time_for_batch(encoder, scope, scalar, x)
    nodes, velocity = encoder.step(x, time, "loop/step", scope.metadata)
    body.extend(nodes)
    if noises:
        last = encoder.constant("schedule/last_draw", np.asarray(schedule.draws - 1, np.int64))
        which = scope.emit("Min", [counter, last], "draw", counter)
        values[NOISE] = scope.emit("Gather", [noises[0], which], "noise", x, axis=1)
    values |= {X: x, MODEL: velocity, EARLIER: states[-1], START: noise}
    made = emitted(encoder, scope, schedule.update, values)
    following = [made[X_NEXT], *([made[schedule.earlier]] if schedule.earlier is not None else [])]
    still = scope.emit("Identity", [going], "still_going", going)
    inner = ir.Graph([counter, going, *states], [still, *following], nodes=body, name="denoising_step")

    true = encoder.constant("schedule/true", np.asarray(True))
    ends = [ir.Value(name=f"loop/last_{v.name}", shape=noise.shape, type=noise.type) for v in states]
    ends[0].name = LAST_X if loop.epilogue else loop.output
    feed = [steps, true, *(noise for _ in states)]
    node = ir.node("Loop", feed, {"body": inner}, name="denoise", outputs=ends)
    node.metadata_props.update(scope.metadata)
    graph.append(node)
    return encoder.close({loop.output: _finished(encoder, loop, ends[0])})


def _clock(
    encoder: Encoder, loop: Loop, scope: Scope, steps: ir.Value, counter: ir.Value
) -> tuple[dict[str, ir.Value], ir.Value]:
    """The coefficients and the time of step ``counter``, scalars of the loop's body.

    Of a table they are looked up. Where the number of steps is open they are counted in float64, as the
    upstream's Python floats are, operation for operation, and rounded once.
    """
    schedule = loop.schedule

    def emit(op: str, inputs: Sequence[ir.Value], name: str, dtype: ir.DataType) -> ir.Value:
        to = {"to": int(dtype)} if op == "Cast" else {}
        return scope.emit(op, inputs, name, typed(name, dtype), **to)

    def constant(name: str, value: float) -> ir.Value:
        return encoder.constant(f"schedule/{name}", np.asarray(value, np.float64))

    def looked_up(name: str, column: object, dtype: str) -> ir.Value:
        array = np.asarray(column, dtype)
        table = encoder.constant(f"schedule/{name}", array)
        return emit("Gather", [table, counter], name, ir.DataType.from_numpy(array.dtype))

    whole, double, single = ir.DataType.INT64, ir.DataType.DOUBLE, ir.DataType.FLOAT
    if not isinstance(schedule, (BucketedSchedule, EulerSchedule)):
        columns = schedule.columns(loop.steps).items()
        found = {name: looked_up(name, column, "float32") for name, column in columns}
        return found, looked_up("time_scalar", loop.times, schedule.dtype)
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
    told = ir.DataType.from_numpy(np.dtype(schedule.dtype))
    return {"dt": emit("Cast", [dt64], "dt", single)}, emit("Cast", [time], "time_scalar", told)


def _noise_input(encoder: Encoder, loop: Loop, name: str) -> ir.Value:
    shape = encoder.x_t.shape
    if name != loop.noise and shape is not None:
        shape = ir.Shape([shape[0], loop.schedule.draws, *shape[1:]])
    value = ir.Value(name=name, shape=shape, type=encoder.x_t.type)
    encoder.graph.inputs.append(value)
    return value


def _static_batch(time: ir.Value) -> int | None:
    batch = dims(time)[0]
    return batch if isinstance(batch, int) else None


def _time_for_batch(encoder: Encoder, scope: Scope, scalar: ir.Value, x_t: ir.Value) -> ir.Value:
    """``scalar`` repeated over the batch of ``x_t``."""
    batch = _static_batch(encoder.time)
    if batch is not None:
        shape = encoder.constant("schedule/batch", np.asarray([batch], np.int64))
    else:
        shape = scope.emit("Shape", [x_t], "batch", typed("batch", ir.DataType.INT64, [1]), start=0, end=1)
    return scope.emit("Expand", [scalar, shape], "time", encoder.time)


def _finished(encoder: Encoder, loop: Loop, x: ir.Value) -> ir.Value:
    """What the epilogue makes of the last ``x``."""
    if not loop.epilogue:
        return x
    scope = Scope("epilogue", encoder.graph.append, {HALF_KEY: "step"})
    return emitted(encoder, scope, loop.epilogue, {X: x})[loop.epilogue[-1].name]
