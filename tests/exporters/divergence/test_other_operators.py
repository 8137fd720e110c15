"""locate() of a policy that was given another operator since its export: no right node is named for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import jsonschema
import pytest
import torch
from torch import nn

import exporters
from exporters import locate
from exporters.divergence import write_reproduction
from pytest_reflex import InputSpec
from pytest_reflex.report import html
from pytest_reflex.report.json import document, schema
from pytest_reflex.report.json.results import result_from_json, result_to_json
from pytest_reflex.report.text.divergence import divergence_text
from pytest_reflex.result import Located

pytestmark = pytest.mark.once

WIDTH = 8


def mlp(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 16), activation, nn.Linear(16, WIDTH))


class Residual(nn.Module):
    """An activation, then an addition of what came before; others are added on both sides of it."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.trunk, self.body, self.act = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), activation
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        x = self.trunk(input) + 0.25
        return self.head(x + self.act(self.body(x)))


class Backbone(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4), activation, nn.Conv1d(4, 4, 3), nn.ReLU()
        )
        self.head = nn.Linear(4 * (WIDTH - 2), WIDTH)
        self.backbone[1].running_mean += 0.3

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(input[:, None]).flatten(1))


class Headed(nn.Module):
    """``added`` before the head; an addition of the same shape comes after it."""

    def __init__(self, added: bool) -> None:
        super().__init__()
        self.added, self.q = added, nn.Parameter(torch.randn(3, WIDTH))
        self.trunk = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        x = self.trunk(input[:, None].expand(-1, 3, -1))
        return self.head(x + self.q if self.added else x) + x


class Attention(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, heads, batch_first=True)
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        x = torch.cumsum(input[:, None].expand(-1, 5, -1), 1)
        return self.head(self.attn(x, x, x, need_weights=False)[0])


class Functional(nn.Module):
    """An activation by hand on one side, outside of any submodule."""

    def __init__(self, act: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.act = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), act

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.b(self.act(self.a(input)))


def by_hand(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.7 * x)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


def found_in(was: nn.Module, now: nn.Module, folder: Path) -> Located:
    made = exporters.export(was, folder / "b", inputs=[InputSpec("input", (1, WIDTH))], verify=False)
    return locate(now, made)


CASES = {
    "GELU, then SiLU": (mlp, nn.GELU(), nn.SiLU(), "1", "gelu (GELU), the policy silu (SiLU)"),
    "a residual behind": (Residual, nn.GELU(), nn.ReLU(), "act", "gelu (GELU), the policy relu (ReLU)"),
    "behind a BatchNorm": (Backbone, nn.SiLU(), nn.ReLU(), "backbone.2", "silu (SiLU), the policy relu (ReLU)"),
    "an addition dropped": (Headed, True, False, "Headed", "the graph's Add in `Headed` has no counterpart"),
    "an addition more": (Headed, False, True, "Headed", "reads what its add in `Headed` gives, and the graph's does not"),
    "fewer heads": (Attention, 4, 2, "attn", "where the policy's view gives"),
    "by hand": (Functional, torch.nn.functional.gelu, by_hand, "Functional", "gelu, the policy mul, sigmoid, mul"),
    "no longer by hand": (Functional, by_hand, torch.nn.functional.gelu, "Functional", "Mul, Sigmoid in `Functional` have"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_has_no_counterpart_is_named_and_no_right_node(case: str, tmp_path: Path) -> None:
    kind, before, after, module, said = CASES[case]
    found = found_in(seeded(partial(kind, before)), seeded(partial(kind, after)), tmp_path)
    print(divergence_text(found))
    assert found.cause == "graph"
    assert found.place is not None
    assert found.place.module == module
    assert found.place.where in found.said
    assert said in found.said
    assert "by itself" not in found.said
