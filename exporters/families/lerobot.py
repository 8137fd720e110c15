"""What lerobot's policies have in common: versions, the model inside, named inputs.

A family says in a :class:`LerobotFamily` where lerobot keeps it and how its ``sample_actions`` is called;
its checkpoints are read in :mod:`exporters.families.lerobot_checkpoints`, recorded observations become
inputs in :mod:`exporters.families.observations`. This file imports lerobot only inside functions: it is not
installed where another upstream of a family is used.
"""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from operator import attrgetter
from typing import Any, ClassVar, Final

import torch

from exporters.families.base import Family, require_counts
from exporters.families.observations import observation_inputs
from exporters.families.options import LEROBOT, PROMPTED, Option
from exporters.families.real_time import RealTimeFlow, guides, real_time_inputs
from exporters.flow.policy import FlowPolicy
from pytest_reflex.errors import ReflexError, a_type
from pytest_reflex.inputs import CameraMask, Gaussian, Image, InputSpec, PromptMask, State, Tokens

__all__ = ["CAMERAS", "LerobotFamily", "cameras_of", "observation_inputs", "require_versions"]

# A base camera and one on each wrist, where a configuration names none.
CAMERAS = 3
# What each package must be: at least the first, below the second. Later transformers took away what
# lerobot 0.6 calls (``cache_position`` of ``create_causal_mask``, a positive ``Cache.crop``).
SUPPORTED: Final = {"lerobot": ("0.6", "0.7"), "transformers": ("5.4", "5.6")}


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
                f"{package} is not installed, which this policy's own code is in; "
                "pip install 'pytest-reflex[lerobot]' (Python 3.12 or later)"
            ) from None
        if not _numbers(least) <= _numbers(found) < _numbers(below):
            raise ReflexError(
                f"{package} {found} is installed; lerobot's policies are supported with {package} "
                f">={least},<{below}"
            )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


class LerobotPolicy(Family):
    """One of lerobot's policies: where its class is, how its checkpoints are read, what it must have.

    Attributes:
        module: where lerobot keeps it.
        policy: the name of its policy class.
        parts: what it must have, as dotted names.
    """

    module: ClassVar[str]
    policy: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "policy" in vars(cls):
            cls.policies, cls.about = (cls.policy,), f"lerobot's `{cls.policy}`"

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

    def load(self, checkpoint: str | os.PathLike[str], *, revision: str | None = None) -> Any:
        """Load a policy in float32 and eval mode; see :meth:`exporters.families.base.Family.load`."""
        from exporters.families import lerobot_checkpoints

        return lerobot_checkpoints.load(checkpoint, self.name, self.policy_class, revision=revision)

    def require(self, policy: Any, model: Any, parts: Sequence[str]) -> None:
        """Refuse a policy that lacks a part.

        Raises:
            ReflexError: naming it.
        """
        for part in parts:
            at: Any = model
            for name in part.split("."):
                at = getattr(at, name, None)
            if at is None:
                raise ReflexError(
                    f"{a_type(policy)} was given as {self.name}, and its model "
                    f"({type(model).__name__}) has no {part}; expected lerobot's {self.policy}"
                )


