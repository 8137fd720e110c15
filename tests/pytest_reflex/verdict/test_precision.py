"""A graph's precision in words, and a quantised one's two distances, from counts and figures alone."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pytest_reflex.verdict.precision import FLOATS, GraphPrecision
from pytest_reflex.verdict.quantised import QuantisedDistances
from pytest_reflex.verdict.rounding import ABSOLUTE_ULPS, FACTOR

HALF, SINGLE = {"float16": 90}, {"float32": 90}


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({}, "float32"),
        ({"weights": SINGLE, "nodes": SINGLE}, "float32"),
        ({"weights": {"float64": 3}, "nodes": {"float64": 3}}, "float32"),
        ({"weights": HALF, "nodes": HALF}, "float16"),
        ({"weights": HALF, "nodes": SINGLE}, "weights in float16, results in float32"),
        (
            {"weights": SINGLE, "nodes": {"float32": 10, "bfloat16": 1200}},
            "weights in float32, results in bfloat16; 1,200 of 1,210 operators in bfloat16, 10 in float32",
        ),
        (
            {"weights": {"float16": 5, "float32": 5}, "nodes": HALF},
            "float16; 5 of 10 weights in float16, 5 in float32",
        ),
        (
            {"weights": {"int8": 8}, "nodes": SINGLE, "quantized": "weights", "quantizing": 2},
            "int8 (weights alone); 2 quantise and dequantise nodes",
        ),
        (
            {"nodes": {"uint8": 1, "int8": 3, "float32": 1}, "quantized": "dynamic"},
            "int8 and uint8 (scales taken at each run); 3 of 5 operators in int8, 1 in float32, 1 in uint8",
        ),
        ({"nodes": SINGLE, "quantized": "static"}, "quantised (scales fixed beforehand)"),
        ({"nodes": SINGLE, "unread": {"b.Op": 1, "a.Op": 2}}, "float32; not read: 2 a.Op, 1 b.Op"),
    ],
)
def test_what_a_graph_is_in_is_said_in_one_line(counts: dict[str, Any], text: str) -> None:
    assert GraphPrecision(**counts).text == text


@pytest.mark.parametrize("index", range(len(FLOATS)))
def test_the_narrower_of_stored_and_computed_is_the_precision(index: int) -> None:
    name = FLOATS[index]
    narrow = name if index > FLOATS.index("float32") else None
    assert GraphPrecision(weights={name: 1}, nodes={"float32": 1}).narrow == narrow
    assert GraphPrecision(weights={"float32": 1}, nodes={name: 1}).narrow == narrow


def test_types_go_from_the_finest_to_the_coarsest() -> None:
    assert FLOATS == ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


def test_of_two_types_that_are_as_frequent_the_coarser_counts() -> None:
    found = GraphPrecision(
        weights={"float16": 2, "float32": 2}, nodes={"float16": 1, "bfloat16": 1, "int8": 9}
    )
    assert (found.stored, found.computed, found.mixed) == ("float16", "bfloat16", True)
    assert not GraphPrecision(nodes=HALF).mixed


def test_a_result_that_is_cast_to_a_narrower_type_is_of_that_type() -> None:
    nodes = {"float32": 10}
    assert GraphPrecision(nodes=nodes, casts={"float32 to float16": 6}).computed == "float16"
    assert GraphPrecision(nodes=nodes, casts={"float32 to float16": 4}).computed == "float32"
    assert GraphPrecision(nodes=nodes, casts={"float16 to float32": 60}).computed == "float32"


@pytest.mark.parametrize("runtime", [0.0, 1.0, math.inf, math.nan])
def test_a_runtime_that_is_further_than_allowed_has_a_bug(runtime: float) -> None:
    found = QuantisedDistances(runtime, 0.5, None, 1.0)
    assert found.allowed == FACTOR * 0.5
    assert found.word == ("rounding" if runtime <= 1.0 else "bug")
    assert found.text.startswith(f"{found.word}: the runtime is {runtime:.1e} from its own graph")
    assert "cost" not in found.text


def test_some_bits_of_the_largest_value_are_always_allowed_and_the_cost_is_shown() -> None:
    found = QuantisedDistances(0.0, 0.0, 0.25, 8.0)
    assert found.allowed == ABSOLUTE_ULPS * 8.0 * 2.0**-23
    assert found.text.endswith("; quantising cost 2.5e-01")
