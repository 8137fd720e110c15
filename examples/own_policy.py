"""A flow-matching policy of one's own, exported and proven: two halves, an input list, one call."""

from __future__ import annotations

import torch
from torch import nn

from exporters import FlowPolicy, export
from pytest_reflex.inputs import Gaussian, Image, InputSpec, State

INPUTS = [
    InputSpec("image", (1, 3, 32, 32), meaning=Image()),
    InputSpec("state", (1, 7), meaning=State()),
    InputSpec("noise", (1, 16, 7), meaning=Gaussian()),
]


class Reach(FlowPolicy):
    """One camera and the joint state in; a chunk of 16 joint targets out."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.GELU(), nn.Flatten(), nn.Linear(512, 64))
        self.feel = nn.Linear(7, 64)
        self.embed = nn.Linear(8, 64)
        self.head = nn.Sequential(nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 7))

    def prefix(self, image: torch.Tensor, state: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"seen": self.see(image) + self.feel(state)}  # [B, 64]

    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        when = time[:, None, None].expand(-1, x_t.shape[1], 1)  # [B, T, 1]
        return self.head(self.embed(torch.cat([x_t, when], dim=-1)) + seen[:, None])  # [B, T, 7]


def policy() -> Reach:
    """The policy with seeded weights; a real one would load its checkpoint here."""
    torch.manual_seed(0)
    return Reach()


if __name__ == "__main__":
    made = export(policy(), "demo/reach", inputs=INPUTS, strict=True)
    print(made.result)
