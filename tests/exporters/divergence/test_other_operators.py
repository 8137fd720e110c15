"""locate() of a policy that was given another operator since its export: no right node is named for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from torch import nn
from torch.nn.functional import gelu

import exporters
from exporters import locate
from exporters.bundles import Bundle
from exporters.divergence import write_reproduction
from pytest_reflex import InputSpec, check
from pytest_reflex.judge.diagnose import diagnosed
from pytest_reflex.report import html
from pytest_reflex.report.json import document, schema
from pytest_reflex.report.json.results import result_from_json, result_to_json
from pytest_reflex.report.text.divergence import divergence_text
from pytest_reflex.report.text.terminal import failure_message

pytestmark = pytest.mark.once

WIDTH = 8


def mlp(activation: type[nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 16), activation(), nn.Linear(16, WIDTH))


class Residual(nn.Module):
    """An activation, then an addition of what came before; others are added on both sides of it."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.trunk, self.body, self.act = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), activation()
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        x = self.trunk(input) + 0.25
        return self.head(x + self.act(self.body(x)))


class Backbone(nn.Module):
    def __init__(self, given: tuple[type[nn.Module], float]) -> None:
        super().__init__()
        activation, mean = given
        self.backbone = nn.Sequential(
            nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4), activation(), nn.Conv1d(4, 4, 3), nn.ReLU()
        )
        self.head = nn.Linear(4 * (WIDTH - 2), WIDTH)
        self.backbone[1].running_mean += mean

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


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """The bundle of a policy, made once for all tests here."""

    @cache
    def made(kind: Callable[..., nn.Module], *given: object) -> Bundle:
        folder = tmp_path_factory.mktemp("was") / "b"
        inputs = [InputSpec("input", (1, WIDTH))]
        return exporters.export(seeded(partial(kind, *given)), folder, inputs=inputs, verify=False)

    return made


# The policy's class, what it was made of, what it is made of now; the module, and what is said.
Case = tuple[Callable[..., nn.Module], Any, Any, str, str]
SAID = {
    "relu": "silu (SiLU), the policy relu (ReLU), and fed alike they are ",
    "dropped": "between `trunk` and `head.0`, Add, MatMul together are ",
    "more": "the policy's linear reads what its add in `Headed` gives, and the graph's does not",
    "folded": "the graph's Conv is the policy's `backbone.0` (Conv1d) and `backbone.1` (BatchNorm1d) in one",
    "split": "Mul, Sigmoid in `Functional` have no counterpart in the policy, which computes gelu there",
}
CASES: dict[str, Case] = {
    "a chain": (mlp, nn.GELU, nn.SiLU, "1", "the graph computes gelu (GELU), the policy silu (SiLU), "),
    "a residual behind": (Residual, nn.GELU, nn.ReLU, "act", "gelu (GELU), the policy relu (ReLU)"),
    "behind a BatchNorm": (Backbone, (nn.SiLU, 0.3), (nn.ReLU, 0.3), "backbone.2", SAID["relu"]),
    "a folded BatchNorm": (Backbone, (nn.SiLU, 0.3), (nn.SiLU, 0.5), "backbone.1", SAID["folded"]),
    "an addition dropped": (Headed, True, False, "Headed", SAID["dropped"]),
    "an addition more": (Headed, False, True, "Headed", SAID["more"]),
    "fewer heads": (Attention, 4, 2, "attn", "gives 5x4x2 where the policy's view gives 5x2x4"),
    "by hand": (Functional, gelu, by_hand, "Functional", "gelu, the policy mul, sigmoid, mul"),
    "no longer by hand": (Functional, by_hand, gelu, "Functional", SAID["split"]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_has_no_counterpart_is_named_and_no_right_node(
    case: str, bundle_of: Callable[..., Bundle]
) -> None:
    kind, before, after, module, said = CASES[case]
    found = locate(seeded(partial(kind, after)), bundle_of(kind, before))
    place = found.place
    assert found.cause == "graph"
    assert place is not None
    assert place.module == module
    assert found.said.startswith(f"{place.where}: ")
    assert said in found.said
    assert place.unpaired
    text = divergence_text(found)
    assert "by itself" not in text
    assert ("fed alike" in text) == (not place.together)
    assert "fed alike" not in text or place.value.startswith(("gelu", "silu", "getitem"))


def plainly(change: Callable[[nn.Sequential], None] = lambda policy: None) -> nn.Module:
    made = nn.Sequential(
        nn.Linear(WIDTH, 16), nn.GELU(), nn.LayerNorm(16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, WIDTH)
    )
    change(made)
    return made


def other_weight(policy: nn.Sequential) -> None:
    policy[5].weight.data[3] *= 1.1


def other_mean(policy: nn.Sequential) -> None:
    policy[3].running_mean += 0.5


EXACT = {
    "gelu": (
        lambda policy: setattr(policy[1], "approximate", "tanh"),
        "1: the graph's Gelu has approximate none, the policy's gelu approximate tanh",
    ),
    "layer_norm": (
        lambda policy: setattr(policy[2], "eps", 1e-2),
        "2: the graph's LayerNormalization has epsilon 1e-05, the policy's layer_norm eps 0.01",
    ),
    "getitem": (other_mean, "3: BatchNormalization is "),
    "output": (other_weight, "5: Gemm is "),
}


@pytest.mark.parametrize("value", EXACT)
def test_the_same_operator_with_other_numbers_is_wrong_by_itself(
    value: str, bundle_of: Callable[..., Bundle]
) -> None:
    change, said = EXACT[value]
    found = locate(seeded(partial(plainly, change)), bundle_of(plainly))
    assert found.said.startswith(said)
    assert found.place is not None
    assert (found.place.value, found.place.together) == (value, ())
    # What it is told is named where that differs; of weights it is the operator by itself.
    told = found.place.unpaired
    assert (f"{found.place.where}: {told}" == said) if told else said.endswith(" is ")
    assert (", and fed alike they are " if told else " off by itself, where PyTorch ") in found.said
    assert "fed alike" in divergence_text(found)


# What a place says of one operator alone.
PLAIN: dict[str, Any] = {"together": (), "span": "", "unpaired": ""}


def test_a_span_is_named_wherever_the_place_is_shown(
    bundle_of: Callable[..., Bundle], tmp_path: Path
) -> None:
    policy, bundle = seeded(partial(Headed, False)), bundle_of(Headed, True)
    search = bundle.search(policy)
    found = search.walk()
    result = diagnosed(check(policy, bundle, fixtures=3), policy, bundle, seconds=600)
    assert failure_message(result).splitlines()[1].startswith("Where: bug: Headed (test_other_operators.py:")
    told = json.loads(json.dumps(document([result]), allow_nan=False))
    jsonschema.validate(told, schema())
    assert "compared together" in html.page(told)
    assert "fed alike" not in html.page(told)
    assert result_from_json(json.loads(json.dumps(result_to_json(result)))) == result
    # A document of before has no word of it.
    older = result_to_json(replace(result, located=replace(found, place=replace(found.place, **PLAIN))))
    assert not {"together", "span", "unpaired"} & older["located"]["place"].keys()
    assert result_from_json(older).located.place.fed_alike
    script = write_reproduction(search, tmp_path / "repro").read_text()
    assert script.startswith(
        '"""Add, MatMul together, between `trunk` and `head.0`, giving linear_1: Headed ('
    )
    assert found.place.together == result.located.place.together
