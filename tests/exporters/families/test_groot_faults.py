"""Each fault that an export of GR00T's head could have is refused; the honest flow beside it passes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_reflex import ParityResult, check
from pytest_reflex.runners import TorchRunner
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD

pytest.importorskip("lerobot", reason="GR00T's action head needs lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

import torch  # noqa: E402
from tiny_groot import GOLDEN  # noqa: E402

from exporters import Policy, groot  # noqa: E402
from exporters.exporting import export  # noqa: E402
from exporters.flow.schedule import BucketedSchedule, EulerSchedule  # noqa: E402

HEAD = groot.load(GOLDEN)
INPUTS = groot.inputs(HEAD)


def changed() -> Any:
    """A copy of the head to plant a fault in; the reference's own is never touched."""
    return copy.deepcopy(HEAD)


def judged(flow: groot.GrootFlow, directory: Path) -> list[ParityResult]:
    """The flow against ``get_action``, as PyTorch runs it and exported, with the host's loop."""
    truth = groot.reference(HEAD, steps=4)
    made = export(
        truth, directory, inputs=INPUTS, flow=flow, steps=flow.steps, layout="stepwise", family="groot",
        call={"embodiment": None}, verify=False,
    )  # fmt: skip
    return [check(truth, it, inputs=INPUTS, fixtures=8, strict=True) for it in (TorchRunner(flow), made)]


def require_caught(results: list[ParityResult]) -> None:
    for result in results:
        assert not result.passed
        # By its figures, and not because it could not run.
        assert result.max_abs_diff_across_all is not None
        assert result.max_abs_diff_across_all > 100 * STRICT_THRESHOLD
        assert {answer.gate for _, answer in result.refusals} <= {"threshold", "inputs"}


def test_the_honest_flow_passes(tmp_path: Path) -> None:
    assert [result.passed for result in judged(groot.GrootFlow(HEAD), tmp_path / "g")] == [True, True]


def test_scale_and_shift_swapped_in_the_final_adaln(tmp_path: Path) -> None:
    head = changed()
    with torch.no_grad():
        for weight in (head.model.proj_out_1.weight, head.model.proj_out_1.bias):
            weight.copy_(weight.roll(len(weight) // 2, 0))
    require_caught(judged(groot.GrootFlow(head), tmp_path / "g"))


def test_scale_and_shift_swapped_in_a_block(tmp_path: Path) -> None:
    head = changed()
    with torch.no_grad():
        for weight in head.model.transformer_blocks[1].norm1.linear.parameters():
            weight.copy_(weight.roll(len(weight) // 2, 0))
    require_caught(judged(groot.GrootFlow(head), tmp_path / "g"))


def test_a_timestep_from_0_to_1_instead_of_buckets(tmp_path: Path) -> None:
    class Fraction(groot.GrootFlow):
        def velocity(self, x_t: torch.Tensor, time: torch.Tensor, **context: Any) -> torch.Tensor:
            return super().velocity(x_t, _AsFloat(time / self.schedule.buckets), **context)

    require_caught(judged(Fraction(HEAD), tmp_path / "g"))


class _AsFloat:
    """A time that stays a fraction where the flow would make a whole number of it."""

    def __init__(self, time: torch.Tensor) -> None:
        self._time = time

    def long(self) -> torch.Tensor:
        return self._time


def test_a_timestep_that_is_no_bucket_and_is_cut_to_0(tmp_path: Path) -> None:
    flow = groot.GrootFlow(HEAD)
    flow.schedule = EulerSchedule(0.0, 1.0)
    require_caught(judged(flow, tmp_path / "g"))


def test_text_and_image_masks_exchanged(tmp_path: Path) -> None:
    class Exchanged(groot.GrootFlow):
        def velocity(self, x_t: torch.Tensor, time: torch.Tensor, **context: Any) -> torch.Tensor:
            return super().velocity(x_t, time, **{**context, "image_mask": ~context["image_mask"]})

    require_caught(judged(Exchanged(HEAD), tmp_path / "g"))


def test_the_padding_mask_ignored(tmp_path: Path) -> None:
    class Unmasked(groot.GrootFlow):
        def velocity(self, x_t: torch.Tensor, time: torch.Tensor, **context: Any) -> torch.Tensor:
            everything = torch.ones_like(context["backbone_attention_mask"])
            return super().velocity(x_t, time, **{**context, "backbone_attention_mask": everything})

    require_caught(judged(Unmasked(HEAD), tmp_path / "g"))


@dataclass(frozen=True)
class _Backwards(BucketedSchedule):
    """pi0's direction: noise at 1, actions at 0."""

    def dt(self, steps: int) -> float:
        return -super().dt(steps)

    def time(self, index: int, steps: int) -> float:
        return float(int((1 - index / steps) * self.buckets))


def test_the_loop_run_from_1_to_0() -> None:
    flow = groot.GrootFlow(HEAD)
    flow.schedule = _Backwards(1000)
    truth = groot.reference(HEAD, steps=4)
    require_caught([check(truth, TorchRunner(flow), inputs=INPUTS, fixtures=8, strict=True)])


def test_silu_for_relu(tmp_path: Path) -> None:
    head = changed()

    class Silu(type(head.action_decoder)):  # type: ignore[misc]
        def forward(self, x: torch.Tensor, cat_ids: torch.Tensor) -> torch.Tensor:
            hidden = torch.nn.functional.silu(self.layer1(x, cat_ids))
            return self.layer2(hidden, cat_ids)  # type: ignore[no-any-return]

    head.action_decoder.__class__ = Silu
    require_caught(judged(groot.GrootFlow(head), tmp_path / "g"))


def test_3_steps_for_4(tmp_path: Path) -> None:
    flow = groot.GrootFlow(HEAD)
    flow.steps = 3
    require_caught(judged(flow, tmp_path / "g"))


def test_a_stale_encoder_output_reused_for_a_new_observation(tmp_path: Path) -> None:
    made = groot.export(HEAD, tmp_path / "g", verify=False)

    class Stale(Policy):
        """Encodes the first observation that it sees and keeps the result."""

        def open(self) -> None:
            super().open()
            encoder = self.sessions["encoder"]
            fresh, kept = encoder.run, {}

            def run(observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
                return kept.setdefault("context", fresh(observation))  # type: ignore[no-any-return]

            encoder.run = run  # type: ignore[method-assign]

    # One length of prompt, or the stale context would not even fit.
    inputs = groot.inputs(HEAD, tokens=96)
    result = check(groot.reference(HEAD, steps=4), Stale(made), inputs=inputs, fixtures=8, strict=True)
    assert not result.passed
    assert result.fixtures[0].passed  # the first observation is the one that it knows
    assert not any(fixture.passed for fixture in result.fixtures[1:])
    assert "inputs" in {answer.gate for _, answer in result.refusals}
