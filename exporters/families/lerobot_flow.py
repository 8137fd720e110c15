"""The two halves of lerobot's policies, as far as all of them make the same calls."""

from __future__ import annotations

from typing import Any

import torch

from exporters.families.kv_cache import cache_tensors, prefix_cache
from exporters.flow.policy import Context, FlowPolicy

__all__ = ["LerobotFlow"]


class LerobotFlow(FlowPolicy):
    """The halves of a policy of lerobot's, each the calls that its ``sample_actions`` makes.

    The step is the policy's own ``denoise_step``, whole. A subclass embeds the observation and gives it to
    :meth:`encoded`.

    Where a prompt ends early, the rows of its padding are masked whole. lerobot masks with a finite
    number, so that their attention is uniform, in ONNX Runtime as in torch, and no NaN.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    @property
    def model(self) -> Any:
        """The model inside of a lerobot policy, or given as it is."""
        return self.policy if hasattr(self.policy, "sample_actions") else self.policy.model

    @staticmethod
    def encoded(
        backbone: Any,
        embeds: torch.Tensor,  # [B, S, E]
        pad_masks: torch.Tensor,  # [B, S] bool
        attention_mask: torch.Tensor,  # [B, S, S] bool, or as numbers [B, 1, S, S]
        *,
        use_cache: bool = True,
    ) -> Context:
        """What the steps read of an embedded observation: its keys and values, and where it is padding."""
        _, cache = backbone.forward(
            attention_mask=attention_mask,
            position_ids=torch.cumsum(pad_masks, dim=1) - 1,
            past_key_values=None,
            inputs_embeds=[embeds, None],
            use_cache=use_cache,
        )
        return {**cache_tensors(cache), "prefix_pad_masks": pad_masks}

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
