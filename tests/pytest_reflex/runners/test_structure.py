"""Nested containers in and out: what every tensor is called, and what is built of named ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from pytest_reflex.errors import RunnerError, a_type
from pytest_reflex.runners import TorchRunner
from pytest_reflex.runners.structure import StructureError, arguments, named

A, B, C = (torch.full((1,), float(n)) for n in range(3))


class Pair(NamedTuple):
    mean: torch.Tensor
    spread: torch.Tensor | None


@dataclass
class Boxes:
    boxes: list[torch.Tensor]
    score: torch.Tensor


def cache() -> DynamicCache:
    made = DynamicCache()
    for index in range(2):
        made.update(torch.full((1, 1, 1, 1), float(index)), torch.full((1, 1, 1, 1), index + 10.0), index)
    return made


def names(
    value: object, asked: list[str] | None = None, inputs: tuple[str, ...] = (), *, apart: bool = False
) -> list[str]:
    return list(named(value, asked, inputs, apart=apart))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (A, ["output"]),
        ((A, B), ["output_0", "output_1"]),
        ([A, [B, (C,)]], ["output_0", "output_1.0", "output_1.1.0"]),
        ({"logits": A, "hidden": (B, C), "loss": None}, ["logits", "hidden.0", "hidden.1"]),
        (OrderedDict(b=A, a=B), ["b", "a"]),
        (Pair(A, B), ["mean", "spread"]),
        (Pair(A, None), ["mean"]),
        (Boxes([A, B], C), ["boxes.0", "boxes.1", "score"]),
        ((None, A), ["output_1"]),
        ({"x": Pair(A, B)}, ["x.mean", "x.spread"]),
        (
            BaseModelOutputWithPast(last_hidden_state=A, past_key_values=cache()),
            [
                "last_hidden_state",
                *(f"past_key_values.{i}.{of}" for i in range(2) for of in ("key", "value")),
            ],
        ),
    ],
    ids=str,
)
def test_every_tensor_has_the_name_of_its_way(value: object, expected: list[str]) -> None:
    assert names(value) == expected


def test_the_tensors_are_those_at_the_end_of_the_ways() -> None:
    found = named({"a": [A, (B,)], "past": cache()}, None, ())
    assert found["a.0"] is A
    assert found["a.1.0"] is B
    assert [float(found[f"past.{i}.{of}"]) for i in range(2) for of in ("key", "value")] == [0, 10, 1, 11]


def test_names_are_for_every_tensor_or_for_what_is_at_the_top() -> None:
    value = (A, (B, C))
    assert names(value, ["a", "b", "c"]) == ["a", "b", "c"]
    assert names(value, ["y", "state"]) == ["y", "state.0", "state.1"]
    assert names((A, None), ["logits", "cache"]) == names((A, None), ["logits"]) == ["logits"]
    assert names({"y": A, "state": (B, C)}, ["y", "state"]) == ["y", "state.0", "state.1"]
    with pytest.raises(StructureError, match=r"returned 3 outputs; 4 are named"):
        names(value, ["a", "b", "c", "d"])
    with pytest.raises(StructureError, match=r"returned \['y'\]; its outputs should be \['z'\]"):
        names({"y": A}, ["z"])


def test_an_output_that_has_the_name_of_an_input_is_told_from_it_in_a_graph() -> None:
    value = {"y": A, "h": B}
    assert names(value, None, ("x", "h"), apart=True) == ["y", "h_out"]
    assert names(value, None, ("x", "h")) == ["y", "h"]
    assert names(value, ["y", "h_out"], ("x", "h")) == ["y", "h_out"]
    way = {"past": [{"key": A}]}
    assert names(way, None, ("past.0.key",), apart=True) == ["past_out.0.key"]


@pytest.mark.parametrize("value", [{"a.0": A, "a": [B]}, {0: A, "0": B}], ids=["nested", "keys"])
def test_two_outputs_of_one_name_are_refused(value: object) -> None:
    with pytest.raises(StructureError, match=r"two outputs that are named '(a\.)?0'; give each"):
        names(value)


@pytest.mark.parametrize("value", [None, [], {"a": None}, (None, {})], ids=str)
def test_nothing_to_compare_is_refused(value: object) -> None:
    with pytest.raises(StructureError, match=f"returned {a_type(value)} without a tensor"):
        names(value)


def plain(x, y=None): ...
def of_a_dict(batch: dict[str, torch.Tensor]): ...
def of_a_mapping(batch: Mapping[str, torch.Tensor], noise=None): ...
def unsaid(batch): ...
def of_a_tensor(image: torch.Tensor): ...
def anything(**inputs): ...
def nested(x, state, **more): ...


@pytest.mark.parametrize(
    ("call", "given", "expected"),
    [
        (plain, {"x": A, "y": B}, {"x": A, "y": B}),
        (plain, {"x": A}, {"x": A}),
        (of_a_dict, {"observation.state": A}, {"batch": {"observation.state": A}}),
        (of_a_dict, {"image": A}, {"batch": {"image": A}}),
        (of_a_dict, {"batch.image": A, "batch.a.b": B}, {"batch": {"image": A, "a.b": B}}),
        (of_a_mapping, {"s": A, "t": C, "noise": B}, {"batch": {"s": A, "t": C}, "noise": B}),
        (unsaid, {"observation.state": A}, {"batch": {"observation.state": A}}),
        (unsaid, {"s": A, "t": B}, {"batch": {"s": A, "t": B}}),
        (unsaid, {"s": A}, {"s": A}),
        (of_a_tensor, {"img": A, "b": B}, {"img": A, "b": B}),
        (anything, {"a.0": A, "b": B}, {"a.0": A, "b": B}),
        (nested, {"x": A, "state.1": C, "state.0": B}, {"x": A, "state": (B, C)}),
        (nested, {"x": A, "state.0.0": B, "state.1.0": C}, {"x": A, "state": ((B,), (C,))}),
        (nested, {"x": A, "state.h": B, "w.z": C}, {"x": A, "state": {"h": B}, "w.z": C}),
    ],
)
def test_inputs_go_where_the_signature_has_a_place(call: Any, given: Any, expected: Any) -> None:
    assert arguments(call, given) == expected


def test_a_cache_is_built_of_its_layers() -> None:
    given = {f"state.{i}.{of}": torch.zeros(1, 1, 2, 3) + i for i in range(2) for of in ("key", "value")}
    built = arguments(nested, {"x": A, **given})["state"]
    assert isinstance(built, DynamicCache)
    assert built.get_seq_length() == 2
    assert list(named({"state": built}, None, ())) == list(given)
    assert torch.equal(built.layers[1].keys, given["state.1.key"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"state": A, "state.0": B}, "is given 'state' and 'state.0', which is a part of it; give either"),
        (
            {"state.0": A, "state.2": B},
            "is given parts of 'state' that are numbered 0, 2; number them 0 to 1",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(given: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(StructureError, match=message):
        arguments(nested, given)


def test_a_runner_says_whose_structure_it_is() -> None:
    class Recurrent(nn.Module):
        def forward(self, x: torch.Tensor, h: tuple[torch.Tensor, torch.Tensor]) -> Any:
            return x * h[0], (h[0] + 1, h[1] + 2)

    given = {"x": np.ones(1, np.float32), "h.0": np.full(1, 2, np.float32), "h.1": np.zeros(1, np.float32)}
    with TorchRunner(Recurrent()) as runner:
        found = runner.run(given)
        assert {name: float(value[0]) for name, value in found.items()} == {
            "output_0": 2.0,
            "output_1.0": 3.0,
            "output_1.1": 2.0,
        }
        with pytest.raises(RunnerError, match=r"Recurrent is given parts of 'h' that are numbered 1, 2"):
            runner.run({"x": given["x"], "h.1": given["h.0"], "h.2": given["h.1"]})
