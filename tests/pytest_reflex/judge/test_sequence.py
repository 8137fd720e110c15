"""Policies with hidden state over sequences: a wrong step, a wrong hand-over, and rounding that grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from floors import Remembered
from torch import nn

from exporters import export, open_bundle
from pytest_reflex.errors import InputError, ParityError, ReflexError, RunnerError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.judge.check import check
from pytest_reflex.judge.sequence import SequenceResult, check_sequence
from pytest_reflex.runners import TorchRunner
from pytest_reflex.runners.base import RunnerBase
from pytest_reflex.runners.recurrent import Recurrent
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD

pytestmark = pytest.mark.once

Arrays = Mapping[str, np.ndarray]
STEPS, BREAKS = 40, 23
# As long as an episode, with what is wrong late in it.
LONG, LATE = 500, 417


class Policy(nn.Module):
    """One step of a recurrent policy: an observation and hidden state in, an action and new state out."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cell, self.head = kind(5, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, hidden: Any) -> dict[str, Any]:
        hidden = self.cell(x, hidden)
        last = hidden[0] if isinstance(hidden, tuple) else hidden
        return {"action": self.head(last), "hidden": hidden}


class Ensemble(nn.Module):
    """ACT's temporal ensemble as state: the running weighted mean of chunks that reach ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.policy, self.decay = nn.Linear(5, 12), 0.7

    def forward(self, x: torch.Tensor, mean: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        chunk = self.policy(x).reshape(len(x), 4, 3)
        new = (mean * weight + chunk) / (weight + 1)
        # The first action is carried out; the rest moves up, and what nobody has seen yet weighs nothing.
        moved = torch.cat([new[:, 1:], torch.zeros_like(new[:, :1])], 1)
        weights = torch.cat([(weight[:, 1:] + 1) * self.decay, torch.zeros_like(weight[:, :1])], 1)
        return {"action": new[:, 0], "mean": moved, "weight": weights}


X = InputSpec("x", (1, 5))
KINDS: dict[str, tuple[Callable[[], nn.Module], list[InputSpec], dict[str, str]]] = {
    "lstm": (
        lambda: Policy(nn.LSTMCell),
        [X, InputSpec("hidden.0", (1, 8)), InputSpec("hidden.1", (1, 8))],
        {"hidden.0": "hidden_out.0", "hidden.1": "hidden_out.1"},
    ),
    "gru": (lambda: Policy(nn.GRUCell), [X, InputSpec("hidden", (1, 8))], {"hidden": "hidden_out"}),
    "ensemble": (
        Ensemble,
        [X, InputSpec("mean", (1, 4, 3)), InputSpec("weight", (1, 4, 1))],
        {"mean": "mean_out", "weight": "weight_out"},
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """(policy, its bundle's path, inputs, states)."""
    make, inputs, states = KINDS[request.param]
    torch.manual_seed(0)
    policy = make().eval()
    inputs = [*inputs]
    if request.param == "ensemble":  # a weight is no negative number
        from pytest_reflex.inputs import Uniform

        inputs[2] = InputSpec("weight", (1, 4, 1), meaning=Uniform(0.5, 1.0))
    where = tmp_path_factory.mktemp(request.param) / "bundle"
    export(policy, where, inputs=inputs)
    return policy, where, inputs, states


def judged(made: tuple[Any, ...], **more: Any) -> SequenceResult:
    policy, where, _, states = made
    return check_sequence(policy, open_bundle(where), states=states, steps=STEPS, **more)


class Wrong(RunnerBase):
    """A step with something done to what it is given or gives."""

    def __init__(self, runner: Any, *, given: Any = None, gave: Any = None) -> None:
        self.name, self.runner, self.given, self.gave = "wrong", runner, given, gave

    def open(self) -> None:
        self.runner.open()

    def close(self) -> None:
        self.runner.close()

    def facts(self) -> dict[str, Any]:
        return {"kind": "wrong"}

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        outputs = self.runner.run(self.given(dict(inputs)) if self.given else inputs)
        return self.gave(inputs, outputs) if self.gave else outputs


class HandsOver(RunnerBase):
    """A robot's own loop over the steps, which does something of its own with the state."""

    def __init__(self, runner: Any, states: Mapping[str, str], mend: Callable[[int, list[Arrays]], Arrays]):
        self.name, self.runner, self.states, self.mend = "loop", runner, states, mend

    def open(self) -> None:
        self.runner.open()

    def close(self) -> None:
        self.runner.close()

    def facts(self) -> dict[str, Any]:
        return {"kind": "loop"}

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        over = {name: array for name, array in inputs.items() if name not in self.states}
        was: list[Arrays] = [{name: inputs[name] for name in self.states}]
        found = []
        for step in range(len(next(iter(over.values())))):
            state = self.mend(step, was)
            found.append(self.runner.run({**{name: array[step] for name, array in over.items()}, **state}))
            was.append({name: found[-1][new] for name, new in self.states.items()})
        return {name: np.stack([one[name] for one in found]) for name in found[0]}


def test_an_honest_export_passes_forced_and_free(made: tuple[Any, ...]) -> None:
    result = judged(made, strict=True)
    assert result.require() is result
    assert result
    assert (result.begins, result.cause, result.steps) == (None, "", STEPS)
    assert result.free.word == "rounding"
    assert str(result).startswith(f"PASS over {STEPS} steps\n")


def test_a_state_that_is_left_out_is_asked_for(made: tuple[Any, ...]) -> None:
    """It is drawn anew in each step, on both sides, which hides nothing and judges no hand-over of it."""
    policy, where, _, states = made
    left = {"input": list(states)[-1], "output": list(states.values())[-1]}
    kept = {name: output for name, output in states.items() if name != left["input"]}
    said = f"say so: states={{..., {left['input']!r}: {left['output']!r}}}"
    assert not any("taken on by no step" in note for note in judged(made).free.notes)
    if kept:
        result = check_sequence(policy, open_bundle(where), states=kept, steps=STEPS)
        assert any(note.endswith(said) for note in result.free.notes), result.free.notes
        assert said in " ".join(str(result).split())


def test_both_results_are_recorded_by_a_test(made: tuple[Any, ...], parity: Any) -> None:
    policy, where, _, states = made
    result = check_sequence(policy, open_bundle(where), states=states, steps=STEPS, check=parity.check)
    assert result.passed
    assert parity.results == [result.free, result.forced]


def test_a_sequence_is_seen_in_this_process(made: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_reflex.judge.workers.shares.RayCrew", None)  # nobody starts one
    assert judged(made, workers=2).passed


def test_five_hundred_steps_and_a_hand_over_that_is_wrong_late(made: tuple[Any, ...]) -> None:
    """Rounding alone passes; a state that is stale once, or handed on in half precision, is no rounding."""
    _, where, _, states = made
    policy, _, inputs, _ = made
    truth = Remembered(TorchRunner(policy, apart=True))
    given: dict[str, Any] = {"states": states, "steps": LONG, "inputs": inputs, "fixtures": 1}
    result = check_sequence(truth, open_bundle(where), threshold=STRICT_THRESHOLD, **given)
    assert result.require().steps == LONG
    assert result.free.word == "rounding"

    def stale(step: int, was: list[Arrays]) -> Arrays:
        return was[-2] if step == LATE else was[-1]

    def narrowed(step: int, was: list[Arrays]) -> Arrays:
        return {n: a.astype("f2").astype("f4") if step >= LATE else a for n, a in was[-1].items()}

    for wrong in (stale, narrowed):
        loop = HandsOver(open_bundle(where).runner("CPUExecutionProvider"), states, wrong)
        result = check_sequence(truth, open_bundle(where), threshold="4x floor", loop=loop, **given)
        assert result.forced.passed
        assert not result
        assert result.begins == LATE
        assert result.cause.startswith(f"the hand-over of the state is wrong, from step {LATE} on, in ")


def test_recorded_sequences_are_taken_as_they_are(made: tuple[Any, ...]) -> None:
    _, _, inputs, states = made
    rng = np.random.default_rng(0)
    sequences = [
        {
            s.name: np.abs(rng.normal(size=s.shape if s.name in states else (30, *s.shape))).astype("f4")
            for s in inputs
        }
        for _ in range(5)
    ]
    # Workers are left out: what hangs on the step before is judged in one process.
    assert judged(made, inputs=sequences, workers=2).steps == 30


def test_a_wrong_step_is_told_where_it_begins(made: tuple[Any, ...]) -> None:
    policy, where, inputs, states = made
    taken = {"n": 0}

    def gave(_: Arrays, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        step, taken["n"] = taken["n"] % STEPS, taken["n"] + 1
        return {**outputs, "action": outputs["action"] + np.float32(0.01 * (step >= BREAKS))}

    candidate = Wrong(open_bundle(where).runner("CPUExecutionProvider"), gave=gave)
    result = check_sequence(policy, candidate, states=states, steps=STEPS, inputs=inputs)
    assert not result
    assert result.begins == BREAKS
    assert result.cause == (
        f"a step itself is wrong, from step {BREAKS} on, in 'action': forced along the reference's states it "
        "differs too"
    )
    with pytest.raises(
        ParityError, match=rf"^parity FAIL over {STEPS} steps: a step itself is wrong, from step {BREAKS}"
    ):
        result.require()


def test_where_it_begins_is_by_each_output_s_own_tolerance(made: tuple[Any, ...]) -> None:
    policy, where, inputs, states = made
    taken = {"n": 0}

    def gave(_: Arrays, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        step, taken["n"] = taken["n"] % STEPS, taken["n"] + 1
        return {**outputs, "action": outputs["action"] + np.float32(0.01 * (step >= BREAKS))}

    new = next(iter(states.values()))
    for tolerances in ({"threshold": {new: 1.0}}, {"threshold": {new: 1.0, "action": 1e-9}, "rtol": 1e-4}):
        candidate = Wrong(open_bundle(where).runner("CPUExecutionProvider"), gave=gave)
        result = check_sequence(
            policy, candidate, states=states, steps=STEPS, inputs=inputs, fixtures=1, **tolerances
        )
        assert "'action'" in result.cause
        assert result.begins == BREAKS


def test_a_state_output_that_is_another_is_a_wrong_step(made: tuple[Any, ...]) -> None:
    policy, where, inputs, states = made
    new = next(iter(states.values()))
    candidate = Wrong(
        open_bundle(where).runner("CPUExecutionProvider"),
        gave=lambda _, outputs: {**outputs, new: outputs[new] * np.float32(0.99)},
    )
    result = check_sequence(policy, candidate, states=states, steps=STEPS, inputs=inputs)
    assert result.begins == 0
    assert result.cause.startswith(f"a step itself is wrong, from step 0 on, in {new!r}")


def test_a_check_that_raises_is_heard_to_the_end(made: tuple[Any, ...]) -> None:
    policy, where, inputs, states = made
    seen = []

    def raising(*sides: Any, **options: Any) -> Any:
        seen.append(check(*sides, **options))
        return seen[-1].require()

    runner = open_bundle(where).runner("CPUExecutionProvider")
    candidate = Wrong(runner, gave=lambda _, out: {**out, "action": -out["action"]})
    given: dict[str, Any] = {"states": states, "steps": STEPS, "inputs": inputs}
    result = check_sequence(policy, candidate, check=raising, **given)
    assert seen == [result.free, result.forced]
    assert result.begins == 0


HAND_OVERS: dict[str, Callable[[int, list[Arrays]], Arrays]] = {
    "reset": lambda step, was: was[0] if step == BREAKS else was[-1],
    "stale": lambda step, was: was[-2] if step == BREAKS else was[-1],
    "zeroed": lambda step, was: {n: a * np.float32(step != BREAKS) for n, a in was[-1].items()},
}


@pytest.mark.parametrize("fault", HAND_OVERS)
def test_a_wrong_hand_over_is_told_from_a_wrong_step(made: tuple[Any, ...], fault: str) -> None:
    _, where, _, states = made
    loop = HandsOver(open_bundle(where).runner("CPUExecutionProvider"), states, HAND_OVERS[fault])
    result = judged(made, loop=loop)
    assert result.forced.passed
    assert not result.passed
    assert result.begins == BREAKS
    assert result.cause.startswith(f"the hand-over of the state is wrong, from step {BREAKS} on, in ")


def test_the_robot_s_own_loop_passes_where_it_is_right(made: tuple[Any, ...]) -> None:
    _, where, _, states = made
    right = HandsOver(open_bundle(where).runner("CPUExecutionProvider"), states, lambda _, was: was[-1])
    assert judged(made, loop=right)


def test_a_state_may_become_something_else_between_two_steps(made: tuple[Any, ...]) -> None:
    """A hand-over of one's own is the reference's too; what a loop does otherwise is wrong."""
    _, where, _, states = made

    def halved(step: int, state: dict[str, np.ndarray]) -> Arrays:
        return {n: a * np.float32(0.5 if step % 3 == 0 else 1) for n, a in state.items()}

    assert judged(made, hand_over=halved, strict=True)
    runner = open_bundle(where).runner("CPUExecutionProvider")
    result = judged(made, hand_over=halved, loop=HandsOver(runner, states, lambda _, was: was[-1]))
    assert (result.forced.passed, result.begins) == (True, 3)
    right = HandsOver(runner, states, lambda step, was: halved(step, dict(was[-1])) if step else was[-1])
    assert judged(made, hand_over=halved, loop=right)


class Chaos(nn.Module):
    """A state that doubles every distance, so that one unit in the last place is everything in 40 steps."""

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> dict[str, torch.Tensor]:
        new = 3.9 * h * (1 - h)
        return {"action": new * 2 + 0.0 * x, "h": new + 1e-3 * x.sigmoid() * (1 - new)}


def test_rounding_that_grows_is_no_fault_of_the_hand_over(tmp_path: Path) -> None:
    from pytest_reflex.inputs import Uniform

    inputs = [InputSpec("x", (1, 3)), InputSpec("h", (1, 3), meaning=Uniform(0.2, 0.8))]
    # The candidate rounds otherwise: one more and one less.
    policy = TorchRunner(Chaos(), apart=True)
    candidate = Wrong(
        TorchRunner(Chaos(), apart=True),
        gave=lambda _, out: {**out, "h_out": np.nextafter(out["h_out"], np.float32(0), dtype=np.float32)},
    )
    result = check_sequence(policy, candidate, states={"h": "h_out"}, steps=STEPS, inputs=inputs)
    assert result.forced.passed
    assert not result.passed
    assert result.begins is not None
    assert result.begins > 5
    assert result.cause.startswith("rounding that grows, from step ")


class Idle(nn.Module):
    """A step that has an input which it does not read."""

    def __init__(self, cell: nn.Module, again: float) -> None:
        super().__init__()
        self.cell, self.again = cell, again

    def forward(self, x: torch.Tensor, h: torch.Tensor, idle: torch.Tensor) -> dict[str, torch.Tensor]:
        new = self.cell(x, h)
        return {"action": new.sum(-1) * self.again, "h": new * self.again}


IDLE = [X, InputSpec("h", (1, 8)), InputSpec("idle", (1, 2))]


def idle(again: float = 1.0) -> TorchRunner:
    torch.manual_seed(0)
    return TorchRunner(Idle(nn.GRUCell(5, 8), again).eval(), apart=True)


def test_an_input_that_neither_side_reads_is_no_fault() -> None:
    """The reference is opened again to ask it what the input does, after the sequences that are compared."""
    result = check_sequence(idle(), idle(), states={"h": "h_out"}, steps=STEPS, inputs=IDLE)
    assert result.require().passed
    wrong = check_sequence(idle(), idle(1.01), states={"h": "h_out"}, steps=STEPS, inputs=IDLE)
    assert (wrong.passed, wrong.begins) == (False, 0)


def test_one_model_on_both_sides_is_no_comparison() -> None:
    given: dict[str, Any] = {"states": {"h": "h_out"}, "steps": 3, "inputs": IDLE}
    runner = idle()
    with pytest.raises(ReflexError, match="is given as both reference and candidate"):
        check_sequence(runner, runner, **given)
    policy = runner.model
    result = check_sequence(policy, TorchRunner(policy, apart=True), **given)
    assert "both sides are Idle, which is no comparison" in result.cause


def test_a_free_axis_has_one_size_throughout_a_sequence() -> None:
    free = [InputSpec(s.name, (2, *s.shape[1:]), free=("batch", None)) for s in IDLE]
    seen: list[tuple[int, ...]] = []

    def heard(*sides: Any, **options: Any) -> Any:
        seen.extend(sequence["x"].shape for sequence in options["inputs"])
        return check(*sides, **options)

    given: dict[str, Any] = {"states": {"h": "h_out"}, "steps": 3, "inputs": free, "check": heard}
    assert check_sequence(idle(), idle(), **given)
    assert seen == 2 * [(3, batch, 5) for batch in (2, 2, 4, 6, 1)]


def test_what_the_candidate_alone_says_of_a_step_may_be_doubted() -> None:
    """A narrower draw is doubted as in a check of single steps; what the caller gives is meant."""

    class Narrow:
        inputs = IDLE

        def runner(self, provider: str) -> TorchRunner:
            return idle()

        def reference_runner(self, model: Any) -> Any:
            return model

    truth = idle()
    truth.doubted_by = lambda _, specs: [f"{len(specs)} were stated"] if specs else []
    given: dict[str, Any] = {"states": {"h": "h_out"}, "steps": 3}
    result = check_sequence(truth, Narrow(), **given)
    assert any("3 were stated" in note for note in result.free.notes)
    result = check_sequence(truth, Narrow(), **given, inputs=IDLE)
    assert not any("were stated" in note for note in result.free.notes)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"states": {}}, "states is empty; give the input and the output of each"),
        ({"steps": 1}, "steps is 1; give a whole number of at least 2"),
        ({"steps": 2.5}, r"steps is 2\.5; give a whole number"),
        ({"inputs": X}, "inputs is one InputSpec; give a list of them, inputs="),
        ({"inputs": [X, {}]}, r"inputs\[0\] is an InputSpec; give InputSpecs only, or sequences"),
        ({"inputs": [{"x": np.zeros((1, 1, 5), np.float32)}]}, r"inputs\[0\]\['x'\] has shape \[1, 1, 5\]"),
        ({"inputs": [{"x": np.float32(1)}]}, r"inputs\[0\]\['x'\] has shape \[\], steps first; give 2 steps"),
        ({"states": {"h": "hidden_out"}}, "no input is named 'h', which is a state; add its InputSpec"),
    ],
)
def test_what_makes_no_sequence_is_refused(made: tuple[Any, ...], more: dict[str, Any], message: str) -> None:
    policy, where, _, states = made
    with pytest.raises(InputError, match=message):
        check_sequence(policy, open_bundle(where), **{"states": states, "steps": STEPS, **more})


