"""A loop that starts from its noise in each step: the bits of what upstream writes, in every layout."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from floors import require_rounding
from torch import nn

from exporters import FlowPolicy, export, open_bundle
from exporters.flow.diffusion import InterpolationSchedule
from exporters.flow.policy import flow_states
from exporters.flow.schedule import LAYOUTS, Layout, schedule_from_json
from exporters.flow.update import Operation
from pytest_reflex.errors import ReflexError, RunnerError
from pytest_reflex.inputs import Gaussian, InputSpec, State, make_fixture

INPUTS = [InputSpec("state", (2, 4), meaning=State()), InputSpec("noise", (2, 6, 5), meaning=Gaussian())]


class Mixer(FlowPolicy):
    """Its halves; :meth:`sample_actions` is the loop as lerobot's X-VLA writes it."""

    schedule = InterpolationSchedule()
    steps = 7
    epilogue = (Operation("Slice", "kept", ("x", 2, 0, 3)),)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.see, self.read, self.say = nn.Linear(4, 8), nn.Linear(5, 8), nn.Linear(8, 5)

    def prefix(self, state: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"seen": self.see(state)}

    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        return self.say(torch.tanh(self.read(x_t) + seen[:, None] + time[:, None, None]))

    def sample_actions(self, state: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return self.walked(state, noise)[-1][..., :3]

    def walked(self, state: torch.Tensor, noise: torch.Tensor) -> list[torch.Tensor]:
        """What each step gives, mixed with the noise for the one after."""
        context, action, mixed = self.prefix(state), torch.zeros_like(noise), []
        for index in range(self.steps, 0, -1):
            t = torch.full(noise.shape[:1], index / self.steps)
            mixed.append(noise * t.view(-1, 1, 1) + action * (1 - t).view(-1, 1, 1))
            action = self.velocity(mixed[-1], t, **context)
        return [*mixed[1:], action]


def given(fixture_idx: int) -> dict[str, torch.Tensor]:
    return {n: torch.from_numpy(array) for n, array in make_fixture(INPUTS, 3, fixture_idx).items()}


@pytest.mark.parametrize("steps", [1, 2, 7, 10, 30])
def test_a_table_gives_the_bits_that_upstream_gives(steps: int) -> None:
    flow = Mixer()
    flow.steps = steps
    with torch.no_grad():
        theirs, ours = flow.walked(**given(1)), flow_states(flow, **given(1))
    assert len(theirs) == len(ours) == steps
    assert all(torch.equal(a, b[..., :3]) for a, b in zip(ours, theirs, strict=True))


def test_every_layout_starts_from_the_noise_in_each_step(tmp_path: Path) -> None:
    flow = Mixer()
    outputs = []
    for layout in LAYOUTS:
        made = export(
            flow, tmp_path / layout, inputs=INPUTS, layout=layout, fixtures=4, strict=True, floor=True,
            trajectory=True,
        )  # fmt: skip
        require_rounding(made.result)
        assert made.result is not None
        assert len(made.result.steps) == 7
        with made.runner() as runner:
            outputs.append(runner.run(make_fixture(INPUTS, 3, 1))["actions"])
    assert all(np.array_equal(outputs[0], other) for other in outputs[1:])


@pytest.mark.parametrize(
    ("half", "gives", "said"),
    [
        (
            "prefix",
            lambda gave: gave["seen"],
            "the prefix of Odd returned a tensor; return a dict of",
        ),
        ("prefix", lambda gave: None, "the prefix of Odd returned None; return a dict of tensors by name"),
        ("velocity", lambda gave: {"v": gave}, "the velocity of Odd returned a dict; return a tensor shaped"),
        (
            "velocity",
            lambda gave: gave[:, 1:],
            "the velocity of Odd has shape [2, 5, 5], and x_t [2, 6, 5]",
        ),
        ("velocity", lambda gave: gave[0], "the velocity of Odd has shape [6, 5], and x_t [2, 6, 5]; return"),
    ],
)
def test_a_half_that_gives_something_else_is_named(half: str, gives: Any, said: str, tmp_path: Path) -> None:
    class Odd(Mixer):
        sample_actions = None

    flow = Odd()
    own = getattr(flow, half)
    setattr(flow, half, lambda *given, **named: gives(own(*given, **named)))
    with pytest.raises(RunnerError, match=f"^{re.escape(said)}"):
        flow_states(flow, **given(1))
    with pytest.raises(ReflexError, match=re.escape(said)):
        export(flow, tmp_path / "odd", inputs=INPUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_locate_reads_every_value_of_the_update(layout: Layout, tmp_path: Path) -> None:
    made = export(Mixer(), tmp_path / "b", inputs=INPUTS, layout=layout, verify=False)
    other = Mixer()
    found = open_bundle(made.path).locate(other)
    assert found.place is None, str(found)
    assert found.values > 0, str(found)
    with torch.no_grad():
        other.say.bias += 0.1
    found = open_bundle(made.path).locate(other)
    assert found.place is not None
    assert found.place.module.endswith("say"), str(found)


def test_it_is_read_as_it_was_written() -> None:
    schedule = Mixer().loop().schedule
    assert schedule_from_json(json.loads(json.dumps(schedule.to_json()))) == schedule
