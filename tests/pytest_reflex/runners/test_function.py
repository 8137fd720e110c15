"""A function as a side: wrapped by one public name, which the message of a bare one gives."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import torch
from policy_cases import SPECS, Policy, candidate, honest

import pytest_reflex as reflex
from pytest_reflex import FunctionRunner, ReflexError, TorchRunner, check
from pytest_reflex.errors import MissingPackageError, RunnerError


def in_torch(x: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    assert not torch.is_grad_enabled()
    return {"actions": torch.where(mask, 2 * x + 0.5, torch.zeros_like(x))}


def test_a_bare_function_is_told_the_name_to_wrap_it_in() -> None:
    with pytest.raises(ReflexError) as refused:
        check(lambda x, mask: x, candidate(), inputs=SPECS)
    assert str(refused.value) == (
        "reference is the function <lambda>; give an nn.Module, a runner, or FunctionRunner(f) for a "
        "function of named inputs"
    )
    assert reflex.FunctionRunner is FunctionRunner


@pytest.mark.parametrize("made", [FunctionRunner(honest), FunctionRunner(in_torch, tensors=True)])
def test_a_function_of_arrays_or_of_tensors_is_a_reference(made: FunctionRunner) -> None:
    result = check(made, candidate(), inputs=SPECS, strict=True)
    assert result.passed
    assert result.reference["kind"] == "function"
    assert not check(made, candidate(offset=0.6), inputs=SPECS).passed


def test_a_function_is_a_candidate_too() -> None:
    assert check(Policy(), FunctionRunner(honest), inputs=SPECS, strict=True).passed


def test_what_a_function_gives_is_named() -> None:
    for function, outputs in (
        (lambda x: x, ["output"]),
        (lambda x: torch.from_numpy(x), ["output"]),
        (lambda x: x.sum(), ["output"]),
        (lambda x: (x, x), ["output_0", "output_1"]),
        (lambda x: {"a": x}, ["a"]),
    ):
        with FunctionRunner(function) as runner:
            assert list(runner.run({"x": np.ones(3, np.float32)})) == outputs
    with FunctionRunner(lambda x: (x, x), outputs=["a", "b"]) as runner:
        assert list(runner.run({"x": np.ones(3, np.float32)})) == ["a", "b"]


def test_it_cannot_write_to_the_inputs() -> None:
    def writes(x: np.ndarray) -> np.ndarray:
        x += 1
        return x

    given = np.zeros(3, np.float32)
    with FunctionRunner(writes) as runner:
        runner.run({"x": given})
    assert not given.any()


def test_one_function_or_module_on_both_sides_is_no_comparison() -> None:
    policy = Policy()

    def turned(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        return honest(**inputs)

    for one, other in (
        (FunctionRunner(honest), FunctionRunner(honest)),
        (policy, FunctionRunner(policy, tensors=True)),
        (FunctionRunner(policy.forward, tensors=True), TorchRunner(policy)),
        (TorchRunner(policy, policy.forward), FunctionRunner(policy.forward, tensors=True)),
    ):
        result = check(one, other, inputs=SPECS)
        assert [a.gate for _, a in result.refusals] == ["reference"]
        assert "which is no comparison; give what was made of it" in result.refusals[0][1].refusal
    assert check(FunctionRunner(honest), FunctionRunner(turned), inputs=SPECS, strict=True).passed


def test_random_numbers_are_seen() -> None:
    result = check(
        FunctionRunner(lambda x, mask: {"actions": x + torch.rand(1).numpy()}), candidate(), inputs=SPECS
    )
    assert any("drew from torch's random generator" in note for note in result.notes)
    assert not result.passed


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: FunctionRunner(3), "function is 3; give a function of the inputs by name"),
        (
            lambda: FunctionRunner(Policy),
            "function is the class Policy; give a function of the inputs by name",
        ),
        (
            lambda: TorchRunner(Policy),
            "model is the class Policy, which would have other weights each time it is opened; give one of "
            "it, or a function that loads its weights",
        ),
        (
            lambda: check(Policy, candidate(), inputs=SPECS),
            "reference is the class Policy, not one of it; give an nn.Module, a runner, or FunctionRunner(f) "
            "for a function of named inputs",
        ),
        (lambda: FunctionRunner(honest).run({}), "honest is not open; call open()"),
        (
            lambda: check(FunctionRunner(lambda x, mask: "text", name="f"), candidate(), inputs=SPECS),
            "f: output 'output' is a str; return arrays or tensors only",
        ),
        (
            lambda: check(FunctionRunner(lambda x, mask: [x, 3], name="f"), candidate(), inputs=SPECS),
            "f: output 'output_1' is an int; return arrays or tensors only",
        ),
        (
            lambda: check(FunctionRunner(lambda x: x, name="f"), candidate(), inputs=SPECS),
            "f takes x, and is given x, mask: unknown input 'mask'",
        ),
    ],
)
def test_what_is_no_function_of_the_inputs_is_refused_in_one_line(wrong, said: str) -> None:
    with pytest.raises(RunnerError if "reference" not in said else ReflexError, match=f"^{re.escape(said)}"):
        wrong()


@pytest.mark.parametrize(
    ("function", "told", "said"),
    [
        (lambda x: 1 / 0, {}, r"^f failed on inputs x \[3\]: ZeroDivisionError: division by zero$"),
        (lambda x: object(), {}, r"^f: output 'output' is an object; return arrays or tensors only$"),
        (lambda x: (x, x), {"outputs": ["a"]}, r"^f "),
    ],
)
def test_what_a_function_cannot_do_is_one_line(function: object, told: dict[str, object], said: str) -> None:
    with (
        FunctionRunner(function, name="f", **told) as runner,
        pytest.raises(RunnerError, match=said) as caught,
    ):  # type: ignore[arg-type]
        runner.run({"x": np.ones(3, np.float32)})
    assert "\n" not in str(caught.value)


def test_tensors_without_torch_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with FunctionRunner(in_torch, tensors=True) as runner:
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(MissingPackageError, match="in_torch wants tensors, and torch is not installed"):
            runner.run({"x": np.ones(3, np.float32), "mask": np.ones(3, bool)})
