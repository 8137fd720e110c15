"""An export that takes the place of another says in what it differs from it."""

from __future__ import annotations

from pathlib import Path

import torch

from exporters import Export, FlowPolicy, export, open_bundle
from pytest_reflex import InputSpec

INPUTS = [InputSpec("state", (1, 4)), InputSpec("noise", (1, 2, 4))]


class Reach(FlowPolicy):
    """The least that is a flow."""

    def prefix(self, state: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"seen": torch.tanh(state)}

    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        return x_t * time[:, None, None] + seen[:, None]


def made(place: Path, **options: object) -> Export:
    return export(Reach().eval(), place, inputs=INPUTS, **options)  # type: ignore[arg-type]


def test_fewer_fixtures_another_threshold_and_other_steps_are_said(tmp_path: Path) -> None:
    first = made(tmp_path / "reach", fixtures=5, threshold=1e-5, steps=4)
    assert (first.replaced, first.result.notes) == ("", ())  # type: ignore[union-attr]
    second = made(tmp_path / "reach", fixtures=3, threshold=1e-4, steps=2)
    assert second.replaced == (
        "the earlier bundle is replaced: steps 4 -> 2, fixtures 5 -> 3, threshold 1e-05 -> 0.0001"
    )
    assert second.result is not None
    assert f"Note: {second.replaced}" in " ".join(str(second.result).split())
    # The bundle itself is what it would be anywhere.
    assert open_bundle(second.path).manifest["check"]["notes"] == []
    assert made(tmp_path / "reach", fixtures=3, threshold=1e-4, steps=2).replaced == ""


def test_every_tolerance_is_said(tmp_path: Path) -> None:
    made(tmp_path / "reach", fixtures=3, steps=2)
    named = made(tmp_path / "reach", fixtures=3, steps=2, threshold={"actions": 1e-5}, rtol=1e-5)
    assert named.replaced == (
        "the earlier bundle is replaced: threshold 0.0001 -> actions 1e-05, others 0.0001; rtol 1e-05"
    )


def test_a_bundle_without_a_verdict_says_that_it_replaces_one(tmp_path: Path) -> None:
    made(tmp_path / "reach", fixtures=3, steps=2)
    unproven = made(tmp_path / "reach", steps=2, layout="loop", verify=False)
    assert unproven.replaced == (
        "the earlier bundle is replaced: layout unrolled -> loop, verdict pass -> none, fixtures 3 -> 0, "
        "threshold 0.0001 -> none"
    )
