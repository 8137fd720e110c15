"""Bundles: whole or not there, and what was proven is what lies there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_cases import LFS_POINTER
from torch import nn

from examples.own_policy import INPUTS, policy
from exporters import export, open_bundle
from exporters.bundle.manifest import MANIFEST, seal
from exporters.bundle.runner import BundleRunner
from exporters.bundle.store import _swap, staged
from pytest_reflex import InputSpec, ParityError, check
from pytest_reflex.errors import BundleError, InputError, RunnerError
from pytest_reflex.inputs import Integers
from pytest_reflex.progress import reporting_to
from pytest_reflex.verdict import machine
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD


def contents(directory: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(directory.iterdir())}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "reach"
    export(policy(), path, inputs=INPUTS, fixtures=3)
    return path


@pytest.mark.parametrize("trajectory", [None, True])
def test_who_watches_is_told_every_stage(trajectory: bool | None, tmp_path: Path) -> None:
    told: list[str] = []
    with reporting_to(lambda stage, done, total: told.append(stage)):
        export(policy(), tmp_path / "reach", inputs=INPUTS, fixtures=1, trajectory=trajectory)
    stages = ["trace prefix", "trace step", "compose", "write", "reference", "candidate"]
    assert list(dict.fromkeys(told)) == [*stages, *(["steps"] if trajectory else [])]


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(made, tmp_path / "reach"))


def edit(bundle: Path, **changes: object) -> None:
    """Change the manifest as whoever means it would: with a digest that fits."""
    manifest = {**json.loads((bundle / MANIFEST).read_text()), **changes}
    (bundle / MANIFEST).write_text(json.dumps({**manifest, "sha256": seal(manifest)}))


def test_the_manifest_says_what_a_reader_asks(made: Path) -> None:
    manifest = json.loads((made / MANIFEST).read_text())
    assert manifest["format"] == "reflex-bundle"
    assert manifest["format_version"] == 1
    assert (manifest["family"], manifest["layout"], manifest["steps"]) == ("module", "unrolled", 10)
    assert [spec["name"] for spec in manifest["inputs"]] == ["image", "state", "noise"]
    assert manifest["inputs"][0]["meaning"] == {"kind": "image"}
    assert manifest["outputs"] == [{"name": "actions", "dtype": "float32", "shape": [1, 16, 7]}]
    assert manifest["source"] == {"kind": "live", "class": "examples.own_policy.Reach"}
    assert manifest["loop"]["schedule"] == {"kind": "euler", "start": 1.0, "end": 0.0}
    assert {"torch", "onnx", "onnxruntime", "numpy", "pytest-reflex"} <= set(manifest["versions"])
    proof = manifest["check"]
    assert proof["passed"] is True
    assert (proof["seed"], len(proof["fixtures"])) == (0, 3)
    assert proof["candidate"]["providers_used"] == ["CPUExecutionProvider"]
    assert proof["candidate"]["live_inputs"] == ["image", "state", "noise"]
    assert all(0 < f["max_abs_diff"] < STRICT_THRESHOLD for f in proof["fixtures"])
    # Made here, and proven here: which kernels each side took is said by the side.
    assert manifest["machine"].items() >= machine.here().items()
    assert proof["reference"]["machine"] == {
        **machine.here(),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
    }
    assert proof["candidate"]["machine"].keys() == {*machine.here(), "onnxruntime_build"}
    others = {name: digest for name, digest in contents(made).items() if name != MANIFEST}
    assert {name: facts["sha256"] for name, facts in manifest["files"].items()} == others


def test_a_recording_says_where_it_was_made_as_far_as_that_is_known(bundle: Path) -> None:
    def told() -> object:
        with open_bundle(bundle).recording() as runner:
            return runner.facts()["machine"]

    proof = json.loads((bundle / MANIFEST).read_text())["check"]
    assert told() == proof["reference"]["machine"]
    # As releases before this one wrote it, and as one writes it that means no good.
    reference = {key: value for key, value in proof["reference"].items() if key != "machine"}
    edit(bundle, check={**proof, "reference": reference}, machine={"python": "3.11", "arch": "x86_64"})
    assert told() == {}
    result = check(policy(), open_bundle(bundle), fixtures=3, strict=True)
    assert result.passed, str(result)
    for check_of, made_on, seen in (
        (None, {"processor": "A", "cores": 2}, {"processor": "A", "cores": 2}),
        ([], {"processor": None}, {}),
        ({"reference": {"machine": {"processor": "B", "cores": "x"}}}, {}, {"processor": "B"}),
        ({"reference": {"machine": "AMD"}}, {"processor": "A"}, {}),
    ):
        edit(bundle, check=check_of, machine=made_on)
        assert told() == seen
    edit(bundle, machine={"processor": "A", "cores": "x"})
    with pytest.raises(BundleError, match=r"machine\.cores is 'x', expected a whole number from 1 on"):
        told()


def test_two_exports_of_one_policy_are_the_same_bytes(made: Path, tmp_path: Path) -> None:
    again = export(policy(), tmp_path / "reach", inputs=INPUTS, fixtures=3)
    for name in ("model.onnx", "model.onnx.data"):
        assert contents(again.path)[name] == contents(made)[name]


def test_files_can_be_read_by_others(made: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    for file in made.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE(made.stat().st_mode) == 0o777 & ~mask


def test_an_opened_bundle_is_judged_like_the_export(made: Path) -> None:
    result = check(policy(), open_bundle(made), fixtures=3, strict=True)
    assert result.passed
    proof = json.loads((made / MANIFEST).read_text())["check"]
    assert [f.max_abs_diff for f in result.fixtures] == [f["max_abs_diff"] for f in proof["fixtures"]]


def test_its_recording_needs_no_torch(made: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
from exporters import open_bundle
from pytest_reflex import check
bundle = open_bundle({str(made)!r})
result = check(bundle.recording(), bundle, strict=True)
print(result.passed, len(result.fixtures), "onnx_ir" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "3", "False"], done.stderr


class Spoiled(nn.Module):
    """Computes something else from its second export on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(x)
        return y if torch.compiler.is_exporting() else y * 1.01


