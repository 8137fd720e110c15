"""A policy of many equal layers, so that a fault can be planted in each, and the bundle of it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import exporters
from exporters.bundles import Bundle
from pytest_reflex import InputSpec
from pytest_reflex.inputs import Gaussian

INPUTS = [InputSpec("seen", (1, 8), meaning=Gaussian())]
LAYERS = 20


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(LAYERS))

    def forward(self, seen: torch.Tensor) -> dict[str, torch.Tensor]:
        for layer in self.layers:
            seen = seen + torch.tanh(layer(seen))
        return {"actions": seen}


def bundle_in(place: Path) -> Bundle:
    return exporters.export(Net().eval(), place / "b", inputs=INPUTS)
