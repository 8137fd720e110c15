"""A reference in half precision runs as it is, says so, and says how far it is from float64 itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from floors import ulps
from torch import nn

import exporters
from pytest_reflex import InputSpec, ParityResult, TorchRunner, check
from pytest_reflex.errors import RunnerError, TracingError
from pytest_reflex.inputs import State, make_fixture

SPECS = [InputSpec("input", (1, 7), meaning=State())]
DTYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])


def head(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 32)).to(dtype).eval()


def widened(model: nn.Module) -> nn.Module:
    """The same weights in float32: what an honest float32 export of it computes."""
    return copy.deepcopy(model).float()


def judged(reference: nn.Module, candidate: nn.Module, **options: Any) -> ParityResult:
    return check(reference, TorchRunner(candidate), inputs=SPECS, **options)


def said(result: ParityResult) -> str:
    """The doubt on its precision."""
    (found,) = [d.said for d in result.doubts if d.gate == "reference" and "runs as it is" in d.said]
    return found


@DTYPES
def test_it_runs_as_it_is_and_says_so(dtype: torch.dtype) -> None:
    model, name = head(dtype), str(dtype).removeprefix("torch.")
    result = judged(model, widened(model), threshold="2x floor")
    assert result.passed
    assert result.word == "rounding"
    assert {key: result.reference[key] for key in ("dtype", "inputs_cast_to")} == {
        "dtype": name, "inputs_cast_to": name,
    }  # fmt: skip
    assert f"Sequential, in {name}" in str(result)
    assert said(result).startswith(f"the reference is in {name} and runs as it is, itself up to output ")
    assert all(parameter.dtype == dtype for parameter in model.parameters())
    # Its own error is half precision's, and an export in float32 is nearer to the truth.
    floor = result.fixtures[0].outputs[0].floor
    assert floor is not None
    assert floor.ratio is not None
    assert floor.reference_max is not None
    assert floor.ratio < 0.01
    assert floor.reference_max > 100 * floor.absolute


@DTYPES
def test_the_distance_that_is_said_is_the_one_from_the_same_weights_in_float64(dtype: torch.dtype) -> None:
    model = head(dtype)
    result = judged(model, widened(model), threshold=0.5, fixtures=1)
    inputs = torch.from_numpy(make_fixture(SPECS, 0, 0)["input"])
    with torch.no_grad():
        truth = copy.deepcopy(model).double()(inputs.double()).numpy()
        gave = model(inputs.to(dtype)).double().numpy()
    assert f"itself up to output {np.abs(truth - gave).max():.1e} from float64" in said(result)
    with TorchRunner(model) as runner:
        exact = runner.exact({"input": inputs.numpy()})["output"]
        assert runner.run({"input": inputs.numpy()})["output"].dtype == np.float32
    assert ulps(exact, truth, dtype=np.float64) <= 64


@DTYPES
def test_a_fault_ten_times_above_its_own_error_is_called(dtype: torch.dtype) -> None:
    model = head(dtype)
    wrong = widened(model)
    with TorchRunner(model) as runner:
        inputs = make_fixture(SPECS, 0, 0)
        far = float(np.abs(runner.run(inputs)["output"] - runner.exact(inputs)["output"]).max())
    wrong[3].bias.data[5] += 10 * far
    result = judged(model, wrong, threshold="2x floor")
    assert not result.passed
    assert result.word == "bug"


def test_strict_refuses_it() -> None:
    model = head(torch.bfloat16)
    result = judged(model, copy.deepcopy(model), strict=True)  # to the bit the same, and no proof for float32
    assert [answer.gate for _, answer in result.refusals] == ["reference"]
    assert judged(model, copy.deepcopy(model)).passed


class Mixed(nn.Module):
    """It stores some in bfloat16 and casts by itself, as policies do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.coarse, self.fine = nn.Linear(7, 64).to(torch.bfloat16), nn.Linear(64, 7)
        self.seen: list[torch.dtype] = []

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        self.seen = [input.dtype]
        y: torch.Tensor = self.fine(self.coarse(input.to(torch.bfloat16)).float())
        return y


def test_one_that_mixes_types_casts_by_itself() -> None:
    model = Mixed().eval()
    result = judged(model, Mixed().eval(), threshold=1e-3)
    assert result.passed
    assert model.seen == [torch.float32]
    assert result.reference["dtype"] == "float32 and bfloat16"
    assert result.reference["inputs_cast_to"] is None
    assert "itself up to output" in said(result)


def test_one_that_does_not_run_in_float64_says_why() -> None:
    class Bits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(7, 7).half()

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.one(input).view(torch.int16).float()
            return y

    torch.manual_seed(0)
    model = Bits().eval()
    found = said(judged(model, copy.deepcopy(model), threshold=1.0))
    assert "how far from float64 is not known" in found
    assert "reads a float's bits" in found


def test_it_is_neither_traced_nor_rounded_again(tmp_path: Path) -> None:
    model = head(torch.float16)
    with pytest.raises(
        TracingError, match=r"is in float16, and a graph is traced from float32; call \.float"
    ):
        exporters.export(model, tmp_path / "b", inputs=SPECS)
    assert not (tmp_path / "b").exists()
    made = exporters.export(widened(model), tmp_path / "b", inputs=SPECS)
    with pytest.raises(TracingError, match="is in float16"):
        made.locate(model)
    with TorchRunner(model) as runner, pytest.raises(RunnerError, match="is in float16 itself"):
        runner.rounded(make_fixture(SPECS, 0, 0), "float16")


def test_other_types_stay_refused() -> None:
    model = head(torch.float32)
    for parameter in model.parameters():
        parameter.data = parameter.data.double()
    with pytest.raises(RunnerError, match=r"parameter 0\.weight is torch\.float64; the reference is float32"):
        TorchRunner(model).open()