SPOILED = [InputSpec("x", (2, 4))]


def test_an_export_that_misses_its_threshold_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"parity FAIL: max_abs_diff .* is not below 1\.0e-04") as caught:
        export(Spoiled(), tmp_path / "out", inputs=SPOILED, outputs=["y"])
    assert list(tmp_path.iterdir()) == []
    assert not caught.value.result.passed
    assert caught.value.result.name == str(tmp_path / "out")


def test_it_leaves_an_earlier_bundle_byte_for_byte(bundle: Path) -> None:
    before = contents(bundle)
    with pytest.raises(ParityError):
        export(Spoiled(), bundle, inputs=SPOILED)
    assert contents(bundle) == before
    assert [p.name for p in bundle.parent.iterdir()] == ["reach"]


def test_a_better_export_takes_the_place_of_an_earlier_one(bundle: Path) -> None:
    before = contents(bundle)
    linear = nn.Linear(4, 4)
    made = export(linear, bundle, inputs=[InputSpec("input", (2, 4))], outputs=["y"], fixtures=2)
    assert made.path == bundle
    assert contents(bundle) != before
    assert open_bundle(bundle).layout == "single"
    assert [p.name for p in bundle.parent.iterdir()] == ["reach"]


def test_what_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("four years")
    with pytest.raises(BundleError, match="exists and is no bundle: it will not be replaced"):
        export(nn.Linear(4, 4), tmp_path / "notes", inputs=[InputSpec("input", (2, 4))])
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "four years"


def test_training_flags_are_put_back(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    module[0].eval()
    export(module, tmp_path / "out", inputs=[InputSpec("input", (2, 4))], fixtures=2)
    assert [m.training for m in module.modules()] == [True, False, True]


def test_a_module_without_a_loop_keeps_integers_exact(tmp_path: Path) -> None:
    class Pick(nn.Module):
        def forward(self, scores: torch.Tensor, shift: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"choice": scores.argmax(-1) + shift, "best": scores.max(-1).values}

    specs = [InputSpec("scores", (3, 9)), InputSpec("shift", (3,), "int64", Integers(0, 5))]
    made = export(Pick(), tmp_path / "pick", inputs=specs, strict=True)
    assert made.outputs == ["choice", "best"]
    assert made.result is not None
    assert made.result.max_abs_diff_across_all == 0.0


def test_an_unverified_bundle_says_so(tmp_path: Path) -> None:
    made = export(nn.Linear(4, 4), tmp_path / "out", inputs=[InputSpec("input", (2, 4))], verify=False)
    assert made.result is None
    assert open_bundle(made.path).manifest["check"] is None
    assert "not verified" in made._repr_html_()


def test_an_export_shows_itself_in_a_notebook(made: Path, tmp_path: Path) -> None:
    shown = export(
        nn.Linear(4, 4), tmp_path / "<b>", inputs=[InputSpec("input", (2, 4))], fixtures=2
    )._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "fixture_idx" in shown


def test_a_reference_that_is_no_module(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the reference is a str, expected an nn\.Module to export"):
        export("pi0", tmp_path / "out", inputs=[InputSpec("x", (1,))])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "fixtures.safetensors"])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing; export the bundle again"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "fixtures.safetensors"])
