"""pi0 as lerobot has it: ``PI0Policy``; and the two halves that it shares with pi0.5.

The reference is the policy's own ``sample_actions``. The prefix makes the same calls on its submodules
as ``sample_actions`` does before its loop, the step is its own ``denoise_step``, whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from exporters.families.kv_cache import cache_tensors, prefix_cache
from exporters.families.lerobot import LerobotFamily, bare, cameras_of
from exporters.flow.policy import Context, FlowPolicy


class OpenPIFlow(FlowPolicy):
    """The two halves of lerobot's pi0 and pi0.5, each the calls that ``sample_actions`` makes.

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
        **observation: torch.Tensor,  # image_i [B, 3, H, W], image_mask_i [B] bool, state [B, D]
    ) -> Context:
        from lerobot.policies.common.vla_utils import make_att_2d_masks, prepare_attention_masks_4d

        model = self.model
        embeds, pad_masks, att_masks = model.embed_prefix(*cameras_of(observation), lang_tokens, lang_masks)
        # sample_actions sets it, and leaves it set.
        model.paligemma_with_expert.paligemma.model.language_model.config._attn_implementation = "eager"
        _, cache = model.paligemma_with_expert.forward(
            attention_mask=prepare_attention_masks_4d(make_att_2d_masks(pad_masks, att_masks)),
            position_ids=torch.cumsum(pad_masks, dim=1) - 1,
            past_key_values=None,
            inputs_embeds=[embeds, None],
            use_cache=True,
        )
        context = {**cache_tensors(cache), "prefix_pad_masks": pad_masks}
        return {**context, "state": observation["state"]} if "state" in observation else context

    def velocity(  # type: ignore[override]
        self,
        x_t: torch.Tensor,  # [B, T, D]
        time: torch.Tensor,  # [B]
        prefix_pad_masks: torch.Tensor,  # [B, S] bool
        **context: torch.Tensor,
    ) -> torch.Tensor:
        state = {"state": context["state"]} if "state" in context else {}
        velocity: torch.Tensor = self.model.denoise_step(
            prefix_pad_masks=prefix_pad_masks,
            past_key_values=prefix_cache(context),
            x_t=x_t,
            timestep=time,
            **state,
        )
        return velocity


class OpenPIFamily(LerobotFamily):
    """What lerobot's pi0 and pi0.5 share: their samplers take the number of steps."""

    counted = "num_inference_steps"
    embedding = "paligemma_with_expert.paligemma.model.language_model.embed_tokens"

    def sample(self, policy: Any, named: Mapping[str, torch.Tensor], steps: int | None) -> torch.Tensor:
        state = [named["state"]] if "state" in named else []
        actions: torch.Tensor = self.inner(policy).sample_actions(
            *cameras_of(named), named["lang_tokens"], named["lang_masks"], *state,
            noise=named["noise"], num_steps=steps,
        )  # fmt: skip
        return actions

    def flow(self, policy: Any) -> FlowPolicy:
        return OpenPIFlow(policy)

    def image_size(self, config: Any) -> tuple[int, int]:
        height, width = config.image_resolution
        return int(height), int(width)


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
