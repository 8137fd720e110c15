"""Several runtimes against one reference, which is asked once, and the odd one among them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from layered_net import INPUTS, LAYERS, Net, bundle_in
from onnx import numpy_helper

from exporters.bundles import Bundle
from pytest_reflex import OnnxRunner, TorchRunner
from pytest_reflex.errors import RunnerError, SettingsError
from pytest_reflex.judge.matrix import matrix
from pytest_reflex.report.json.matrix import matrix_to_json
from pytest_reflex.report.text.matrix import matrix_text
from pytest_reflex.verdict.matrix import REFERENCE, Matrix

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_in(tmp_path_factory.mktemp("net"))


def crooked(bundle: Bundle, layer: int) -> OnnxRunner:
    """A runtime that computes one node otherwise."""
    model = onnx.load(bundle.path / "model.onnx")
    matrices = [tensor for tensor in model.graph.initializer if list(tensor.dims) == [8, 8]]
    tensor = matrices[layer]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))
    return OnnxRunner(model.SerializeToString(), name="crooked")


def judged(bundle: Bundle, others: Mapping[str, Any], reference: Any = None, **options: Any) -> Matrix:
    candidates = {"ort": bundle, "evaluator": bundle.on("evaluator"), **others}
    return matrix(Net().eval() if reference is None else reference, candidates, name="net", **options)


def test_all_agree(bundle: Bundle) -> None:
    made = judged(bundle, {"openvino": bundle.on("openvino")}, strict=True)
    assert (made.passed, bool(made), made.exit_code, made.odd) == (True, True, 0, ())
    assert len(made.apart) == 6  # pairs of four
    text = matrix_text(made)
    assert text.splitlines()[:2] == ["matrix PASS: net passes on 3 of 3 runtimes", "Odd one out: none"]
    assert "OpenVINO CPU in float32" in text
    for column in made.columns:
        assert column.run_s is not None
        assert column.run_s > 0
        assert (column.taken_bytes is None) is (sys.platform != "linux")
        floors = [o.floor for f in column.result.fixtures for o in f.outputs]
        assert all(floor is not None and floor.candidate_max is not None for floor in floors)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_runtime_that_is_wrong_in_one_node_is_named(layer: int, bundle: Bundle) -> None:
    made = judged(bundle, {"crooked": crooked(bundle, layer)}, inputs=INPUTS)
    assert (made.exit_code, made.odd) == (1, ("crooked",))
    lines = matrix_text(made).splitlines()
    assert lines[0] == "matrix FAIL: net fails on crooked, of 3 runtimes"
    assert lines[1].startswith("Odd one out: crooked; all others are within ")


def test_where_the_runtimes_agree_the_graph_is_wrong(bundle: Bundle) -> None:
    other = Net().eval()
    with torch.no_grad():
        other.layers[3].weight *= 1.05
    made = judged(bundle, {"openvino": bundle.on("openvino")}, other)
    assert (made.exit_code, made.odd) == (1, (REFERENCE,))
    assert "the graph which they run is not the policy" in matrix_text(made)


def test_one_that_cannot_run_has_no_verdict_and_the_others_have_theirs(bundle: Bundle) -> None:
    class Missing(OnnxRunner):
        def open(self) -> None:
            raise RunnerError("missing needs a device that is not here; plug it in")

    made = judged(bundle, {"missing": Missing(bundle.path / "model.onnx")}, inputs=INPUTS)
    assert (made.passed, made.exit_code, made.odd) == (False, 2, ())
    assert [column.passed for column in made.columns] == [True, True, False]
    text = matrix_text(made)
    assert text.splitlines()[0] == "matrix ERROR: net reached no verdict on missing, of 3 runtimes"
    assert "missing: missing needs a device that is not here; plug it in" in text
    assert (
        matrix_to_json(made)["runtimes"][2]["error"] == "missing needs a device that is not here; plug it in"
    )


def test_the_reference_is_asked_once(bundle: Bundle) -> None:
    class Counted(TorchRunner):
        runs = 0

        def run(self, inputs: Any) -> Any:
            type(self).runs += 1
            return super().run(inputs)

    reference = Counted(Net().eval())
    judged(bundle, {}, reference, fixtures=4)
    once = Counted.runs
    judged(
        bundle, {"again": bundle.on("ort"), "and again": bundle.on("ort")}, Counted(Net().eval()), fixtures=4
    )
    # What is swapped into fixtures is asked too, and once; so is fixture 0 at the end.
    assert Counted.runs == 2 * once
    assert once <= 4 + 1 + 2


def test_a_reference_that_does_not_hold_still_is_seen_though_it_is_remembered(bundle: Bundle) -> None:
    class Restless(Net):
        asked = 0

        def forward(self, seen: torch.Tensor) -> dict[str, torch.Tensor]:
            self.asked += 1
            return {"actions": super().forward(seen)["actions"] + self.asked}

    made = judged(bundle, {}, Restless().eval())
    result = made.columns[0].result
    assert result is not None
    assert "reference" in {answer.gate for _, answer in result.refusals}


def test_three_that_all_differ_have_no_odd_one(bundle: Bundle) -> None:
    candidates = {"one": crooked(bundle, 1), "two": crooked(bundle, 9)}
    made = matrix(Net().eval(), candidates, inputs=INPUTS, name="net")
    assert (made.odd, made.exit_code) == ((), 1)
    assert "Odd one out: not known" in matrix_text(made)


def test_outputs_of_other_shapes_are_infinitely_far(bundle: Bundle, tmp_path: Path) -> None:
    class Short(OnnxRunner):
        def run(self, inputs: Any) -> Any:
            return {name: array[:, :4] for name, array in super().run(inputs).items()}

    made = judged(bundle, {"short": Short(bundle.path / "model.onnx")}, inputs=INPUTS)
    assert made.odd == ("short",)
    assert made.distance("short", "ort") == float("inf")


@pytest.mark.parametrize("names", [(), (REFERENCE,)])
def test_no_runtimes_and_one_with_the_reference_s_name(names: tuple[str, ...], bundle: Bundle) -> None:
    with pytest.raises(SettingsError, match="candidates has"):
        matrix(Net().eval(), dict.fromkeys(names, bundle))
