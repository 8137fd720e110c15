"""What is hashed is what ran: a runner's files before and after, and which files those are."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from bundle_cases import LFS_POINTER
from onnx import TensorProto, helper

from pytest_reflex import InputSpec, check
from pytest_reflex.errors import RunnerError
from pytest_reflex.runners import OnnxRunner, RecordedRunner, Runner, opened_files
from pytest_reflex.runners.onnx import WEIGHTS_PLACE
from pytest_reflex.runners.opened_files import OpenedFiles, file_digest
from pytest_reflex.runners.openvino import OpenVinoRunner
from pytest_reflex.runners.packaged import AotInductorRunner, ExecuTorchRunner

X = np.ones((2, 3), np.float32)


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(params=["small", "large"])
def file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of each kind, last written to long ago."""
    if request.param == "large":
        monkeypatch.setattr(opened_files, "_READ_ANEW_BYTES", 4)
    path = tmp_path / "weights"
    path.write_bytes(b"0123456789")
    return path


def test_a_file_that_stays_as_it_is_has_not_changed(file: Path) -> None:
    seen = OpenedFiles({"w": file})
    assert seen.digests() == {"w": sha(file)}
    assert seen.changed() == ""


@pytest.mark.parametrize("how", ["written", "replaced", "lengthened", "removed"])
def test_a_file_that_does_not_is_named(how: str, file: Path) -> None:
    seen = OpenedFiles({"w": file})
    time.sleep(0.02)  # a stamp later
    if how == "written":
        file.write_bytes(b"9876543210")
    elif how == "replaced":
        (file.parent / "other").write_bytes(b"9876543210")
        (file.parent / "other").replace(file)
    elif how == "lengthened":
        with file.open("ab") as stream:
            stream.write(b"!")
    else:
        file.unlink()
    expected = "is gone since it was opened" if how == "removed" else "was written to after it was opened"
    assert str(file) in seen.changed()
    assert expected in seen.changed()


@pytest.mark.parametrize(
    ("name", "runner"),
    [
        ("m.onnx", OnnxRunner),
        ("m.onnx", OpenVinoRunner),
        ("m.pt2", AotInductorRunner),
        ("m.pte", ExecuTorchRunner),
        ("m.safetensors", RecordedRunner),
    ],
)
def test_what_git_lfs_has_not_fetched_is_named_so(
    name: str, runner: Callable[[Path], Runner], tmp_path: Path
) -> None:
    if runner is OpenVinoRunner:
        pytest.importorskip("openvino")
    (tmp_path / name).write_text(LFS_POINTER)
    with pytest.raises(RunnerError) as raised:
        runner(tmp_path / name).open()
    assert str(raised.value) == (
        f"{tmp_path / name} is a Git LFS pointer, and not the file itself; run `git lfs pull` in {tmp_path}"
    )


def test_weights_beside_a_graph_that_git_lfs_has_not_fetched_are_named_so(tmp_path: Path) -> None:
    path = external(tmp_path / "a")
    (path.parent / "m.data").write_text(LFS_POINTER)
    with pytest.raises(RunnerError, match=r"a/m\.data is a Git LFS pointer, .*; run `git lfs pull` in "):
        OnnxRunner(path).open()


def test_a_time_put_back_hides_no_change(file: Path) -> None:
    seen, times = OpenedFiles({"w": file}), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    time.sleep(0.02)
    file.write_bytes(b"9876543210")
    os.utime(file, ns=times)
    assert seen.changed()


def test_a_large_file_is_read_once_while_its_stamp_stays_and_anew_when_that_is_young(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_files, "_READ_ANEW_BYTES", 4)
    path = tmp_path / "weights"
    path.write_bytes(b"0123456789")
    first = file_digest(path)
    # Written to a moment ago: another write might have the same stamp, so nothing is kept.
    assert str(path) not in opened_files._known
    later = time.time_ns() + opened_files._SAME_STAMP_NS + 10**9
    monkeypatch.setattr(opened_files.time, "time_ns", lambda: later)
    assert file_digest(path) == first == opened_files._known[str(path)][1]
    monkeypatch.setattr(opened_files.hashlib, "file_digest", None)
    assert file_digest(path) == first
    monkeypatch.undo()
    path.write_bytes(b"9876543210")
    assert file_digest(path) == sha(path) != first


