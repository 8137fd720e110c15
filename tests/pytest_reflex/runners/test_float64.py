"""A model under ``lifted()``: what it computes, in float64, and nothing of it touched."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from floors import ulps
from torch import nn

from pytest_reflex import TorchRunner
from pytest_reflex.errors import RunnerError
from pytest_reflex.runners.float64 import NotLifted, lifted

X = torch.linspace(-2, 2, 12).reshape(3, 4)


def doubled(function: Any) -> torch.Tensor:
    with torch.no_grad(), lifted():
        made: torch.Tensor = function(X)
    assert made.dtype == torch.float64
    return made


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.exp() / 3,
        lambda x: x.double().sin().float(),
        lambda x: x.to(torch.float32) * 0.1,
        lambda x: x.softmax(-1, dtype=torch.float32),
        lambda x: torch.softmax(x, -1),
        lambda x: nn.functional.layer_norm(x, (4,)),
        lambda x: nn.functional.scaled_dot_product_attention(x[None], x[None], x[None]),
        lambda x: x * (torch.arange(4) / 3),
        lambda x: nn.functional.conv1d(x.exp()[None], torch.ones(2, 3, 2), torch.ones(2)),
        lambda x: nn.functional.group_norm(x.exp(), 2, torch.ones(4), torch.ones(4)),
        lambda x: torch.cat([x.pow(2).mean(-1, keepdim=True), x], -1).rsqrt().nan_to_num(),
        lambda x: torch.zeros(3, 4).copy_(x).mul_(0.1).tanh_(),
        lambda x: nn.functional.gelu(x, approximate="tanh"),
        lambda x: torch.where(x > 0, x, -0.5) + (x > 0).float() / 3,
    ],
)
def test_every_operator_gives_what_float64_gives(function: Any) -> None:
    """Against the same function of float64 inputs under a float64 default, which needs no mode."""
    got = doubled(function)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "float32", torch.float64)  # what the function's own text names
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)
            expected = function(X.double())
    finally:
        torch.set_default_dtype(before)
    assert ulps(got.numpy(), expected.numpy(), dtype=np.float64) <= 2
    # And float32 would have been seen.
    assert ulps(function(X).numpy(), expected.numpy(), dtype=np.float64) > 1000


@pytest.mark.parametrize(
    "constant",
    [
        lambda: torch.full((3, 4), 1 / 3),
        lambda: torch.tensor(0.1, dtype=torch.float32),
        lambda: torch.tensor([0.1, 0.2, 0.3, 0.4]),
        lambda: torch.arange(0, 0.4, 0.1),
        lambda: torch.linspace(0, 1, 4),
        lambda: torch.as_tensor(0.7),
        lambda: torch.full((4,), 0.9, dtype=torch.float32),
    ],
)
def test_what_is_written_down_in_float32_keeps_its_values(constant: Any) -> None:
    """An exported graph holds the same float32 constant: it is no error of either side."""
    got = doubled(lambda x: x.exp() + constant())
    assert torch.equal(got, X.double().exp() + constant().double())
    with lifted():
        assert constant().dtype == torch.float64
        written = torch.zeros(3, 4)
        written[:, 1] = X[:, 1].exp()
    assert torch.equal(written[:, 1], X[:, 1].double().exp())


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.norm, self.out = nn.Embedding(50, 8), nn.LayerNorm(8), nn.Linear(8, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.out(self.norm(self.table(ids) + x).float()), "ids": ids + 1}


INPUTS = {"ids": np.arange(6).reshape(1, 6), "x": np.ones((1, 6, 8), np.float32)}


def digest(model: nn.Module) -> str:
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in model.state_dict().values())).hexdigest()


def test_a_runner_runs_exactly_and_the_model_stays_as_it_was() -> None:
    model = Model().eval()
    before, state = digest(model), torch.random.get_rng_state()
    with TorchRunner(model) as runner:
        plain = runner.run(INPUTS)
        exact = runner.exact(INPUTS)
        again = runner.run(INPUTS)
        assert not runner.drew_random
    assert exact["y"].dtype == np.float64
    assert exact["ids"].dtype == np.int64
    assert np.array_equal(exact["ids"], plain["ids"])
    # float32 away, a few of its steps, and no more.
    assert ulps(plain["y"], exact["y"], dtype=np.float64) > 1000
    assert ulps(plain["y"], exact["y"]) < 16
    twin = Model().double().eval()  # whose own cast to float32 is left out, for it fails then
    own = twin.out(twin.norm(twin.table(torch.from_numpy(INPUTS["ids"])) + torch.from_numpy(INPUTS["x"])))
    assert ulps(exact["y"], own.detach().numpy(), dtype=np.float64) <= 16
    assert np.array_equal(again["y"], plain["y"])
    assert digest(model) == before
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_default_dtype() == torch.float32


def test_a_model_that_draws_does_not_move_the_generator() -> None:
    state = torch.random.get_rng_state()
    with TorchRunner(Noisy()) as runner:
        runner.exact({"x": np.zeros(4, np.float32)})
        assert torch.equal(torch.random.get_rng_state(), state)
        assert not runner.drew_random
        runner.run({"x": np.zeros(4, np.float32)})
        assert runner.drew_random


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn(4)


class Counts(Model):
    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.calls += 1
        return super().forward(ids, x)


class Bits(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(torch.int32) & 1


@pytest.mark.parametrize(
    ("model", "inputs", "said"),
    [
        (Counts(), INPUTS, "add_.Tensor writes to a torch.float32 tensor of shape [] that the model holds"),
        (Bits(), {"x": np.ones(3, np.float32)}, "reads a float's bits as another dtype"),
    ],
)
def test_what_has_no_meaning_in_float64_is_said(model: nn.Module, inputs: Any, said: str) -> None:
    before = digest(model) if model.state_dict() else ""
    with TorchRunner(model.eval()) as runner, pytest.raises(RunnerError) as caught:
        runner.exact(inputs)
    assert "does not run in float64: NotLifted: " in str(caught.value)
    assert said in str(caught.value)
    assert (digest(model) if model.state_dict() else "") == before
    assert torch.get_default_dtype() == torch.float32


def test_what_was_set_is_restored_after_an_error() -> None:
    with pytest.raises(NotLifted), lifted():
        X.view(torch.int32)
    assert torch.get_default_dtype() == torch.float32
    assert torch.zeros(1).dtype == torch.float32
    with pytest.raises(ValueError, match="does not match weight dtype"):
        nn.GRU(4, 3)(X.double())


# They compare the dtypes of what is computed and of what is held, before any operator is reached.
COMPARE = {
    "prelu": lambda x, w: nn.functional.prelu(x, w[0]),
    "bilinear": lambda x, w: nn.functional.bilinear(x, x, w.expand(2, 4, 4), w[0, :2]),
    "tensordot": lambda x, w: torch.tensordot(x, w, 1),
    "multi_dot": lambda x, w: torch.linalg.multi_dot([x, w, x.mT]),
    "attention": lambda x, w: nn.functional.scaled_dot_product_attention(x[None], w[None], w[None]),
    "convolution": lambda x, w: nn.functional.conv1d(x[None], w[None, :3, :2]),
    "norm": lambda x, w: nn.functional.group_norm(x[None].mT, 2, w[0], w[1]),
}


@pytest.mark.parametrize("name", COMPARE)
def test_what_compares_dtypes_gets_all_of_them_wide(name: str) -> None:
    function, held = COMPARE[name], torch.linspace(0.1, 0.9, 16).view(4, 4)
    with torch.no_grad():
        with lifted():
            got = function(X / 3, held)
        expected = function(X.double() / 3, held.double())
    assert got.dtype == torch.float64
    assert ulps(got.numpy(), expected.numpy(), dtype=np.float64) <= 16


def test_a_function_that_is_wrong_in_float64_too_says_its_own_reason() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"), torch.no_grad(), lifted():
        torch.mm(X / 3, X)
    target = torch.zeros(3, 4)
    with pytest.raises(NotLifted, match="writes to a"), torch.no_grad(), lifted():
        torch.mm(X / 3, X.mT @ X, out=target)


LAYERS = {
    "LSTM": lambda: nn.LSTM(4, 3, batch_first=True),
    "LSTM, two layers, both ways": lambda: nn.LSTM(4, 3, num_layers=2, bidirectional=True, batch_first=True),
    "LSTM, projected": lambda: nn.LSTM(4, 3, proj_size=2, batch_first=True),
    "LSTM, without bias": lambda: nn.LSTM(4, 3, bias=False, batch_first=True),
    "GRU": lambda: nn.GRU(4, 3, batch_first=True),
    "RNN": lambda: nn.RNN(4, 3, batch_first=True),
    "RNN, relu": lambda: nn.RNN(4, 3, nonlinearity="relu", batch_first=True),
    "LSTMCell": lambda: nn.LSTMCell(4, 3),
    "attention": lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
    "convolution": lambda: nn.Conv1d(3, 2, 2),
    "transposed": lambda: nn.ConvTranspose1d(3, 2, 2),
}


@pytest.mark.parametrize("behind", [False, True], ids=["alone", "behind another"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_chooses_a_kernel_is_what_its_double_is(name: str, behind: bool) -> None:
    """What is chosen, or checked, by the dtype of what a layer is given is so before anything is widened."""
    torch.manual_seed(0)
    layer = LAYERS[name]().eval()
    x = X if name == "LSTMCell" else X[None]

    def run(x: torch.Tensor) -> torch.Tensor:
        made = layer(x / 3 if behind else x)
        return made[0] if isinstance(made, tuple) else made

    with torch.no_grad():
        with lifted():
            got = run(x)
        narrow = run(x)
        layer.double()
        expected = run(x.double())
    assert got.dtype == torch.float64
    assert ulps(got.numpy(), expected.numpy(), dtype=np.float64) <= 16
    assert ulps(narrow.numpy(), expected.numpy(), dtype=np.float64) > 1000


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_state_is_given_in_float32_and_handed_on_in_float64(kind: Any) -> None:
    torch.manual_seed(0)
    layer = kind(4, 3, batch_first=True).eval()

    def twice(x: torch.Tensor) -> torch.Tensor:
        held: Any = torch.full((1, 1, 3), 0.1, dtype=torch.float32)
        held = held.double() if x.dtype == torch.float64 else held
        made, held = layer(x / 3, (held, held) if kind is nn.LSTM else held)
        again: torch.Tensor = layer(x, held)[0]
        return again + made

    with torch.no_grad():
        with lifted():
            got = twice(X[None])
        layer.double()
        expected = twice(X[None].double())
    assert ulps(got.numpy(), expected.numpy(), dtype=np.float64) <= 16


def test_rounding_on_purpose_is_left_alone() -> None:
    """Who casts to float16 means it: the truth holds those values, and nothing is made finer behind it."""
    got = doubled(lambda x: (x * 0.1).half().double())
    assert torch.equal(got, got.half().double())


def test_a_closed_runner_has_no_truth() -> None:
    with pytest.raises(RunnerError, match="is not open"):
        TorchRunner(Model()).exact(INPUTS)
