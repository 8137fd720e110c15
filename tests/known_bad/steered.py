"""Bundles that steer their own trial: policies in two halves, and manifests that ask for something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from unittest import mock

import torch
from arm_family import Arm, ArmFamily, ArmFlow
from arm_halves import Around

from exporters import FlowPolicy, export, open_bundle
from exporters.bundle import registry
from exporters.bundle.manifest import MANIFEST, seal
from pytest_reflex.inputs import Gaussian, InputSpec, State
from pytest_reflex.runners import Runner

FAMILY: Final = ArmFamily()
INPUTS: Final = [
    InputSpec("joints", (1, 3), meaning=State()),
    InputSpec("noise", (1, 4, 2), meaning=Gaussian()),
]
# Whatever the candidate itself says that it reads.
ITS_OWN: Final = {"inputs": None}


def arm() -> Arm:
    torch.manual_seed(0)
    return Arm(10).eval()


class Own(ArmFlow):
    """Two halves, and beside them a way of its own, which they do not follow."""

    steps = 10

    def sample_actions(self, joints: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return self.arm.act(joints, noise, self.steps) + 0.01


class OwnOfABatch(ArmFlow):
    """The same, called with what no input is."""

    steps = 10

    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.arm.act(**batch, steps=self.steps) + 0.01


class Walk(ArmFlow):
    """Two halves and nothing else: its own reference."""

    steps = 10


FLOWS: Final[dict[str, Callable[[], FlowPolicy]]] = {
    "own": lambda: Own(arm()).eval(),
    "own of a batch": lambda: OwnOfABatch(arm()).eval(),
    "around": lambda: Around(Own(arm()), 10).eval(),
    "walk": lambda: Walk(arm()).eval(),
}


def flow(name: str) -> Callable[[Path], FlowPolicy]:
    return lambda work: FLOWS[name]()


def halves(**options: Any) -> Callable[[Path], Any]:
    """A bundle of the two halves, which are the same in all of these flows; nobody has proven it."""

    def made(work: Path) -> Any:
        export(Walk(arm()).eval(), work / "b", inputs=INPUTS, verify=False, **options)
        return open_bundle(work / "b")

    return made


def plain_file(work: Path) -> str:
    """The graph of the same halves as a plain file, which does not know how its policy is asked."""
    export(Walk(arm()).eval(), work / "b", inputs=INPUTS, verify=False)
    return str(work / "b" / "model.onnx")


def arm_bundle(change: Callable[[dict[str, Any]], dict[str, Any]], **options: Any) -> Callable[[Path], Any]:
    """A bundle of a family's policy whose sealed manifest says something else."""

    def made(work: Path) -> Any:
        FAMILY.export(arm(), work / "b", verify=False, **options)
        resealed(change)(work / "b")
        return open_bundle(work / "b")

    return made


def as_stated(work: Path) -> Runner:
    """The family's reference, asked as the manifest says."""
    with mock.patch.object(registry, "family_named", return_value=FAMILY):
        runner: Runner = open_bundle(work / "b").reference_runner(arm())
        return runner


def resealed(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    def damage(bundle: Path) -> None:
        said = json.loads((bundle / MANIFEST).read_text())
        said = {**said, **change(said)}
        (bundle / MANIFEST).write_text(json.dumps({**said, "sha256": seal(said)}))

    return damage


def narrower(said: dict[str, Any]) -> dict[str, Any]:
    """Joints that hardly move from rest."""
    joints, noise = said["inputs"]
    return {"inputs": [{**joints, "meaning": {"kind": "gaussian", "mean": 0.0, "std": 1e-3}}, noise]}


def ending_early(said: dict[str, Any]) -> dict[str, Any]:
    return {"loop": {**said["loop"], "schedule": {"kind": "euler", "start": 1.0, "end": 0.25}}}


def session(**config: str) -> Callable[[Path], None]:
    entries = {f"session.{name}": value for name, value in config.items()}
    return resealed(lambda said: {"session": {"optimization": "basic", "config": entries}})
