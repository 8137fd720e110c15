"""A model under ``rounded()``: what a narrower precision computes, and nothing of the model touched."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import toy_transformer
from floors import ulps
from onnxruntime.transformers.float16 import convert_float_to_float16
from rounded_graphs import rounded_graph
from torch import nn

import exporters
from pytest_reflex import OnnxRunner, TorchRunner
from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs import make_fixture
from pytest_reflex.runners.rounded import _Rounding, rounded

X = torch.linspace(-2, 2, 12).reshape(3, 4)
TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
BOTH = pytest.mark.parametrize("dtype", TYPES.values(), ids=str)


def in_precision(
    function: Any, dtype: torch.dtype, arithmetic: Any = "narrow", held: Any = ()
) -> torch.Tensor:
    with torch.no_grad(), rounded(dtype, held, arithmetic) as given:
        made: torch.Tensor = function(given(X.clone()))
    return made


@BOTH
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.exp() / 3,
        lambda x: torch.softmax(x, -1),
        lambda x: nn.functional.layer_norm(x, (4,)),
        lambda x: x @ x.T,
        lambda x: nn.functional.conv1d(x.exp()[None], x.new_ones(2, 3, 2) / 3),
        lambda x: torch.cat([x, x.neg()], -1).abs().sqrt(),
        lambda x: x.new_zeros(3, 4).copy_(x).mul_(0.1).tanh_(),
        lambda x: torch.where(x > 0, x, -0.3) + x.new_full((4,), 1 / 3),
        lambda x: (x * 1e-3 + 1).sub_(1),
        lambda x: torch.addmm(x.new_ones(3, 3), x, x.T),
    ],
)
def test_every_operator_gives_what_torchs_own_narrow_kernels_give(function: Any, dtype: torch.dtype) -> None:
    """torch's CPU kernels of these types compute in float32 and round their result."""
    got, expected = in_precision(function, dtype), function(X.to(dtype)).float()
    assert got.dtype == torch.float32
    assert torch.equal(got, got.to(dtype).float())
    steps = {torch.float16: np.finfo(np.float16).eps, torch.bfloat16: torch.finfo(torch.bfloat16).eps}[dtype]
    size = float(expected.abs().max())
    # One step: a kernel may add up in another order, and fall to the other side of a tie.
    assert float((got - expected).abs().max()) <= steps * size
    # And float32 is far from that.
    assert not torch.equal(function(X), got)


class Head(nn.Module):
    """Weights, a buffer, a mask far beyond float16's range and a number in the text."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(4, 64), nn.Linear(64, 4)
        self.register_buffer("shift", torch.full((4,), 1 / 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(nn.functional.silu(self.up(x + self.shift)))
        return y


@BOTH
def test_a_module_is_what_its_copy_in_that_type_is(dtype: torch.dtype) -> None:
    head = Head().eval()
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    held = [*head.parameters(), *head.buffers()]
    narrow = in_precision(head, dtype, "narrow", held)
    stored = in_precision(head, dtype, "float32", held)
    half = copy.deepcopy(head).to(dtype)
    with torch.no_grad():
        assert torch.equal(narrow, half(X.to(dtype)).float())
        # Only what is stored is rounded: the same weights, in float32 again.
        assert torch.equal(stored, half.float()(X))
        assert not torch.equal(stored, head(X))
    assert all(torch.equal(tensor, before[name]) for name, tensor in head.state_dict().items())


def test_what_is_stored_stays_within_the_range_and_what_is_computed_does_not() -> None:
    def masked(x: torch.Tensor) -> torch.Tensor:
        return x.masked_fill(x > 0, torch.finfo(torch.float32).min)

    assert float(in_precision(masked, torch.float16).min()) == torch.finfo(torch.float16).min
    assert float(in_precision(masked, torch.bfloat16).min()) == torch.finfo(torch.bfloat16).min
    assert math.isinf(float(in_precision(lambda x: x.masked_fill(x > 0, -math.inf), torch.float16).min()))
    assert math.isinf(float(in_precision(lambda x: (x * 300) * 300, torch.float16).max()))
    # Where float32 computes, nothing overflows.
    assert float(in_precision(lambda x: (x * 300) * 300, torch.float16, "float32").max()) == 180_000


@pytest.mark.parametrize("arithmetic", ["narrow", "float32"])
def test_constants_are_folded_first_and_rounded_once(arithmetic: Any) -> None:
    def table(x: torch.Tensor) -> torch.Tensor:
        return x * 0 + 10_000 ** -(torch.arange(4) / 7)

    exact = 10_000 ** -(torch.arange(4) / 7)
    assert torch.equal(in_precision(table, torch.bfloat16, arithmetic)[0], exact.bfloat16().float())


@pytest.mark.parametrize("arithmetic", ["narrow", "float32"])
def test_a_time_that_float64_computes_with_is_stored_narrow(arithmetic: Any) -> None:
    def told(x: torch.Tensor) -> torch.Tensor:
        time = torch.full((1,), 0.9)
        return x * 0 + (time.double() * 1e5).sin().float()

    expected = (torch.tensor(0.9).half().double() * 1e5).sin().half().float()
    got = in_precision(told, torch.float16, arithmetic)[0, 0]
    assert ulps(got.numpy(), expected.numpy(), dtype=np.float16) <= 1
    assert abs(math.sin(float(torch.tensor(0.9)) * 1e5) - float(got)) > 100 * float(np.finfo(np.float16).eps)


@pytest.mark.parametrize("arithmetic", ["narrow", "float32"])
def test_a_time_meets_a_table_that_is_rounded_already(arithmetic: Any) -> None:
    def told(x: torch.Tensor) -> torch.Tensor:
        time = torch.tensor(1.0) - torch.full((1,), 0.25)  # numbers alone
        return x * 0 + (time * 1000) * (10_000 ** -(torch.arange(4) / 7))

    table = (10_000 ** -(torch.arange(4) / 7)).bfloat16().float()
    time = torch.tensor(750.0).bfloat16().float()
    expected = time * table if arithmetic == "float32" else (time * table).bfloat16().float()
    assert torch.equal(in_precision(told, torch.bfloat16, arithmetic)[0], expected)


@pytest.mark.parametrize("arithmetic", ["narrow", "float32"])
def test_a_clock_or_all_constants_may_be_spared(arithmetic: Any) -> None:
    weight = torch.full((4,), 1 / 3)

    def told(x: torch.Tensor) -> torch.Tensor:
        angle = (torch.full((1,), 0.9).double() * 1e5).sin().float()
        return torch.cat([x[:1, :1] * 0 + angle, x[:1, :1] * 0 + weight[:1], x[:1, :1] * 0 + 1 / 3], -1)

    def given(spared: Any) -> list[float]:
        with torch.no_grad(), rounded(torch.float16, [weight], arithmetic, spared) as take:
            return told(take(X.clone()))[0].tolist()

    third, exact = float(torch.tensor(1 / 3)), math.sin(float(torch.tensor(0.9)) * 1e5)
    half = float(torch.tensor(1 / 3).half())
    assert given("clock") == [float(torch.tensor(exact).half()), half, half]
    last = half if arithmetic == "narrow" else third
    expected = float(torch.tensor(exact).half()) if arithmetic == "narrow" else float(torch.tensor(exact))
    assert given("constants") == [expected, half, last]


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_a_runner_runs_in_every_narrow_type(precision: str) -> None:
    with TorchRunner(Head()) as runner:
        plain = runner.run({"x": X.numpy()})["output"]
        near = runner.rounded({"x": X.numpy()}, precision)["output"]
    steps = ulps(near, plain, dtype=np.float16)
    assert 0 < steps < 2 ** {"float16": 3, "bfloat16": 6, "float8_e4m3fn": 9, "float8_e5m2": 10}[precision]


class Counts(nn.Module):
    """Writes to its own buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.seen.add_(x[0])  # type: ignore[operator, no-any-return]