def test_a_truncated_file_is_named_with_both_sizes(bundle: Path, name: str) -> None:
    data = (bundle / name).read_bytes()
    (bundle / name).write_bytes(data[:-1])
    with pytest.raises(BundleError, match=f"{name} has {len(data) - 1} bytes, its manifest says {len(data)}"):
        open_bundle(bundle, to_judge=True)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "fixtures.safetensors", "reflex.json"])
@pytest.mark.parametrize("to_judge", [False, True])
def test_what_git_lfs_has_not_fetched_is_named_so(bundle: Path, name: str, to_judge: bool) -> None:
    (bundle / name).write_text(LFS_POINTER)
    with pytest.raises(BundleError) as raised:
        open_bundle(bundle, to_judge=to_judge)
    assert str(raised.value) == (
        f"{bundle / name} is a Git LFS pointer, and not the file itself; run `git lfs pull` in {bundle}"
    )


def test_a_changed_byte_is_refused_or_judged(bundle: Path) -> None:
    file = bundle / "model.onnx.data"
    weights = np.fromfile(file, np.float32)
    weights[0] += 1e-2
    weights.tofile(file)
    with pytest.raises(
        BundleError, match=r"model\.onnx\.data was changed after its check \(SHA-256 \w{12}, "
    ):
        open_bundle(bundle)
    result = check(policy(), open_bundle(bundle, to_judge=True), fixtures=2)
    assert not result.passed
    gates = [answer.gate for _, answer in result.refusals]
    assert gates == ["threshold", "threshold", "intact"]


def test_a_change_too_small_to_see_is_no_pass_either(bundle: Path) -> None:
    file = bundle / "model.onnx.data"
    weights = np.fromfile(file, np.float32)
    weights[0] = np.nextafter(weights[0], np.float32(9))
    weights.tofile(file)
    result = check(policy(), open_bundle(bundle, to_judge=True), fixtures=2)
    assert all(fixture.passed for fixture in result.fixtures)
    assert [answer.gate for _, answer in result.refusals] == ["intact"]
    assert not result.passed


def test_one_that_fails_since_it_was_changed_says_so(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> dict[str, np.ndarray]:
        raise RunnerError("it failed: index 4453159313439771853 is out of range")

    monkeypatch.setattr(BundleRunner, "run", fails)
    with pytest.raises(RunnerError, match=r"^it failed: index 4453159313439771853 is out of range$"):
        check(policy(), open_bundle(bundle), fixtures=2)
    file = bundle / "model.onnx.data"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(
        RunnerError, match=r"model\.onnx\.data was changed after its check .*; it failed: index"
    ):
        check(policy(), open_bundle(bundle, to_judge=True), fixtures=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "zip"}, "is no bundle manifest: its format is not 'reflex-bundle'"),
        ({"format_version": 99}, "has format version 99, this pytest-reflex reads 1"),
        ({"graphs": None}, "graphs is None, expected an object"),
        ({"files": {}}, "graphs.model is 'model.onnx', expected a name that files has a digest for"),
        ({"files": {"model.onnx": {"size": 1}}}, r"files\['model.onnx'\].sha256 is missing, expected text"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    bundle: Path, changes: dict[str, object], message: str
) -> None:
    edit(bundle, **changes)
    with pytest.raises(BundleError, match=message):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["../reach/model.onnx", "/etc/hostname", "..", ""])
def test_a_manifest_that_points_outside_is_refused(bundle: Path, name: str) -> None:
    files = json.loads((bundle / MANIFEST).read_text())["files"]
    edit(bundle, files={**files, name: {"size": 1, "sha256": "0"}})
    with pytest.raises(BundleError, match="expected no such name: one of a file in the bundle itself"):
        open_bundle(bundle)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"no bundle at .*nowhere: expected a directory that holds reflex\.json"
    ):
        open_bundle(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"no reflex\.json in .*: it is not a bundle"):
        open_bundle(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(BundleError, match=r"reflex\.json cannot be read"):
        open_bundle(tmp_path)


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with staged(tmp_path / "out") as stage:
            (stage / MANIFEST).write_text("{}")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_swept_by_the_next(tmp_path: Path) -> None:
    code = f"""
import os, signal
from exporters.bundle.store import staged
with staged({str(tmp_path / "out")!r}) as stage:
    (stage / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with staged(tmp_path / "out") as stage:
        (stage / MANIFEST).write_text("{}")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_bundles_change_places_at_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not _swap(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this system has no renameat2")
    assert (tmp_path / "a" / "b").exists()
    assert (tmp_path / "b" / "a").exists()


def test_without_the_system_call_they_change_places_by_three_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporters.bundle.store._swap", lambda first, second: False)
    for text in ("old", "new"):
        with staged(tmp_path / "out") as stage:
            (stage / MANIFEST).write_text(text)
    assert (tmp_path / "out" / MANIFEST).read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
