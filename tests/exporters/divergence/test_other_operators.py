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
    "getitem": (
        other_mean,
        "3: the graph's BatchNormalization holds other numbers than `3.running_mean`: 16 of 16, by up to 0.5",
    ),
    "output": (
        other_weight,
        "5: the graph's Gemm holds other numbers than `5.weight`: 16 of 128, by up to ",
    ),
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
    # What it is told is named, and what it holds.
    assert f"{found.place.where}: {found.place.unpaired}".startswith(said)
    assert ", and fed alike they are " in found.said
    assert "fed alike" in divergence_text(found)


class Squares(nn.Module):
    """Weights whose shapes leave open which they are, and which way round."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.own = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.rows = nn.Embedding(WIDTH, WIDTH)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rows = self.rows((input.abs() * 3).long().clamp(max=WIDTH - 1)).sum(1)
        return self.b(torch.tanh(self.a(input))) @ self.own.mT + rows


def put(name: str, of: Callable[[Squares], torch.Tensor]) -> Callable[[Squares], None]:
    """Gives a policy another weight there."""
    return lambda policy: policy.get_parameter(name).data.copy_(of(policy).detach().clone())


HELD = {
    "a linear's": (put("a.weight", lambda p: p.a.weight.T), "Gemm holds `a.weight` transposed"),
    "without bias": (put("b.weight", lambda p: p.b.weight.T), "Gemm holds `b.weight` transposed"),
    "of its own": (put("own", lambda p: p.own.T), "holds `own` transposed"),
    "another's": (
        lambda p: setattr(p.a, "weight", nn.Parameter(p.b.weight.detach().clone())),
        "Gemm holds other numbers than `a.weight`: 64 of 64, by up to ",
    ),
    "rows in another order": (
        put("rows.weight", lambda p: p.rows.weight.flip(0)),
        "Gather holds the numbers of `rows.weight` in another order",
    ),
    "one number": (
        put("b.weight", lambda p: p.b.weight + torch.eye(WIDTH)[3] * torch.eye(WIDTH)[3][:, None] / 2),
        "Gemm holds other numbers than `b.weight`: 1 of 64, by up to 0.5",
    ),
    "another bias": (
        put("a.bias", lambda p: p.a.bias * 0),
        "holds other numbers than `a.bias`: 8 of 8, ",
    ),
}


@pytest.mark.parametrize("case", HELD)
def test_a_weight_that_is_not_the_policy_s_is_named(case: str, bundle_of: Callable[..., Bundle]) -> None:
    change, said = HELD[case]

    def changed() -> nn.Module:
        policy = Squares()
        change(policy)
        return policy

    found = locate(seeded(changed), bundle_of(Squares))
    assert said in found.said
    assert found.place is not None
    assert not found.place.together


def test_weights_that_changed_places_are_named(bundle_of: Callable[..., Bundle]) -> None:
    def swapped() -> nn.Module:
        policy = Squares()
        a, b = policy.a.weight.detach().clone(), policy.b.weight.detach().clone()
        policy.a.weight.data, policy.b.weight.data = b, a
        return policy

    found = locate(seeded(swapped), bundle_of(Squares))
    assert "the graph's Gemm holds `b.weight` where the policy has `a.weight`" in found.said


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
