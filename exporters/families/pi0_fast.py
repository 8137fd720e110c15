"""pi0-FAST: lerobot's ``PI0FastPolicy``, which says its actions in tokens.

The reference is the model's own ``sample_actions_fast_kv_cache``, greedy, and a bundle gives its tokens,
which are equal or not. Its prefill makes the calls that come before the sampler's loop, its step those
inside, with a cache that has room for all tokens from the start. What tokens mean stays outside: the policy's
own ``detokenize_actions`` goes by way of text, in two tokenizers, one of which is code from the hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from exporters.families.kv_cache import cache_tensors, prefix_cache
from exporters.families.lerobot import LerobotFamily, cameras_of
from exporters.flow.decoding import GOING, DecodingPolicy
from exporters.flow.policy import Context
from pytest_reflex.errors import SettingsError
from pytest_reflex.inputs import InputSpec

__all__ = ["FAMILY", "PI0FastDecoding", "actions", "export", "inputs", "load", "reference"]


class PI0FastDecoding(DecodingPolicy):
    """The two halves of lerobot's pi0-FAST."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy, self.count = policy, int(policy.config.max_decoding_steps)
        self.steps = self.count - 1
        self.end = policy._paligemma_tokenizer.convert_tokens_to_ids("|")

    def prefill(  # type: ignore[override]
        self,
        *,
        lang_tokens: torch.Tensor,  # [B, L]
        lang_masks: torch.Tensor,  # [B, L] bool
        **cameras: torch.Tensor,  # image_i [B, 3, H, W], image_mask_i [B] bool
    ) -> Context:
        first = (lang_tokens.shape[0], 1)
        begin = torch.full(first, self.policy._paligemma_tokenizer.bos_token_id, dtype=torch.long)
        tokens, masks = torch.cat([lang_tokens, begin], 1), torch.cat([lang_masks, begin >= 0], 1)
        embeds, pad_masks, seen, *_ = self.policy.model.embed_prefix_fast(*cameras_of(cameras), tokens, masks)
        token, cache = self._said(embeds, seen, torch.cumsum(pad_masks, dim=1) - 1, None)
        room = (0, 0, 0, self.count - 1)
        held = {name: torch.nn.functional.pad(value, room) for name, value in cache.items()}
        tokens = torch.nn.functional.pad(token, (0, self.count - 1))
        place = torch.ones((), dtype=torch.long)
        return {**held, "pad_masks": pad_masks, **self._held(place, token, tokens, token < 0)}

    def step(  # type: ignore[override]
        self,
        *,
        place: torch.Tensor,  # [] how many tokens there are
        token: torch.Tensor,  # [B, 1] the last of them
        tokens: torch.Tensor,  # [B, T]
        finished: torch.Tensor,  # [B, 1] bool
        pad_masks: torch.Tensor,  # [B, S] bool
        **held: torch.Tensor,  # keys.i and values.i [B, heads, S + T - 1, D]
    ) -> Context:
        embeds = self.policy.model.paligemma_with_expert.embed_language_tokens(token)
        said = torch.arange(self.count - 1) < place  # the last one's keys are about to be
        seen = torch.cat([pad_masks, said.expand(pad_masks.shape[0], -1)], dim=1)
        here = torch.arange(seen.shape[1]) == pad_masks.shape[1] + place - 1
        positions = torch.sum(seen, dim=1, keepdim=True) - 1
        token, cache = self._said(embeds, seen[:, None], positions, prefix_cache(held, here[:, None]))
        tokens = torch.where(torch.arange(self.count) == place, token, tokens)
        return {**cache, **self._held(place + 1, token, tokens, finished)}

    def _said(
        self, embeds: torch.Tensor, seen: torch.Tensor, positions: torch.Tensor, cache: Any
    ) -> tuple[torch.Tensor, Context]:
        """The token after these, and the keys and values of all before it."""
        from lerobot.policies.common.vla_utils import prepare_attention_masks_4d

        both = self.policy.model.paligemma_with_expert
        (out, _), cache = both.forward(
            attention_mask=prepare_attention_masks_4d(seen, dtype=embeds.dtype),
            position_ids=positions,
            past_key_values=cache,
            inputs_embeds=[embeds, None],
            use_cache=True,
        )
        logits = both.paligemma.lm_head(out[:, -1:])
        return torch.argmax(logits[:, -1], dim=-1, keepdim=True), cache_tensors(cache)

    def _held(
        self, place: torch.Tensor, token: torch.Tensor, tokens: torch.Tensor, finished: torch.Tensor
    ) -> Context:
        finished = finished | (token == self.end)
        said = {"place": place, "token": token, "tokens": tokens, "finished": finished}
        return {**said, GOING: ~finished.all()}


class PI0Fast(LerobotFamily):
    """pi0-FAST as lerobot has it."""

    name = "pi0_fast"
    module = "lerobot.policies.pi0_fast.modeling_pi0_fast"
    policy = "PI0FastPolicy"
    parts = ("paligemma_with_expert.paligemma.lm_head", "embed_prefix_fast", "sample_actions_fast_kv_cache")
    embedding = "paligemma_with_expert.paligemma.model.language_model.embed_tokens"
    judged_by = "its model's `sample_actions_fast_kv_cache`, in tokens"
    looped = False
    output = "tokens"
    state = False

    def inner(self, policy: Any) -> Any:
        model = getattr(policy, "model", None)
        self.require(policy, model, ("config", *self.parts))
        return model

    def image_size(self, config: Any) -> tuple[int, int]:
        height, width = config.image_resolution
        return int(height), int(width)

    def inputs(
        self, policy: Any, *, cameras: int | None = None, prompt_tokens: int | None = None, batch: int = 1
    ) -> list[InputSpec]:
        """What :meth:`LerobotFamily.inputs` says, without noise; the state is in the prompt.

        Raises:
            SettingsError: the policy draws its tokens, or goes on when it has said the last one.
        """
        config = self.inner(policy).config
        if config.temperature > 0:
            raise SettingsError(
                f"temperature is {config.temperature}, and each token is drawn; a bundle decodes greedily: "
                "set policy.config.temperature = 0.0"
            )
        if not config.use_kv_cache:
            raise SettingsError(
                "use_kv_cache is False, and that sampler goes on after the end of the action; "
                "set policy.config.use_kv_cache = True"
            )
        return super().inputs(policy, cameras=cameras, prompt_tokens=prompt_tokens, batch=batch)[:-1]

    def sample(self, policy: Any, named: Mapping[str, torch.Tensor], steps: int | None) -> torch.Tensor:
        model = self.inner(policy)
        tokens: torch.Tensor = model.sample_actions_fast_kv_cache(
            *cameras_of(named), named["lang_tokens"], named["lang_masks"],
            max_decoding_steps=model.config.max_decoding_steps,
        )  # fmt: skip
        return tokens

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