def test_a_runner_says_which_state_is_missing_or_how_many_steps_differ() -> None:
    policy = Policy(nn.GRUCell).eval()

    def step() -> TorchRunner:
        return TorchRunner(policy, apart=True)

    x, h = np.zeros((3, 1, 5), np.float32), np.zeros((1, 8), np.float32)
    with Recurrent(step(), {"hidden": "hidden_out"}) as runner:
        assert runner.run({"x": x, "hidden": h})["action"].shape == (3, 1, 3)
        with pytest.raises(RunnerError, match="no input is named 'hidden', which is a state"):
            runner.run({"x": x})
    said = "no output is named 'next', which is the next state; its outputs are action, hidden_out"
    with Recurrent(step(), {"hidden": "next"}) as runner, pytest.raises(RunnerError, match=said):
        runner.run({"x": x, "hidden": h})
    said = r"its inputs have \[0\] steps, the first axis; give all as many, at least one"
    with Recurrent(step(), {"hidden": "hidden_out"}) as runner, pytest.raises(RunnerError, match=said):
        runner.run({"x": x[:0], "hidden": h})
    said = r"its inputs have \[2, 3\] steps"
    with Recurrent(step(), {}) as runner, pytest.raises(RunnerError, match=said):
        runner.run({"x": x, "hidden": np.zeros((2, 1, 8), np.float32)})
