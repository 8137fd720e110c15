"""A policy that is no longer the one that its bundle was made of is told so; a faulty bundle is not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import exporters
from exporters import Bundle
from pytest_reflex import InputSpec, check
from pytest_reflex.report.text.terminal import failure_message
from pytest_reflex.result import ParityResult
from pytest_reflex.verdict.results import ANOTHER

pytestmark = pytest.mark.once

INPUTS = [InputSpec("x", (1, 4))]


class Actor(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"actions": self.last(torch.tanh(self.first(x)))}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exporters.export(Actor().eval(), tmp_path_factory.mktemp("b") / "actor", inputs=INPUTS, fixtures=3)


def notes(result: ParityResult) -> list[str]:
    return [note for note in result.notes if note.startswith(ANOTHER)]


def test_a_policy_that_was_drawn_anew_or_trained_on_is_named(bundle: Bundle) -> None:
    trained = Actor()
    with torch.no_grad():
        trained.last.bias[1] += 0.25
    result = check(trained.eval(), bundle)
    assert not result.passed
    (note,) = notes(result)
    assert note == (
        f"{ANOTHER}for the same inputs Actor gives in actions by now what is 2.5e-01 off from what it gave "
        "when it was exported"
    )
    text = " ".join(failure_message(result).split())
    assert "Next: the bundle was made of a policy that answers otherwise than this one: of another" in text
    assert "Give that one, or export this. reflex locate" in text
    assert len(notes(check(Actor(seed=1).eval(), bundle))) == 1


def test_a_faulty_bundle_of_the_same_policy_is_not_called_another_policys(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty:
        """The bundle, whose runner is off."""

        inputs, reference_runner, recording = bundle.inputs, bundle.reference_runner, bundle.recording

        def runner(self, provider: str = "cpu") -> object:
            made = bundle.runner(provider)
            run = made.run
            made.run = lambda inputs: {n: a + 1 for n, a in run(inputs).items()}  # type: ignore[method-assign]
            return made

    result = check(Actor().eval(), Faulty())
    assert not result.passed
    assert notes(result) == []


def test_a_pass_asks_nothing_and_without_a_recording_nothing_is_said(bundle: Bundle) -> None:
    assert notes(check(Actor().eval(), bundle)) == []
    result = check(Actor(seed=1).eval(), bundle.path / "model.onnx", INPUTS)
    assert not result.passed
    assert notes(result) == []
