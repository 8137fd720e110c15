"""A four-layer flow transformer: every kind of part that the families have, and small enough to look into."""

from __future__ import annotations

import math

import torch
from torch import nn

from exporters import FlowPolicy
from exporters.flow.policy import Context
from pytest_reflex import InputSpec
from pytest_reflex.inputs import Gaussian, PromptMask

WIDTH, HEADS, CHUNK, TOKENS, LAYERS, STEPS = 32, 4, 6, 8, 4, 10


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: torch.Tensor, seen: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)  # [B, H, T, D]

        scores = heads(self.q(x)) @ heads(self.k(seen)).transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        scores = scores.masked_fill(~mask[:, None, None, :], -1e4)
        return self.o((scores.softmax(-1) @ heads(self.v(seen))).transpose(1, 2).flatten(-2))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention, self.norm_2 = Norm(), Attention(), Norm()
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, seen: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm(x), seen, mask)
        return x + self.down(nn.functional.gelu(self.up(self.norm_2(x))))


class Toy(FlowPolicy):
    """Its own reference: ``prompt`` and ``mask`` in, ``actions`` out."""

    steps = STEPS

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.prompt = nn.Linear(WIDTH, WIDTH)
        self.time = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm, self.out = Norm(), nn.Linear(WIDTH, WIDTH)

    def prefix(self, prompt: torch.Tensor, mask: torch.Tensor) -> Context:  # type: ignore[override]
        return {"seen": torch.tanh(self.prompt(prompt)), "mask": mask}

    def velocity(  # type: ignore[override]
        self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        rates = 1e-4 ** torch.linspace(0, 1, WIDTH // 2, dtype=torch.float64)
        angles = 1e5 * time.double()[:, None] * rates
        told = self.time(torch.cat([angles.sin(), angles.cos()], -1).float())
        x = x_t + told[:, None]
        for layer in self.layers:
            x = layer(x, seen, mask)
        return self.out(self.norm(x))


def inputs() -> list[InputSpec]:
    return [
        InputSpec("prompt", (1, TOKENS, WIDTH), "float32", Gaussian()),
        InputSpec("mask", (1, TOKENS), "bool", PromptMask()),
        InputSpec("noise", (1, CHUNK, WIDTH), "float32", Gaussian()),
    ]
