"""The schedulers of diffusers as tables: the bits of their own ``step``, in every layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from floors import require_rounding

from exporters import Policy, export, open_bundle
from exporters.flow.diffusion import DiffusionSchedule
from exporters.flow.policy import flow_states
from exporters.flow.schedule import LAYOUTS, Layout, schedule_from_json
from exporters.flow.update import Operation
from pytest_reflex import check
from pytest_reflex.errors import InputError, ParityError, RunnerError, SettingsError
from pytest_reflex.inputs import InputSpec, make_fixture

pytestmark = [
    pytest.mark.lerobot,
    pytest.mark.skipif(find_spec("diffusers") is None, reason="needs lerobot (Python 3.12 or later)"),
]

COMMON = {"num_train_timesteps": 50, "beta_schedule": "squaredcos_cap_v2"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddpm": ("DDPMScheduler", {"clip_sample": True}),
    "ddpm-sample": ("DDPMScheduler", {"prediction_type": "sample", "variance_type": "fixed_small_log"}),
    "ddpm-velocity": ("DDPMScheduler", {"prediction_type": "v_prediction", "variance_type": "fixed_large"}),
    "ddpm-threshold": ("DDPMScheduler", {"thresholding": True, "sample_max_value": 2.0}),
    "ddim": ("DDIMScheduler", {"clip_sample": True, "set_alpha_to_one": True}),
    "ddim-sample": ("DDIMScheduler", {"prediction_type": "sample", "clip_sample_range": 0.5}),
    "ddim-velocity": ("DDIMScheduler", {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}),
    "ddim-eta": ("DDIMScheduler", {"beta_schedule": "linear"}),
    "dpm": ("DPMSolverMultistepScheduler", {"thresholding": True, "final_sigmas_type": "sigma_min"}),
    "dpm-epsilon": ("DPMSolverMultistepScheduler", {}),
    "dpm-heun": ("DPMSolverMultistepScheduler", {"solver_type": "heun", "prediction_type": "sample"}),
    "dpm-first": ("DPMSolverMultistepScheduler", {"solver_order": 1, "prediction_type": "v_prediction"}),
    "dpm-noisy": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "prediction_type": "v_prediction"},
    ),
}
# Its quantile is between two values, and torch may round that product and sum once instead of twice.
ROUNDED = ("ddpm-threshold", "dpm")
# Its actions are in the thousands, and an absolute threshold means nothing there.
HUGE = ("dpm-epsilon",)


def painter(kind: str, steps: int = 5, **more: Any) -> Any:
    import diffusers
    from denoising import Painter

    name, settings = KINDS[kind]
    scheduler = getattr(diffusers, name)(**COMMON | settings | more)
    return Painter(scheduler, steps, eta=0.7 if kind == "ddim-eta" else 0.0)


def specs(flow: Any) -> list[InputSpec]:
    from denoising import inputs

    return inputs(flow)


def given(flow: Any, fixture_idx: int = 0) -> dict[str, torch.Tensor]:
    fixture = make_fixture(specs(flow), 3, fixture_idx)
    return {name: torch.from_numpy(array) for name, array in fixture.items()}


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ROUNDED])
def test_a_table_gives_the_schedulers_own_bits_after_every_step(kind: str, steps: int) -> None:
    flow = painter(kind, steps)
    with torch.no_grad():
        for fixture_idx in range(2):
            theirs = flow.walked(**given(flow, fixture_idx))
            ours = flow_states(flow, **given(flow, fixture_idx))
            assert len(theirs) == len(ours) == steps
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in HUGE])
def test_every_layout_is_the_scheduler_within_rounding(kind: str, tmp_path: Path) -> None:
    flow = painter(kind)
    outputs = {}
    for layout in LAYOUTS:
        made = export(
            flow, tmp_path / layout, inputs=specs(flow), layout=layout, fixtures=4, strict=True, floor=True,
            trajectory=True,
        )  # fmt: skip
        require_rounding(made.result)
        assert made.result is not None
        assert len(made.result.steps) == flow.steps
        with made.runner() as runner:
            outputs[layout] = runner.run(make_fixture(specs(flow), 3, 1))["actions"]
    assert np.array_equal(outputs["unrolled"], outputs["loop"])
    assert np.array_equal(outputs["unrolled"], outputs["stepwise"])


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_schedule_is_read_as_it_was_written(kind: str) -> None:
    schedule = painter(kind).loop().schedule
    assert schedule_from_json(json.loads(json.dumps(schedule.to_json()))) == schedule


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_epilogue_is_part_of_the_graph(layout: Layout, tmp_path: Path) -> None:
    flow = painter("ddpm")
    flow.kept = slice(1, 4)
    flow.epilogue = (Operation("Slice", "kept", ("x", 1, 1, 4)),)
    made = export(
        flow, tmp_path / "b", inputs=specs(flow), layout=layout, fixtures=3, strict=True, trajectory=True
    )
    assert made.manifest["outputs"][0]["shape"] == [2, 3, 3]
    assert made.result is not None
    assert len(made.result.steps) == flow.steps
    found = open_bundle(made.path).locate(flow)
    assert found.place is None, str(found)
    assert found.values > 0, str(found)
    # One action further, which is what a queue that is off by one hands on.
    flow.kept = slice(2, 5)
    with pytest.raises(ParityError):
        check(flow, open_bundle(made.path), fixtures=2).require()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["ddpm", "dpm-noisy", "ddpm-threshold"])
def test_locate_reads_every_value_of_the_update(kind: str, layout: Layout, tmp_path: Path) -> None:
    flow = painter(kind)
    made = export(flow, tmp_path / "b", inputs=specs(flow), layout=layout, verify=False)
    found = open_bundle(made.path).locate(flow)
    assert found.place is None, str(found)
    assert found.values > 0, str(found)
    with torch.no_grad():
        flow.say[1].bias += 0.1
    found = open_bundle(made.path).locate(flow)
    assert found.place is not None, str(found)
    assert found.place.module == "say.1", str(found)


FAULTS: dict[str, Callable[[Any], None]] = {
    "another beta schedule": lambda flow: setattr(
        flow, "schedule", painter("ddpm", beta_schedule="linear").schedule
    ),
    "epsilon taken for sample": lambda flow: setattr(
        flow, "schedule", painter("ddpm", prediction_type="sample").schedule
    ),
    "sample not clipped": lambda flow: setattr(flow, "schedule", painter("ddpm", clip_sample=False).schedule),
    "another variance": lambda flow: setattr(
        flow, "schedule", painter("ddpm", variance_type="fixed_large").schedule
    ),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_wrong_schedule_fails(fault: str, tmp_path: Path) -> None:
    flow = painter("ddpm")
    FAULTS[fault](flow)
    with pytest.raises(ParityError):
        export(flow, tmp_path / "b", inputs=specs(flow), layout="loop", fixtures=2)


def test_noise_of_the_last_step_fails(tmp_path: Path) -> None:
    flow = painter("ddpm")
    honest = flow.loop().schedule
    assert honest.draws == flow.steps - 1
    assert honest.table["sigma"][-1] == 0.0
    sigma = (*honest.table["sigma"][:-1], honest.table["sigma"][-2])
    schedule = schedule_from_json({**honest.to_json(), "table": {**honest.table, "sigma": sigma}})
    flow.schedule = schedule
    with pytest.raises(ParityError):
        export(flow, tmp_path / "b", inputs=specs(flow), layout="loop", fixtures=2)


def test_the_number_of_steps_of_a_table_is_not_left_open(tmp_path: Path) -> None:
    flow = painter("ddim")
    made = export(flow, tmp_path / "b", inputs=specs(flow), layout="loop", verify=False)
    with pytest.raises(SettingsError, match="steps is 4, and the schedule is a table of 5"):
        Policy(open_bundle(made.path), steps=4)
    with pytest.raises(SettingsError, match="steps is 51, and the scheduler was trained with 50"):
        export(flow, tmp_path / "b", inputs=specs(flow), steps=51)


def test_noise_of_steps_has_its_shape(tmp_path: Path) -> None:
    flow = painter("ddpm")
    wrong = [s for s in specs(flow) if s.name != "step_noise"]
    with pytest.raises((InputError, RunnerError), match="step_noise"):
        export(flow, tmp_path / "b", inputs=wrong, verify=False)
    with pytest.raises(InputError, match=r"noise of 4 steps as 'step_noise', \[2, 4, 6, 3\], and it is"):
        export(flow, tmp_path / "b", inputs=[*wrong, InputSpec("step_noise", (2, 5, 6, 3))], verify=False)


def test_a_robot_that_gives_no_noise_has_some_drawn(tmp_path: Path) -> None:
    flow = painter("ddpm")
    made = export(flow, tmp_path / "b", inputs=specs(flow), layout="stepwise", verify=False)
    state = make_fixture(specs(flow), 0, 0)["state"]
    with Policy(open_bundle(made.path), seed=1) as one, Policy(open_bundle(made.path), seed=1) as other:
        assert np.array_equal(
            one.infer({"state": state})["actions"], other.infer({"state": state})["actions"]
        )


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("DDPMScheduler", {"variance_type": "learned"}, "variance_type is 'learned'"),
        ("DPMSolverMultistepScheduler", {"solver_order": 3}, "dpmsolver\\+\\+ of order 3"),
        ("PNDMScheduler", {}, "the scheduler is a PNDMScheduler, expected one of DDPMScheduler"),
    ],
)
def test_a_scheduler_that_no_table_has_is_refused(name: str, settings: dict[str, Any], said: str) -> None:
    import diffusers

    with pytest.raises(SettingsError, match=said):
        DiffusionSchedule(getattr(diffusers, name)(**settings)).over(5)
