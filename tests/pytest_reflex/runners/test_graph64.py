"""A graph at its word: float64 throughout, quantisation exact; a runtime that computes another is told."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import toy_transformer
from floors import ulps
from onnx import TensorProto, helper, numpy_helper

import exporters
from pytest_reflex import OnnxRunner
from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs import make_fixture
from pytest_reflex.runners.graph64 import Graph64Runner, quantised_distances
from pytest_reflex.verdict.quantised import QuantisedDistances

SPECS = toy_transformer.inputs()


def product(x: Any, weight: Any, scale: float, zero: int, weight_scale: float) -> Any:
    """An int8 product in whole numbers, by hand."""
    whole = np.clip(np.rint(x.astype(np.float64) / np.float64(np.float32(scale))) + zero, -128, 127) - zero
    steps = np.float64(np.float32(scale)) * np.float64(np.float32(weight_scale))
    return (whole.astype(np.int64) @ weight.astype(np.int64)).astype(np.float64) * steps


def quantised(
    scale: float = 0.02, zero: int = 3, weight_scale: float = 0.01, back: int = 3
) -> onnx.ModelProto:
    weight = np.random.default_rng(0).integers(-127, 128, (8, 4)).astype(np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "zb"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"]),
        helper.make_node("MatMul", ["d", "wd"], ["y"]),
    ]
    values = {
        "s": np.float32(scale),
        "z": np.int8(zero),
        "zb": np.int8(back),
        "w": weight,
        "ws": np.float32(weight_scale),
    }
    initializers = [numpy_helper.from_array(np.asarray(a), n) for n, a in values.items()]
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, k])] for n, k in (("x", 8), ("y", 4))]
    graph = helper.make_graph(nodes, "g", *ends, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def inputs(seed: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=(1, 8)).astype(np.float32)}


def test_quantising_is_exact() -> None:
    model = quantised()
    weight = numpy_helper.to_array(model.graph.initializer[3])
    with Graph64Runner(model) as runner:
        got = runner.run(inputs())["y"]
    assert got.dtype == np.float64
    assert ulps(got, product(inputs()["x"], weight, 0.02, 3, 0.01), dtype=np.float64) <= 4
    # The model itself is as it was.
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_a_right_runtime_differs_by_rounding_and_the_cost_is_another_figure() -> None:
    model, given = quantised(), inputs()
    with OnnxRunner(model.SerializeToString()) as runner:
        gave = runner.run(given)
    weight = numpy_helper.to_array(model.graph.initializer[3]).astype(np.float64)
    truth = {"y": given["x"].astype(np.float64) @ (weight * np.float64(np.float32(0.01)))}
    found = quantised_distances(model, gave, given, truth)["y"]
    assert found.word == "rounding"
    assert found.cost is not None
    assert found.cost > 100 * found.runtime
    assert found.text.startswith("rounding: the runtime is ")
    assert "; quantising cost " in found.text


@pytest.mark.parametrize(
    "fault", [{"back": 4}, {"scale": 0.0201}, {"weight_scale": 0.0101}, {"scale": 0.01}], ids=str
)
def test_a_runtime_of_another_scale_or_zero_point_is_a_bug(fault: dict[str, Any]) -> None:
    """The last saturates: beyond 1.27 nothing fits."""
    given = inputs()
    with OnnxRunner(quantised(**fault).SerializeToString()) as runner:
        gave = runner.run(given)
    found = quantised_distances(quantised(), gave, given)["y"]
    assert found.word == "bug"
    assert found.cost is None
    assert "quantising" not in found.text


def test_a_value_between_two_steps_may_fall_to_either_side() -> None:
    given = {"x": np.full((1, 8), np.float32(0.02) * np.float32(5.5), np.float32)}
    model = quantised()
    weight = numpy_helper.to_array(model.graph.initializer[3])
    sides = [product(given["x"] + shift, weight, 0.02, 3, 0.01) for shift in (-1e-5, 1e-5)]
    assert np.abs(sides[0] - sides[1]).max() > 0
    for side in sides:
        found = quantised_distances(model, {"y": side.astype(np.float32)}, given)["y"]
        assert found.word == "rounding"
    # Two steps away is neither.
    beyond = product(given["x"] + 0.05, weight, 0.02, 3, 0.01)
    assert quantised_distances(model, {"y": beyond.astype(np.float32)}, given)["y"].word == "bug"


def test_nan_is_no_rounding() -> None:
    assert QuantisedDistances(math.nan, 1.0, None, 1.0).word == "bug"


@pytest.mark.parametrize("precision", ["float32", "int8", "int8-dynamic"])
def test_a_policys_graph_is_computed_by_onnx_runtime(precision: Any, tmp_path: Path) -> None:
    policy = toy_transformer.Toy().eval()
    made = exporters.export(policy, tmp_path / "b", inputs=SPECS, steps=2, precision=precision, verify=False)
    given = make_fixture(SPECS, 0, 0)
    reference: Any = made.reference_runner(policy)
    with reference, made.runner() as runner:
        truth, plain, gave = reference.exact(given), reference.run(given)["actions"], runner.run(given)
    found = quantised_distances(made.path / "model.onnx", gave, given, truth)["actions"]
    assert found.word == "rounding"
    assert found.cost is not None
    own = float(np.abs(plain - truth["actions"]).max())
    if precision == "float32":
        assert found.cost < own  # nothing was quantised: the constants are float32, and that is all
    else:
        assert found.cost > 1000 * own


def test_what_cannot_be_evaluated_is_one_line() -> None:
    odd = helper.make_graph(
        [helper.make_node("Odd", ["x"], ["y"], domain="own")],
        "g",
        *[[helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8])] for n in ("x", "y")],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    model = helper.make_model(odd, opset_imports=opsets, ir_version=10)
    with pytest.raises(RunnerError, match="cannot be evaluated"):
        quantised_distances(model, {}, inputs())
    with pytest.raises(RunnerError, match="cannot be read"):
        Graph64Runner(b"no model").open()
    with pytest.raises(RunnerError, match="not open"):
        Graph64Runner(quantised()).run(inputs())
    with pytest.raises(RunnerError, match=r"outputs \['y'\] of the graph are not what the runtime gave"):
        quantised_distances(quantised(), {"z": np.zeros((1, 4))}, inputs())


def test_constants_of_every_form_and_functions_are_lifted() -> None:
    """One number, several, a tensor, and a tensor inside of a function of the model's own."""
    third, numbers = float(np.float32(1 / 3)), [float(np.float32(0.1)), float(np.float32(0.7))]
    inside = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.float32(third))),
        helper.make_node("Mul", ["a", "c"], ["b"]),
    ]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "Thirds", ["a"], ["b"], inside, opsets[:1])
    nodes = [
        helper.make_node("Constant", [], ["one"], value_float=third),
        helper.make_node("Constant", [], ["two"], value_floats=numbers),
        helper.make_node("Thirds", ["x"], ["t"], domain="own"),
        helper.make_node("Mul", ["t", "two"], ["u"]),
        helper.make_node("Add", ["u", "one"], ["y"]),
    ]
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2])] for n in ("x", "y")]
    graph = helper.make_graph(nodes, "g", *ends)
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=10)
    x = np.random.default_rng(0).normal(size=(1, 2)).astype(np.float32)
    with Graph64Runner(model) as runner:
        runner.open()  # once more is no other
        got = runner.run({"x": x})["y"]
        assert runner.facts()["dtype"] == "float64"
    assert got.dtype == np.float64
    expected = x.astype(np.float64) * third * np.array(numbers) + third
    assert np.array_equal(got, expected)


def test_without_onnx_a_graph_is_not_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(RunnerError, match=r"graph\.onnx is evaluated by onnx; pip install onnx"):
        Graph64Runner("graph.onnx").open()
