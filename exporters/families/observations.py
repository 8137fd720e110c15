"""Recorded observations -> the named inputs of a policy, through lerobot's own preprocessing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exporters import checkpoints
from pytest_reflex.errors import CheckpointError, InputError

PREPROCESSOR = "policy_preprocessor.json"
_TOKENS, _MASKS = "observation.language.tokens", "observation.language.attention_mask"

Array = np.ndarray[Any, Any]


def observation_inputs(
    policy: Any,
    processor: str | os.PathLike[str] | Callable[[dict[str, Any]], Mapping[str, Any]],
    observation: Mapping[str, Any],
    *,
    prompt_tokens: int | None = None,
    noise: Array | None = None,
    seed: int = 0,
) -> dict[str, Array]:
    """What a policy's ``sample_actions`` is called with for one observation, as arrays by input name.

    Judge a bundle with recorded observations instead of drawn ones::

        recorded = [observation_inputs(policy, checkpoint, observation) for observation in episode]
        check(policy, bundle, inputs=recorded)

    Args:
        policy: a lerobot policy; its own methods resize and pad images and pad the state.
        processor: a checkpoint directory that holds ``policy_preprocessor.json``, or a pipeline.
        observation: what lerobot's pipeline takes: ``observation.images.*`` [3, H, W] or [B, 3, H, W] in
            [0, 1], ``observation.state``, ``task``.
        prompt_tokens: the length that the prompt is padded to; by default the configuration's.
        noise: [B, chunk, max_action_dim]; by default drawn with ``seed``.
        seed: what the noise is drawn with.

    Raises:
        CheckpointError: the directory holds no such pipeline, or it cannot be made.
        InputError: the observation does not fit it, or its prompt is longer than ``prompt_tokens``.
    """
    pipeline = processor if callable(processor) else _pipeline(Path(processor))
    config = policy.config
    try:
        with torch.no_grad():
            batch = dict(pipeline(dict(observation)))
            if hasattr(policy, "_prepare_batch"):
                batch = policy._prepare_batch(batch)
            prepare = getattr(policy, "prepare_images", None) or policy._preprocess_images
            images, present = prepare(batch)
            state = policy.prepare_state(batch) if hasattr(policy, "prepare_state") else None
            tokens, masks = batch[_TOKENS], batch[_MASKS]
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        wrong = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise InputError(f"the observation ({', '.join(observation)}) does not fit: {wrong}") from error
    length = prompt_tokens if prompt_tokens is not None else config.tokenizer_max_length
    if tokens.shape[1] > length:
        raise InputError(
            f"the prompt has {tokens.shape[1]} tokens, the policy's inputs have {length}; "
            "export with a larger prompt_tokens"
        )
    missing = length - tokens.shape[1]
    named: dict[str, torch.Tensor] = {
        **{f"image_{index}": image for index, image in enumerate(images)},
        **{f"image_mask_{index}": mask for index, mask in enumerate(present)},
        "lang_masks": torch.nn.functional.pad(masks.bool(), (0, missing)),
        "lang_tokens": torch.nn.functional.pad(tokens, (0, missing)),
    }
    if state is not None:
        named["state"] = state
    arrays = {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in named.items()}
    shape = (tokens.shape[0], config.chunk_size, config.max_action_dim)
    drawn = np.random.default_rng(seed).standard_normal(shape) if noise is None else np.asarray(noise)
    if drawn.shape != shape:
        raise InputError(f"noise is {list(drawn.shape)}, expected {list(shape)}")
    return {**arrays, "noise": drawn.astype(np.float32)}


def _pipeline(directory: Path) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    """lerobot's own preprocessing pipeline of a checkpoint directory, on the CPU."""
    from lerobot.processor import PolicyProcessorPipeline

    if not (directory / PREPROCESSOR).is_file():
        raise CheckpointError(f"no {PREPROCESSOR} in {directory}: it holds no preprocessing of lerobot's")
    try:
        pipeline: Callable[[dict[str, Any]], Mapping[str, Any]] = PolicyProcessorPipeline.from_pretrained(
            str(directory), config_filename=PREPROCESSOR, overrides={"device_processor": {"device": "cpu"}}
        )
    except Exception as error:
        made = directory / PREPROCESSOR
        raise CheckpointError(f"{made} cannot be made: {checkpoints.said(error)}") from error
    return pipeline
