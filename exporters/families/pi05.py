"""pi0.5: lerobot's ``PI05Policy``.

The reference is the policy's own ``sample_actions``. It has no input for the robot's state: lerobot's
preprocessing writes it into the prompt. The halves are those of pi0; time reaches the action expert
through its adaptive norms, inside of ``denoise_step``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from exporters.families import lerobot
from exporters.families.lerobot import Upstream
from exporters.families.pi0_lerobot import OpenPIFlow, image_size, sample
from exporters.flow.policy import FlowPolicy

if TYPE_CHECKING:
    from lerobot.policies.pi05.modeling_pi05 import PI05Policy

    from exporters.bundles import Export
    from pytest_reflex.inputs import InputSpec
    from pytest_reflex.runners import TorchRunner

FAMILY = "pi05"


class PI05Flow(OpenPIFlow):
    """The two halves of lerobot's pi0.5."""


UPSTREAM = Upstream(
    family=FAMILY,
    module="lerobot.policies.pi05.modeling_pi05",
    policy="PI05Policy",
    parts=(
        "paligemma_with_expert.paligemma.model.language_model",
        "paligemma_with_expert.gemma_expert.model",
        "time_mlp_in",
    ),
    sample=sample,
    flow=PI05Flow,
    steps="num_inference_steps",
    image_size=image_size,
    state=False,
)


def load(checkpoint: str | os.PathLike[str], *, revision: str | None = None) -> PI05Policy:
    """Load a policy in float32 and eval mode, on the CPU.

    Args:
        checkpoint: a directory as lerobot's ``save_pretrained`` writes it, or a hub id.
        revision: branch, tag or commit of the hub id.

    Raises:
        CheckpointError: it cannot be had or read, is of another family, or its keys do not fit.
        ReflexError: lerobot is not installed, or is of an unsupported version.
    """
    from exporters.families import lerobot_checkpoints

    policy: PI05Policy = lerobot_checkpoints.load(checkpoint, UPSTREAM, revision=revision)
    return policy


def reference(policy: Any, *, steps: int | None = None) -> TorchRunner:
    """``sample_actions`` of the policy, unpatched, as the reference.

    Args:
        policy: a live policy, or a function that loads one when the runner opens.
        steps: the number of denoising steps; by default the configuration's.
    """
    return lerobot.reference(policy, UPSTREAM, steps=steps)


def flow(policy: Any) -> FlowPolicy:
    """The policy's two halves, as :func:`export` traces them."""
    return UPSTREAM.flow(policy)


def inputs(
    policy: PI05Policy,
    *,
    cameras: int | None = None,
    prompt_tokens: int | None = None,
    batch: int = 1,
) -> list[InputSpec]:
    """What ``sample_actions`` reads: see :func:`exporters.families.lerobot.inputs`.

    Args:
        policy: a live policy.
        cameras: how many; by default as many as its configuration names, else three.
        prompt_tokens: the length that prompts are padded to; by default the configuration's, 200
            in published checkpoints.
        batch: the batch size.

    Raises:
        InputError: a size is no whole number of at least 1.
    """
    return lerobot.inputs(policy, UPSTREAM, cameras=cameras, prompt_tokens=prompt_tokens, batch=batch)


def export(
    policy: PI05Policy,
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
        policy: a live policy in float32.
        out_dir: where the bundle goes; an earlier bundle there is replaced once the new one has passed.
        steps: the number of denoising steps; by default the configuration's.
        cameras: how many cameras the bundle has inputs for; by default as :func:`inputs` says.
        prompt_tokens: the length that prompts are padded to; by default as :func:`inputs` says.
        batch: the batch size.
        **options: what :func:`exporters.export` takes: layout, threshold, strict, fixtures, seed and so on.

    Raises:
        ParityError: the export misses the threshold; nothing is written.
        ReflexError: it could not be made or judged; nothing is written.
    """
    return lerobot.export(
        policy,
        UPSTREAM,
        out_dir,
        steps=steps,
        cameras=cameras,
        prompt_tokens=prompt_tokens,
        batch=batch,
        **options,
    )
