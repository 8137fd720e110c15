"""A policy that decodes tokens: its two halves in one graph, whose Loop ends when it has no more to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from exporters import export
from exporters.flow.decoding import DecodingPolicy
from pytest_reflex import check
from pytest_reflex.errors import TracingError
from pytest_reflex.inputs import InputSpec, State
from pytest_reflex.runners import TorchRunner

COUNT, END = 6, 0
INPUTS = [InputSpec("state", (2, 4), meaning=State())]


class Talker(DecodingPolicy):
    """Says up to six of five words, and remembers them all in a table of fixed size."""

    steps = COUNT - 1

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.see, self.word, self.say = nn.Linear(4, 8), nn.Embedding(5, 8), nn.Linear(8, 5)

    def prefill(self, state: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = torch.tanh(self.see(state))
        token = self.say(seen).argmax(-1, keepdim=True)
        tokens = nn.functional.pad(token, (0, COUNT - 1))
        said = nn.functional.pad(self.word(token), (0, 0, 0, COUNT - 1))
        place = torch.ones((), dtype=torch.long)
        held = {"place": place, "tokens": tokens, "said": said, "finished": token == END}
        return {"seen": seen, **held, "going": ~held["finished"].all()}

    def step(
        self,
        place: torch.Tensor,
        tokens: torch.Tensor,
        said: torch.Tensor,
        finished: torch.Tensor,
        seen: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        token = self.say(3 * seen + said.sum(1) * torch.sin(place.float())).argmax(-1, keepdim=True)
        here = torch.arange(COUNT) == place
        finished = finished | (token == END)
        return {
            "place": place + 1,
            "tokens": torch.where(here, token, tokens),
            "said": torch.where(here[:, None], self.word(token), said),
            "finished": finished,
            "going": ~finished.all(),
        }


def exported(policy: Talker, place: Path, **options: Any) -> Any:
    return export(policy, place, inputs=INPUTS, **options)


def test_tokens_are_equal_and_end_when_all_have_said_the_last(tmp_path: Path) -> None:
    policy = Talker()
    made = exported(policy, tmp_path / "b", fixtures=8, strict=True)
    assert made.layout == "single"
    with TorchRunner(policy) as reference, made.runner() as candidate:
        rng = np.random.default_rng(0)
        drawn = [{"state": rng.normal(size=(2, 4)).astype(np.float32)} for _ in range(40)]
        said = [reference.run(inputs)["tokens"] for inputs in drawn]
        for inputs, tokens in zip(drawn, said, strict=True):
            assert np.array_equal(candidate.run(inputs)["tokens"], tokens)
    lengths = {1 + max(np.flatnonzero(row).max(initial=-1) for row in tokens) for tokens in said}
    assert len(lengths) > 2, "some end early, in the first token or later, and some say all"


def test_what_no_step_changes_is_computed_before_the_loop(tmp_path: Path) -> None:
    made = exported(Talker(), tmp_path / "b", verify=False)
    graph = ir.load(made.path / "model.onnx").graph
    (loop,) = [node for node in graph if node.op_type == "Loop"]
    body = loop.attributes["body"].as_graph()
    # The observation is multiplied by 3 once, and every state keeps its shape.
    assert not any(value is not None and value.name == "state" for node in body for value in node.inputs)
    assert [list(v.shape or ()) for v in body.inputs[2:]] == [list(v.shape or ()) for v in body.outputs[1:]]
    assert all(isinstance(n, int) for v in body.inputs for n in v.shape or ())


def test_a_step_that_forgets_is_caught(tmp_path: Path) -> None:
    class Forgetful(Talker):
        def step(self, **held: torch.Tensor) -> dict[str, torch.Tensor]:
            return {**super().step(**held), "said": held["said"] * 1}

    policy = Talker()
    result = check(TorchRunner(policy), TorchRunner(Forgetful()), inputs=INPUTS, fixtures=20)
    assert not result.passed
    assert {fixture.refusal.gate for fixture in result.fixtures if fixture.refusal} == {"exact"}


@pytest.mark.parametrize(
    ("half", "change", "said"),
    [
        ("prefill", {"place": None}, "the prefill gives no 'place', which is a state"),
        ("step", {"going": None}, "the step gives no 'going', which is a state"),
        ("step", {"tokens": None}, "the step gives no 'tokens', which is a state"),
        (
            "step",
            {"place": lambda v: v.float()},
            "'place' is INT64.* after the prefill and FLOAT.* after a st",
        ),
        ("step", {"tokens": lambda v: v[:, 1:]}, "a state keeps its dtype and its shape"),
    ],
)
def test_halves_that_do_not_fit_are_refused(
    half: str, change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    class Changed(Talker):
        def _changed(self, gave: dict[str, Any]) -> dict[str, Any]:
            new = {name: change[name] and change[name](gave[name]) for name in change}
            return {name: value for name, value in {**gave, **new}.items() if value is not None}

        def prefill(self, **inputs: torch.Tensor) -> dict[str, Any]:
            gave = super().prefill(**inputs)
            return self._changed(gave) if half == "prefill" else gave

        def step(self, **held: torch.Tensor) -> dict[str, Any]:
            held = {"place": held["tokens"].sum() * 0 + 1, **held}
            gave = super().step(**held)
            return self._changed(gave) if half == "step" else gave

    reference = TorchRunner(nn.Linear(4, 1), lambda state: {"tokens": torch.ones(2, COUNT, dtype=torch.long)})
    with pytest.raises(TracingError, match=said):
        export(reference, tmp_path / "b", inputs=INPUTS, whole=Changed())
