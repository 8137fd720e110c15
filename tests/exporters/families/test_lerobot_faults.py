"""Each fault that an export of lerobot's policies could have is refused; the honest flow beside it passes.

The flows run in PyTorch here, which is what they compute; a fault of each kind is exported as well, and
judged as a bundle.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_reflex import ParityResult, check
from pytest_reflex.runners import TorchRunner
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

import lerobot_faults as faults  # noqa: E402
from tiny_lerobot import FAMILIES  # noqa: E402

STEPS = 10
# Longer than the 16 tokens that a prompt has been cut to.
SMALL = {"cameras": 2, "prompt_tokens": 24}
every_family = pytest.mark.parametrize("family", FAMILIES)
Judge = Callable[..., ParityResult]


@pytest.fixture
def judge(golden: Callable[[str], Any], tmp_path: Path) -> Judge:
    """``judge(fault, family)``: the flow with the fault against ``sample_actions`` of the policy without."""

    def judged(fault: Any, family: str, *, exported: bool = False) -> ParityResult:
        from exporters.exporting import export

        module, policy = importlib.import_module(f"exporters.families.{family}"), golden(family)
        truth, inputs = module.reference(policy, steps=STEPS), module.inputs(policy, **SMALL)
        flow = fault(family, policy)
        candidate: Any = TorchRunner(flow)
        if exported:
            # Nine steps are nine in the bundle too; the reference stays at ten.
            # Unrolled, for a graph with a loop counts its time by itself, and a wrong sign is not in it.
            how: dict[str, Any] = {"steps": flow.steps, "family": family, "verify": False}
            candidate = export(truth, tmp_path / "p", inputs=inputs, flow=flow, **how)
        return check(truth, candidate, inputs=inputs, fixtures=8, strict=True)

    return judged


def require_caught(result: ParityResult) -> None:
    assert not result.passed
    # By its figures, and not because it could not run.
    assert result.max_abs_diff_across_all is not None
    assert result.max_abs_diff_across_all > 2 * STRICT_THRESHOLD
    assert {answer.gate for _, answer in result.refusals} <= {"threshold", "inputs"}


@every_family
def test_without_a_fault_the_flow_passes_to_the_bit(judge: Judge, family: str) -> None:
    result = judge(faults.honest, family)
    assert result.passed, str(result)
    assert result.max_abs_diff_across_all == 0.0


@every_family
def test_attention_mask_dropped(judge: Judge, family: str) -> None:
    require_caught(judge(faults.attention_mask_dropped, family))


@every_family
def test_camera_mask_ignored(judge: Judge, family: str) -> None:
    result = judge(faults.camera_mask_ignored, family)
    require_caught(result)
    assert any("'image_mask_1' is dead" in answer.said for _, answer in result.refusals)


@every_family
def test_cache_that_grows_from_step_to_step(judge: Judge, family: str) -> None:
    require_caught(judge(faults.cache_that_grows, family))


@every_family
def test_prefix_length_off_by_one(judge: Judge, family: str) -> None:
    require_caught(judge(faults.prefix_length_off_by_one, family))


@every_family
def test_prompt_cut_to_16_tokens(judge: Judge, family: str) -> None:
    require_caught(judge(faults.prompt_cut_to_16, family))


@every_family
def test_nine_steps_for_ten(judge: Judge, family: str) -> None:
    require_caught(judge(faults.nine_steps_for_ten, family))


@every_family
def test_dt_of_the_wrong_sign(judge: Judge, family: str) -> None:
    require_caught(judge(faults.dt_of_the_wrong_sign, family))


@every_family
def test_float32_time_embedding_in_place_of_float64(judge: Judge, family: str) -> None:
    require_caught(judge(faults.float32_time_embedding, family))


@every_family
def test_rope_base_wrong(judge: Judge, family: str) -> None:
    require_caught(judge(faults.rope_base_wrong, family))


def test_adarms_scale_and_shift_swapped(judge: Judge) -> None:
    require_caught(judge(faults.adarms_scale_and_shift_swapped, "pi05"))


def test_smolvlas_causal_action_mask_made_bidirectional(judge: Judge) -> None:
    require_caught(judge(faults.action_mask_of_the_other_kind, "smolvla"))


@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_pi0s_bidirectional_action_mask_made_causal(judge: Judge, family: str) -> None:
    require_caught(judge(faults.action_mask_of_the_other_kind, family))


def test_smolvlas_cross_attention_keys_roped_again(judge: Judge) -> None:
    require_caught(judge(faults.cross_attention_keys_roped_again, "smolvla"))


# A cache cannot grow in a graph that holds one step; every other fault can be exported.
@pytest.mark.parametrize(
    ("fault", "family"),
    [
        ("attention_mask_dropped", "smolvla"),
        ("camera_mask_ignored", "pi05"),
        ("prefix_length_off_by_one", "pi0"),
        ("prompt_cut_to_16", "pi0"),
        ("nine_steps_for_ten", "pi0"),
        ("dt_of_the_wrong_sign", "pi05"),
        ("float32_time_embedding", "pi05"),
        ("rope_base_wrong", "pi0"),
        ("adarms_scale_and_shift_swapped", "pi05"),
        ("action_mask_of_the_other_kind", "pi0"),
        ("cross_attention_keys_roped_again", "smolvla"),
    ],
)
def test_exported_as_a_bundle(judge: Judge, fault: str, family: str) -> None:
    require_caught(judge(getattr(faults, fault), family, exported=True))
