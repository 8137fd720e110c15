"""pi0: lerobot's ``PI0Policy`` and transformers' ``PI0ForConditionalGeneration``, behind one face.

The same weights in two codes: lerobot embeds the time in float64, transformers in float32, and each
reads its images, masks and prompt in its own form. A policy is judged against the code that it is of,
which its class says, and of a checkpoint its ``config.json`` (``type`` for lerobot, ``model_type`` for
transformers). :mod:`exporters.families.pi0_lerobot` and :mod:`exporters.families.pi0_transformers` know
the two.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from exporters import checkpoints
from exporters.families.base import Family
from exporters.families.options import LEROBOT
from exporters.families.pi0_lerobot import LerobotPI0
from exporters.families.pi0_transformers import PI0Flow, TransformersPI0
from exporters.flow.policy import FlowPolicy
from pytest_reflex.inputs import InputSpec

__all__ = ["FAMILY", "PI0Flow", "export", "flow", "inputs", "load", "reference"]


class PI0(Family):
    """Whichever of the two a policy is of."""

    name = "pi0"
    options = LEROBOT
    policies = ("PI0Policy", "PI0ForConditionalGeneration")
    about = "transformers' `PI0ForConditionalGeneration`, lerobot's `PI0Policy`"
    lerobot, transformers = LerobotPI0(), TransformersPI0()

    def _of(self, policy: Any) -> LerobotPI0 | TransformersPI0:
        """The one that ``policy`` is of, told by its class and without an import."""
        theirs = any(kind.__name__ == "PI0ForConditionalGeneration" for kind in type(policy).__mro__)
        return self.transformers if theirs else self.lerobot

    def load(self, checkpoint: str | os.PathLike[str], *, revision: str | None = None) -> Any:
        """Load a policy in float32 and eval mode: lerobot's or transformers', as its ``config.json`` says."""
        config = checkpoints.read_config(checkpoints.resolve(checkpoint, revision=revision))
        theirs = config.get("type") == self.name and "model_type" not in config
        return (self.lerobot if theirs else self.transformers).load(checkpoint, revision=revision)

    def inputs(
        self,
        policy: Any,
        *,
        cameras: int | None = None,
        prompt_tokens: int | None = None,
        batch: int = 1,
        rtc: bool | None = None,
    ) -> list[InputSpec]:
        """What ``sample_actions`` reads, under the names of the policy's own code.

        Args:
            policy: a live policy.
            cameras: how many; by default as many as its configuration names, else three.
            prompt_tokens: the text length that prompts are padded to; by default the configuration's,
                else 48.
            batch: the batch size.
            rtc: whether each chunk is guided by the one before; by default as lerobot's ``rtc_config`` says.

        Raises:
            InputError: a size is no whole number of at least 1, or transformers' policy is to be guided.
        """
        return self._of(policy).inputs(
            policy, cameras=cameras, prompt_tokens=prompt_tokens, batch=batch, rtc=rtc
        )

    def sample(
        self, policy: Any, named: Mapping[str, torch.Tensor], steps: int | None, *, rtc: bool | None = None
    ) -> torch.Tensor:
        return self._of(policy).sample(policy, named, steps, rtc=rtc)

    def flow(self, policy: Any, *, rtc: bool | None = None) -> FlowPolicy:
        return self._of(policy).flow(policy, rtc=rtc)

    def own_call(self, policy: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        return self._of(policy).own_call(policy, options)

    def steps(self, policy: Any) -> int:
        return self._of(policy).steps(policy)

    def reader(self, policy: Any) -> torch.nn.Module:
        return self._of(policy).reader(policy)


FAMILY = PI0()
load, reference, inputs, flow, export = (
    FAMILY.load, FAMILY.reference, FAMILY.inputs, FAMILY.flow, FAMILY.export,
)  # fmt: skip