# --- ONNX Runtime's files --------------------------------------------------------------------------------


def external(directory: Path, location: str = "m.data", factor: float = 2.0) -> Path:
    """y = factor * x, with the factor in a file of its own."""
    directory.mkdir(exist_ok=True)
    values = np.full(6, factor, np.float32).tobytes()
    weight = helper.make_tensor("w", TensorProto.FLOAT, (2, 3), values, raw=True)
    (directory / location).write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("length", "24")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3)) for name in "xy")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (directory / "m.onnx").write_bytes(made.SerializeToString())
    return directory / "m.onnx"


def test_the_digest_of_a_graph_has_the_weights_beside_it(tmp_path: Path) -> None:
    path = external(tmp_path / "a")
    with OnnxRunner(path) as runner:
        found = runner.facts()["sha256"]
    assert found == {"m.data": sha(tmp_path / "a" / "m.data"), "m.onnx": sha(path)}
    other = external(tmp_path / "b", factor=3.0)
    with OnnxRunner(other) as runner:
        assert runner.facts()["sha256"] != found


def test_the_digest_is_of_the_weights_that_are_read_wherever_they_lie(tmp_path: Path) -> None:
    path = external(tmp_path / "a")
    external(tmp_path / "b", factor=3.0)
    config = {WEIGHTS_PLACE: str(tmp_path / "b")}
    for model in (path, path.read_bytes()):
        with OnnxRunner(model, config=config) as runner:
            assert runner.run({"x": X})["y"].max() == 3
            assert runner.facts()["sha256"]["m.data"] == sha(tmp_path / "b" / "m.data")


@pytest.mark.parametrize("name", ["m.data", "m.onnx"])
def test_a_file_that_is_written_to_meanwhile_is_no_pass(name: str, tmp_path: Path) -> None:
    path = external(tmp_path / "a")

    class Writes(OnnxRunner):
        def facts(self) -> dict[str, Any]:
            with (path.parent / name).open("ab") as file:
                file.write(b"\0")
            return super().facts()

    reference = OnnxRunner(path.read_bytes(), config={WEIGHTS_PLACE: str(path.parent)})
    result = check(reference, Writes(path), inputs=[InputSpec("x", (2, 3))])
    assert not result.passed
    assert "intact" in [answer.gate for _, answer in result.refusals]
    assert f"{path.parent / name} was written to after it was opened" in str(result)


def test_a_file_that_changes_while_it_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = external(tmp_path / "a"), onnxruntime.InferenceSession

    def meddling(*args: Any, **options: Any) -> Any:
        (path.parent / "m.data").write_bytes(np.full(6, 3.0, np.float32).tobytes())
        return whole(*args, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", meddling)
    with pytest.raises(RunnerError, match=r"m.data was written to after it was opened; save it again"):
        OnnxRunner(path).open()


def test_weights_that_no_digest_finds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = external(tmp_path / "a")
    (path.parent / "m.data").unlink()
    with pytest.raises(RunnerError, match=r"m\.data does not exist, and .* takes its weights from it"):
        OnnxRunner(path).open()
    (path.parent / "m.data").mkdir()
    with pytest.raises(RunnerError, match="no model that ONNX Runtime can open"):
        OnnxRunner(path).open()
    # One that opens it all the same, from wherever that may be.
    session = onnxruntime.InferenceSession(str(external(tmp_path / "b", factor=3.0)))
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: session)
    with pytest.raises(RunnerError, match=r"takes weights from 'm.data', which is no file"):
        OnnxRunner(path).open()


def test_a_name_that_is_no_utf8_is_the_file_of_these_bytes(tmp_path: Path) -> None:
    path, odd = external(tmp_path / "a"), b"\xff.data"
    os.rename(tmp_path / "a" / "m.data", os.fsencode(tmp_path / "a") + b"/" + odd)
    path.write_bytes(path.read_bytes().replace(b"m.data", odd))
    with OnnxRunner(path) as runner:
        assert runner.run({"x": X})["y"].max() == 2
        assert os.fsdecode(odd) in runner.digests()
        # What a report can write.
        assert r"\udcff.data" in runner.facts()["sha256"]
