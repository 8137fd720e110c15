"""SmolVLA: lerobot's ``SmolVLAPolicy``.

The reference is the policy's own ``sample_actions``. The prefix makes the same calls on its submodules
as ``sample_actions`` does before its loop, the step is its own ``denoise_step``, whole: every other
layer of its action expert attends across to the prefix alone, and actions attend to earlier actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from exporters.families.base import set_to
from exporters.families.lerobot import GuidedFamily, cameras_of
from exporters.families.lerobot_flow import LerobotFlow
from exporters.families.real_time import told
from exporters.flow.policy import Context, FlowPolicy
from pytest_reflex.errors import InputError

__all__ = ["FAMILY", "SmolVLAFlow", "export", "flow", "inputs", "load", "reference"]


class SmolVLAFlow(LerobotFlow):
    """The two halves of lerobot's SmolVLA."""

    def prefix(  # type: ignore[override]
        self,
        *,
        lang_tokens: torch.Tensor,  # [B, L]
        lang_masks: torch.Tensor,  # [B, L] bool
        state: torch.Tensor,  # [B, D]
        **cameras: torch.Tensor,  # image_i [B, 3, H, W], image_mask_i [B] bool
    ) -> Context:
        from lerobot.policies.common.vla_utils import make_att_2d_masks

        model, images = self.model, cameras_of(cameras)
        embeds, pad_masks, att_masks = model.embed_prefix(*images, lang_tokens, lang_masks, state=state)
        attention_mask = make_att_2d_masks(pad_masks, att_masks)
        use_cache = model.config.use_cache
        return self.encoded(model.vlm_with_expert, embeds, pad_masks, attention_mask, use_cache=use_cache)


class SmolVLA(GuidedFamily):
    """SmolVLA as lerobot has it."""

    name = "smolvla"
    module = "lerobot.policies.smolvla.modeling_smolvla"
    policy = "SmolVLAPolicy"
    parts = ("vlm_with_expert.vlm.model.text_model", "vlm_with_expert.lm_expert", "state_proj")
    counted = "num_steps"
    embedding = "vlm_with_expert.vlm.model.text_model.embed_tokens"
    state = True

    def sample(
        self, policy: Any, named: Mapping[str, torch.Tensor], steps: int | None, *, rtc: bool | None = None
    ) -> torch.Tensor:
        model = self.inner(policy)
        # It takes the number of steps from its configuration alone.
        with set_to(model.config, self.counted, steps), told(model, named) as before:
            actions: torch.Tensor = model.sample_actions(
                *cameras_of(named), named["lang_tokens"], named["lang_masks"], named["state"],
                noise=named["noise"], **before,
            )  # fmt: skip
            return actions

    def halves(self, policy: Any) -> FlowPolicy:
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


FAMILY = SmolVLA()
load, reference, inputs, flow, export = (
    FAMILY.load, FAMILY.reference, FAMILY.inputs, FAMILY.flow, FAMILY.export,
)  # fmt: skip
