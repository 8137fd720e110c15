"""The precision of a graph, read from the graph: types of weights, operators, casts, quantisation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16
from rounded_graphs import rounded_graph

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners.graph_precision import precision_of
from pytest_reflex.verdict.precision import GraphPrecision

# Two products of 8 by 8 weights, a bias of 8, and what is between them.
NODES = [
    helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
    helper.make_node("Add", ["a", "b"], ["c"]),
    helper.make_node("Tanh", ["c"], ["d"]),
    helper.make_node("Reshape", ["d", "shape"], ["e"]),
    helper.make_node("MatMul", ["e", "v"], ["y"]),
]


def model(nodes: Any = NODES, stored: type | np.dtype[Any] = np.float32, **more: Any) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = {"w": (8, 8), "b": (8,), "v": (8, 8)}
    initializers = [numpy_helper.from_array(rng.normal(size=s).astype(stored), n) for n, s in weights.items()]
    initializers.append(numpy_helper.from_array(np.array([1, 8]), "shape"))
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8])] for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", *ends, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, **more)
    onnx.checker.check_model(made)
    return made


def test_a_plain_graph_is_float32() -> None:
    found = precision_of(model())
    assert found == GraphPrecision(weights={"float32": 136}, nodes={"float32": 4}, products={"float32": 2})
    assert (found.stored, found.computed, found.narrow, found.text) == ("float32", "float32", None, "float32")


def test_a_converted_graph_is_float16_and_its_ends_are_casts() -> None:
    found = precision_of(convert_float_to_float16(model(), keep_io_types=True))
    assert found.weights == {"float16": 136}
    assert found.nodes == {"float16": 4}
    assert found.casts == {"float16 to float32": 1, "float32 to float16": 1}
    assert (found.narrow, found.mixed, found.text) == ("float16", False, "float16")


def moved(*nodes: Any) -> dict[str, tuple[str, ...]]:
    """By output, which inputs of a float16 graph are rounded whatever a runtime widens."""
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8])] for name in ("x", "y")]
    axes = numpy_helper.from_array(np.array([0]), "axes")
    graph = helper.make_graph(nodes, "g", *ends, [axes])
    return precision_of(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])).moved


NARROWED = helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16)
WIDENED = helper.make_node("Cast", ["made"], ["y"], to=TensorProto.FLOAT)


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ([helper.make_node("Tanh", ["half"], ["made"])], {}),
        ([helper.make_node("Identity", ["half"], ["made"])], {"y": ("x",)}),
        ([helper.make_node("Tanh", ["half"], ["t"]), helper.make_node("Identity", ["t"], ["made"])], {}),
        ([helper.make_node("Concat", ["half", "half"], ["made"], axis=1)], {"y": ("x",)}),
        ([helper.make_node("Unsqueeze", ["half", "axes"], ["made"])], {"y": ("x",)}),
        # What computes with it too gets it as it is: an allowance for the one would be one for the other.
        (
            [
                helper.make_node("Tanh", ["half"], ["t"]),
                helper.make_node("Concat", ["half", "t"], ["made"], axis=1),
            ],
            {},
        ),
        ([helper.make_node("ScatterND", ["half", "axes", "half"], ["made"])], {"y": ("x",)}),
    ],
    ids=["computed with", "handed on", "computed with first", "joined", "reshaped", "both", "scattered"],
)
def test_an_input_that_is_only_moved_is_rounded(nodes: list[Any], found: dict[str, tuple[str, ...]]) -> None:
    assert moved(NARROWED, *nodes, WIDENED) == found


def test_an_input_of_a_float32_graph_is_not() -> None:
    assert moved(helper.make_node("Identity", ["x"], ["y"])) == {}
    assert precision_of(model()).moved == {}


def test_a_block_that_was_kept_in_float32_is_counted() -> None:
    found = precision_of(convert_float_to_float16(model(), keep_io_types=True, node_block_list=["first"]))
    assert found.narrow == "float16"
    assert found.nodes == {"float16": 3, "float32": 1}
    assert found.text.startswith(
        "partly float16; 3 of 4 operators in float16, 1 in float32; 72 of 136 weights "
    )


def test_casts_there_and_back_are_the_arithmetic_of_what_they_are_around() -> None:
    found = precision_of(rounded_graph(model(), "bfloat16"))
    assert (found.stored, found.computed, found.narrow) == ("float32", "bfloat16", "bfloat16")
    assert found.text == "weights in float32, results in bfloat16"


def test_narrow_weights_that_are_widened_are_not_narrow_arithmetic() -> None:
    import ml_dtypes

    wide = [helper.make_node("Cast", [name], [f"{name}32"], to=TensorProto.FLOAT) for name in "wbv"]
    reads = [
        helper.make_node(n.op_type, [f"{i}32" if i in "wbv" else i for i in n.input], n.output) for n in NODES
    ]
    found = precision_of(model([*wide, *reads], stored=np.dtype(ml_dtypes.bfloat16)))
    assert (found.weights, found.nodes) == ({"bfloat16": 136}, {"float32": 4})
    assert (found.narrow, found.text) == ("bfloat16", "weights in bfloat16, results in float32")


class Feed(CalibrationDataReader):
    def __init__(self) -> None:
        self._left = [{"x": np.linspace(-2, 2, 8, dtype=np.float32)[None]}]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self._left.pop() if self._left else None


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_a_quantised_graph_says_how(form: QuantFormat, tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "m.onnx")
    quantize_static(
        tmp_path / "m.onnx", tmp_path / "s.onnx", Feed(), quant_format=form, op_types_to_quantize=["MatMul"]
    )
    found = precision_of(tmp_path / "s.onnx")
    assert found.quantized == "static"
    assert found.nodes == {"float32": 2, "int8": 2}
    assert found.weights["int8"] >= 128
    assert found.text.startswith("int8 (scales fixed beforehand); 2 of 4 operators in float32, 2 in int8; ")


def test_dynamic_scales_are_told_from_fixed_ones(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "m.onnx")
    quantize_dynamic(tmp_path / "m.onnx", tmp_path / "d.onnx")
    found = precision_of((tmp_path / "d.onnx").read_bytes())
    assert found.quantized == "dynamic"
    assert found.nodes["int8"] == 2
    assert re.search(r"\d quantise and dequantise nodes$", found.text)


def test_weights_alone() -> None:
    """The weight is widened before the product, whose other side is float32."""
    scale = numpy_helper.from_array(np.float32(0.01), "scale")
    quantised = model()
    quantised.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((8, 8), np.int8), "w"))
    quantised.graph.initializer.append(scale)
    quantised.graph.node.insert(0, helper.make_node("DequantizeLinear", ["w", "scale"], ["wide"]))
    quantised.graph.node[1].input[1] = "wide"
    found = precision_of(quantised)
    assert (found.quantized, found.quantizing) == ("weights", 1)
    assert found.nodes == {"float32": 4}
    assert found.text.startswith("int8 (weights alone)")


def test_graphs_in_graphs_and_functions_are_read() -> None:
    half = [helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16)]
    half += [helper.make_node("Sqrt", ["h"], ["r"])]
    half += [helper.make_node("Cast", ["r"], ["out"], to=TensorProto.FLOAT)]
    branch = helper.make_graph(
        half, "then", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 8])]
    )
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
    ]
    assert precision_of(model(nodes)).nodes == {"float16": 2}
    opset = helper.make_opsetid("", 20)
    function = helper.make_function("own", "Halved", ["x"], ["out"], half, [opset])
    called = [helper.make_node("Halved", ["x"], ["y"], domain="own")]
    graph = helper.make_graph(
        called, "g", *[[helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8])] for n in ("x", "y")]
    )
    whole = helper.make_model(
        graph, functions=[function], opset_imports=[opset, helper.make_opsetid("own", 1)], ir_version=10
    )
    assert precision_of(whole).nodes == {"float16": 1}


def test_what_nobody_knows_is_said() -> None:
    odd = [
        helper.make_node("Odd", ["x"], ["a"], domain="own"),
        helper.make_node("Odder", ["a"], ["b"], domain="own"),
        helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        odd, "g", *[[helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8])] for n in ("x", "y")]
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    found = precision_of(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    assert found.unread == {"Odd": 1, "Odder": 1}
    assert found.text == "float32; not read: 1 Odd, 1 Odder"


def test_weights_beside_the_graph_are_not_needed(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=0)
    (tmp_path / "w").unlink()
    assert precision_of(tmp_path / "m.onnx") == precision_of(model())


def test_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(RunnerError, match="no ONNX model whose types can be read"):
        precision_of(tmp_path / "m.onnx")
