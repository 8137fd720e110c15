"""A graph in another precision: what it stores, what it keeps, and that its error is the one predicted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import toy_transformer

import exporters
from exporters.graph.graph_passes import write_graph
from exporters.graph.narrowing import clock_of, in_bfloat16, in_float16, in_int8, narrow_values
from pytest_reflex import OnnxRunner
from pytest_reflex.errors import SettingsError, TracingError
from pytest_reflex.inputs import make_fixture
from pytest_reflex.runners.graph_precision import precision_of

FIXTURES = 3


class Made:
    """The toy, exported in float32, with what PyTorch gives for its fixtures."""

    def __init__(self, work: Path) -> None:
        self.policy = toy_transformer.Toy().eval()
        specs = toy_transformer.inputs()
        self.bundle = exporters.export(self.policy, work / "toy", inputs=specs, steps=3, verify=False)
        self.fixtures = [make_fixture(specs, 0, index) for index in range(FIXTURES)]
        self.reference: Any = self.bundle.reference_runner(self.policy)
        weights = {name for name, _ in self.policy.named_parameters()}
        self.is_weight: Callable[[str], bool] = lambda name: name.partition(".T")[0] in weights
        with self.reference as reference:
            self.exact = [reference.exact(inputs)["actions"] for inputs in self.fixtures]

    def graph(self) -> ir.Model:
        return ir.load(self.bundle.path / "model.onnx")

    def error(self, model: ir.Model, folder: Path) -> float:
        """The largest distance from float64 over the fixtures, of the model as it is written."""
        folder.mkdir()
        write_graph(model, folder, "model")
        onnx.checker.check_model(folder / "model.onnx", full_check=True)
        with OnnxRunner(folder / "model.onnx", optimization="basic") as runner:
            pairs = zip(self.fixtures, self.exact, strict=True)
            return max(float(np.abs(runner.run(i)["actions"] - truth).max()) for i, truth in pairs)

    def predicted(self, precision: str, spared: str) -> float:
        with self.reference as reference:
            pairs = zip(self.fixtures, self.exact, strict=True)
            return max(
                float(np.abs(reference.rounded(i, precision, "float32", spared)["actions"] - t).max())
                for i, t in pairs
            )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("narrowing"))


def test_float16_keeps_the_clock_and_has_the_rounding_of_float16(made: Made, tmp_path: Path) -> None:
    error = made.error(in_float16(made.graph(), made.is_weight), tmp_path / "h")
    ratio = error / made.predicted("float16", "clock")
    assert 0.7 < ratio < 1.4
    # Its clock in float16 too, it would be this far away.
    assert made.predicted("float16", "nothing") > 20 * error
    found = precision_of(tmp_path / "h" / "model.onnx")
    assert found.narrow == "float16"
    assert found.nodes.keys() == {"float16", "float64"}
    assert found.unread == {}
    # The times of the three steps, and nothing else.
    assert found.weights["float32"] == 3
    with OnnxRunner(tmp_path / "h" / "model.onnx") as runner:
        assert all(array.dtype == np.float32 for array in runner.run(made.fixtures[0]).values())


def test_nodes_that_are_to_be_kept_stay_float32_and_hand_float32_on(made: Made, tmp_path: Path) -> None:
    some = [n for n in made.graph().graph if n.op_type in ("MatMul", "Gemm", "Add", "Mul", "Gelu")]
    products = [n for n in some if n.outputs[0].dtype == ir.DataType.FLOAT]
    kept = in_float16(made.graph(), made.is_weight, keep=[str(n.name) for n in products])
    (tmp_path / "some").mkdir()
    write_graph(kept, tmp_path / "some", "model")
    found = precision_of(tmp_path / "some" / "model.onnx")
    assert found.nodes["float32"] == len(products)
    everything = [str(n.name) for n in made.graph().graph]
    whole = made.error(in_float16(made.graph(), made.is_weight, keep=everything), tmp_path / "all")
    plain = made.error(made.graph(), tmp_path / "plain")
    assert whole == plain


def test_bfloat16_stores_the_weights_so_and_computes_in_float32(made: Made, tmp_path: Path) -> None:
    error = made.error(in_bfloat16(made.graph(), made.is_weight), tmp_path / "b")
    ratio = error / made.predicted("bfloat16", "constants")
    assert 0.95 < ratio < 1.05
    found = precision_of(tmp_path / "b" / "model.onnx")
    held = made.graph().graph.initializers.items()
    weights = sum(value.const_value.size for name, value in held if made.is_weight(name))
    assert weights > 36_000
    assert found.weights["bfloat16"] == weights
    assert found.text.startswith("weights in bfloat16, results in float32")


@pytest.mark.parametrize("calibrated", [True, False])
def test_int8_puts_every_product_in_int8(made: Made, calibrated: bool, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    model = in_int8(made.graph(), tmp_path / "work", made.fixtures if calibrated else None)
    error = made.error(model, tmp_path / "q")
    found = precision_of(tmp_path / "q" / "model.onnx")
    assert found.quantized == ("static" if calibrated else "dynamic")
    assert found.weights["int8"] > 0.9 * sum(p.numel() for p in made.policy.parameters() if p.ndim > 1)
    scale = max(float(np.abs(truth).max()) for truth in made.exact)
    # Eight bits: worse than float16 has it, and still the same actions.
    assert made.predicted("float16", "clock") < error < scale * 2**-5


def test_what_the_tools_cannot_do_is_said(made: Made, tmp_path: Path) -> None:
    specs = toy_transformer.inputs()
    looped = exporters.export(
        made.policy, tmp_path / "loop", inputs=specs, steps=2, layout="loop", verify=False
    )
    for convert in (lambda m: in_float16(m, made.is_weight), lambda m: in_int8(m, tmp_path, None)):
        with pytest.raises(TracingError, match="with a loop in it; export it unrolled or stepwise"):
            convert(ir.load(looped.path / "model.onnx"))
    with pytest.raises(SettingsError, match="calibration is empty"):
        in_int8(made.graph(), tmp_path, [])
    with pytest.raises(TracingError, match="could not quantise the graph"):
        in_int8(made.graph(), tmp_path, [{"prompt": np.zeros(3, np.float32)}])


def test_the_clock_depends_on_no_weight_and_no_other_input(made: Made) -> None:
    clock = clock_of(made.graph().graph, made.is_weight)
    assert {n.op_type for n in clock} == {"Cast", "Unsqueeze", "Mul", "Sin", "Cos", "Concat"}
    assert len(clock) % 3 == 0
    assert all(str(n.outputs[0].name).startswith(("step.0/", "step.1/", "step.2/")) for n in clock)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_finite_values_stay_finite(dtype: Any) -> None:
    top = float(np.finfo(np.float32).max)
    narrow = narrow_values(np.array([top, -top, np.inf, -np.inf, 1 / 3], np.float32), dtype).astype(
        np.float64
    )
    limit = float(ml_dtypes.finfo(dtype).max)
    assert narrow[:4].tolist() == [limit, -limit, np.inf, -np.inf]
    assert narrow[4] == float(np.asarray(1 / 3, np.float32).astype(dtype))
