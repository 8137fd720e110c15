"""What no content shows and the reference's answer does: each of these once found an old bundle."""

from __future__ import annotations

import functools
import os
import random
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arm_family import Arm, ArmFamily
from cached_cases import INPUTS, Counter, in_two_processes, made
from torch import nn

import exporters
from examples.tiny_pi0 import tiny_pi0
from exporters.bundles import Export
from exporters.caching import cached as once
from exporters.flow.policy import FlowPolicy
from pytest_reflex import InputSpec, TorchRunner, check
from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs import Gaussian

pytestmark = pytest.mark.once

GLOBAL = types.SimpleNamespace(gain=1.0)
ARRAY = np.ones(3, np.float32)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


class OfAGlobalObject(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * GLOBAL.gain


class OfAGlobalArray(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * torch.from_numpy(ARRAY)


def scaled(by: float) -> Callable[..., Any]:
    """What wraps a method so that its name leads to the wrapper, and what it encloses changes later."""
    held = types.SimpleNamespace(by=by)

    class Wrapper:
        def __init__(self, function: Callable[..., Any]) -> None:
            self.function = function

        def __get__(self, model: Any, kind: Any = None) -> Callable[..., Any]:
            return lambda **inputs: self.function(model, **inputs) * held.by

    Wrapper.held = held  # type: ignore[attr-defined]
    return Wrapper


DECORATOR = scaled(1.0)


class Decorated(Base):
    @DECORATOR
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


class ImportsInside(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import inside_of_mine

        return inside_of_mine.act(self.linear(x))


class ReadsAFile(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * float(Path(os.environ["GAIN_FILE"]).read_text())


class ReadsTheEnvironment(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * float(os.environ["GAIN"])


class ByName(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return getattr(torch, os.environ["GAIN_NAME"])(self.linear(x))


def _module(factor: float) -> types.ModuleType:
    made = types.ModuleType("inside_of_mine")
    exec(f"def act(x): return x * {factor}", made.__dict__)
    return made


CHANGES: dict[type[nn.Module], Callable[[pytest.MonkeyPatch, Path], None]] = {
    OfAGlobalObject: lambda patch, _: patch.setattr(GLOBAL, "gain", 1.0000001),
    OfAGlobalArray: lambda patch, _: ARRAY.__setitem__(1, 2.0),
    Decorated: lambda patch, _: patch.setattr(DECORATOR.held, "by", 2.0),
    ImportsInside: lambda patch, _: patch.setitem(sys.modules, "inside_of_mine", _module(2.0)),
    ReadsAFile: lambda patch, place: (place / "gain").write_text("2"),
    ReadsTheEnvironment: lambda patch, _: patch.setenv("GAIN", "2"),
    ByName: lambda patch, _: patch.setenv("GAIN_NAME", "tanh"),
}


@pytest.fixture
def export() -> Counter:
    return Counter()


@pytest.mark.parametrize("policy", CHANGES, ids=lambda policy: policy.__name__)
def test_what_changes_the_answer_is_another_bundle(
    policy: type[nn.Module], export: Counter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gain").write_text("1")
    monkeypatch.setenv("GAIN_FILE", str(tmp_path / "gain"))
    monkeypatch.setenv("GAIN", "1")
    monkeypatch.setenv("GAIN_NAME", "sin")
    monkeypatch.setitem(sys.modules, "inside_of_mine", _module(1.0))
    monkeypatch.setattr(sys.modules[__name__], "ARRAY", ARRAY.copy())
    content = once._key(exporters.export, policy(), {"inputs": INPUTS})
    first = made(export, policy(), tmp_path / "cache")
    assert made(export, policy(), tmp_path / "cache").path == first.path
    assert export.calls == 1
    CHANGES[policy](monkeypatch, tmp_path)
    second = made(export, policy(), tmp_path / "cache")
    assert export.calls == 2
    assert second.path != first.path
    assert made(export, policy(), tmp_path / "cache").path == second.path
    assert export.calls == 2
    # No content shows it: without the answer this case would prove nothing.
    assert once._key(exporters.export, policy(), {"inputs": INPUTS}) == content


class Counted(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        RUNS.append(1)
        return self.linear(x)


RUNS: list[int] = []


def test_a_hit_costs_one_run(export: Counter, tmp_path: Path) -> None:
    made(export, Counted(), tmp_path)
    RUNS.clear()
    made(export, Counted(), tmp_path)
    assert (len(RUNS), export.calls) == (1, 1)


class Draws(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(3) + float(np.random.normal()) + random.random()
        return self.linear(x) + 0 * noise


def test_a_reference_that_draws_is_found_again_and_moves_no_generator(tmp_path: Path) -> None:
    policy, options = Draws(), {"inputs": INPUTS}  # its weights are drawn too
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first = once._answers(exporters.export, policy, options)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    torch.randn(1), random.random(), np.random.normal()
    assert once._answers(exporters.export, policy, options) == first


class Halves(FlowPolicy):
    steps = 2

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.see, self.move = nn.Linear(4, 3), nn.Linear(3, 3)

    def prefix(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"seen": self.see(x)}

    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        return self.move(x_t) * GLOBAL.gain + seen[:, None]


NOISE = InputSpec("noise", (1, 2, 3), meaning=Gaussian())


def test_a_flow_is_asked_where_it_is_the_reference_and_where_it_stands_beside_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow, inputs = Halves().eval(), [*INPUTS, NOISE]
    true = TorchRunner(flow, lambda x, noise: {"actions": noise + x.sum()})
    asked = [(flow, {}), (flow, {"steps": 1}), (true, {"flow": flow}), (true, {"flow": flow, "steps": 1})]
    before = [once._answers(exporters.export, who, {"inputs": inputs, **how}) for who, how in asked]
    assert [len(answers) for answers in before] == [1, 1, 2, 2]
    assert len({str(answers) for answers in before}) == len(asked)
    monkeypatch.setattr(GLOBAL, "gain", 2.0)
    after = [once._answers(exporters.export, who, {"inputs": inputs, **how}) for who, how in asked]
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_the_options_say_what_is_asked_also_of_a_part_of_an_export_function() -> None:
    ask, part = once._answers, functools.partial
    plain = ask(exporters.export, Base(), {"inputs": INPUTS, "outputs": ["y"]})
    assert ask(part(exporters.export, inputs=INPUTS), Base(), {"outputs": ["y"]}) == plain
    assert (
        ask(part(part(exporters.export, outputs=["z"]), outputs=["y"]), Base(), {"inputs": INPUTS}) == plain
    )
    free = [InputSpec("x", (1, 4), free=("batch", None))]
    assert ask(exporters.export, Base(), {"inputs": free, "outputs": ["y"]}) == plain


def test_a_family_says_itself_what_its_policies_are_asked() -> None:
    arm = ArmFamily()
    torch.manual_seed(0)
    policy = Arm(3).eval()
    answers = [once._answers(arm.export, policy, options) for options in ({}, {"steps": 2}, {"horizon": 9})]
    answers.append(once._answers(functools.partial(arm.export, steps=2), policy, {"layout": "loop"}))
    assert len({str(found) for found in answers}) == 3
    assert answers[1] == answers[3]
    assert arm.asked(policy, layout="loop", strict=True)[1] == arm.inputs(policy)


class Own(Counter):
    """An export function that takes no inputs, so that nobody says what its policy reads."""

    def __call__(self, reference: Any, out_dir: Any, **options: Any) -> Export:
        return super().__call__(reference, out_dir, inputs=INPUTS, fixtures=2)


class OwnWrapped(Counter):
    """Another, whose bundle reads what the policy that it is given does not."""

    def __call__(self, reference: Any, out_dir: Any, **options: Any) -> Export:
        wrapped = TorchRunner(reference, lambda y, z: reference(x=y + z))
        inputs = [InputSpec("y", (1, 4)), InputSpec("z", (1, 4))]
        return super().__call__(wrapped, out_dir, inputs=inputs, fixtures=1)


GLOBAL_CHANGES: dict[type[nn.Module], Callable[[pytest.MonkeyPatch], None]] = {
    OfAGlobalObject: lambda patch: patch.setattr(GLOBAL, "gain", 2.0),
    OfAGlobalArray: lambda patch: ARRAY.__setitem__(1, 2.0),
    Base: lambda patch: None,
}


@pytest.mark.parametrize("policy", GLOBAL_CHANGES)
def test_where_nobody_says_what_is_read_the_bundle_that_is_found_does(
    policy: type[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Own()
    monkeypatch.setattr(sys.modules[__name__], "ARRAY", ARRAY.copy())
    for _ in range(2):
        exporters.cached(own, policy(), cache=tmp_path)
    assert own.calls == 1
    GLOBAL_CHANGES[policy](monkeypatch)
    bundle = exporters.cached(own, policy(), cache=tmp_path)
    assert own.calls == (1 if policy is Base else 2)
    assert check(policy(), bundle, inputs=INPUTS).passed


def test_a_reference_that_cannot_be_asked_is_exported_each_time(tmp_path: Path) -> None:
    own = OwnWrapped()
    for _ in range(2):
        exporters.cached(own, Base(), cache=tmp_path)
    assert own.calls == 2
    with pytest.raises(RunnerError, match=r"Base failed on inputs x"):
        exporters.cached(exporters.export, Base(), cache=tmp_path, inputs=[InputSpec("x", (1, 5))])


def test_a_runner_is_left_open_where_it_was_and_closed_where_it_was_not() -> None:
    runner = TorchRunner(lambda: Base())
    runner.open()
    once._answers(exporters.export, runner, {"inputs": INPUTS})
    assert runner.model is not None
    runner.close()
    held = TorchRunner(Base())
    once._answers(exporters.export, held, {"inputs": INPUTS})
    with pytest.raises(RunnerError, match="is not open"):
        held.facts()


def test_another_number_of_threads_has_a_key_of_its_own() -> None:
    keys, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 1):
            torch.set_num_threads(count)
            keys.append(once._key(exporters.export, Base(), {"inputs": INPUTS}))
    finally:
        torch.set_num_threads(threads)
    assert keys[0] == keys[2] != keys[1]


def test_a_policy_gives_one_answer_in_all_processes(python: list[str]) -> None:
    code = (
        "from examples.tiny_pi0 import tiny_pi0\nimport exporters\n"
        "from exporters.caching import cached as once\n"
        "p = tiny_pi0(depth=(1, 1, 1), steps=2, chunk=4)\n"
        "print(once._answers(exporters.pi0.export, p, {'layout': 'loop'}))"
    )
    said = in_two_processes(python, code)
    assert len({line.splitlines()[-1] for line in said}) == 1
    policy = tiny_pi0(depth=(1, 1, 1), steps=2, chunk=4)
    assert str(once._answers(exporters.pi0.export, policy, {"layout": "loop"})) == said[0].splitlines()[-1]
