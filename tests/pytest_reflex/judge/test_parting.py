"""The first node that a runtime computes otherwise than its graph says, found by cutting the graph."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundle_cases import Reflex
from layered_net import LAYERS, Net, bundle_in
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

import exporters
from exporters.bundles import Bundle
from exporters.flow.schedule import LAYOUTS
from pytest_reflex import OnnxRunner, check
from pytest_reflex.errors import RunnerError
from pytest_reflex.judge.diagnose import diagnosed
from pytest_reflex.judge.parting import parting
from pytest_reflex.report.text.terminal import failure_message
from pytest_reflex.runners import runtimes
from pytest_reflex.runners.onnx import WHOLE_SUMS
from pytest_reflex.runners.openvino import OpenVinoRunner
from pytest_reflex.verdict import machine

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_in(tmp_path_factory.mktemp("net"))


def crooked(weight: str) -> Callable[[Path], OnnxRunner]:
    """A runtime that computes the node of one weight otherwise, wherever it meets it."""

    def opens(file: Path) -> OnnxRunner:
        model = onnx.load(file)
        for tensor in model.graph.initializer:
            if tensor.name == weight:
                wrong = numpy_helper.to_array(tensor) * np.float32(1.01)
                tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
        return OnnxRunner(model.SerializeToString())

    return opens


@pytest.mark.parametrize("layer", range(LAYERS))
def test_the_node_that_a_runtime_computes_otherwise_is_named(layer: int, bundle: Bundle) -> None:
    graph = bundle.path / "model.onnx"
    nodes = [node for node in onnx.load(graph).graph.node if node.op_type == "Gemm"]
    feed = {"seen": np.linspace(-1, 1, 8, dtype=np.float32)[None]}
    found = parting(graph, feed, crooked(nodes[layer].input[1]))
    assert found.alone
    assert found.place is not None
    assert (found.place.node, found.place.operator) == (nodes[layer].name, "Gemm")
    assert found.place.module == f"layers.{layer}"


def test_nothing_is_named_where_rounding_explains_all(bundle: Bundle, reflex: Reflex) -> None:
    found = bundle.locate_on("openvino")
    assert (found.cause, found.place) == ("rounding", None)
    ran = reflex("locate", bundle.path, "--runtime", "ort")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("Where: rounding: onnxruntime is nowhere further from its graph than float32")
    for arguments, said in (
        ((), "missing option '--model', or '--runtime'"),
        (
            ("--runtime", "ort", "--model", "x.py:y"),
            "--model was given, and with --runtime PyTorch is not asked",
        ),
        (("--runtime", "torch.compile"), "the runtime 'torch.compile' runs the policy itself, and no graph"),
    ):
        ran = reflex("locate", bundle.path, *arguments)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_graph_of_a_layout_is_walked(layout: str, small: Callable[..., Path]) -> None:
    found = exporters.open_bundle(small(layout=layout)).locate_on("openvino")
    assert found.place is None
    assert found.values > 0


def test_where_bytes_saturate_here_the_product_is_named(tmp_path: Path) -> None:
    """One real runtime on one real graph; elsewhere the same file has nothing to name."""
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((64, 32))
    weight = (np.sign(drawn) * (1 + np.abs(drawn) / 8)).astype(np.float32)
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [4, 64]), ("y", [4, 32]))
    ]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("Tanh", ["s"], ["y"])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(plain, tmp_path / "plain.onnx")
    file = tmp_path / "signed.onnx"
    quantize_dynamic(tmp_path / "plain.onnx", file, weight_type=QuantType.QInt8)
    feed = {"x": rng.uniform(1, 3, (4, 64)).astype(np.float32)}
    whole = parting(file, feed, lambda part: OnnxRunner(part, config={WHOLE_SUMS: "1"}))
    assert whole.place is None
    assert parting(file, feed, OpenVinoRunner).place is None
    found = parting(file, feed, OnnxRunner).place
    if machine.integer_sums(machine.here()) == "saturating":
        assert found is not None
        assert found.operator == "MatMulInteger"
    else:
        assert found is None


class Crooked(OnnxRunner):
    """The one before as a runtime by its name."""

    def __init__(self, model: Path, *, threads: int | None = None, name: str | None = None) -> None:
        super().__init__(crooked("layers.7.weight")(model)._model, threads=threads, name=name)


def test_a_fail_on_a_runtime_names_the_node_and_not_the_export(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(runtimes._OWN, "crooked", f"{__name__}:Crooked")
    policy, on_it = Net().eval(), bundle.on("crooked")
    result = diagnosed(check(policy, on_it), policy, on_it, seconds=60)
    assert result.located is not None
    assert result.located.cause == "runtime"
    assert result.located.place is not None
    assert result.located.place.module == "layers.7"
    said = " ".join(failure_message(result).split())
    assert "off on crooked by itself, where the evaluator rounds by" in said
    assert re.search(r"--runtime crooked( --fixture \d)? shows it again", said)


def test_what_cannot_be_cut_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"this is no graph")
    with pytest.raises(RunnerError, match=r"no.onnx cannot be read: ") as caught:
        parting(tmp_path / "no.onnx", {}, OnnxRunner)
    assert "\n" not in str(caught.value)


def test_what_is_wrong_only_together_with_others_is_said_to_be_so(bundle: Bundle) -> None:
    """A runtime that fuses: alone each node is right."""

    class Fuses(OnnxRunner):
        def __init__(self, file: Path) -> None:
            super().__init__(file)
            self.many = len(onnx.load(file).graph.node) > 1

        def run(self, inputs: Any) -> Any:
            gave = super().run(inputs)
            return {name: array * np.float32(1.01) if self.many else array for name, array in gave.items()}

    found = parting(bundle.path / "model.onnx", {"seen": np.ones((1, 8), np.float32)}, Fuses)
    assert (found.alone, found.place is None) == (False, False)
