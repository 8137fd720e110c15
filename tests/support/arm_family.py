"""A family as another distribution would bring it: a policy with a sampler of its own, and its `Family`."""

from __future__ import annotations

import os
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from exporters import FlowPolicy, checkpoints
from exporters.families.base import Family, require_counts
from exporters.families.options import Option
from pytest_reflex.inputs import Gaussian, InputSpec, State


class Arm(nn.Module):
    """The upstream: it knows nothing of exports."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.see, self.read, self.move = nn.Linear(3, 8), nn.Linear(2, 8), nn.Linear(9, 2)

    def velocity(self, x: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        when = time[:, None, None].expand(-1, x.shape[1], 1)
        return self.move(torch.cat([torch.tanh(self.read(x) + seen[:, None]), when], -1))

    def act(self, joints: torch.Tensor, noise: torch.Tensor, steps: int) -> torch.Tensor:
        seen, x = self.see(joints), noise
        for step in range(steps):
            x = x - self.velocity(x, torch.full(x.shape[:1], 1.0 - step / steps), seen) / steps
        return x


class ArmFlow(FlowPolicy):
    def __init__(self, arm: Arm) -> None:
        super().__init__()
        self.arm = arm

    def prefix(self, joints: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"seen": self.arm.see(joints)}

    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        return self.arm.velocity(x_t, time, seen)


class ArmFamily(Family):
    name = "arm"
    own_names = ("arm_v2",)
    options = (Option("horizon", "How many actions an arm makes at once."),)

    def load(self, checkpoint: str | os.PathLike[str], *, revision: str | None = None) -> Arm:
        place = checkpoints.resolve(checkpoint, revision=revision)
        arm = Arm(checkpoints.read_config(place)["steps"]).eval()
        arm.load_state_dict(load_file(checkpoints.weight_files(place)[0]))
        return arm

    def inputs(self, policy: Any, *, horizon: int | None = None, batch: int = 1) -> list[InputSpec]:
        horizon = 4 if horizon is None else horizon
        require_counts(horizon=horizon, batch=batch)
        noise = InputSpec("noise", (batch, horizon, 2), meaning=Gaussian())
        return [InputSpec("joints", (batch, 3), meaning=State()), noise]

    def sample(self, policy: Any, named: dict[str, torch.Tensor], steps: int | None) -> torch.Tensor:
        return policy.act(**named, steps=steps or policy.steps)

    def flow(self, policy: Any) -> ArmFlow:
        return ArmFlow(policy)

    def steps(self, policy: Any) -> int:
        return policy.steps

    def reader(self, policy: Any) -> nn.Module:
        return policy.read


FAMILY = ArmFamily()
