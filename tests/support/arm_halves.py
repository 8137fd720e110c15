"""Two halves around an arm's policy, which keeps whatever way of its own it has."""

from __future__ import annotations

import torch
from torch import nn

from exporters import FlowPolicy


class Around(FlowPolicy):
    """Halves of a policy with an ``arm``; nobody asks the policy itself."""

    def __init__(self, policy: nn.Module, steps: int) -> None:
        super().__init__()
        self.policy, self.steps = policy, steps

    def prefix(self, joints: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"seen": self.policy.arm.see(joints)}

    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        return self.policy.arm.velocity(x_t, time, seen)
