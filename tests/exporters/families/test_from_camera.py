"""A checkpoint with lerobot's processors on the command line and behind a socket."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import pytest_reflex as reflex
from exporters import Export, act, export_policy, open_bundle
from exporters.bundle.processors import Processors
from exporters.serving.observed import raw_observation
from pytest_reflex.cli.main import main
from pytest_reflex.errors import (
    BundleError,
    CheckpointError,
    InputError,
    ReflexError,
    RunnerError,
    SettingsError,
)

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

from serve_cases import ROOT, around, asked, client, same_bits, serving  # noqa: E402
from tiny_pipelines import GOLDEN, blind_act  # noqa: E402

from exporters.families import lerobot_processors  # noqa: E402
from exporters.families.one_call import with_processors  # noqa: E402

TOP, STATE = "observation.images.top", "observation.state"
PYTHON = ROOT / ".venv-openpi" / "bin" / "python"
Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Said:
    """The command in this process: its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        return int(end.value.code or 0), *capfd.readouterr()

    return run


@pytest.fixture
def checkpoint(act_checkpoint: Path) -> Path:
    return act_checkpoint


@pytest.fixture
def arm(act_arm: tuple[Path, int, str]) -> tuple[Path, int, str]:
    return act_arm


def test_an_export_puts_the_processors_in_and_judges_them(arm: tuple[Path, int, str]) -> None:
    place, code, text = arm
    lines = text.splitlines()
    assert (code, lines[0]) == (0, "pipeline PASS: preprocess, policy, postprocess, whole")
    assert [line.partition(":")[0] for line in lines[1:5]] == ["preprocess", "policy", "postprocess", "whole"]
    assert "In the robot's units" in text
    assert "joint_6" not in text
    assert "\nThe policy alone, on inputs drawn for it: parity PASS: " in text
    around_it = open_bundle(place).stated.processors
    assert around_it is not None
    assert open_bundle(place).has_processors
    assert around_it.units == ("deg",) * 6 + ("%",)
    assert around_it.names[-1] == "gripper.pos"
    assert all(check["passed"] for check in around_it.checks.values())
    assert len(around_it.scale) == 7
    assert {"raw.safetensors", "episodes.safetensors", "fixtures.safetensors"} <= {
        *open_bundle(place).stated.files
    }


def test_a_bundle_with_processors_is_judged_stage_by_stage(
    arm: tuple[Path, int, str], checkpoint: Path, said: Said
) -> None:
    place, _, _ = arm
    code, text, _ = said("validate", place, "--model", checkpoint, "--fixtures", 3, "--output-json")
    document = json.loads(text)
    names = [result["name"].rpartition(": ")[2] for result in document["results"]]
    assert (code, document["passed"]) == (0, True)
    assert names == ["preprocess", "policy", "postprocess", "whole"]
    assert document["results"][3]["units"]["action"]["units"][-1] == "%"
    # The observations were drawn, and what each stage is handed was made of them: nothing was recorded.
    assert {result["claim"]["source"] for result in document["results"]} == {"derived"}
    assert document["results"][3]["claim"]["text"] == (
        "at most 63.2 % of inputs drawn like these exceed the threshold, at 95 % (0 of 3 did)"
    )
    for recording in ("raw", "episodes", "fixtures"):
        code, text, _ = said("validate", place, "--model", place / f"{recording}.safetensors")
        assert code == 0, text
    code, text, _ = said("validate", place, "--model", checkpoint, "--no-processors", "--fixtures", 3)
    assert (code, text.startswith("parity PASS")) == (0, True)


