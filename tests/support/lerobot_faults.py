"""Faults that exports of these policies have had, or could have, each planted in an otherwise honest flow.

A fault is a function ``(family, policy) -> FlowPolicy``. It changes a copy of the policy or a subclass of
the flow; the policy that is the reference is never touched.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from lerobot.policies.common import vla_utils
from lerobot.policies.smolvla import smolvlm_with_expert
from transformers import DynamicCache

from exporters.families.kv_cache import PrefixCache
from exporters.flow.policy import FlowPolicy
from exporters.flow.schedule import EulerSchedule

Change = Callable[[dict[str, Any]], dict[str, Any]]


def honest(family: str, policy: Any) -> FlowPolicy:
    flow: FlowPolicy = importlib.import_module(f"exporters.families.{family}").flow(policy)
    return flow


def attention_mask_dropped(family: str, policy: Any) -> FlowPolicy:
    def opened(given: dict[str, Any]) -> dict[str, Any]:
        mask = given["attention_mask"]
        seen = torch.ones_like(mask) if mask.dtype == torch.bool else torch.zeros_like(mask)
        return {**given, "attention_mask": seen}

    return honest(family, changed(family, policy, opened))


def camera_mask_ignored(family: str, policy: Any) -> FlowPolicy:
    return _observing(
        family,
        policy,
        lambda seen: {
            name: torch.ones_like(value) if name.startswith("image_mask") else value
            for name, value in seen.items()
        },
    )


def prompt_cut_to_16(family: str, policy: Any) -> FlowPolicy:
    return _observing(
        family,
        policy,
        lambda seen: {n: v[:, :16] if n.startswith("lang") else v for n, v in seen.items()},
    )


def prefix_length_off_by_one(family: str, policy: Any) -> FlowPolicy:
    def shifted(given: dict[str, Any]) -> dict[str, Any]:
        step = given["inputs_embeds"][0] is None
        return {**given, "position_ids": given["position_ids"] + int(step)}

    return honest(family, changed(family, policy, shifted))


def cache_that_grows(family: str, policy: Any) -> FlowPolicy:
    """Every step leaves its keys and values behind, and the next ones attend to them."""
    kept: list[DynamicCache] = []

    def growing(given: dict[str, Any]) -> dict[str, Any]:
        if given["inputs_embeds"][0] is not None:
            kept.clear()
            return given
        prefix = given["past_key_values"].layers[0].keys.shape[-2]
        if not kept:
            kept.append(
                DynamicCache(
                    tuple((x.keys.clone(), x.values.clone()) for x in given["past_key_values"].layers)
                )
            )
        mask = given["attention_mask"]
        stale = kept[0].layers[0].keys.shape[-2] - prefix
        seen = mask.new_full((*mask.shape[:-1], stale), mask.dtype == torch.bool)
        whole = torch.cat([mask[..., :prefix], seen, mask[..., prefix:]], dim=-1)
        return {**given, "attention_mask": whole, "past_key_values": kept[0]}

    return honest(family, changed(family, policy, growing))


def nine_steps_for_ten(family: str, policy: Any) -> FlowPolicy:
    flow = honest(family, policy)
    flow.steps = 9
    return flow


def dt_of_the_wrong_sign(family: str, policy: Any) -> FlowPolicy:
    class Backwards(EulerSchedule):
        def dt(self, steps: int) -> float:
            return -super().dt(steps)

        def time(self, index: int, steps: int) -> float:
            return self.start + index * super().dt(steps)

    flow = honest(family, policy)
    flow.schedule = Backwards()
    return flow


def float32_time_embedding(family: str, policy: Any) -> FlowPolicy:
    def narrow(time: Any, dimension: int, min_period: float, max_period: float, device: Any) -> Any:
        with mock.patch.object(vla_utils, "get_safe_dtype", return_value=torch.float32):
            return vla_utils.create_sinusoidal_pos_embedding(time, dimension, min_period, max_period, device)

    home = importlib.import_module(type(policy).__module__)
    return _patched(family, policy, home, "create_sinusoidal_pos_embedding", narrow)


def rope_base_wrong(family: str, policy: Any) -> FlowPolicy:
    if family == "smolvla":
        # What the checkpoint's own configuration says, and lerobot's code does not heed.
        rope = smolvlm_with_expert.apply_rope
        wrong = lambda x, positions: rope(x, positions, max_wavelength=100_000)  # noqa: E731
        return _patched(family, policy, smolvlm_with_expert, "apply_rope", wrong)
    other = copy.deepcopy(policy)
    both = other.model.paligemma_with_expert
    for rotary in (both.paligemma.model.language_model.rotary_emb, both.gemma_expert.model.rotary_emb):
        half = rotary.inv_freq.shape[0]
        rotary.inv_freq.copy_(100_000.0 ** -(torch.arange(half) / half))
    return honest(family, other)


def adarms_scale_and_shift_swapped(family: str, policy: Any) -> FlowPolicy:
    other = copy.deepcopy(policy)
    for norm in other.modules():
        if getattr(norm, "dense", None) is not None:
            for tensor in (norm.dense.weight, norm.dense.bias):
                scale, shift, gate = tensor.detach().chunk(3)
                with torch.no_grad():
                    tensor.copy_(torch.cat([shift, scale, gate]))
    return honest(family, other)


def action_mask_of_the_other_kind(family: str, policy: Any) -> FlowPolicy:
    """SmolVLA's actions see the later ones too; pi0's and pi0.5's see the earlier ones only."""
    other = copy.deepcopy(policy)
    embed = other.model.embed_suffix

    def embed_suffix(*given: Any) -> Any:
        embeds, pad_masks, att_masks, *rest = embed(*given)
        chunk = other.config.chunk_size
        kind = torch.zeros_like(att_masks) if family == "smolvla" else torch.ones_like(att_masks)
        start = att_masks[:, : att_masks.shape[1] - chunk + 1]
        return embeds, pad_masks, torch.cat([start, kind[:, start.shape[1] :]], dim=1), *rest

    other.model.embed_suffix = embed_suffix
    return honest(family, other)


