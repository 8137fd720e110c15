"""Recordings: what goes in comes out, and what is damaged or ambiguous is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners import RecordedRunner, save_recording

X = np.arange(6, dtype=np.float32).reshape(2, 3)
FIXTURES = [
    ({"x": X + i, "t.0": np.array(i)}, {"b": X * i, "a": np.array([i], ml_dtypes.bfloat16)})
    for i in range(12)
]


def recording(tmp_path: Path) -> Path:
    path = tmp_path / "fixtures.safetensors"
    save_recording(path, FIXTURES, ["x"])
    return path


def test_a_recording_answers_what_it_holds_and_nothing_else(tmp_path):
    runner = RecordedRunner(recording(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["fixtures.safetensors"]
    given = runner.recorded()
    assert len(given) == len(FIXTURES)
    for _ in range(2):
        with runner:
            assert runner.live_inputs == ("x",)
            for inputs, (_, outputs) in zip(given, FIXTURES, strict=True):
                found = runner.run(inputs)
                assert list(found) == ["b", "a"]
                assert all(
                    (found[n] == outputs[n]).all() and found[n].dtype == outputs[n].dtype for n in outputs
                )
                found["b"] += 1
                assert (runner.run(inputs)["b"] == outputs["b"]).all()
            with pytest.raises(RunnerError, match=r"are not recorded \(12 others are\)"):
                runner.run({"x": X - 1, "t.0": np.array(0)})


def test_a_recording_says_its_digest_and_keeps_to_the_one_it_is_given(tmp_path):
    path = recording(tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with RecordedRunner(path, digest=digest) as runner:
        assert runner.facts()["sha256"] == digest
        save_recording(path, FIXTURES[:3], ["x"])
        # Held since it was opened.
        assert (runner.run(FIXTURES[5][0])["b"] == FIXTURES[5][1]["b"]).all()
    for read in (runner.open, runner.recorded):
        with pytest.raises(RunnerError, match="was written to after its digest was read"):
            read()
    assert len(RecordedRunner(path).recorded()) == 3


@pytest.mark.parametrize(
    ("fixtures", "live", "message"),
    [
        ([], [], "no fixture to record"),
        ([FIXTURES[0], ({"x": X}, FIXTURES[1][1])], [], r"inputs of fixture 1 are \['x'\]"),
        ([({"x": X}, {})], [], r"outputs of fixture 0 are \[\]"),
        (FIXTURES, ["y"], "live input 'y' is no input"),
        (
            [FIXTURES[0], (FIXTURES[0][0], FIXTURES[1][1])],
            [],
            "fixtures 0 and 1 have the same inputs and not",
        ),
    ],
)
def test_a_recording_that_could_not_be_replayed_is_not_written(tmp_path, fixtures, live, message):
    with pytest.raises(RunnerError, match=message):
        save_recording(tmp_path / "r.safetensors", fixtures, live)
    assert not list(tmp_path.iterdir())


def test_a_damaged_recording_is_refused(tmp_path):
    path = tmp_path / "bad.safetensors"
    names = {"inputs": json.dumps(["x"]), "outputs": json.dumps(["y"]), "live_inputs": "[]"}
    good = {"format": "reflex-fixtures", "version": "1", **names}
    whole = {"fixture0.inputs.x": X, "fixture0.outputs.y": X}
    damaged = [
        (whole, {**good, "version": "2"}, "version '2'"),
        (whole, {}, "is None version None"),
        (whole, {**good, "inputs": "x"}, "metadata 'inputs' is 'x'"),
        (whole, {**good, "live_inputs": '["z"]'}, "no whole recording"),
        ({"fixture0.inputs.x": X}, good, "no whole recording"),
        ({"fixture1.inputs.x": X, "fixture1.outputs.y": X}, good, "no whole recording"),
        ({**whole, "fixture1.inputs.x": X}, good, "no whole recording"),
    ]
    for tensors, metadata, message in damaged:
        save_file(tensors, path, metadata)
        with pytest.raises(RunnerError, match=message):
            RecordedRunner(path).open()
    path.write_bytes(recording(tmp_path).read_bytes()[:-5])
    for broken in (path, tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(RunnerError, match="cannot be read as a recording"):
            RecordedRunner(broken).recorded()


@pytest.mark.parametrize("key", ["inputs", "outputs", "live_inputs"])
@pytest.mark.parametrize("value", ["[" * 100_000, '["x"' + "]" * 9999, '{"x": 1}', "[1]", "x" * 10_000_000])
def test_a_recording_whose_names_are_none_is_refused_shortly(key: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    names = {"inputs": '["x"]', "outputs": '["y"]', "live_inputs": '["x"]', key: value}
    tensors = {"fixture0.inputs.x": np.zeros(1), "fixture0.outputs.y": np.zeros(1)}
    save_file(tensors, path, {"format": "reflex-fixtures", "version": "1", **names})
    with pytest.raises(RunnerError, match=f"metadata '{key}' is .*; expected a JSON list of names") as error:
        RecordedRunner(path).open()
    assert len(str(error.value)) < 500