def test_a_fault_of_the_checkpoint_is_refused_with_its_stage_first(
    arm: tuple[Path, int, str], checkpoint: Path, tmp_path: Path, said: Said
) -> None:
    from safetensors.numpy import load_file, save_file

    place, _, _ = arm
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    (file,) = other.glob("policy_preprocessor*.safetensors")
    statistics = load_file(file)
    statistics[f"{STATE}.mean"] = statistics[f"{STATE}.mean"] + np.float32(1)
    save_file(statistics, file)
    code, text, _ = said("validate", place, "--model", other, "--fixtures", 3)
    assert (code, text.startswith("pipeline FAIL in preprocess: parity FAIL: max_abs_diff ")) == (1, True), (
        text
    )
    assert "\npolicy: parity PASS" in text
    code, text, _ = said("validate", place, "--model", other, "--fixtures", 3, "--output-json")
    assert (code, json.loads(text)["passed"]) == (1, False)


def test_a_threshold_in_degrees_is_for_every_stage_behind_the_observation(
    arm: tuple[Path, int, str], checkpoint: Path, said: Said
) -> None:
    place, _, _ = arm
    told = ("validate", place, "--model", checkpoint, "--fixtures", 3, "--threshold")
    code, text, _ = said(*told, "1e-9 deg and 1 %")
    assert (code, text.startswith("pipeline FAIL in policy: parity FAIL: max_abs_diff ")) == (1, True), text
    assert " deg of joint_" in text.splitlines()[0]
    code, _, text = said(*told, "1e-9 deg")
    assert code == 2
    assert "says nothing of actions's element gripper.pos, which is in %" in text
    code, _, text = said(*told, "nothing=1")
    assert (code, "there is no output 'nothing'; the stages give image_0, " in text) == (2, True)


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without a camera, whose export takes no time."""
    place = tmp_path_factory.mktemp("blind")
    for part in blind_act():
        part.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def bare(blind: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """A bundle of a checkpoint whose processors have a step that nobody can put in."""
    with mock.patch.object(lerobot_processors, "_TRACED", set()):
        return export_policy(blind, tmp_path_factory.mktemp("bare") / "bare", processors=None)


def test_what_has_no_processors_says_so(bare: Export, checkpoint: Path, tmp_path: Path, said: Said) -> None:
    code, _, text = said("validate", "export", bare.path, "--model", checkpoint, "--processors")
    assert (code, "bare has no processors; reflex export CHECKPOINT OUT puts them in" in text) == (2, True)
    without = Path(shutil.copytree(checkpoint, tmp_path / "without"))
    (without / "policy_preprocessor.json").unlink()
    with pytest.raises(CheckpointError, match=r"no policy_preprocessor\.json in "):
        export_policy(without, tmp_path / "none", processors=True)
    assert not (tmp_path / "none").exists()
    policy = act.load(checkpoint)
    for asked_for, told in ((False, {}), (None, {"batch": 2}), (None, {"dynamic_batch": True})):
        assert with_processors(act.FAMILY, policy, asked_for, told) == told
    with pytest.raises(SettingsError, match="processors take one observation at a time"):
        with_processors(act.FAMILY, policy, True, {"batch": 2})


def test_a_checkpoint_without_them_cannot_judge_them(
    arm: tuple[Path, int, str], checkpoint: Path, tmp_path: Path, said: Said
) -> None:
    bare = Path(shutil.copytree(checkpoint, tmp_path / "without"))
    (bare / "policy_postprocessor.json").unlink()
    code, _, text = said("validate", arm[0], "--model", bare)
    assert code == 2
    assert "which has no processors of lerobot's; give a checkpoint that has them, or --no-processors" in text


def test_a_step_that_cannot_be_put_in_is_a_note_or_an_error(
    bare: Export, blind: Path, tmp_path: Path
) -> None:
    assert bare.result is not None
    assert "without processors: the step RenameObservationsProcessorStep cannot be" in bare.result.notes[-1]
    assert (bare.pipeline, bare.stated.processors) == (None, None)
    with mock.patch.object(lerobot_processors, "_TRACED", set()), pytest.raises(ReflexError) as caught:
        export_policy(blind, tmp_path / "asked", processors=True)
    assert "the step RenameObservationsProcessorStep cannot be put into a bundle" in str(caught.value)


def test_a_test_is_written_that_judges_every_stage(
    arm: tuple[Path, int, str],
    checkpoint: Path,
    tmp_path: Path,
    said: Said,
    plugin_args: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("arms").symlink_to(checkpoint.parent)
    (tmp_path / "reach").symlink_to(arm[0])
    init = ("init", f"arms/{checkpoint.name}", "--ci", "none")
    assert said(*init)[0] == 0
    (written,) = Path("tests/parity").iterdir()
    assert "export_policy(policy, tmp_path / " in written.read_text()
    assert "processors=True, verify=False)" in written.read_text()
    assert written.read_text().endswith("    parity.check_pipeline(policy, bundle)\n")
    written.unlink()
    code, _, text = said("init", "reach", "--ci", "none")
    assert (code, "a bundle, and a test wants the policy too; give the checkpoint" in text) == (2, True)
    assert said(*init, "--bundle", "reach")[0] == 0
    seen: list[str] = []

    class Ended:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            seen.extend([report.outcome] * (report.when == "call"))

    written = next(Path("tests/parity").iterdir())
    text = written.read_text()
    assert "parity.check_pipeline(act.load(CHECKPOINT), open_bundle(" in text
    written.write_text(text.replace("threshold=1e-4", "threshold=1e-4, fixtures=3"))
    told = ["-p", "no:cacheprovider", "--reflex-json", "parity.json", "-q"]
    assert (pytest.main([*plugin_args, "tests/parity", *told], plugins=[Ended()]), seen) == (0, ["passed"])
    document = json.loads(Path("parity.json").read_text())
    names = [result["name"].rpartition(": ")[2] for result in document["results"]]
    assert names == ["preprocess", "policy", "postprocess", "whole"]


def test_the_steps_that_a_test_is_written_for_are_those_that_can_be_put_in() -> None:
    from lerobot.processor.pipeline import ProcessorStepRegistry

    from exporters.families.pipeline_files import KNOWN_STEPS

    classes = {ProcessorStepRegistry.get(name).__name__ for name in KNOWN_STEPS}
    assert classes == lerobot_processors._TRACED | lerobot_processors._LEFT_OUT


def frame() -> dict[str, Any]:
    return reflex.episodes(GOLDEN).recording.frame(1, 3, [TOP, STATE])


def test_a_robot_is_served_what_it_sees(
    arm: tuple[Path, int, str], bare: Export, checkpoint: Path, said: Said
) -> None:
    place, other = arm[0], bare.path
    raw = frame()
    with open_bundle(place).runner() as here:
        expected = here.act(raw)[0]
    openpi = {"observation/image": raw[TOP], "observation/state": raw[STATE]}
    nested = {"images": {"top": raw[TOP]}, "state": raw[STATE]}
    with serving(place) as running:
        assert "from the camera to the joint parity PASS" in running.proven
        assert "asked" not in running.proven, "one bound for all stands there already"
        with client(running.url) as connection:
            for message in (raw, openpi, nested):
                assert same_bits(asked(connection, message)["actions"], expected)
            small = asked(connection, {**raw, TOP: raw[TOP][:16]})
            assert small == f"'{TOP}' is uint8 [16, 32, 3]; the policy sees uint8 [32, 32, 3]"
            assert "input 'prompt' is not known" in asked(connection, {**raw, "prompt": "go"})
            assert "which is given twice" in asked(connection, {**raw, **openpi})
        code, text, _ = said("validate", running.url, "--model", place / "raw.safetensors")
        assert (code, text.startswith("parity PASS")) == (0, True), text
        told = ("validate", running.url, "--model", checkpoint, "--fixtures", 3)
        code, text, _ = said(*told)
        first, policy, whole = text.splitlines()[:3]
        assert (code, first.startswith("pipeline PASS: policy, whole; preprocess and postprocess were")) == (
            0,
            True,
        ), text
        assert policy.startswith("policy: parity PASS: ")
        assert " deg of joint_" in whole or " % of gripper" in whole
        document = json.loads(said(*told, "--output-json")[1])
        assert "as a server answers neither" in document["results"][1]["notes"][-1]
        code, text, _ = said(*told, "--bundle", place)
        assert (code, text.splitlines()[0]) == (0, "pipeline PASS: preprocess, policy, postprocess, whole")
        assert "is not what is served at " in said(*told, "--bundle", other)[2]
        assert (
            "no stage is judged by itself; leave it out"
            in said(*told[:2], "--model", place / "raw.safetensors", "--bundle", place)[2]
        )
        code, text, _ = said(
            "validate", running.url, "--model", checkpoint, "--no-processors", "--fixtures", 3
        )
        assert code == 0, text
        if PYTHON.is_file():
            assert _by_openpi(running.port) == "(8, 7)\n"


def _by_openpi(port: int) -> str:
    """What openpi's own client is answered to a frame that it has resized itself."""
    code = (
        "import numpy as np\n"
        "from openpi_client import image_tools\n"
        "from openpi_client.websocket_client_policy import WebsocketClientPolicy\n"
        f"policy = WebsocketClientPolicy(host='127.0.0.1', port={port})\n"
        "camera = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)\n"
        "image = image_tools.convert_to_uint8(image_tools.resize_with_pad(camera, 32, 32))\n"
        "observation = {'observation/image': image, 'observation/state': np.zeros(7, np.float32)}\n"
        "print(policy.infer(observation)['actions'].shape)"
    )
    command = [str(PYTHON), "-I", "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=around(), timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_processors_that_were_never_proven_are_not_served(arm: tuple[Path, int, str], tmp_path: Path) -> None:
    from dataclasses import replace

    from exporters.bundle.manifest import write_manifest
    from exporters.serving.service import prepared

    place = Path(shutil.copytree(arm[0], tmp_path / "unproven"))
    stated = open_bundle(place).stated
    assert stated.processors is not None
    write_manifest(place, replace(stated, processors=replace(stated.processors, checks={})))
    with pytest.raises(BundleError, match="its processors were never proven; export it with its check"):
        prepared(place, port=0)


def test_what_is_served_knows_the_units_of_its_policy_too(arm: tuple[Path, int, str]) -> None:
    from exporters.serving.candidate import Served

    bundle = open_bundle(arm[0])
    served = Served("ws://127.0.0.1:9", bundle.stated, "")
    with bundle.runner() as here:
        assert served.runner().robot_units == here.robot_units != {}


def test_fields_have_the_names_that_openpi_gives_them() -> None:
    from pytest_reflex.inputs import InputSpec, Integers, State, Text

    cameras = [
        InputSpec(f"observation.images.{name}", (4, 4, 3), "uint8", Integers(0, 256)) for name in ("a", "b")
    ]
    task = InputSpec("task", (16,), "uint8", Text(), ("bytes",))
    known = Processors([*cameras, InputSpec(STATE, (3,), "float32", State()), task], [], {})
    image, state, noise = np.zeros((4, 4, 3), np.uint8), np.zeros(3, np.float32), np.zeros((1, 2, 3))
    message = {"observation/a": image, "images": {"b": image}, "state": state, "prompt": "go", "noise": noise}
    raw, drawn = raw_observation(message, known, {"noise": None})
    assert list(raw) == ["observation.images.a", "observation.images.b", STATE, "task"]
    assert list(drawn) == ["noise"]
    with pytest.raises(InputError, match="input 'image' is not known"):
        raw_observation({"image": image}, known, {})  # which of the two?
    with pytest.raises(InputError, match="input 'state' is a list; send it as an array"):
        raw_observation({"state": [0.0]}, known, {})


def test_a_server_that_answers_no_robot_is_named(arm: tuple[Path, int, str]) -> None:
    from pytest_reflex.runners.served import ServedRunner

    recording = open_bundle(arm[0]).recording()
    with serving(arm[0]) as running, ServedRunner(running.url, whole=True) as runner:
        runner.robot_units = {}
        with pytest.raises(RunnerError, match="for what a robot sees; not actions"):
            runner.run(recording.recorded()[0])
