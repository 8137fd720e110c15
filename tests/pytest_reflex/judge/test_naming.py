"""Names: one thing is matched with one thing; of several the message shows the line to write."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.judge.check import check
from pytest_reflex.runners import OnnxRunner, TorchRunner
from pytest_reflex.verdict.naming import call_line, did_you_mean, near_path, output_advice, unknown

ONE = [InputSpec("observation", (1, 8))]
TWO = [InputSpec("state", (1, 8)), InputSpec("goal", (1, 8))]


class Actor(nn.Module):
    """One input, one output without a name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(8, 2)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.linear(obs)


class Gaussian(nn.Module):
    """Two inputs, two outputs without names."""

    def forward(self, s: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return s + 2 * g, s * g


def exported(module: nn.Module, file: Path, inputs: list[str], outputs: list[str]) -> Path:
    example = tuple(torch.ones(1, 8) for _ in inputs)
    torch.onnx.export(
        module.eval(), example, file, dynamo=True, input_names=inputs, output_names=outputs, verbose=False
    )
    return file


@pytest.fixture(scope="module")
def actor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(Actor(), tmp_path_factory.mktemp("actor") / "actor.onnx", ["input"], ["action"])


@pytest.fixture(scope="module")
def gaussian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gaussian") / "gaussian.onnx"
    return exported(Gaussian(), file, ["state", "goal"], ["mean", "std"])


def test_one_output_and_one_input_are_matched_with_a_note(actor: Path) -> None:
    result = check(Actor().eval(), actor, inputs=ONE, strict=True)
    assert result.passed
    assert [o.name for o in result.fixtures[0].outputs] == ["output"]
    assert result.notes == (
        "the one input 'observation' is 'obs' to Actor",
        f"the one input 'observation' is 'input' to {actor}",
        "the candidate's one output 'action' is compared with the reference's one output 'output'",
    )


def test_what_is_matched_is_still_judged(actor: Path) -> None:
    wrong = Actor().eval()
    with torch.no_grad():
        wrong.linear.bias += 1
    result = check(wrong, actor, inputs=ONE)
    assert {fixture.refusal.gate for fixture in result.fixtures if fixture.refusal} == {"threshold"}


def test_several_outputs_are_shown_the_line_to_write_and_it_works(gaussian: Path) -> None:
    call = "lambda state, goal: policy(s=state, g=goal)"
    policy = Gaussian().eval()
    with pytest.raises(RunnerError) as refused:
        check(policy, gaussian, inputs=TWO)
    assert str(refused.value).endswith(f"; name the inputs s, g, or give TorchRunner(policy, call={call})")
    result = check(TorchRunner(policy, call=eval(call, {"policy": policy})), gaussian, inputs=TWO)
    assert result.fixtures[0].refusal is not None
    assert result.fixtures[0].refusal.said == (
        "outputs differ: missing 'output_0', 'output_1'; unexpected 'mean', 'std' (reference gives "
        "'output_0', 'output_1'); name them, in the policy's order: "
        "TorchRunner(policy, outputs=['mean', 'std'])"
    )
    named = TorchRunner(policy, eval(call, {"policy": policy}), outputs=["mean", "std"])
    assert check(named, gaussian, inputs=TWO).passed


def test_inputs_that_the_file_calls_otherwise(gaussian: Path) -> None:
    specs = [InputSpec("s", (1, 8)), InputSpec("g", (1, 8))]
    with pytest.raises(RunnerError) as refused:
        check(Gaussian().eval(), gaussian, inputs=specs)
    assert str(refused.value) == (
        f"{gaussian}: inputs are missing 'state', 'goal'; unexpected 's', 'g'; it takes state, goal; name "
        "the inputs so, and give TorchRunner(policy, call=lambda state, goal: policy(s=state, g=goal)) where "
        "the policy has other names"
    )


def test_inputs_in_another_order_are_the_same(gaussian: Path) -> None:
    class Named(nn.Module):
        def forward(self, goal: torch.Tensor, state: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"mean": state + 2 * goal, "std": state * goal}

    assert check(Named(), gaussian, inputs=TWO[::-1], strict=True).passed


def test_outputs_in_another_order_are_shown_the_line_to_write_and_it_works(gaussian: Path) -> None:
    class Turned(nn.Module):
        def forward(self, state: torch.Tensor, goal: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"std": state * goal, "mean": state + 2 * goal}

    result = check(Turned(), gaussian, inputs=TWO)
    assert result.fixtures[0].refusal is not None
    assert result.fixtures[0].refusal.said == (
        "outputs are reordered: reference gives std, mean, candidate mean, std; where the names are right, "
        "give OnnxRunner(path, outputs=['std', 'mean'])"
    )
    assert check(Turned(), OnnxRunner(gaussian, outputs=["std", "mean"]), inputs=TWO).passed
    with pytest.raises(RunnerError, match=re.escape("outputs=['std'] was given")):
        OnnxRunner(gaussian, outputs=["std"]).open()


class Nested(nn.Module):
    def forward(self, state: torch.Tensor, goal: torch.Tensor) -> dict[str, object]:
        return {"arm": [state + 2 * goal], "gripper": {"open": state * goal}}


def test_nested_outputs_are_shown_a_line_that_works(gaussian: Path) -> None:
    policy = Nested().eval()
    result = check(policy, gaussian, inputs=TWO)
    assert result.fixtures[0].refusal is not None
    call = (
        "lambda **given: (lambda gave: {'mean': gave['arm'][0], 'std': gave['gripper']['open']})"
        "(policy(**given))"
    )
    assert result.fixtures[0].refusal.said.endswith(
        f"; where their order is the same, give TorchRunner(policy, call={call})"
    )
    assert check(TorchRunner(policy, call=eval(call, {"policy": policy})), gaussian, inputs=TWO).passed


class Unnamed(nn.Module):
    def forward(self, *given: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"mean": given[0] + 2 * given[1], "std": given[0] * given[1]}


def test_inputs_without_names_are_shown_a_line_that_works(gaussian: Path) -> None:
    policy = Unnamed().eval()
    with pytest.raises(RunnerError) as refused:
        check(policy, gaussian, inputs=TWO)
    call = "lambda state, goal: policy(state, goal)"
    assert str(refused.value) == (
        "Unnamed takes its inputs without names, and is given state, goal; give "
        f"TorchRunner(policy, call={call})"
    )
    assert check(TorchRunner(policy, call=eval(call, {"policy": policy})), gaussian, inputs=TWO).passed


class Loss(nn.Module):
    """Its forward is a loss, and what acts has a name of its own."""

    def forward(self, state: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return (state - actions).square().mean()

    def sample_actions(self, state: torch.Tensor, goal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return state + 2 * goal, state * goal


def test_a_sampler_that_takes_the_inputs_is_named_in_place_of_a_loss(gaussian: Path) -> None:
    policy = Loss().eval()
    with pytest.raises(RunnerError) as refused:
        check(policy, gaussian, inputs=TWO)
    assert str(refused.value) == (
        "Loss takes state, actions, and is given state, goal: no 'actions', unknown input 'goal'; its "
        "sample_actions takes these: to judge that, give TorchRunner(policy, policy.sample_actions)"
    )
    runner = TorchRunner(policy, policy.sample_actions, outputs=["mean", "std"])
    assert check(runner, gaussian, inputs=TWO).passed


def test_a_path_is_near_by_its_name_and_not_by_what_many_names_have(tmp_path: Path) -> None:
    for name in ("eps.onnx", "actor.onnx", "n.json"):
        (tmp_path / name).touch()
    assert near_path(tmp_path / "aktor.onnx") == f" (did you mean {str(tmp_path / 'actor.onnx')!r}?)"
    assert near_path(tmp_path / "nope.onnx") == ""
    assert near_path(tmp_path / "nope") == ""


def test_lines() -> None:
    assert call_line(["x"], ["y", "z"]) == ""
    assert call_line(["x", "y"], ["y", "x"]) == ""
    assert call_line(["a", "m"], ["m", "b"]) == "TorchRunner(policy, call=lambda a, m: policy(m=m, b=a))"
    assert call_line(["onnx::a"], ["b"]) == (
        "TorchRunner(policy, call=lambda **given: policy(b=given['onnx::a']))"
    )
    assert output_advice(["a"], ["b", "c"]) == ""
    assert output_advice(["a", "b"], ["c", "d"]) == (
        "; where their order is the same, give TorchRunner(policy, outputs=['c', 'd']), or of a dict "
        "TorchRunner(policy, call=lambda **given: dict(zip(['c', 'd'], policy(**given).values())))"
    )


def test_the_nearest_name() -> None:
    known = ["threshold", "fixtures", "seed"]
    assert did_you_mean("treshold", known) == " (did you mean 'threshold'?)"
    assert did_you_mean("--atol", [f"--{name}" for name in known]) == " (did you mean '--threshold'?)"
    assert did_you_mean("zebra", known) == ""
    assert unknown("keyword", ["atol", "zebra"], known) == (
        "unknown keywords 'atol' (did you mean 'threshold'?), 'zebra'"
    )


def test_a_lone_input_of_another_form_is_refused_by_the_models_own_name(actor: Path) -> None:
    with pytest.raises(RunnerError, match="input 'input' has shape"), OnnxRunner(actor) as runner:
        runner.run({"x": np.zeros((2, 2, 2), np.float32)})
