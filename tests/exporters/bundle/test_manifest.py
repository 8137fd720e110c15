"""The manifest as one typed thing: what is read of it, and what is written back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from examples.own_policy import INPUTS, policy
from exporters import export, open_bundle
from exporters.bundle.manifest import FORMAT, FORMAT_VERSION, MANIFEST, SEAL, Manifest, seal
from exporters.bundle.store import StoredBundle
from exporters.flow.schedule import LAYOUTS, BucketedSchedule, EulerSchedule, Loop
from pytest_reflex.errors import BundleError
from pytest_reflex.inputs import Gaussian, InputSpec, State

FILES = {name: {"size": 3, "sha256": "ab"} for name in ("encoder.onnx", "fixtures.safetensors", "step.onnx")}
# As 0.1 wrote it.
SAID: dict[str, Any] = {
    "made_by": {"name": "pytest-reflex", "version": "0.1.0"}, "family": "groot", "layout": "stepwise",
    "steps": 4,
    "loop": {
        "noise": "noise", "output": "actions", "schedule": {"kind": "bucketed_euler", "buckets": 1000},
    },
    "call": {"embodiment": None}, "graphs": {"encoder": "encoder.onnx", "step": "step.onnx"},
    "session": {"optimization": "basic"},
    "inputs": [
        {"name": "state", "shape": [1, 6], "dtype": "float32", "meaning": {"kind": "state"}},
        {"name": "noise", "shape": [1, 8, 2], "dtype": "float32", "meaning": {"kind": "gaussian"}},
    ],
    "source": {"kind": "live", "class": "a.B"}, "dtype": "float32", "versions": {"torch": "2.9.0"},
    "machine": {"python": "3.12.1", "system": "Linux", "arch": "x86_64"},
    "outputs": [{"name": "actions", "dtype": "float32", "shape": [1, 8, 2]}],
    "check": {"passed": True, "threshold": 1e-5}, "files": FILES,
}  # fmt: skip


def test_what_0_1_wrote_means_the_same() -> None:
    loop = Loop(BucketedSchedule(1000), 4, "noise", "actions")
    found = Manifest.from_json(SAID)
    assert found == Manifest(
        "groot",
        "stepwise",
        [InputSpec("state", (1, 6), meaning=State()), InputSpec("noise", (1, 8, 2), meaning=Gaussian())],
        SAID["outputs"],
        call={"embodiment": None},
        steps=4,
        loop=loop,
        graphs=SAID["graphs"],
        files=FILES,
        check=SAID["check"],
        origin={key: SAID[key] for key in ("made_by", "source", "dtype", "versions", "machine")},
    )
    assert (found.optimization, found.config) == ("basic", {})
    assert (loop.times, loop.row(3)) == ([0.0, 250.0, 500.0, 750.0], {"dt": 0.25})
    written = found.to_json()
    assert {name: spec for name, spec in written.items() if name != "inputs"} == {
        "options": {},
        **{name: said for name, said in SAID.items() if name != "inputs"},
    }
    assert [InputSpec.from_json(spec) for spec in written["inputs"]] == found.inputs


def test_session_entries_are_kept() -> None:
    said = {**SAID, "session": {"optimization": "disable", "config": {"session.disable_prepacking": "1"}}}
    found = Manifest.from_json(said)
    assert (found.optimization, found.config) == ("disable", {"session.disable_prepacking": "1"})
    assert found.to_json()["session"] == said["session"]
    assert replace(found, config={}).to_json()["session"] == {"optimization": "disable"}


@pytest.mark.parametrize("check", [[], 7, None, "passed"])
def test_a_verdict_that_is_none_is_none(check: object) -> None:
    assert Manifest.from_json({**SAID, "check": check}).check is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"call": None}, "the-file lacks 'call', or it is no dict"),
        ({"session": {"config": 3}}, "the-file: its session is {'config': 3}, which is no way to open one"),
        ({"steps": 0}, "the-file: its steps are 0, expected a number from 1 to 10000"),
        ({"layout": "loop"}, "the-file: a loop bundle has the graphs model, it names 'encoder', 'step'"),
    ],
)
def test_errors_name_the_file(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError) as refused:
        Manifest.from_json({**SAID, **changes}, "the-file")
    assert words in str(refused.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bundle_is_what_its_file_says(layout: Any, tmp_path: Path) -> None:
    made = export(policy(), tmp_path / "reach", inputs=INPUTS, layout=layout, steps=3, verify=False)
    said = json.loads((made.path / MANIFEST).read_text())
    stated = open_bundle(made.path).stated
    assert made.stated == stated == StoredBundle(made.path, said).stated
    assert stated.loop == Loop(EulerSchedule(), 3, "noise", "actions")
    whole = {"format": FORMAT, "format_version": FORMAT_VERSION, **stated.to_json()}
    assert {**whole, SEAL: seal(whole)} == said
