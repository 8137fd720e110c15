"""What a processor or a library does unasked is named where it explains that a candidate is off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from pytest_reflex import FunctionRunner, InputSpec, OnnxRunner, TorchRunner, check
from pytest_reflex.inputs import Uniform
from pytest_reflex.judge.traps import flushes
from pytest_reflex.report.text.terminal import failure_message
from pytest_reflex.runners.base import FLUSHED
from pytest_reflex.runners.onnx import WHOLE_SUMS
from pytest_reflex.verdict import machine
from pytest_reflex.verdict.results import TRAP

INPUTS = [InputSpec("x", (4, 64), meaning=Uniform(1, 3))]


def graph(*nodes: onnx.NodeProto, **held: np.ndarray[Any, Any]) -> onnx.ModelProto:
    """A graph from ``x`` [4, 64] to ``y``."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    ends[0] = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 64])
    made = helper.make_graph(
        nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(a, name) for name, a in held.items()]
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def traps(result: Any) -> list[str]:
    return [note.removeprefix(TRAP) for note in result.notes if note.startswith(TRAP)]


class Wide(nn.Module):
    """Weights near the ends of what 8 bits with a sign hold, beside inputs that are all positive."""

    def __init__(self) -> None:
        super().__init__()
        drawn = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(torch.sign(drawn) * (1 + drawn.abs() / 8))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": x @ self.weight}


def test_sums_of_bytes_that_saturate_here_are_named(tmp_path: Path) -> None:
    policy = Wide().eval()
    plain = graph(helper.make_node("MatMul", ["x", "w"], ["y"]), w=policy.weight.detach().numpy())
    onnx.save(plain, tmp_path / "plain.onnx")
    file = tmp_path / "signed.onnx"
    quantize_dynamic(tmp_path / "plain.onnx", file, weight_type=QuantType.QInt8)
    result = check(policy, OnnxRunner(file), inputs=INPUTS)
    whole = check(policy, OnnxRunner(file, config={WHOLE_SUMS: "1"}), inputs=INPUTS)
    assert whole.passed, str(whole)
    if machine.integer_sums(machine.here()) != "saturating":
        assert (result.passed, traps(result)) == (True, [])
        return
    (said,) = traps(result)
    assert not result.passed
    assert said.startswith("sums of signed 8-bit products saturate on a processor without VNNI; session.x64")
    assert "Next: sums of signed 8-bit products saturate" in failure_message(result)


@pytest.fixture
def unflushed() -> Iterator[None]:
    yield
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("unflushed")
def test_subnormal_values_that_are_flushed_are_named() -> None:
    """A library that is loaded with the candidate sets that for the whole thread, as fast-math does."""
    small, large = (np.full(64, value, np.float32) for value in (2.0**-130, 2.0**126))
    made = graph(
        helper.make_node("Mul", ["x", "small"], ["s"]),
        helper.make_node("Mul", ["s", "large"], ["y"]),
        small=small,
        large=large,
    )

    class Loads(OnnxRunner):
        def open(self) -> None:
            super().open()
            torch.set_flush_denormal(True)

    def policy(x: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        return {"y": (x * small) * large}

    assert not flushes()
    assert check(
        FunctionRunner(policy), OnnxRunner(made.SerializeToString(), threads=1), inputs=INPUTS
    ).passed
    result = check(FunctionRunner(policy), Loads(made.SerializeToString(), threads=1), inputs=INPUTS)
    assert flushes()
    assert not result.passed
    (said,) = traps(result)
    assert said.startswith(f"{FLUSHED}; without it fixture ")


def test_a_narrower_type_that_pytorch_multiplies_in_is_named() -> None:
    """No processor here has one, so that the policy says what one would do."""
    weight = np.random.default_rng(3).standard_normal((64, 8)).astype(np.float32)

    def policy(x: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        if torch.get_float32_matmul_precision() == "highest":
            return {"y": x @ weight}
        narrow = torch.tensor(x).bfloat16() @ torch.tensor(weight).bfloat16()
        return {"y": narrow.float().numpy()}

    made = graph(helper.make_node("MatMul", ["x", "w"], ["y"]), w=weight).SerializeToString()
    torch.set_float32_matmul_precision("medium")
    try:
        result = check(FunctionRunner(policy), OnnxRunner(made), inputs=INPUTS)
        assert torch.get_float32_matmul_precision() == "medium", "it is put back"
    finally:
        torch.set_float32_matmul_precision("highest")
    (said,) = traps(result)
    assert said.startswith("PyTorch multiplies float32 in a narrower type (TF32 or bfloat16); ")


def test_what_a_session_is_told_to_do_is_done_without() -> None:
    made = graph(helper.make_node("Identity", ["x"], ["y"])).SerializeToString()
    key = "mlas.enable_gemm_fastmath_arm64_bfloat16"
    ((words, without),) = OnnxRunner(made, config={key: "1"}).without_traps().items()
    assert "bfloat16 on Arm" in words
    assert without._config[key] == "0"
    assert OnnxRunner(made, config={key: "0"}).without_traps() == {}


def test_what_no_trap_explains_has_no_such_note() -> None:
    """Though a trap is there: it is tried, and the fault stays."""
    made = graph(helper.make_node("Sin", ["x"], ["y"])).SerializeToString()
    torch.set_float32_matmul_precision("medium")
    try:
        result = check(
            TorchRunner(Wide().eval(), lambda x: {"y": torch.cos(x)}), OnnxRunner(made), inputs=INPUTS
        )
    finally:
        torch.set_float32_matmul_precision("highest")
    assert not result.passed
    assert traps(result) == []
