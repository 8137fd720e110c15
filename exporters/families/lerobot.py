"""What lerobot's policies have in common: versions, the model inside, named inputs, the four verbs.

A family says in an :class:`Upstream` where lerobot keeps it and how its ``sample_actions`` is called;
its checkpoints are read in :mod:`exporters.families.lerobot_checkpoints`, recorded observations become
inputs in :mod:`exporters.families.observations`. This file imports lerobot only inside functions: it is not
installed where another upstream of a family is used.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

import torch

from exporters.families.observations import observation_inputs
from exporters.flow.loop_states import watched_states
from exporters.flow.policy import FlowPolicy
from pytest_reflex.errors import CheckpointError, InputError, ReflexError
from pytest_reflex.inputs import CameraMask, Gaussian, Image, InputSpec, PromptMask, State, Tokens

if TYPE_CHECKING:
    from exporters.bundles import Export
    from pytest_reflex.runners import TorchRunner

__all__ = [
    "CAMERAS",
    "Upstream",
    "cameras_of",
    "export",
    "inner",
    "inputs",
    "observation_inputs",
    "reference",
    "require_counts",
    "require_versions",
]

# A base camera and one on each wrist, where a configuration names none.
CAMERAS = 3
# What each package must be: at least the first, below the second. Later transformers took away what
# lerobot 0.6 calls (``cache_position`` of ``create_causal_mask``, a positive ``Cache.crop``).
SUPPORTED: Final = {"lerobot": ("0.6", "0.7"), "transformers": ("5.4", "5.6")}


@dataclass(frozen=True)
class Upstream:
    """One of lerobot's policies.

    Attributes:
        family: its name here, and the ``type`` in lerobot's configurations.
        module: where lerobot keeps it.
        policy: the name of its policy class.
        parts: what its inner model must have, as dotted names.
        sample: its own ``sample_actions``: ``sample(model, inputs, steps)`` with named input tensors.
        flow: makes the two halves of a policy.
        steps: the field of the configuration that holds the number of denoising steps.
        image_size: (height, width) of its images, by its configuration.
        state: whether it reads the robot's state as an input of its own.
    """

    family: str
    module: str
    policy: str
    parts: tuple[str, ...]
    sample: Callable[[Any, Mapping[str, torch.Tensor], int | None], torch.Tensor]
    flow: Callable[[Any], FlowPolicy]
    steps: str
    image_size: Callable[[Any], tuple[int, int]]
    state: bool

    def policy_class(self) -> Any:
        """The policy's class.

        Raises:
            ReflexError: lerobot is not installed or of another version, or has no such class.
        """
        require_versions()
        try:
            return getattr(import_module(self.module), self.policy)
        except (ImportError, AttributeError) as error:
            raise ReflexError(f"lerobot {version('lerobot')} gives no {self.policy}: {error}") from error


def require_versions() -> None:
    """Refuse versions of lerobot and transformers that the adapters were not proven with.

    Raises:
        ReflexError: naming what was found and what is expected.
    """
    for package, (least, below) in SUPPORTED.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            raise ReflexError(
                f"{package} is not installed, which this policy's own code is in; install "
                "'lerobot[smolvla,pi]==0.6.*' (Python 3.12 or later)"
            ) from None
        if not _numbers(least) <= _numbers(found) < _numbers(below):
            raise ReflexError(
                f"{package} {found} is installed; lerobot's policies are supported with {package} "
                f">={least},<{below}"
            )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def inner(policy: Any, upstream: Upstream) -> Any:
    """The model that has ``sample_actions``: inside of a lerobot policy, or given bare.

    Raises:
        ReflexError: it is no model of this family, naming the submodule that it lacks.
    """
    model = policy if hasattr(policy, "sample_actions") else getattr(policy, "model", None)
    for part in ("sample_actions", "embed_prefix", "denoise_step", "config", *upstream.parts):
        at: Any = model
        for name in part.split("."):
            at = getattr(at, name, None)
        if at is None:
            raise ReflexError(
                f"a {type(policy).__name__} was given as {upstream.family}, and its model "
                f"({type(model).__name__}) has no {part}; expected lerobot's {upstream.policy}"
            )
    return model


def reference(policy: Any, upstream: Upstream, *, steps: int | None = None) -> TorchRunner:
    """The policy's own ``sample_actions``, unpatched, called with named inputs."""
    from pytest_reflex.runners import TorchRunner

    def call(model: Any, **named: torch.Tensor) -> torch.Tensor:
        return upstream.sample(inner(model, upstream), named, steps)

    states = functools.partial(sample_states, upstream=upstream, steps=steps)
    if isinstance(policy, torch.nn.Module):
        inner(policy, upstream)
        return TorchRunner(policy, functools.partial(call, policy), outputs=["actions"], states=states)
    return TorchRunner(policy, call, outputs=["actions"], states=states)


