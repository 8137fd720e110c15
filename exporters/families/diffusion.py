"""Diffusion Policy: lerobot's ``DiffusionPolicy``, its U-Net under DDPM or DDIM.

The reference is the policy's own ``predict_action_chunk``. The prefix is its
``_prepare_global_conditioning``, the step its ``unet``; the schedule is that of its own scheduler, and the
epilogue the slice of the horizon that ``generate_actions`` keeps. The noise of DDPM's steps is an input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from exporters.families.lerobot_features import FeatureFamily, noise_spec
from exporters.flow.diffusion import DiffusionSchedule
from exporters.flow.policy import Context, FlowPolicy
from exporters.flow.update import Operation, X
from pytest_reflex.inputs import InputSpec

__all__ = ["FAMILY", "DiffusionFlow", "export", "flow", "inputs", "load", "reference"]


class DiffusionFlow(FlowPolicy):
    """The two halves of lerobot's Diffusion Policy."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy
        self.steps = int(policy.diffusion.num_inference_steps)
        self.schedule = DiffusionSchedule(policy.diffusion.noise_scheduler)
        self.epilogue = kept_actions(policy.config)

    def prefix(self, **observation: torch.Tensor) -> Context:
        batch = FAMILY.batch(self.policy, observation)
        return {"global_cond": self.policy.diffusion._prepare_global_conditioning(batch)}

    def velocity(  # type: ignore[override]
        self, x_t: torch.Tensor, time: torch.Tensor, global_cond: torch.Tensor
    ) -> torch.Tensor:
        predicted: torch.Tensor = self.policy.diffusion.unet(x_t, time, global_cond=global_cond)
        return predicted


class Diffusion(FeatureFamily):
    """Diffusion Policy as lerobot has it."""

    name = "diffusion"
    module = "lerobot.policies.diffusion.modeling_diffusion"
    policy = "DiffusionPolicy"
    parts: ClassVar[tuple[str, ...]] = ("diffusion.unet", "diffusion.noise_scheduler")
    # Of a hundred steps, one graph would hold a hundred.
    layout = "loop"
    stepped = True
    halves: ClassVar[type[FlowPolicy]] = DiffusionFlow

    def inputs(self, policy: Any, *, batch: int = 1, steps: int | None = None) -> list[InputSpec]:
        """What :meth:`FeatureFamily.inputs` says, then ``noise`` [batch, horizon, dim] and, for DDPM,
        ``step_noise`` [batch, steps - 1, horizon, dim]."""
        specs = self.observation(policy, batch)
        loop, config = self.flow(policy).loop(steps), policy.config
        shape = (int(config.horizon), int(config.action_feature.shape[0]))
        drawn = {loop.noise: (batch, *shape), loop.step_noise: (batch, loop.schedule.draws, *shape)}
        return specs + [noise_spec(*drawn[name], name=name) for name in loop.noises]

    def observation(self, policy: Any, batch: int) -> list[InputSpec]:
        """What the policy sees."""
        return super().inputs(policy, batch=batch)

    def sample(self, policy: Any, named: Mapping[str, torch.Tensor], steps: int | None) -> torch.Tensor:
        drawn = named["step_noise"].unbind(1) if "step_noise" in named else ()
        with self.seen(policy, named) as batch:
            return self.chunk(policy, batch, steps, *drawn, noise=named["noise"])

    def counted(self, policy: Any) -> tuple[Any, str]:
        return policy.diffusion, "num_inference_steps"

    def reader(self, policy: Any) -> torch.nn.Module:
        reader: torch.nn.Module = policy.diffusion.unet
        return reader


def kept_actions(config: Any) -> tuple[Operation, ...]:
    """The part of the horizon from the current observation on that is acted on."""
    start = int(config.n_obs_steps) - 1
    return (Operation("Slice", "kept", (X, 1, start, start + int(config.n_action_steps))),)


FAMILY = Diffusion()
load, reference, inputs, flow, export = (
    FAMILY.load, FAMILY.reference, FAMILY.inputs, FAMILY.flow, FAMILY.export,
)  # fmt: skip
