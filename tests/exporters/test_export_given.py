"""What an export and its bundle are given and cannot use is one line that names it and the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import exporters
import pytest_reflex as reflex
from exporters import FlowPolicy
from exporters.bundles import Bundle
from pytest_reflex import InputSpec
from pytest_reflex.errors import BundleError, InputError, ReflexError, RunnerError, SettingsError
from pytest_reflex.inputs import Integers, chain, make_fixture
from pytest_reflex.runners import FunctionRunner, TorchRunner

DEPTH, START = InputSpec("depth", (1, 7)), InputSpec("start", (1, 2, 3))
TASK = InputSpec("task", (1, 2), "int64", Integers(0, 4))


class Grasp(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tasks, self.seen = torch.nn.Embedding(4, 3), torch.nn.Linear(7, 3)

    def forward(self, depth: torch.Tensor, task: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"actions": self.seen(depth) + self.tasks(task).sum(1)}


class Flow(FlowPolicy):
    noise, steps = "start", 2

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.moves = torch.nn.Linear(7, 3), torch.nn.Linear(3, 3)

    def prefix(self, depth: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        return {"seen": self.seen(depth)[:, None]}

    def velocity(  # type: ignore[override]
        self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor
    ) -> torch.Tensor:
        return self.moves(x_t) + seen + time[:, None, None]


class Echo(torch.nn.Module):
    def __init__(self, **gives: Any) -> None:
        super().__init__()
        self.gives = gives

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {name: x if value is None else value for name, value in self.gives.items()}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exporters.export(
        Grasp(), tmp_path_factory.mktemp("grasp") / "b", inputs=[DEPTH, TASK], verify=False
    )


def said(kind: type[ReflexError], run: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        run()
    return str(caught.value)


SPEC = "give a list of InputSpec, each with a name and a shape, such as InputSpec('x', (1, 7))"
NOT_SPECS = [
    ({"x": (2, 5)}, "inputs is a dict; give a list of InputSpec, such as InputSpec('x', (2, 5)) for each"),
    (DEPTH, "inputs is one InputSpec; give a list of them, inputs=[spec]"),
    (None, "inputs is None; give a list of InputSpec"),
    (torch.zeros(()), "inputs is a Tensor; give a list of InputSpec"),
    ([(1, 7)], f"inputs[0] is a tuple, no InputSpec; {SPEC}"),
    ([DEPTH, torch.zeros(1)], f"inputs[1] is a Tensor, no InputSpec; {SPEC}"),
    ([{"depth": np.zeros(7)}], f"inputs[0] is a dict, recorded arrays, which say no meaning; {SPEC}"),
]


@pytest.mark.parametrize(("inputs", "message"), NOT_SPECS)
def test_inputs_that_are_no_list_of_specifications(inputs: Any, message: str, tmp_path: Path) -> None:
    for run in (
        lambda: exporters.export(Grasp(), tmp_path / "b", inputs=inputs),
        lambda: make_fixture(inputs, 0, 0),
        lambda: chain(inputs, 3),
    ):
        assert said(InputError, run) == message
    if inputs is not None:  # which is: whatever the family reads, or the candidate
        for run in (
            lambda: exporters.export_policy(Grasp(), tmp_path / "b", inputs=inputs),
            lambda: exporters.cached(exporters.export, Grasp(), inputs=inputs, cache=tmp_path / "cache"),
        ):
            assert said(InputError, run) == message
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(("inputs", "message"), NOT_SPECS[:2])
def test_every_way_in_says_the_same(inputs: Any, message: str, bundle: Bundle) -> None:
    for run in (
        lambda: reflex.check(Grasp(), bundle, inputs=inputs),
        lambda: reflex.matrix(Grasp(), {"ort": bundle}, inputs=inputs),
        lambda: reflex.check_sequence(Grasp(), bundle, states={"task": "task_out"}, inputs=inputs),
    ):
        assert said(InputError, run) == message


@pytest.mark.parametrize(("name", "value"), [("steps", 4), ("layout", "loop"), ("layout", "unrolled")])
def test_what_no_loop_heeds_is_refused(name: str, value: Any, tmp_path: Path) -> None:
    assert said(
        SettingsError,
        lambda: exporters.export(Grasp(), tmp_path / "b", inputs=[DEPTH, TASK], **{name: value}),
    ) == (
        f"{name} is {value!r}, and Grasp has no loop; leave it out, or give the two halves of its loop as "
        "flow="
    )


def test_what_is_given_twice_or_to_nobody_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "b"
    assert said(
        SettingsError,
        lambda: exporters.export(TorchRunner(Grasp()), out, inputs=[DEPTH, TASK], outputs=["actions"]),
    ) == (
        "outputs is given, and the reference is a TorchRunner, which names its own; leave it out, or give "
        "TorchRunner(..., outputs=)"
    )
    assert (
        said(SettingsError, lambda: exporters.export(Flow(), out, inputs=[DEPTH, START], whole=Grasp()))
        == "whole is given, and what is traced of a flow are its halves; give one"
    )


def test_a_bundle_that_is_named_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert said(BundleError, lambda: exporters.export(Grasp(), "c4.onnx", inputs=[DEPTH, TASK])) == (
        "c4.onnx is the name of a file, and a bundle is a directory; give c4, whose graph is then "
        "model.onnx in it"
    )
    assert list(tmp_path.iterdir()) == []


def test_names_that_a_policy_does_not_take(bundle: Bundle, tmp_path: Path) -> None:
    deph = InputSpec("deph", (1, 7))
    assert said(RunnerError, lambda: exporters.export(Grasp(), tmp_path / "b", inputs=[TASK, deph])) == (
        "Grasp takes depth, task, and is given task, deph: no 'depth', unknown input 'deph' (did you mean "
        "'depth'?); name the inputs depth, task, or give TorchRunner(policy, call=lambda task, deph: "
        "policy(depth=deph, task=task))"
    )
    assert said(RunnerError, lambda: exporters.export(Flow(), tmp_path / "b", inputs=[deph, START])) == (
        "Flow takes depth, and is given deph: no 'depth', unknown input 'deph' (did you mean 'depth'?)"
    )
    assert said(RunnerError, lambda: reflex.check(Flow(), bundle)) == (
        "Flow takes depth, start, and is given depth, task: no 'start', unknown input 'task'"
    )
    assert said(RunnerError, lambda: reflex.check(torch.nn.Linear(2, 2), bundle)) == (
        "Linear takes input, and is given depth, task: no 'input', unknown inputs 'depth', 'task'"
    )
    grasp = FunctionRunner(lambda depth: depth, name="grasp")
    assert said(RunnerError, lambda: reflex.check(grasp, bundle)) == (
        "grasp takes depth, and is given depth, task: unknown input 'task'"
    )


def test_a_type_error_of_the_policy_s_own_stays_what_it_is(tmp_path: Path) -> None:
    class Wrong(Grasp):
        def forward(self, depth: torch.Tensor, task: torch.Tensor) -> dict[str, torch.Tensor]:
            return self.seen(depth, task)  # type: ignore[no-any-return]

    inputs = {"depth": np.zeros((1, 7), np.float32), "task": np.zeros((1, 2), np.int64)}
    with TorchRunner(Wrong()) as runner:
        assert "Wrong failed on inputs depth [1, 7], task [1, 2] int64: TypeError: " in said(
            RunnerError, lambda: runner.run(inputs)
        )


def test_whole_numbers_that_are_out_of_range(bundle: Bundle) -> None:
    far = InputSpec("task", (1, 2), "int64", Integers(5, 6))
    assert said(RunnerError, lambda: reflex.check(Grasp(), bundle, inputs=[DEPTH, far])) == (
        "Grasp failed on inputs depth [1, 7], task [1, 2] int64: IndexError: index out of range in self; of "
        "the inputs of whole numbers 'task' is from 5 to 5: say in "
        "its InputSpec what it may be, Integers(low, high)"
    )
    with bundle.runner() as policy:
        for task, at in ([9, 0], "9 at [0, 0]"), ([0, -1], "-1 at [0, 1]"):
            observation = {"depth": np.zeros((1, 7), np.float32), "task": np.array([task])}
            assert said(InputError, lambda given=observation: policy.infer(given)) == (  # type: ignore[misc]
                f"input 'task' is {at}; it takes whole numbers from 0 to 3"
            )


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (
            {"x": None, "x_out": None},
            "Echo returned 'x' and 'x_out', and 'x' is an input too, so that as an output it is called "
            "'x_out' in a graph; give the output 'x_out' another name",
        ),
        (
            {"said": "left"},
            "Echo: output 'said' is a str, not a tensor; return tensors only, or give a "
            "TorchRunner(policy, call) that does",
        ),
    ],
)
def test_outputs_that_no_graph_has(gives: dict[str, Any], message: str, tmp_path: Path) -> None:
    run = lambda: exporters.export(Echo(**gives), tmp_path / "b", inputs=[InputSpec("x", (1, 2))])  # noqa: E731
    assert said(RunnerError, run) == message