def sample_states(
    policy: Any, *, upstream: Upstream, steps: int | None, **named: torch.Tensor
) -> list[torch.Tensor]:
    """What the loop of ``sample_actions`` holds after each step, watched as it runs."""
    model = inner(policy, upstream)
    return watched_states(model.action_in_proj, lambda: upstream.sample(model, named, steps), named["noise"])


def inputs(
    policy: Any,
    upstream: Upstream,
    *,
    cameras: int | None = None,
    prompt_tokens: int | None = None,
    batch: int = 1,
) -> list[InputSpec]:
    """What ``sample_actions`` reads, as lerobot's preprocessing gives it.

    ``image_0 ..`` [batch, 3, H, W] in [-1, 1] and ``image_mask_0 ..`` [batch]; ``lang_masks`` and
    ``lang_tokens`` [batch, prompt_tokens], padded on the right; ``state`` [batch, max_state_dim] where
    the policy reads one; ``noise`` [batch, chunk, max_action_dim].

    Raises:
        InputError: a size is no whole number of at least 1.
    """
    model = inner(policy, upstream)
    config = model.config
    cameras = cameras if cameras is not None else len(config.image_features) or CAMERAS
    prompt_tokens = prompt_tokens if prompt_tokens is not None else config.tokenizer_max_length
    require_counts(cameras=cameras, prompt_tokens=prompt_tokens, batch=batch)
    height, width = upstream.image_size(config)
    prompt = (batch, prompt_tokens)
    specs = [InputSpec(f"image_{i}", (batch, 3, height, width), "float32", Image()) for i in range(cameras)]
    specs += [
        InputSpec(f"image_mask_{i}", (batch,), "bool", CameraMask(camera=i, cameras=cameras))
        for i in range(cameras)
    ]
    specs += [
        InputSpec("lang_masks", prompt, "bool", PromptMask()),
        InputSpec("lang_tokens", prompt, "int64", Tokens(vocab=_vocabulary(model), mask="lang_masks")),
    ]
    if upstream.state:
        specs.append(InputSpec("state", (batch, config.max_state_dim), "float32", State()))
    noise = (batch, config.chunk_size, config.max_action_dim)
    return [*specs, InputSpec("noise", noise, "float32", Gaussian())]


def export(
    policy: Any,
    upstream: Upstream,
    out_dir: str | os.PathLike[str],
    *,
    steps: int | None = None,
    cameras: int | None = None,
    prompt_tokens: int | None = None,
    batch: int = 1,
    **options: Any,
) -> Export:
    """Export ``policy`` as a bundle, proven against its own ``sample_actions``."""
    from exporters.exporting import export as export_any

    model = inner(policy, upstream)
    steps = steps if steps is not None else getattr(model.config, upstream.steps)
    return export_any(
        reference(policy, upstream, steps=steps),
        out_dir,
        inputs=inputs(policy, upstream, cameras=cameras, prompt_tokens=prompt_tokens, batch=batch),
        flow=upstream.flow(policy),
        steps=steps,
        family=upstream.family,
        **options,
    )


def cameras_of(named: Mapping[str, torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The images and their masks of named inputs, as the lists that ``sample_actions`` takes."""
    count = sum(name.startswith("image_mask_") for name in named)
    return [named[f"image_{i}"] for i in range(count)], [named[f"image_mask_{i}"] for i in range(count)]


def require_counts(**values: object) -> None:
    """Refuse what is no whole number of at least 1.

    Raises:
        InputError: naming the value.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name} is {value!r}, expected a whole number of at least 1")


def _vocabulary(model: Any) -> int:
    """How many token ids the policy's own embedding knows."""
    vlm = getattr(model, "paligemma_with_expert", None)
    if vlm is not None:
        return int(vlm.paligemma.model.language_model.embed_tokens.num_embeddings)
    return int(model.vlm_with_expert.vlm.model.text_model.embed_tokens.num_embeddings)


def family_error(directory: object, found: object, family: str) -> CheckpointError:
    """What to say of a checkpoint of another family."""
    return CheckpointError(f"{directory} is a checkpoint of {found!r}, expected type {family!r}")
