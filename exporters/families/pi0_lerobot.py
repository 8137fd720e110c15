"""pi0 as lerobot has it: ``PI0Policy``; and the two halves that it shares with pi0.5.

The reference is the policy's own ``sample_actions``. The prefix makes the same calls on its submodules
as ``sample_actions`` does before its loop, the step is its own ``denoise_step``, whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from exporters.families.lerobot import GuidedFamily, cameras_of
from exporters.families.lerobot_flow import LerobotFlow
from exporters.families.real_time import told
from exporters.flow.policy import Context, FlowPolicy


class OpenPIFlow(LerobotFlow):
    """The two halves of lerobot's pi0 and pi0.5."""

    def prefix(  # type: ignore[override]
        self,
        *,
        lang_tokens: torch.Tensor,  # [B, L]
        lang_masks: torch.Tensor,  # [B, L] bool
        **observation: torch.Tensor,  # image_i [B, 3, H, W], image_mask_i [B] bool, state [B, D]
    ) -> Context:
        from lerobot.policies.common.vla_utils import make_att_2d_masks, prepare_attention_masks_4d

        model = self.model
        embeds, pad_masks, att_masks = model.embed_prefix(*cameras_of(observation), lang_tokens, lang_masks)
        # sample_actions sets it, and leaves it set.
        model.paligemma_with_expert.paligemma.model.language_model.config._attn_implementation = "eager"
        attention_mask = prepare_attention_masks_4d(make_att_2d_masks(pad_masks, att_masks))
        context = self.encoded(model.paligemma_with_expert, embeds, pad_masks, attention_mask)
        return {**context, "state": observation["state"]} if "state" in observation else context


class OpenPIFamily(GuidedFamily):
    """What lerobot's pi0 and pi0.5 share: their samplers take the number of steps."""

    counted = "num_inference_steps"
    embedding = "paligemma_with_expert.paligemma.model.language_model.embed_tokens"

    def sample(
        self, policy: Any, named: Mapping[str, torch.Tensor], steps: int | None, *, rtc: bool | None = None
    ) -> torch.Tensor:
        model, state = self.inner(policy), [named["state"]] if "state" in named else []
        with told(model, named) as before:
            actions: torch.Tensor = model.sample_actions(
                *cameras_of(named), named["lang_tokens"], named["lang_masks"], *state,
                noise=named["noise"], num_steps=steps, **before,
            )  # fmt: skip
        return actions

    def halves(self, policy: Any) -> FlowPolicy:
        return OpenPIFlow(policy)


class LerobotPI0(OpenPIFamily):
    """pi0 as lerobot has it."""

    name = "pi0"
    module = "lerobot.policies.pi0.modeling_pi0"
    policy = "PI0Policy"
    parts = (
        "paligemma_with_expert.paligemma.model.language_model",
        "paligemma_with_expert.gemma_expert.model",
        "state_proj",
        "action_time_mlp_in",
    )
    state = True
