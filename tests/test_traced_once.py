"""That a trace made once for several tests is the one that each of them would have made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from traced_once import TracedOnce

from examples.tiny_pi0 import tiny_pi0
from exporters import pi0
from exporters.exporting import stages
from exporters.graph import graph_passes, tracing
from pytest_reflex.errors import TracingError

pytestmark = pytest.mark.once

SMALL: dict[str, Any] = {"cameras": 2, "prompt_tokens": 6, "verify": False}
GRAPHS = ("model.onnx", "model.onnx.data")


def small() -> Any:
    return tiny_pi0(depth=(1, 1, 1), steps=2, chunk=4)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TracedOnce:
    (tmp_path / "traces").mkdir()
    once = TracedOnce(tmp_path / "traces")
    monkeypatch.setattr(stages, "trace_halves", once.trace_halves)
    monkeypatch.setattr(stages, "converted", once.converted)
    return once


def test_one_pair_of_halves_serves_every_layout_and_number_of_steps(kept: TracedOnce, tmp_path: Path) -> None:
    for index, options in enumerate(({}, {"steps": 3}, {"layout": "loop"}, {"layout": "stepwise"})):
        # Made anew each time: it goes by the content.
        pi0.export(small(), tmp_path / str(index), **SMALL, **options)
    assert (kept.made, kept.found) == (2, 6)


def test_what_is_found_gives_the_same_bytes(kept: TracedOnce, tmp_path: Path) -> None:
    for name in ("made", "found"):
        pi0.export(small(), tmp_path / name, **SMALL)
    assert (kept.made, kept.found) == (2, 2)
    for file in GRAPHS:
        assert (tmp_path / "made" / file).read_bytes() == (tmp_path / "found" / file).read_bytes()


def test_a_change_of_a_weight_a_size_a_setting_or_a_function_is_seen(
    kept: TracedOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.pi0 import modeling_pi0

    model = small()
    pi0.export(model, tmp_path / "0", **SMALL)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    pi0.export(model, tmp_path / "1", **SMALL)
    pi0.export(model, tmp_path / "2", **{**SMALL, "prompt_tokens": 7})
    model.config.min_period *= 2
    pi0.export(model, tmp_path / "3", **SMALL)
    upstream = modeling_pi0.PI0ActionTimeEmbedding.forward
    monkeypatch.setattr(
        modeling_pi0.PI0ActionTimeEmbedding, "forward", lambda self, *args, **kw: upstream(self, *args, **kw)
    )
    pi0.export(model, tmp_path / "4", **SMALL)
    assert (kept.made, kept.found) == (10, 0)


def test_what_cannot_be_traced_is_not_kept(
    kept: TracedOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.pi0 import modeling_pi0

    model = small()

    def broken(self: Any, *args: Any, **named: Any) -> Any:
        raise RuntimeError("not today")

    with monkeypatch.context() as patched:
        patched.setattr(modeling_pi0.PI0ActionTimeEmbedding, "forward", broken)
        with pytest.raises(TracingError, match="not today"):
            pi0.export(model, tmp_path / "p", **SMALL)
    assert kept.made == 1  # the prefix, which came before it
    pi0.export(model, tmp_path / "p", **SMALL)
    assert (kept.made, kept.found) == (3, 0)


def test_what_a_test_plants_where_graphs_are_made_is_seen(
    kept: TracedOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pi0.export(small(), tmp_path / "0", **SMALL)
    for index, (place, name) in enumerate(
        ((tracing, "fold_constants"), (graph_passes, "name_ends"), (tracing, "zero_masked_rows")), start=1
    ):
        upstream = getattr(place, name)
        with monkeypatch.context() as patched:
            patched.setattr(place, name, lambda *args, _upstream=upstream, **named: _upstream(*args, **named))
            pi0.export(small(), tmp_path / str(index), **SMALL)
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
            pi0.export(small(), tmp_path / "p", **SMALL)
    pi0.export(small(), tmp_path / "p", **SMALL)
    assert (kept.made, kept.found) == (3, 0)  # one half was made and not kept