def cross_attention_keys_roped_again(family: str, policy: Any) -> FlowPolicy:
    other = copy.deepcopy(policy)
    vlm = other.model.vlm_with_expert
    cross = vlm.forward_cross_attn_layer

    def forward_cross_attn_layer(*given: Any, past_key_values: Any, **options: Any) -> Any:
        layers = past_key_values.layers
        places = torch.arange(layers[0].keys.shape[-2])[None]
        again = PrefixCache(
            [smolvlm_with_expert.apply_rope(x.keys.transpose(1, 2), places).transpose(1, 2) for x in layers],
            [x.values for x in layers],
        )
        outputs, _ = cross(*given, past_key_values=again, **options)
        return outputs, past_key_values

    vlm.forward_cross_attn_layer = forward_cross_attn_layer
    return honest(family, other)


def changed(family: str, policy: Any, change: Change) -> Any:
    """A copy of ``policy`` whose transformer is called with other arguments."""
    other = copy.deepcopy(policy)
    name = "vlm_with_expert" if family == "smolvla" else "paligemma_with_expert"
    transformer = getattr(other.model, name)
    call = transformer.forward
    transformer.forward = lambda **given: call(**change(given))
    return other


def _observing(family: str, policy: Any, change: Change) -> FlowPolicy:
    """A flow that is shown another observation."""

    class Observing(type(honest(family, policy))):  # type: ignore[misc]
        def prefix(self, **observation: torch.Tensor) -> Any:
            return super().prefix(**change(observation))

    return Observing(policy)


def _patched(family: str, policy: Any, home: Any, name: str, value: Any) -> FlowPolicy:
    """A flow in which a function of the upstream is another one for as long as a half runs."""

    @contextlib.contextmanager
    def other() -> Iterator[None]:
        with mock.patch.object(home, name, value):
            yield

    class Patched(type(honest(family, policy))):  # type: ignore[misc]
        def prefix(self, **observation: torch.Tensor) -> Any:
            with other():
                return super().prefix(**observation)

        def velocity(self, x_t: torch.Tensor, time: torch.Tensor, **context: torch.Tensor) -> Any:
            with other():
                return super().velocity(x_t, time, **context)

    return Patched(policy)
