"""pi0 as transformers has it: ``PI0ForConditionalGeneration``.

The reference is the policy's own ``sample_actions``. The two halves call its own submodules:
``embed_prefix`` and the vision-language model for the prefix, ``forward`` with the prefix cached
for the step, as ``sample_actions`` does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from exporters import checkpoints
from exporters.families.base import Family, require_counts
from exporters.families.kv_cache import cache_tensors, prefix_cache
from exporters.families.options import LEROBOT
from exporters.flow.policy import Context, FlowPolicy
from pytest_reflex.errors import CheckpointError, InputError
from pytest_reflex.inputs import (
    CameraMask,
    Gaussian,
    Image,
    ImagePromptMask,
    ImagePromptTokens,
    InputSpec,
    State,
)

if TYPE_CHECKING:
    from transformers import PI0ForConditionalGeneration

# A base camera and one on each wrist, and the prompt length that published checkpoints are trained with.
CAMERAS = 3
PROMPT_TOKENS = 48


class PI0Flow(FlowPolicy):
    """The two halves of transformers' PI0, each the same calls that ``sample_actions`` makes."""

    def __init__(self, policy: PI0ForConditionalGeneration) -> None:
        super().__init__()
        self.policy = policy

    def prefix(  # type: ignore[override]
        self,
        pixel_attention_mask: torch.Tensor,  # [B, cameras] bool
        pixel_values: torch.Tensor,  # [B, cameras, 3, H, W]
        attention_mask: torch.Tensor,  # [B, S]
        input_ids: torch.Tensor,  # [B, S]
        state: torch.Tensor,  # [B, D]
    ) -> Context:
        model = self.policy.model
        embeds = model.embed_prefix(input_ids, pixel_values, pixel_attention_mask)
        cache = model.vlm(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=attention_mask.cumsum(-1) - 1,
            # All of the prefix attends to all of the prefix.
            token_type_ids=torch.zeros_like(embeds)[:, :, 0],
            use_cache=True,
        ).past_key_values
        return {**cache_tensors(cache), "attention_mask": attention_mask, "state": state}

    def velocity(  # type: ignore[override]
        self,
        x_t: torch.Tensor,  # [B, T, D]
        time: torch.Tensor,  # [B]
        state: torch.Tensor,
        attention_mask: torch.Tensor,
        **cached: torch.Tensor,
    ) -> torch.Tensor:
        output = self.policy(
            state=state,
            noise=x_t,
            timestep=time,
            attention_mask=attention_mask,
            past_key_values=prefix_cache(cached),
        )
        velocity: torch.Tensor = output.logits
        return velocity


class TransformersPI0(Family):
    """pi0 as transformers has it."""

    name = "pi0"
    options = LEROBOT

    def load(
        self, checkpoint: str | os.PathLike[str], *, revision: str | None = None
    ) -> PI0ForConditionalGeneration:
        """Load a policy in float32 and eval mode from what ``save_pretrained`` wrote."""
        from transformers import PI0ForConditionalGeneration

        directory = checkpoints.resolve(checkpoint, revision=revision)
        config = checkpoints.read_config(directory)
        if config.get("model_type") != "pi0":
            found = config.get("model_type") or config.get("type")
            raise CheckpointError(f"{directory} is a checkpoint of {found!r}, expected model_type 'pi0'")
        checkpoints.weight_files(directory)
        try:
            with checkpoints.quiet_upstream():
                policy, info = PI0ForConditionalGeneration.from_pretrained(
                    directory,
                    dtype=torch.float32,
                    use_safetensors=True,
                    output_loading_info=True,
                    # They are refused below, by name.
                    ignore_mismatched_sizes=True,
                )
        except Exception as error:
            raise CheckpointError(f"{directory} cannot be loaded: {checkpoints.said(error)}") from error
        shapes = info.get("mismatched_keys") or ()
        checkpoints.require_fit(directory, info["missing_keys"], info["unexpected_keys"], shapes)
        checkpoints.remember(policy, checkpoint, directory, stored_dtype=config.get("dtype"))
        policy.eval()
        return policy

    def inputs(
        self,
        policy: Any,
        *,
        cameras: int | None = None,
        prompt_tokens: int | None = None,
        batch: int = 1,
        rtc: bool | None = None,
    ) -> list[InputSpec]:
        """What ``sample_actions`` reads, under its own names, as transformers' processor prepares it.

        The prompt is one sequence ``[batch, cameras * tokens_per_image + prompt_tokens]``: image tokens of
        the cameras that are present, then text, then padding that ``attention_mask`` leaves out.
        """
        _require_unguided(rtc)
        cameras = cameras if cameras is not None else CAMERAS
        prompt_tokens = prompt_tokens if prompt_tokens is not None else PROMPT_TOKENS
        require_counts(cameras=cameras, prompt_tokens=prompt_tokens, batch=batch)
        config = policy.config
        vision = config.vlm_config.vision_config
        tokens_per_image = (vision.image_size // vision.patch_size) ** 2
        length = cameras * tokens_per_image + prompt_tokens
        pixels = (batch, cameras, 3, vision.image_size, vision.image_size)
        return [
            InputSpec("pixel_attention_mask", (batch, cameras), "bool", CameraMask()),
            InputSpec("pixel_values", pixels, "float32", Image()),
            InputSpec(
                "attention_mask",
                (batch, length),
                "int64",
                ImagePromptMask(cameras="pixel_attention_mask", tokens_per_image=tokens_per_image),
            ),
            InputSpec(
                "input_ids",
                (batch, length),
                "int64",
                ImagePromptTokens(
                    vocab=config.vlm_config.text_config.vocab_size,
                    image_token=config.vlm_config.image_token_id,
                    tokens_per_image=tokens_per_image,
                    cameras="pixel_attention_mask",
                    mask="attention_mask",
                ),
            ),
            InputSpec("state", (batch, config.max_state_dim), "float32", State()),
            InputSpec("noise", (batch, config.chunk_size, config.max_action_dim), "float32", Gaussian()),
        ]

    def sample(
        self, policy: Any, named: Mapping[str, torch.Tensor], steps: int | None, *, rtc: bool | None = None
    ) -> torch.Tensor:
        _require_unguided(rtc)
        with checkpoints.quiet_upstream():
            actions: torch.Tensor = policy.sample_actions(**named, num_steps=steps)
        return actions

    def flow(self, policy: Any, *, rtc: bool | None = None) -> FlowPolicy:
        _require_unguided(rtc)
        return PI0Flow(policy)

    def own_call(self, policy: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in options.items() if name != "rtc"}

    def steps(self, policy: Any) -> int:
        return int(policy.config.num_inference_steps)

    def reader(self, policy: Any) -> torch.nn.Module:
        reader: torch.nn.Module = policy.embed_action_time.action_in_proj
        return reader


def _require_unguided(rtc: object) -> None:
    """Refuse to guide a chunk by the one before, which transformers' policy does not.

    Raises:
        InputError: it is asked for.
    """
    if rtc:
        raise InputError(
            f"rtc is {rtc!r}, and transformers' PI0ForConditionalGeneration has no real-time chunking; "
            "give lerobot's PI0Policy, or leave it out"
        )
