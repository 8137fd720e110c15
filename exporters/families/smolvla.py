"""SmolVLA: lerobot's ``SmolVLAPolicy``.

The reference is the policy's own ``sample_actions``. The prefix makes the same calls on its submodules
as ``sample_actions`` does before its loop, the step is its own ``denoise_step``, whole: every other
layer of its action expert attends across to the prefix alone, and actions attend to earlier actions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from exporters.families.kv_cache import cache_tensors, prefix_cache
from exporters.families.lerobot import LerobotFamily, bare, cameras_of
from exporters.flow.policy import Context, FlowPolicy
from pytest_reflex.errors import InputError

__all__ = ["FAMILY", "SmolVLAFlow", "export", "flow", "inputs", "load", "reference"]


class SmolVLAFlow(FlowPolicy):
    """The two halves of lerobot's SmolVLA, each the calls that ``sample_actions`` makes.

    Where a prompt ends early, the rows of its padding are masked whole. lerobot masks with a finite
    number, so that their attention is uniform, in ONNX Runtime as in torch, and no NaN.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    @property
    def model(self) -> Any:
        return bare(self.policy)

    def prefix(  # type: ignore[override]
        self,
        *,
        lang_tokens: torch.Tensor,  # [B, L]
        lang_masks: torch.Tensor,  # [B, L] bool
        state: torch.Tensor,  # [B, D]
        **cameras: torch.Tensor,  # image_i [B, 3, H, W], image_mask_i [B] bool
    ) -> Context:
        from lerobot.policies.common.vla_utils import make_att_2d_masks

        model = self.model
        embeds, pad_masks, att_masks = model.embed_prefix(
            *cameras_of(cameras), lang_tokens, lang_masks, state=state
        )
        _, cache = model.vlm_with_expert.forward(
            attention_mask=make_att_2d_masks(pad_masks, att_masks),
            position_ids=torch.cumsum(pad_masks, dim=1) - 1,
            past_key_values=None,
            inputs_embeds=[embeds, None],
            use_cache=model.config.use_cache,
        )
        return {**cache_tensors(cache), "prefix_pad_masks": pad_masks}

    def velocity(  # type: ignore[override]
        self,
        x_t: torch.Tensor,  # [B, T, D]
        time: torch.Tensor,  # [B]
        prefix_pad_masks: torch.Tensor,  # [B, S] bool
        **cached: torch.Tensor,
    ) -> torch.Tensor:
        velocity: torch.Tensor = self.model.denoise_step(
            prefix_pad_masks=prefix_pad_masks,
            past_key_values=prefix_cache(cached),
            x_t=x_t,
            timestep=time,
        )
        return velocity


class SmolVLA(LerobotFamily):
    """SmolVLA as lerobot has it."""

    name = "smolvla"
    module = "lerobot.policies.smolvla.modeling_smolvla"
    policy = "SmolVLAPolicy"
    parts = ("vlm_with_expert.vlm.model.text_model", "vlm_with_expert.lm_expert", "state_proj")
    counted = "num_steps"
    embedding = "vlm_with_expert.vlm.model.text_model.embed_tokens"
    state = True

    def sample(self, policy: Any, named: Mapping[str, torch.Tensor], steps: int | None) -> torch.Tensor:
        model = self.inner(policy)
        with _counted(model.config, steps):
            actions: torch.Tensor = model.sample_actions(
                *cameras_of(named), named["lang_tokens"], named["lang_masks"], named["state"],
                noise=named["noise"],
            )  # fmt: skip
            return actions

    def flow(self, policy: Any) -> FlowPolicy:
        return SmolVLAFlow(policy)

    def image_size(self, config: Any) -> tuple[int, int]:
        if config.resize_imgs_with_padding is not None:
            width, height = config.resize_imgs_with_padding  # lerobot keeps it in this order
            return int(height), int(width)
        first = next(iter(config.image_features.values()), None)
        if first is None:
            raise InputError(
                "the policy's configuration gives no image size: neither resize_imgs_with_padding nor "
                "image features; set one"
            )
        return int(first.shape[-2]), int(first.shape[-1])


@contextlib.contextmanager
def _counted(config: Any, steps: int | None) -> Iterator[None]:
    """SmolVLA takes the number of steps from its configuration alone; restores what that said."""
    said = config.num_steps
    config.num_steps = steps if steps is not None else said
    try:
        yield
    finally:
        config.num_steps = said


FAMILY = SmolVLA()
load, reference, inputs, flow, export = (
    FAMILY.load, FAMILY.reference, FAMILY.inputs, FAMILY.flow, FAMILY.export,
)  # fmt: skip
