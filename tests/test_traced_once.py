"""That a trace made once for several tests is the one that each of them would have made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from traced_once import TracedOnce

import exporters
from exporters import FlowPolicy
from exporters.graph import graph_passes, tracing
from pytest_reflex.errors import TracingError
from pytest_reflex.inputs import InputSpec

pytestmark = pytest.mark.once

GRAPHS = ("model.onnx", "model.onnx.data")
# Wide enough for weights that go into a file of their own.
SEEN = 300


class Head(nn.Module):
    """What a test may exchange."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain, self.layer = gain, nn.Linear(3 + SEEN, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * torch.tanh(self.layer(x))


class Small(FlowPolicy):
    """A flow of two layers."""

    steps = 2

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.eye, self.head = nn.Linear(4, SEEN), Head(0.5)

    def prefix(self, state: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"seen": self.eye(state)}

    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        seen = (seen + time[:, None])[:, None].expand(-1, x_t.shape[1], -1)
        given = torch.cat([x_t, seen], dim=-1)
        found: torch.Tensor = self.head(given)
        return found


def export(model: Small, out: Path, *, columns: int = 5, **options: Any) -> None:
    inputs = [InputSpec("state", (1, 4)), InputSpec("noise", (1, columns, 3))]
    exporters.export(model, out, inputs=inputs, verify=False, **options)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TracedOnce:
    (tmp_path / "traces").mkdir()
    once = TracedOnce(tmp_path / "traces")
    once.patch(monkeypatch)
    return once


def test_one_pair_of_halves_serves_every_layout_and_number_of_steps(kept: TracedOnce, tmp_path: Path) -> None:
    for index, options in enumerate(({}, {"steps": 3}, {"layout": "loop"}, {"layout": "stepwise"})):
        # Made anew each time: it goes by the content.
        export(Small(), tmp_path / str(index), **options)
    assert (kept.made, kept.found) == (2, 6)


def test_what_is_found_gives_the_same_bytes(kept: TracedOnce, tmp_path: Path) -> None:
    for name in ("made", "found"):
        export(Small(), tmp_path / name)
    assert (kept.made, kept.found) == (2, 2)
    for file in GRAPHS:
        assert (tmp_path / "made" / file).read_bytes() == (tmp_path / "found" / file).read_bytes()


def test_a_change_of_a_weight_a_size_a_setting_or_a_function_is_seen(
    kept: TracedOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Small()
    export(model, tmp_path / "0")
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    export(model, tmp_path / "1")
    export(model, tmp_path / "2", columns=6)
    model.head.gain *= 2
    export(model, tmp_path / "3")
    upstream = Head.forward
    monkeypatch.setattr(Head, "forward", lambda self, x: upstream(self, x))
    export(model, tmp_path / "4")
    assert (kept.made, kept.found) == (10, 0)


def test_what_cannot_be_traced_is_not_kept(
    kept: TracedOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Small()

    def broken(self: Any, *args: Any, **named: Any) -> Any:
        raise RuntimeError("not today")

    with monkeypatch.context() as patched:
        patched.setattr(Head, "forward", broken)
        with pytest.raises(TracingError, match="not today"):
            export(model, tmp_path / "p")
    assert kept.made == 1  # the prefix, which came before it
    export(model, tmp_path / "p")
    assert (kept.made, kept.found) == (3, 0)


def test_what_a_test_plants_where_graphs_are_made_is_seen(
    kept: TracedOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(Small(), tmp_path / "0")
    for index, (place, name) in enumerate(
        ((tracing, "fold_constants"), (graph_passes, "name_ends"), (tracing, "zero_masked_rows")), start=1
    ):
        upstream = getattr(place, name)
        with monkeypatch.context() as patched:
            patched.setattr(place, name, lambda *args, _upstream=upstream, **named: _upstream(*args, **named))
            export(Small(), tmp_path / str(index))
    assert (kept.made, kept.found) == (8, 0)


def test_what_was_cut_off_is_made_anew(
    kept: TracedOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(proto: Any, file: Path) -> None:
        file.write_bytes(proto.SerializeToString()[:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("traced_once.onnx.save_model", cut)
        with pytest.raises(KeyboardInterrupt):
            export(Small(), tmp_path / "p")
    export(Small(), tmp_path / "p")
    assert (kept.made, kept.found) == (3, 0)  # one half was made and not kept


def test_a_graph_without_a_loop_is_found_by_its_content(kept: TracedOnce, tmp_path: Path) -> None:
    def exported(name: str, bias: float, slope: float = 0.5) -> bytes:
        layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LeakyReLU(slope))
        with torch.no_grad():
            layers[0].weight.copy_(torch.eye(2))
            layers[0].bias.fill_(bias)
        # By the name that its forward gives it.
        exporters.export(layers, tmp_path / name, inputs=[InputSpec("input", (1, 2))], verify=False)
        return (tmp_path / name / "model.onnx").read_bytes()

    first = exported("0", 1.0)
    assert (kept.made, kept.found) == (1, 0)
    assert exported("1", 1.0) == first
    assert (kept.made, kept.found) == (1, 1)
    exported("2", 2.0)
    exported("3", 1.0, slope=0.25)
    assert (kept.made, kept.found) == (3, 1)
