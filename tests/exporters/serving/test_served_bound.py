"""What a server takes: an export says what it will not, and the command that it names mends it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from exporters import export, open_bundle, repair
from exporters.bundle.served_bound import doubted_bounds, not_served, way_to_be_served
from exporters.serving.service import prepared
from pytest_reflex.cli.commands import _naming
from pytest_reflex.errors import BundleError
from pytest_reflex.inputs import InputSpec, State
from pytest_reflex.report.json.results import result_from_json
from pytest_reflex.verdict.results import Answer

pytestmark = pytest.mark.once


class Quiet(torch.nn.Module):
    """What eight bits cost is more than a hundredth of what its actions do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = torch.nn.Linear(8, 64), torch.nn.Linear(64, 7)

    def forward(self, state: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"actions": 1e-2 * self.two(torch.tanh(6 * self.one(state)))}


def test_an_export_says_what_will_not_be_served_and_the_command_that_mends_it(tmp_path: Path) -> None:
    policy, place = Quiet().eval(), tmp_path / "quiet"
    specs = [InputSpec("state", (1, 8), meaning=State())]
    made = export(policy, place, inputs=specs, precision="int8-dynamic", fixtures=3)
    assert made.result is not None
    (note,) = [one for one in _naming(made.result, "my arm.py:policy").notes if "will not be served" in one]
    told = re.fullmatch(
        rf"will not be served: its bound has to be (\S+) or less; `reflex repair {place} "
        r"--model 'my arm.py:policy' --budget (\S+)` brings it to that",
        note,
    )
    assert told is not None, note
    assert told[1] == told[2]
    with pytest.raises(BundleError) as raised:
        prepared(place, port=0)
    refusal = str(raised.value)
    assert refusal.startswith(f"{place} is not served: actions swings by ")
    assert f"; `reflex repair {place} --model MODEL --budget " in refusal
    repair(open_bundle(place), policy, budget=float(told[2]), fixtures=3)
    server = prepared(place, port=0)
    assert server.proven.startswith("parity PASS: ")
    server._socket.close()


def test_a_threshold_of_which_two_things_are_doubted_names_both(small: Callable[..., Path]) -> None:
    copy = small()
    proof = result_from_json(open_bundle(copy).manifest["check"])
    doubts = ("actions swings by 1.2e+00: give a threshold of 1.2e-02 or less", "input 'state' moves none")
    made = replace(
        proof,
        doubts=tuple(Answer.no("power", said) for said in doubts),
        swings={"actions": 1.2},
        effects={"state": {"actions": 0.01}},
    )
    assert doubted_bounds(made) == list(doubts)
    # The lower of the two: what the input does; at an export half of it.
    assert (
        way_to_be_served(made, copy, "int8")
        == "export it again with `--threshold 1.0e-02`, which it is below"
    )
    assert not_served(made, copy, "int8").startswith(
        "will not be served: its bound has to be 5.0e-03 or less; "
    )
