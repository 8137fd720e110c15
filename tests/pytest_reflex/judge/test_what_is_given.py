"""What people give that is not what is wanted: each is named, and told what to give instead."""

from __future__ import annotations

import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from policy_cases import SPECS, Policy, candidate, honest
from torch import nn

import exporters
from exporters import checkpoints
from pytest_reflex.errors import CheckpointError, InputError, ReflexError, RunnerError
from pytest_reflex.inputs import Gaussian, InputSpec, Integers
from pytest_reflex.inputs.fixtures import fixtures_from
from pytest_reflex.judge.check import check


class Dropping(nn.Module):
    """The policy behind a dropout."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.drop, self.policy = nn.Dropout(p), Policy()

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.policy(self.drop(x), mask)


def test_a_module_in_training_mode_is_said_once() -> None:
    result = check(Dropping(), candidate(), inputs=SPECS)
    assert result.passed
    assert result.notes == ("Dropping was in training mode; it was judged in eval mode, as a robot runs it",)
    assert str(result).count("training mode") == 1
    for silent in (Dropping().eval(), Dropping(p=0.0), Policy().train()):
        assert check(silent, candidate(), inputs=SPECS).notes == ()


def test_a_module_without_values_is_named() -> None:
    with torch.device("meta"):
        empty = nn.Linear(8, 8)
    with pytest.raises(RunnerError) as refused:
        check(empty, candidate(), inputs=SPECS)
    assert str(refused.value) == (
        "Linear: parameter weight is on the meta device, so it has a shape and no values; load the weights "
        "before the check"
    )


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (
            {"x": np.zeros((1, 8), np.float32)},
            "inputs is a dict; one recorded fixture is a list of one, inputs=[inputs]; else give a list of "
            "InputSpec",
        ),
        (
            {spec.name: spec for spec in SPECS},
            "inputs is a dict; give its values, inputs=list(inputs.values())",
        ),
        (
            {"x": (1, 8)},
            "inputs is a dict; give a list of InputSpec, such as InputSpec('x', (1, 8)) for each",
        ),
        ("x", "inputs is a str; give a list of InputSpec, or of recorded inputs"),
        (InputSpec("x", (1,)), "inputs is one InputSpec; give a list of them, inputs=[spec]"),
    ],
)
def test_inputs_that_are_no_list(inputs: object, said: str) -> None:
    with pytest.raises(InputError) as refused:
        check(Policy(), candidate(), inputs=inputs)
    assert str(refused.value) == said


def test_sides_that_are_swapped_or_say_nothing_of_inputs(tmp_path: Path) -> None:
    model, file = nn.Linear(8, 4).eval(), tmp_path / "actor.onnx"
    torch.onnx.export(model, (torch.zeros(1, 8),), file, dynamo=True, input_names=["x"], verbose=False)
    with pytest.raises(InputError) as refused:
        check(model, file)
    assert str(refused.value) == (
        f"inputs is None, and {file} says only this of them: inputs=[InputSpec('x', (1, 8))]; give that, "
        "with what each stands for, such as meaning=State() or Image() of pytest_reflex.inputs"
    )
    with pytest.raises(ReflexError) as swapped:
        check(file, model, inputs=SPECS)
    assert str(swapped.value) == (
        f"candidate is a Linear and reference the path {file}; the reference, the policy, comes first"
    )
    bundle = exporters.export(model, tmp_path / "bundle", inputs=[InputSpec("input", (1, 8))], fixtures=3)
    with pytest.raises(ReflexError, match=r"^candidate is a Linear and reference a bundle; the reference, "):
        check(bundle, model)


class Functional(nn.Module):
    """Drops by a function, which it tells its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = Policy()

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.policy(nn.functional.dropout(x, 0.5, self.training), mask)


def test_a_module_that_asks_for_its_mode_is_said_to_have_been_in_training(tmp_path: Path) -> None:
    said = ("Functional was in training mode; it was judged in eval mode, as a robot runs it",)
    assert check(Functional(), candidate(), inputs=SPECS).notes == said
    assert check(Functional().eval(), candidate(), inputs=SPECS).notes == ()


@pytest.mark.parametrize(
    ("dtype", "shape"), [("uint8", (1, 8, 6, 3)), ("float32", (1, 8, 6, 3)), ("uint8", (1, 3, 8, 6))]
)
def test_pixels_before_their_conversion_are_told_the_way(
    dtype: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """Bytes, or another order of the axes: the policy converts, the file begins behind that."""

    class See(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.float().flatten(1).sum(1)

    file = tmp_path / "see.onnx"
    names = {"input_names": ["image"], "output_names": ["output"]}
    torch.onnx.export(See(), (torch.zeros(1, 3, 8, 6),), file, dynamo=True, verbose=False, **names)
    meaning = Integers(0, 256) if dtype == "uint8" else Gaussian()
    with pytest.raises(RunnerError) as refused:
        check(See(), file, inputs=[InputSpec("image", shape, dtype, meaning)])
    assert str(refused.value) == (
        f"{file}: input 'image' is {dtype} {list(shape)}; it takes float32 [1, 3, 8, 6]; give inputs as the "
        "file takes them, and as the reference TorchRunner(policy, call=...) that makes of them what the "
        "policy reads"
    )


def test_weights_that_are_missing_are_named_by_their_path_first(tmp_path: Path) -> None:
    model = nn.Linear(64, 64).eval()
    file = tmp_path / "actor.onnx"
    torch.onnx.export(
        model, (torch.zeros(1, 64),), file, dynamo=True, external_data=True, input_names=["x"], verbose=False
    )
    (weights,) = set(tmp_path.iterdir()) - {file}
    weights.unlink()
    with pytest.raises(RunnerError) as refused:
        check(model, file, inputs=[InputSpec("x", (1, 64))])
    assert str(refused.value) == (
        f"{weights} does not exist, and {file} takes its weights from it; put it there, where the export "
        "wrote it"
    )


def test_a_wrong_path_is_one_line_with_what_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "checkpoints" / "pi0").mkdir(parents=True)
    with pytest.raises(CheckpointError) as refused:
        checkpoints.resolve("checkpoints/pi00")
    assert str(refused.value) == (
        "no directory 'checkpoints/pi00' (did you mean 'checkpoints/pi0'?), and as a hub id it is neither "
        "in the local hub cache nor can the hub be reached; fetch it where there is network (`hf download "
        "checkpoints/pi00`) or give a directory"
    )
    shown = "".join(traceback.format_exception(refused.value))
    assert shown.count("Traceback") == 1  # and not the hub's own three
    (tmp_path / "actor.onnx").write_bytes(b"")
    with pytest.raises(ReflexError) as refused:
        check(honest, "aktor.onnx", inputs=SPECS)
    assert str(refused.value) == (
        "candidate aktor.onnx does not exist (did you mean 'actor.onnx'?); give the path of an .onnx file"
    )


@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_tensors_are_recorded_inputs_as_arrays_are() -> None:
    given = torch.arange(8.0).reshape(1, 8).requires_grad_()
    fixture = fixtures_from([{"x": given}], 1, 0).make(0)
    assert np.array_equal(fixture["x"], given.detach().numpy())
    with pytest.raises(InputError, match=r"inputs\[0\]\['x'\]: .*BFloat16; give an array of numpy's"):
        fixtures_from([{"x": given.bfloat16()}], 1, 0)
