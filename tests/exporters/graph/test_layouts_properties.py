"""Composition, for any sizes, schedules and numbers of steps: each layout is the loop that numpy runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.shape_inference import infer_shapes

from exporters.flow.schedule import BucketedSchedule, EulerSchedule, Layout
from exporters.graph.layouts import Loop, compose
from pytest_reflex.runners import OnnxRunner

Shape = list[int | str]


def model(nodes: list[Any], inputs: dict[str, Shape], outputs: dict[str, Shape], **held: Any) -> ir.Model:
    def values(shapes: dict[str, Shape]) -> list[Any]:
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()]

    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()]
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    # As a trace leaves it: what does not change from step to step moves to the encoder, with its type.
    return ir.from_proto(infer_shapes(made))


def halves(batch: int | str, chunk: int, dim: int, weight: np.ndarray) -> tuple[ir.Model, ir.Model]:
    """``context = obs * weight``; ``velocity = x_t * weight + context - time``, all in float32."""
    rows = helper.make_node
    prefix = model(
        [rows("Mul", ["obs", "weight"], ["context.c"], name="mul")],
        {"obs": [batch, dim]}, {"context.c": [batch, dim]}, weight=weight,
    )  # fmt: skip
    step = model(
        [
            rows("Mul", ["x_t", "weight"], ["scaled"], name="mul"),
            rows("Unsqueeze", ["context.c", "one"], ["wide"], name="wide"),
            rows("Add", ["scaled", "wide"], ["sum"], name="add"),
            rows("Unsqueeze", ["time", "both"], ["when"], name="when"),
            rows("Sub", ["sum", "when"], ["velocity"], name="sub"),
        ],
        {"x_t": [batch, chunk, dim], "time": [batch], "context.c": [batch, dim]},
        {"velocity": [batch, chunk, dim]},
        weight=weight, one=np.array([1]), both=np.array([1, 2]),
    )  # fmt: skip
    return prefix, step


def expected(loop: Loop, weight: np.ndarray, obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
    x, dt = noise, np.float32(loop.schedule.dt(loop.steps))
    for index in range(loop.steps):
        time = np.float32(loop.schedule.time(index, loop.steps))
        x = x + dt * ((x * weight + (obs * weight)[:, None]) - time)
    return x


def run(models: dict[str, ir.Model], loop: Loop, obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The composed graphs, and for ``stepwise`` the host's loop around them."""
    runners = {
        stem: OnnxRunner(bytes(ir.to_proto(made).SerializeToString()), threads=1, optimization="disable")
        for stem, made in models.items()
    }
    if "model" in runners:
        with runners["model"] as runner:
            return runner.run({"obs": obs, "noise": noise})["actions"]
    with runners["encoder"] as encoder, runners["step"] as step:
        context, x = encoder.run({"obs": obs}), noise
        for index in range(loop.steps):
            time = np.full(x.shape[:1], loop.schedule.time(index, loop.steps), np.float32)
            velocity = step.run({"x_t": x, "time": time, **context})["velocity"]
            x = x + np.float32(loop.schedule.dt(loop.steps)) * velocity
        return x


schedules = st.one_of(
    st.builds(EulerSchedule, st.sampled_from([0.0, 1.0, 0.1]), st.sampled_from([0.0, 1.0, 0.7])),
    st.builds(BucketedSchedule, st.integers(1, 1000)),
)


@pytest.mark.parametrize("layout", ["unrolled", "loop", "stepwise"])
@settings(max_examples=25, deadline=None)
@given(
    schedule=schedules, steps=st.integers(1, 7), sizes=st.tuples(*[st.integers(1, 4)] * 3),
    free=st.booleans(), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_layout_is_the_loop_that_numpy_runs(
    layout: Layout, schedule: Any, steps: int, sizes: tuple[int, int, int], free: bool, seed: int
) -> None:
    batch, chunk, dim = sizes
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(dim).astype(np.float32)
    obs = rng.standard_normal((batch, dim)).astype(np.float32)
    noise = rng.standard_normal((batch, chunk, dim)).astype(np.float32)
    loop = Loop(schedule, steps, "noise", "actions")
    prefix, step = halves("batch" if free else batch, chunk, dim, weight)
    found = run(compose(prefix, step, loop, layout), loop, obs, noise)
    truth = expected(loop, weight, obs, noise)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, truth)
