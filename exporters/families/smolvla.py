"""SmolVLA: lerobot's ``SmolVLAPolicy``.

The reference is the policy's own ``sample_actions``. The prefix makes the same calls on its submodules
as ``sample_actions`` does before its loop, the step is its own ``denoise_step``, whole: every other
layer of its action expert attends across to the prefix alone, and actions attend to earlier actions.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from exporters.families import lerobot
from exporters.families.kv_cache import cache_tensors, prefix_cache
from exporters.families.lerobot import Upstream, cameras_of
from exporters.flow.policy import Context, FlowPolicy
from pytest_reflex.errors import InputError

if TYPE_CHECKING:
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    from exporters.bundles import Export
    from pytest_reflex.inputs import InputSpec
    from pytest_reflex.runners import TorchRunner

FAMILY = "smolvla"


class SmolVLAFlow(FlowPolicy):
    """The two halves of lerobot's SmolVLA, each the calls that ``sample_actions`` makes.

    Where a prompt ends early, the rows of its padding are masked whole. lerobot masks with a finite
    number, so that their attention is uniform, in ONNX Runtime as in torch, and no NaN.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    @property
    def model(self) -> Any:
        return self.policy if hasattr(self.policy, "sample_actions") else self.policy.model

    def prefix(  # type: ignore[override]
        self,
        *,
        lang_tokens: torch.Tensor,  # [B, L]
        lang_masks: torch.Tensor,  # [B, L] bool
        state: torch.Tensor,  # [B, D]
        **cameras: torch.Tensor,  # image_i [B, 3, H, W], image_mask_i [B] bool
    ) -> Context:
        from lerobot.policies.common.vla_utils import make_att_2d_masks

        model = self.model
        embeds, pad_masks, att_masks = model.embed_prefix(
            *cameras_of(cameras), lang_tokens, lang_masks, state=state
        )
        _, cache = model.vlm_with_expert.forward(
            attention_mask=make_att_2d_masks(pad_masks, att_masks),
            position_ids=torch.cumsum(pad_masks, dim=1) - 1,
            past_key_values=None,
            inputs_embeds=[embeds, None],
            use_cache=model.config.use_cache,
        )
        return {**cache_tensors(cache), "prefix_pad_masks": pad_masks}

    def velocity(  # type: ignore[override]
        self,
        x_t: torch.Tensor,  # [B, T, D]
        time: torch.Tensor,  # [B]
        prefix_pad_masks: torch.Tensor,  # [B, S] bool
        **cached: torch.Tensor,
    ) -> torch.Tensor:
        velocity: torch.Tensor = self.model.denoise_step(
            prefix_pad_masks=prefix_pad_masks,
            past_key_values=prefix_cache(cached),
            x_t=x_t,
            timestep=time,
        )
        return velocity


def _sample(model: Any, named: Mapping[str, torch.Tensor], steps: int | None) -> torch.Tensor:
    with _counted(model.config, steps):
        actions: torch.Tensor = model.sample_actions(
            *cameras_of(named), named["lang_tokens"], named["lang_masks"], named["state"],
            noise=named["noise"],
        )  # fmt: skip
        return actions


@contextlib.contextmanager
def _counted(config: Any, steps: int | None) -> Iterator[None]:
    """SmolVLA takes the number of steps from its configuration alone; restores what that said."""
    said = config.num_steps
    config.num_steps = steps if steps is not None else said
    try:
        yield
    finally:
        config.num_steps = said


def _image_size(config: Any) -> tuple[int, int]:
    if config.resize_imgs_with_padding is not None:
        width, height = config.resize_imgs_with_padding  # lerobot keeps it in this order
        return int(height), int(width)
    first = next(iter(config.image_features.values()), None)
    if first is None:
        raise InputError(
            "the policy's configuration gives no image size: neither resize_imgs_with_padding nor "
            "image features; set one"
        )
    return int(first.shape[-2]), int(first.shape[-1])


UPSTREAM = Upstream(
    family=FAMILY,
    module="lerobot.policies.smolvla.modeling_smolvla",
    policy="SmolVLAPolicy",
    parts=("vlm_with_expert.vlm.model.text_model", "vlm_with_expert.lm_expert", "state_proj"),
    sample=_sample,
    flow=SmolVLAFlow,
    steps="num_steps",
    image_size=_image_size,
    state=True,
)


def load(checkpoint: str | os.PathLike[str], *, revision: str | None = None) -> SmolVLAPolicy:
    """Load a policy in float32 and eval mode, on the CPU.

    Args:
        checkpoint: a directory as lerobot's ``save_pretrained`` writes it, or a hub id.
        revision: branch, tag or commit of the hub id.

    Raises:
        CheckpointError: it cannot be had or read, is of another family, or its keys do not fit.
        ReflexError: lerobot is not installed, or is of an unsupported version.
    """
    from exporters.families import lerobot_checkpoints

    policy: SmolVLAPolicy = lerobot_checkpoints.load(checkpoint, UPSTREAM, revision=revision)
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
    policy: SmolVLAPolicy,
    *,
    cameras: int | None = None,
    prompt_tokens: int | None = None,
    batch: int = 1,
) -> list[InputSpec]:
    """What ``sample_actions`` reads: see :func:`exporters.families.lerobot.inputs`.

    Args:
        policy: a live policy.
        cameras: how many; by default as many as its configuration names, else three.
        prompt_tokens: the length that prompts are padded to; by default the configuration's, 48
            in published checkpoints.
        batch: the batch size.

    Raises:
        InputError: a size is no whole number of at least 1.
    """
    return lerobot.inputs(policy, UPSTREAM, cameras=cameras, prompt_tokens=prompt_tokens, batch=batch)


def export(
    policy: SmolVLAPolicy,
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
