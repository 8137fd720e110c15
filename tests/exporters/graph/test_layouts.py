"""Composition: one trace of each half, three layouts, the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from floors import ROUNDING, floors, rounding_of
from torch import nn

from examples.own_policy import INPUTS, policy
from exporters import EulerSchedule, FlowPolicy, Policy, export, open_bundle
from exporters.flow.schedule import LAYOUTS, Layout, schedule_from_json
from exporters.graph.layouts import STEP_KEY
from exporters.graph.loop_invariant import HALF_KEY
from pytest_reflex import check
from pytest_reflex.errors import BundleError, InputError, RunnerError, SettingsError, TracingError
from pytest_reflex.inputs import Gaussian, InputSpec, make_fixture
from pytest_reflex.runners import TorchRunner


def run(runner: Policy, fixture_idx: int = 0) -> np.ndarray:
    with runner:
        return runner.run(make_fixture(INPUTS, 7, fixture_idx))["actions"]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("layouts")
    for layout in LAYOUTS:
        export(policy(), root / layout, inputs=INPUTS, layout=layout, fixtures=3, strict=True)
    return {layout: root / layout for layout in LAYOUTS}


def test_layouts_give_the_same_bits(bundles: dict[str, Path]) -> None:
    for fixture_idx in range(3):
        actions = {name: run(open_bundle(path).runner(), fixture_idx) for name, path in bundles.items()}
        assert np.array_equal(actions["unrolled"], actions["stepwise"])
        assert np.array_equal(actions["unrolled"], actions["loop"])


@pytest.mark.parametrize("layout", ["loop", "stepwise"])
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_the_number_of_steps_is_left_open(bundles: dict[str, Path], layout: str, steps: int) -> None:
    truth = policy()
    truth.steps = steps
    inputs = make_fixture(INPUTS, 7, 0)
    with TorchRunner(truth) as runner:
        expected, exact = runner.run(inputs)["actions"], runner.exact(inputs)["actions"]
        more = rounding_of(runner, INPUTS)
    got = run(Policy(open_bundle(bundles[layout]), steps=steps))
    assert floors([got], [expected], [exact], more) < ROUNDING


def test_the_loop_counts_time_as_python_does() -> None:
    # The graph counts in float64 and rounds once; Python's own floats are what it must give.
    schedule = EulerSchedule()
    for steps in range(1, 101):
        span = np.float64(schedule.end - schedule.start)
        dt = span / np.float64(steps)
        assert dt == schedule.dt(steps)
        for index in range(steps):
            counted = np.float64(schedule.start) + np.float64(index) * dt
            assert counted == schedule.time(index, steps)


class Clock(FlowPolicy):
    """Its velocity is the time itself, so its actions say what the loop fed it."""

    def prefix(self, **observation: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"unit": observation["unit"]}

    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
        return time[:, None, None] * unit[:, None, :] + 0.0 * x_t


CLOCK_INPUTS = [InputSpec("unit", (2, 1)), InputSpec("noise", (2, 1, 1))]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("steps", [1, 7, 10])
def test_every_layout_feeds_the_upstream_times_to_the_bit(layout: Layout, steps: int, tmp_path: Path) -> None:
    made = export(Clock(), tmp_path / "clock", inputs=CLOCK_INPUTS, layout=layout, steps=steps, verify=False)
    unit = np.ones((2, 1), np.float32)
    x = np.zeros((2, 1, 1), np.float32)
    with made.runner() as runner:
        got = runner.run({"unit": unit, "noise": x})["actions"]
    schedule = EulerSchedule()
    for index in range(steps):
        x = x + np.float32(schedule.dt(steps)) * np.float32(schedule.time(index, steps))
    np.testing.assert_array_equal(got, x)


def test_each_layout_carries_its_steps_and_no_more(bundles: dict[str, Path]) -> None:
    def heads(path: Path) -> int:
        nodes = ir.traversal.RecursiveGraphIterator(ir.load(path).graph)
        return sum("head.3" in n.metadata_props.get("pkg.torch.onnx.name_scopes", "") for n in nodes)

    once = heads(bundles["stepwise"] / "step.onnx")
    assert once > 0
    assert heads(bundles["unrolled"] / "model.onnx") == 10 * once
    assert heads(bundles["loop"] / "model.onnx") == once


def test_unrolled_steps_share_their_weights(bundles: dict[str, Path]) -> None:
    sizes = {
        name: (path / "model.onnx.data").stat().st_size
        for name, path in bundles.items()
        if name != "stepwise"
    }
    assert sizes["unrolled"] == sizes["loop"]


def test_every_node_says_its_half_and_step(bundles: dict[str, Path]) -> None:
    graph = ir.load(bundles["unrolled"] / "model.onnx").graph
    assert {node.metadata_props[HALF_KEY] for node in graph} == {"prefix", "step"}
    steps = [int(n.metadata_props[STEP_KEY]) for n in graph if STEP_KEY in n.metadata_props]
    assert steps == sorted(steps)
    assert set(steps) == set(range(10))


def test_what_does_not_change_is_computed_once(tmp_path: Path) -> None:
    class Masked(FlowPolicy):
        """Its step works out a table from the context alone, as attention masks and rotary tables are."""

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Linear(4, 4)

        def prefix(self, **observation: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"seen": observation["state"]}

        def velocity(self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
            fixed = torch.cos(self.table(seen))  # [B, 4]: neither x_t nor time
            return x_t * fixed[:, None] + time[:, None, None]

    inputs = [InputSpec("state", (1, 4)), InputSpec("noise", (1, 2, 4), meaning=Gaussian())]
    unrolled = export(Masked(), tmp_path / "u", inputs=inputs, fixtures=2)
    stepwise = export(Masked(), tmp_path / "s", inputs=inputs, layout="stepwise", fixtures=2)

    def cosines(path: Path) -> int:
        return sum(node.op_type == "Cos" for node in ir.load(path).graph)

    assert cosines(unrolled.path / "model.onnx") == 1
    assert cosines(stepwise.path / "encoder.onnx") == 1
    assert cosines(stepwise.path / "step.onnx") == 0


def test_the_default_number_of_steps_is_an_optional_input(bundles: dict[str, Path]) -> None:
    graph = ir.load(bundles["loop"] / "model.onnx").graph
    assert [value.name for value in graph.inputs] == ["image", "state", "noise", "num_steps"]
    assert graph.initializers["num_steps"].const_value.numpy() == 10


def test_a_step_that_reads_what_the_prefix_does_not_give(tmp_path: Path) -> None:
    class Unfit(Clock):
        def velocity(self, x_t: torch.Tensor, time: torch.Tensor, **context: torch.Tensor) -> torch.Tensor:
            return x_t * context["other"]

    with pytest.raises(TracingError, match="KeyError: 'other'"):
        export(Unfit(), tmp_path / "unfit", inputs=CLOCK_INPUTS)
    assert list(tmp_path.iterdir()) == []


def test_a_velocity_that_never_changes_is_no_flow(tmp_path: Path) -> None:
    class Still(Clock):
        def velocity(self, x_t: torch.Tensor, time: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
            return unit[:, None, :] * 2.0

    with pytest.raises(TracingError, match="the velocity reads neither x_t nor time"):
        export(Still(), tmp_path / "still", inputs=CLOCK_INPUTS)


def test_a_flow_without_its_noise_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no input is named 'noise', which the flow takes as its noise"):
        export(Clock(), tmp_path / "quiet", inputs=CLOCK_INPUTS[:1])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"layout": "spiral"}, "layout is 'spiral', expected one of unrolled, loop, stepwise"),
        ({"steps": 0}, "steps is 0, expected a whole number of at least 1"),
        ({"steps": 2.5}, "steps is 2.5, expected a whole number of at least 1"),
    ],
)
def test_bad_options_are_named(option: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        export(Clock(), tmp_path / "bad", inputs=CLOCK_INPUTS, **option)  # type: ignore[arg-type]


def test_a_schedule_of_a_later_version_is_refused() -> None:
    with pytest.raises(BundleError, match="schedule kind is 'heun', this version knows 'euler'"):
        schedule_from_json({"kind": "heun"})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_free_batch_is_proven_in_several_sizes(layout: Layout, tmp_path: Path) -> None:
    made = export(
        policy(), tmp_path / "free", inputs=INPUTS, layout=layout, fixtures=5, strict=True, dynamic_batch=True
    )
    assert made.result is not None
    assert [f.outputs[0].shape[0] for f in made.result.fixtures] == [1, 1, 2, 3, 1]
    assert {spec.free[0] for spec in made.inputs} == {"batch"}
    # Whoever judges the bundle again judges the same sizes.
    again = check(policy(), open_bundle(made.path), strict=True)
    assert [f.outputs[0].shape[0] for f in again.fixtures] == [1, 1, 2, 3, 1]
    assert again.passed


def test_a_batch_is_fixed_unless_it_is_asked_to_be_free(bundles: dict[str, Path]) -> None:
    pair = make_fixture([replace(spec, shape=(2, *spec.shape[1:])) for spec in INPUTS], 0, 0)
    with (
        open_bundle(bundles["unrolled"]).runner() as runner,
        pytest.raises(
            RunnerError, match=r"input 'image' has shape \[2, 3, 32, 32\]; it takes \[1, 3, 32, 32\]"
        ),
    ):
        runner.run(pair)


def test_a_scalar_input_has_no_batch_to_free(tmp_path: Path) -> None:
    inputs = [InputSpec("gain", ()), *CLOCK_INPUTS]
    with pytest.raises(InputError, match="input 'gain' is a scalar, which has no batch to leave free"):
        export(Clock(), tmp_path / "free", inputs=inputs, dynamic_batch=True)