def test_what_has_no_meaning_is_said_in_one_line() -> None:
    counts = Counts()
    with TorchRunner(counts) as runner:
        with pytest.raises(RunnerError, match=r"does not run in float16.*writes to a tensor of shape"):
            runner.rounded({"x": X.numpy()}, "float16")
        with pytest.raises(RunnerError, match="precision is 'int4'; give one of float16, bfloat16"):
            runner.rounded({"x": X.numpy()}, "int4")
    assert not counts.seen.any()
    with pytest.raises(RunnerError, match="not open"):
        runner.rounded({"x": X.numpy()}, "float16")
    bits = TorchRunner(Head(), lambda x: (x * 1.0).view(torch.int32))
    with bits, pytest.raises(RunnerError, match="reads a float's bits"):
        bits.rounded({"x": X.numpy()}, "float16")


def test_the_error_of_real_graphs_is_predicted(tmp_path: Path) -> None:
    """A transformer whose time is told by sines: what converters store, and what devices round."""
    policy = toy_transformer.Toy().eval()
    made = exporters.export(policy, tmp_path / "toy", inputs=toy_transformer.inputs(), steps=2, verify=False)
    reference = made.reference_runner(policy)
    path = str(made.path / "model.onnx")
    graphs = {
        ("float16", "float32"): convert_float_to_float16(onnx.load(path), keep_io_types=True),
        ("bfloat16", "float32"): rounded_graph(onnx.load(path), "bfloat16", every_result=False),
        ("float16", "narrow"): rounded_graph(onnx.load(path), "float16"),
        ("bfloat16", "narrow"): rounded_graph(onnx.load(path), "bfloat16"),
    }
    inputs = make_fixture(made.inputs, 0, 0)
    with reference:
        exact = reference.exact(inputs)["actions"]
        for (precision, arithmetic), graph in graphs.items():
            predicted = reference.rounded(inputs, precision, arithmetic)["actions"]  # type: ignore[attr-defined]
            with OnnxRunner(graph.SerializeToString(), optimization="basic") as runner:
                real = runner.run(inputs)["actions"]
            ratio = np.abs(real - exact).max() / np.abs(predicted - exact).max()
            assert 0.8 < ratio < 1.25, (precision, arithmetic)


@BOTH
@pytest.mark.parametrize(
    "look_up",
    [
        lambda table, at: nn.functional.embedding(at, table),
        lambda table, at: table[at],
        lambda table, at: table.index_select(0, at),
        lambda table, at: table.gather(0, at[:, None].expand(-1, 4)),
    ],
)
def test_of_a_table_the_rows_that_are_read_are_rounded(
    look_up: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of a whole vocabulary took more memory than the rest of the model."""
    table, at = torch.linspace(-3, 3, 4000).exp().mul(5e3).reshape(1000, 4), torch.tensor([0, 7, 999])
    sizes: list[int] = []
    stored = _Rounding._stored
    monkeypatch.setattr(_Rounding, "_stored", lambda self, v: (sizes.append(v.numel()), stored(self, v))[1])
    got = in_precision(lambda x: look_up(table, at) * 1.0, dtype, held=[table])
    top = torch.finfo(dtype).max
    assert torch.equal(got, look_up(table.clamp(-top, top).to(dtype).float(), at))
    assert max(sizes) <= 3 * 4
