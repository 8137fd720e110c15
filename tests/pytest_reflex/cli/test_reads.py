"""What a policy of someone's own reads, by its code; and one whose ``forward`` is a loss, as lerobot's is."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundle_cases import Ran, Reflex

pytestmark = pytest.mark.once

# ``forward`` hands the observation on to what it is to be judged by, as a loss does.
SCRIPT = """
import torch
from pytest_reflex import InputSpec, TorchRunner
from pytest_reflex.inputs import State

INPUTS = [InputSpec("observation.image", (1, 12)), InputSpec("observation.state", (1, 6), meaning=State())]


class Learns(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.see, self.feel = torch.nn.Linear(12, 8), torch.nn.Linear(6, 8)

    def forward(self, batch):
        return ((self.predict_action_chunk(batch) - batch["action"]) ** 2).mean()

    def predict_action_chunk(self, batch):
        return torch.tanh(self._seen(batch) + self.feel(batch["observation.state"]))

    def _seen(self, given):
        return self.see(given["observation.image"])


def policy():
    torch.manual_seed(0)
    return Learns().eval()


ready = policy()
runner = TorchRunner(ready, ready.predict_action_chunk)


def makes():
    return runner
"""


@pytest.fixture(autouse=True)
def _beside_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "learns.py").write_text(SCRIPT)


def line(name: str) -> str:
    loaded = "loaded = policy(); " if name == "policy" else ""
    held = "loaded" if loaded else name
    return (
        "to have its predict_action_chunk judged, write in learns.py: from pytest_reflex import TorchRunner; "
        f"{loaded}runner = TorchRunner({held}, {held}.predict_action_chunk), and give learns.py:runner"
    )


@pytest.mark.parametrize("name", ["policy", "ready"])
def test_a_forward_that_is_a_loss_is_told_from_what_the_policy_does(
    name: str, here: Reflex, tmp_path: Path
) -> None:
    said = (
        f"reflex: error: the forward of learns.py:{name} reads 'batch.action' besides what INPUTS in "
        f"learns.py has, as a loss does; {line(name)}\n"
    )
    for asked in (("export", f"learns.py:{name}", "out"), ("init", f"learns.py:{name}")):
        assert here(*asked) == Ran(2, "", said)
    (tmp_path / "learns.py").write_text(SCRIPT.replace("INPUTS =", "SPECS ="))
    assert here("export", f"learns.py:{name}", "out").err == (
        f"reflex: error: learns.py:{name} has no INPUTS beside it; write in learns.py: from pytest_reflex "
        'import InputSpec; INPUTS = [InputSpec("observation.image", (1, ...)), '
        'InputSpec("observation.state", (1, ...))], each with its shape, and with its dtype '
        "where that is not float32; "
        f"{line(name)}\n"
    )


def test_a_loss_that_is_to_be_judged_itself_says_all_that_it_reads(here: Reflex, tmp_path: Path) -> None:
    whole = 'INPUTS = [InputSpec("batch.action", (1, 8)), InputSpec("batch.observation.image", (1, 12)), '
    (tmp_path / "learns.py").write_text(
        SCRIPT.replace('INPUTS = [InputSpec("observation.image", (1, 12)), ', whole)
        .replace('InputSpec("observation.state"', 'InputSpec("batch.observation.state"')
    )  # fmt: skip
    ran = here("export", "learns.py:policy", "out", "--fixtures", "3")
    assert "whose forward" not in ran.err
    assert "besides what INPUTS" not in ran.err


def test_a_runner_is_exported_judged_and_tested_by_its_name(here: Reflex, tmp_path: Path) -> None:
    ran = here("export", "learns.py:runner", "out", "--fixtures", "3", "--strict")
    assert (ran.code, ran.err) == (0, "")
    ran = here("validate", "out", "--model", "learns.py:runner", "--fixtures", "3", "--strict")
    assert (ran.code, ran.err) == (0, "")
    # A bundle that reads another thing than the file says is doubted, as of any other policy.
    (tmp_path / "learns.py").write_text(SCRIPT.replace(", meaning=State()", ""))
    ran = here("validate", "out", "--model", "learns.py:runner", "--fixtures", "3", "--strict")
    assert ran.code == 1
    assert "and the policy's file says 'observation.state' float32 [1, 6] Gaussian(" in ran.out
    (tmp_path / "learns.py").write_text(SCRIPT)
    assert here("init", "learns.py:runner", "--ci", "none").code == 0
    (written,) = (tmp_path / "tests" / "parity").iterdir()
    assert "    policy = script.runner\n    bundle = export(policy, " in written.read_text()
    assert here("init", "learns.py:runner", "--bundle", "out", "--ci", "none").code == 0
    texts = [one.read_text() for one in (tmp_path / "tests" / "parity").iterdir()]
    assert any("bundle.reference_runner(script.runner, inputs=script.INPUTS)\n" in text for text in texts)


def test_a_function_that_gives_a_runner_is_told_to_name_it(here: Reflex) -> None:
    assert here("export", "learns.py:makes", "out") == Ran(
        2,
        "",
        "reflex: error: learns.py:makes gives a TorchRunner; name the runner itself, such as "
        "runner = makes() in learns.py and learns.py:runner\n",
    )
