"""What lerobot's policies have in common that read the features of their configuration.

Their inputs are what lerobot's preprocessing leaves: normalised images, the robot's and the environment's
state, of as many observations as the policy looks back on. The reference is the policy's own
``predict_action_chunk``; where that reads observations from the policy's queues, they come there as they do
on a robot, through lerobot's own function, and what the policy remembered is put back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import torch

from exporters.families.base import require_counts, set_to
from exporters.families.given_draws import given_draws
from exporters.families.lerobot import LerobotPolicy
from exporters.flow.policy import FlowPolicy
from pytest_reflex.errors import InputError
from pytest_reflex.inputs import (
    Distribution,
    Gaussian,
    Image,
    InputSpec,
    PromptMask,
    ScaledImage,
    State,
    Tokens,
)

Named = Mapping[str, torch.Tensor]

# Where each normalisation leaves pixels that were in [0, 1]; by mean and deviation with ImageNet's
# statistics, as lerobot's datasets do.
_PIXELS: Final[Mapping[str, Distribution]] = {
    "IDENTITY": ScaledImage(0.0, 1.0),
    "MEAN_STD": ScaledImage(-2.118, 2.64),
    "MIN_MAX": Image(),
}
_STATES: Final = {"state": "observation.state", "environment_state": "observation.environment_state"}
_PROMPT: Final = {
    "lang_masks": "observation.language.attention_mask",
    "lang_tokens": "observation.language.tokens",
}
_IMAGES: Final = "observation.images"
# A camera that a configuration adds, for a checkpoint that has more of them than the robot.
_EMPTY: Final = "observation.images.empty_camera_"


def noise_spec(*shape: int, name: str = "noise") -> InputSpec:
    """What a loop starts from, or draws."""
    return InputSpec(name, tuple(map(int, shape)), meaning=Gaussian())


class FeatureFamily(LerobotPolicy):
    """One of them.

    Attributes:
        queued: whether it reads its last observations, ``[batch, n_obs_steps, ...]``, from its queues.
        stacked: whether it reads its cameras as one besides.
        halves: its two halves, of a live policy and the family's own options; none of one without a loop.
        pixels: what its images are, by how its configuration has them normalised.
    """

    judged_by = "its `predict_action_chunk`"
    queued: ClassVar[bool] = True
    stacked: ClassVar[bool] = True
    halves: ClassVar[type[FlowPolicy]]
    pixels: ClassVar[Mapping[str, Distribution]] = _PIXELS

    def owner(self, policy: torch.nn.Module) -> torch.nn.Module:
        self.require(policy, policy, ("predict_action_chunk", "config", *self.parts))
        return policy

    def keys(self, policy: Any) -> dict[str, str]:
        """The inputs' names, each with lerobot's key of what it holds, without cameras that stay empty."""
        config = policy.config
        cameras = [key for key in config.image_features if not key.startswith(_EMPTY)]
        images = {f"image_{index}": key for index, key in enumerate(cameras)}
        return images | {name: key for name, key in _STATES.items() if key in config.input_features}

    def inputs(self, policy: Any, *, batch: int = 1) -> list[InputSpec]:
        """What ``predict_action_chunk`` reads, as lerobot's preprocessing gives it.

        ``image_0 ..`` [batch, 3, H, W], normalised as the configuration says; ``state`` and
        ``environment_state`` [batch, dim]. With ``n_obs_steps`` behind the batch where the policy looks back.

        Args:
            policy: a live policy.
            batch: the batch size.

        Raises:
            InputError: the batch is no whole number of at least 1, or the images' normalisation is not known.
        """
        self.owner(policy)
        config = policy.config
        require_counts(batch=batch)
        ahead = (batch, int(config.n_obs_steps)) if self.queued else (batch,)
        mode = getattr(config.normalization_mapping.get("VISUAL", "IDENTITY"), "value", "IDENTITY")
        if mode not in self.pixels:
            raise InputError(f"images are normalised by {mode!r}, expected one of {', '.join(self.pixels)}")
        return [
            InputSpec(
                name,
                (*ahead, *config.input_features[key].shape),
                meaning=self.pixels[mode] if name.startswith("image_") else State(),
            )
            for name, key in self.keys(policy).items()
        ]

    def prompt(
        self, policy: Any, batch: int, words: Any, *, masked: bool = False, end: int | None = None
    ) -> list[InputSpec]:
        """``lang_tokens`` [batch, length], which ``words`` embeds; ``lang_masks`` where it reads them.

        ``end`` is what its tokenizer ends and pads a prompt with, where the policy looks for that.
        """
        shape, mask = (batch, int(policy.config.tokenizer_max_length)), "lang_masks" if masked else None
        tokens = Tokens(vocab=int(words.num_embeddings), mask=mask, pad=end or 0, end=end)
        specs = [InputSpec("lang_masks", shape, "bool", PromptMask())] if masked else []
        return [*specs, InputSpec("lang_tokens", shape, "int64", tokens)]

    def flow(self, policy: Any, **kept: Any) -> FlowPolicy:
        return self.halves(policy, **kept)

    def counted(self, policy: Any) -> tuple[Any, str]:
        """What holds the number of denoising steps, and by which name."""
        raise NotImplementedError(f"{self.name} has no loop")

    def steps(self, policy: Any) -> int:
        return int(getattr(*self.counted(policy)))

    def chunk(
        self, policy: Any, batch: Any, steps: int | None, *draws: torch.Tensor, **told: Any
    ) -> torch.Tensor:
        """The policy's own ``predict_action_chunk`` in so many steps, with what it draws given."""
        with set_to(*self.counted(policy), steps), given_draws(*draws):
            actions: torch.Tensor = policy.predict_action_chunk(batch, **told)
            return actions

    def batch(self, policy: Any, named: Named) -> dict[str, torch.Tensor]:
        """The observation under lerobot's keys."""
        keys = self.keys(policy) | {name: key for name, key in _PROMPT.items() if name in named}
        batch = {key: named[name] for name, key in keys.items()}
        if self.stacked and (images := list(policy.config.image_features)):
            batch[_IMAGES] = torch.stack([batch[key] for key in images], dim=-4)
        return batch

    @contextlib.contextmanager
    def seen(self, policy: Any, named: Named) -> Iterator[dict[str, torch.Tensor]]:
        """The policy with these observations in its queues and no others; its last one, as a batch."""
        from lerobot.policies.utils import populate_queues

        whole, kept = self.batch(policy, named), policy._queues
        observed = {_IMAGES, *policy.config.input_features}
        try:
            policy.reset()
            for index in range(policy.config.n_obs_steps):
                batch = {key: v[:, index] if key in observed else v for key, v in whole.items()}
                policy._queues = populate_queues(policy._queues, batch)
            yield batch
        finally:
            policy._queues = kept
