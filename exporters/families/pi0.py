"""pi0: lerobot's ``PI0Policy`` and transformers' ``PI0ForConditionalGeneration``, behind one face.

The same weights in two codes: lerobot embeds the time in float64, transformers in float32, and each
reads its images, masks and prompt in its own form. A policy is judged against the code that it is of,
which its class says, and of a checkpoint its ``config.json`` (``type`` for lerobot, ``model_type`` for
transformers). :mod:`exporters.families.pi0_lerobot` and :mod:`exporters.families.pi0_transformers` know
the two.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from exporters import checkpoints
from exporters.families import lerobot, pi0_transformers
from exporters.families.pi0_lerobot import UPSTREAM
from exporters.families.pi0_transformers import PI0Flow
from exporters.flow.policy import FlowPolicy

if TYPE_CHECKING:
    from exporters.bundles import Export
    from pytest_reflex.inputs import InputSpec
    from pytest_reflex.runners import TorchRunner

__all__ = ["FAMILY", "PI0Flow", "export", "inputs", "load", "reference"]

FAMILY = "pi0"


def load(checkpoint: str | os.PathLike[str], *, revision: str | None = None) -> Any:
    """Load a policy in float32 and eval mode: lerobot's or transformers', as its ``config.json`` says.

    Args:
        checkpoint: a directory as either ``save_pretrained`` writes it, or a hub id.
        revision: branch, tag or commit of the hub id.

    Raises:
        CheckpointError: it cannot be had or read, is of another family, or its keys do not fit.
        ReflexError: it is lerobot's, and lerobot is not installed or of an unsupported version.
    """
    directory = checkpoints.resolve(checkpoint, revision=revision)
    config = checkpoints.read_config(directory)
    if config.get("type") == FAMILY and "model_type" not in config:
        from exporters.families import lerobot_checkpoints

        return lerobot_checkpoints.load(checkpoint, UPSTREAM, revision=revision)
    return pi0_transformers.load(checkpoint, revision=revision)


def reference(policy: Any, *, steps: int | None = None) -> TorchRunner:
    """``sample_actions`` of the policy, unpatched, as the reference.

    Args:
        policy: a live policy, or a function that loads one when the runner opens.
        steps: the number of denoising steps; by default the configuration's.
    """
    from pytest_reflex.runners import TorchRunner

    def call(model: Any, **named: torch.Tensor) -> torch.Tensor:
        if _is_transformers(model):
            return pi0_transformers.sample(model, named, steps)
        return UPSTREAM.sample(lerobot.inner(model, UPSTREAM), named, steps)

    def states(model: Any, **named: torch.Tensor) -> list[torch.Tensor]:
        if _is_transformers(model):
            return pi0_transformers.sample_states(model, named, steps)
        return lerobot.sample_states(model, upstream=UPSTREAM, steps=steps, **named)

    if isinstance(policy, torch.nn.Module):
        return TorchRunner(policy, lambda **named: call(policy, **named), outputs=["actions"], states=states)
    return TorchRunner(policy, call, outputs=["actions"], states=states)


def flow(policy: Any) -> FlowPolicy:
    """The policy's two halves, as :func:`export` traces them."""
    return PI0Flow(policy) if _is_transformers(policy) else UPSTREAM.flow(policy)


def inputs(
    policy: Any, *, cameras: int | None = None, prompt_tokens: int | None = None, batch: int = 1
) -> list[InputSpec]:
    """What ``sample_actions`` reads, under the names of the policy's own code.

    See :func:`exporters.families.lerobot.inputs` and :func:`exporters.families.pi0_transformers.inputs`.

    Args:
        policy: a live policy.
        cameras: how many; by default as many as its configuration names, else three.
        prompt_tokens: the text length that prompts are padded to; by default the configuration's, else 48.
        batch: the batch size.

    Raises:
        InputError: a size is no whole number of at least 1.
    """
    sizes: dict[str, Any] = {"cameras": cameras, "prompt_tokens": prompt_tokens, "batch": batch}
    if _is_transformers(policy):
        return pi0_transformers.inputs(policy, **sizes)
    return lerobot.inputs(policy, UPSTREAM, **sizes)


def export(
    policy: Any,
    out_dir: str | os.PathLike[str],
    *,
    steps: int | None = None,
    cameras: int | None = None,
    prompt_tokens: int | None = None,
    batch: int = 1,
    **options: Any,
) -> Export:
    """Export ``policy`` as a bundle, proven against its own ``sample_actions``.

    Args:
        policy: a live policy in float32, or what :func:`load` returned.
        out_dir: where the bundle goes; an earlier bundle there is replaced once the new one has passed.
        steps: the number of denoising steps; by default the configuration's.
        cameras: how many cameras the bundle has inputs for; by default as :func:`inputs` says.
        prompt_tokens: the text length that prompts are padded to; by default as :func:`inputs` says.
        batch: the batch size.
        **options: what :func:`exporters.export` takes: layout, threshold, strict, fixtures, seed and so on.

    Raises:
        ParityError: the export misses the threshold; nothing is written.
        ReflexError: it could not be made or judged; nothing is written.
    """
    from exporters.exporting import export as export_any

    sizes: dict[str, Any] = {"cameras": cameras, "prompt_tokens": prompt_tokens, "batch": batch}
    if not _is_transformers(policy):
        return lerobot.export(policy, UPSTREAM, out_dir, steps=steps, **sizes, **options)
    steps = steps if steps is not None else policy.config.num_inference_steps
    return export_any(
        reference(policy, steps=steps),
        out_dir,
        inputs=inputs(policy, **sizes),
        flow=flow(policy),
        steps=steps,
        family=FAMILY,
        **options,
    )


def _is_transformers(policy: Any) -> bool:
    """Whether ``policy`` is transformers' pi0, told by its class and without an import."""
    return any(kind.__name__ == "PI0ForConditionalGeneration" for kind in type(policy).__mro__)
