"""pi0-FAST: lerobot's ``PI0FastPolicy``, which says its actions in tokens.

The reference is the model's own ``sample_actions_fast_kv_cache``, greedy. A bundle gives its tokens, which
are equal or not, and the logit of each, watched where the sampler's ``lm_head`` gives them: a fault moves a
logit in every observation, and a token in few. Its prefill makes the calls that come before the sampler's
loop, its step those inside, with a cache that has room for all tokens from the start. What tokens mean stays
outside: the policy's own ``detokenize_actions`` goes by way of text, in two tokenizers, one of which is code
from the hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from exporters.families.base import require_set
from exporters.families.kv_cache import cache_tensors, prefix_cache
from exporters.families.lerobot import LerobotFamily, cameras_of
from exporters.flow.decoding import CachedDecoding
from exporters.flow.policy import Context

__all__ = ["FAMILY", "PI0FastDecoding", "actions", "export", "inputs", "load", "reference"]


class PI0FastDecoding(CachedDecoding):
    """The two halves of lerobot's pi0-FAST."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy, self.count = policy, int(policy.config.max_decoding_steps)
        self.steps = self.count - 1
        self.end = policy._paligemma_tokenizer.convert_tokens_to_ids("|")

    def prompt(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        tokens, masks = inputs["lang_tokens"], inputs["lang_masks"]
        begin = torch.full_like(tokens[:, :1], self.policy._paligemma_tokenizer.bos_token_id)
        tokens, masks = torch.cat([tokens, begin], 1), torch.cat([masks, begin >= 0], 1)
        embeds, there, seen, *_ = self.policy.model.embed_prefix_fast(*cameras_of(inputs), tokens, masks)
        return embeds, seen, there

    def embedded(self, token: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.policy.model.paligemma_with_expert.embed_language_tokens(token)
        return made

    def said(
        self,
        embeds: torch.Tensor,
        seen: torch.Tensor,
        positions: torch.Tensor,
        cache: Context,
        here: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Context]:
        from lerobot.policies.common.vla_utils import prepare_attention_masks_4d

        both = self.policy.model.paligemma_with_expert
        (out, _), made = both.forward(
            attention_mask=prepare_attention_masks_4d(seen, dtype=embeds.dtype),
            position_ids=positions,
            past_key_values=prefix_cache(cache, here) if cache else None,
            inputs_embeds=[embeds, None],
            use_cache=True,
        )
        return both.paligemma.lm_head(out[:, -1:])[:, -1], cache_tensors(made)


class PI0Fast(LerobotFamily):
    """pi0-FAST as lerobot has it."""

    name = "pi0_fast"
    module = "lerobot.policies.pi0_fast.modeling_pi0_fast"
    policy = "PI0FastPolicy"
    parts = ("paligemma_with_expert.paligemma.lm_head", "embed_prefix_fast", "sample_actions_fast_kv_cache")
    embedding = "paligemma_with_expert.paligemma.model.language_model.embed_tokens"
    judged_by = "its model's `sample_actions_fast_kv_cache`: its tokens, and their logits"
    looped = False
    output = "tokens"
    beside = ("scores",)
    state = False
    noised = False

    def inner(self, policy: Any) -> Any:
        """Its model.

        Raises:
            SettingsError: the policy draws its tokens, or goes on when it has said the last one.
        """
        model: Any = getattr(policy, "model", None)
        self.require(policy, model, ("config", *self.parts))
        why = "and each token is drawn; a bundle decodes greedily"
        require_set(model.config, "temperature", 0.0, why)
        why = "and that sampler goes on after the end of the action"
        require_set(model.config, "use_kv_cache", True, why)
        return model

    def sample(
        self, policy: Any, named: Mapping[str, torch.Tensor], steps: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens, [batch, count] int64, and the logit of each, 0 where nothing was said any more."""
        model = self.inner(policy)
        said: list[torch.Tensor] = []
        head = model.paligemma_with_expert.paligemma.lm_head
        # A hook's handle takes it away at the end of its block.
        with head.register_forward_hook(lambda _, __, logits: said.append(logits[:, -1].amax(-1))):
            tokens: torch.Tensor = model.sample_actions_fast_kv_cache(
                *cameras_of(named), named["lang_tokens"], named["lang_masks"],
                max_decoding_steps=model.config.max_decoding_steps,
            )  # fmt: skip
        scores = torch.stack(said, dim=1)
        return tokens, torch.nn.functional.pad(scores, (0, tokens.shape[1] - scores.shape[1]))

    def whole(self, policy: Any) -> torch.nn.Module:
        return PI0FastDecoding(policy)


def actions(policy: Any, tokens: Any) -> torch.Tensor:
    """What tokens mean, by the policy's own ``detokenize_actions``.

    Args:
        policy: a live policy.
        tokens: as a bundle gives them, [batch, tokens].

    Returns:
        The actions, [batch, n_action_steps, dim], as ``predict_action_chunk`` gives them.
    """
    config = policy.config
    dim = config.output_features["action"].shape[0]
    made: torch.Tensor = policy.detokenize_actions(torch.as_tensor(tokens), config.n_action_steps, dim)
    return made


FAMILY = PI0Fast()
load, reference, inputs, export = FAMILY.load, FAMILY.reference, FAMILY.inputs, FAMILY.export