class LerobotFamily(LerobotPolicy):
    """One of lerobot's policies with a model that has ``sample_actions``.

    Attributes:
        counted: the field of the configuration that holds the number of denoising steps.
        embedding: its embedding of token ids, as a dotted name in the inner model.
        state: whether it reads the robot's state as an input of its own.
        noised: whether it starts from noise.
    """

    counted: ClassVar[str]
    embedding: ClassVar[str]
    state: ClassVar[bool]
    noised: ClassVar[bool] = True
    options: ClassVar[tuple[Option, ...]] = PROMPTED

    def image_size(self, config: Any) -> tuple[int, int]:
        """(height, width) of its images, by its configuration."""
        height, width = config.image_resolution
        return int(height), int(width)

    def inner(self, policy: Any) -> Any:
        """The model that has ``sample_actions``: inside of a lerobot policy, or given bare.

        Raises:
            ReflexError: it is no model of this family, naming the submodule that it lacks.
        """
        model = policy if hasattr(policy, "sample_actions") else getattr(policy, "model", None)
        self.require(policy, model, ("sample_actions", "embed_prefix", "denoise_step", "config", *self.parts))
        return model

    def owner(self, policy: torch.nn.Module) -> torch.nn.Module:
        self.inner(policy)
        return policy

    def steps(self, policy: Any) -> int:
        return int(getattr(self.inner(policy).config, self.counted))

    def reader(self, policy: Any) -> torch.nn.Module:
        reader: torch.nn.Module = self.inner(policy).action_in_proj
        return reader

    def inputs(
        self,
        policy: Any,
        *,
        cameras: int | None = None,
        prompt_tokens: int | None = None,
        batch: int = 1,
    ) -> list[InputSpec]:
        """What ``sample_actions`` reads, as lerobot's preprocessing gives it.

        ``image_0 ..`` [batch, 3, H, W] in [-1, 1] and ``image_mask_0 ..`` [batch]; ``lang_masks`` and
        ``lang_tokens`` [batch, prompt_tokens], padded on the right; ``state`` [batch, max_state_dim] where
        the policy reads one; ``noise`` [batch, chunk, max_action_dim] where it starts from some.

        Args:
            policy: a live policy.
            cameras: how many; by default as many as its configuration names, else three.
            prompt_tokens: the length that prompts are padded to; by default the configuration's: in
                published checkpoints 200 for pi0.5, else 48.
            batch: the batch size.

        Raises:
            InputError: a size is no whole number of at least 1.
        """
        model = self.inner(policy)
        config = model.config
        cameras = cameras if cameras is not None else len(config.image_features) or CAMERAS
        prompt_tokens = prompt_tokens if prompt_tokens is not None else config.tokenizer_max_length
        require_counts(cameras=cameras, prompt_tokens=prompt_tokens, batch=batch)
        height, width = self.image_size(config)
        prompt = (batch, prompt_tokens)
        vocabulary = int(attrgetter(self.embedding)(model).num_embeddings)
        specs = [
            InputSpec(f"image_{i}", (batch, 3, height, width), "float32", Image()) for i in range(cameras)
        ]
        specs += [
            InputSpec(f"image_mask_{i}", (batch,), "bool", CameraMask(camera=i, cameras=cameras))
            for i in range(cameras)
        ]
        specs += [
            InputSpec("lang_masks", prompt, "bool", PromptMask()),
            InputSpec("lang_tokens", prompt, "int64", Tokens(vocab=vocabulary, mask="lang_masks")),
        ]
        if self.state:
            specs.append(InputSpec("state", (batch, config.max_state_dim), "float32", State()))
        noise = InputSpec("noise", (batch, config.chunk_size, config.max_action_dim), meaning=Gaussian())
        return [*specs, noise] if self.noised else specs


class GuidedFamily(LerobotFamily):
    """One whose chunks can be guided by the one before, in real time."""

    options = LEROBOT

    @abstractmethod
    def halves(self, policy: Any) -> FlowPolicy:
        """The policy's two halves, without guidance."""

    def flow(self, policy: Any, *, rtc: bool | None = None) -> FlowPolicy:
        """The policy's two halves; with ``rtc`` each chunk is guided by the one before.

        See :mod:`exporters.families.real_time`. By default it is where the policy's ``rtc_config`` is
        enabled.
        """
        model, made = self.inner(policy), self.halves(policy)
        return RealTimeFlow(made, model, model.config.chunk_size) if guides(model.config, rtc) else made

    def own_call(self, policy: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        config = self.inner(policy).config
        own, guided = guides(config), guides(config, options.get("rtc"))
        plain = {name: value for name, value in options.items() if name != "rtc"}
        # Said in the bundle, should somebody load the policy again with another configuration.
        return {**plain, "rtc": guided} if guided or own else plain

    def inputs(
        self,
        policy: Any,
        *,
        cameras: int | None = None,
        prompt_tokens: int | None = None,
        batch: int = 1,
        rtc: bool | None = None,
    ) -> list[InputSpec]:
        """What :meth:`LerobotFamily.inputs` says, and with real-time chunking what guides a chunk.

        That is the chunk before, ``prev_chunk``, shaped as the noise, and the whole numbers
        ``execution_horizon`` and ``inference_delay``.

        Args:
            policy: a live policy.
            cameras: see there.
            prompt_tokens: see there.
            batch: the batch size.
            rtc: whether each chunk is guided by the one before; by default as the policy's ``rtc_config``
                says.
        """
        *seen, noise = super().inputs(policy, cameras=cameras, prompt_tokens=prompt_tokens, batch=batch)
        guided = real_time_inputs(noise.shape) if guides(self.inner(policy).config, rtc) else []
        return [*seen, *guided, noise]


def cameras_of(named: Mapping[str, torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The images and their masks of named inputs, as the lists that ``sample_actions`` takes."""
    count = sum(name.startswith("image_mask_") for name in named)
    return [named[f"image_{i}"] for i in range(count)], [named[f"image_mask_{i}"] for i in range(count)]
