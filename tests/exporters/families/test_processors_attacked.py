"""Wrong statistics, sources, observations, units and manifests: each is one line that names what is wrong."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pytest_reflex as reflex
from exporters import export_policy, open_bundle
from exporters.bundle.manifest import Manifest, write_manifest
from pytest_reflex.errors import (
    BundleError,
    CheckpointError,
    InputError,
    ParityError,
    ReflexError,
    SettingsError,
)
from pytest_reflex.inputs import Joints
from pytest_reflex.judge.pipeline import check_pipeline

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

from bundle_cases import LFS_POINTER  # noqa: E402
from floors import ulps  # noqa: E402
from processor_faults import Fault, planted  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402
from tiny_pipelines import blind_act  # noqa: E402

from exporters import act  # noqa: E402
from exporters.families.end_to_end import Processing, add_processors  # noqa: E402
from exporters.families.lerobot_processors import pipelines  # noqa: E402

STATE, SEEN = "observation.state", "observation.environment_state"
RAW = {STATE: np.zeros(3, np.float32), SEEN: np.zeros(2, np.float32)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("attacked") / "checkpoint"
    for part in blind_act():
        part.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def arm(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = export_policy(
        act.load(checkpoint),
        tmp_path_factory.mktemp("arm") / "arm",
        processors=True,
        fixtures=3,
        units="deg",
    )
    return made.path


def with_statistics(checkpoint: Path, place: Path, which: str, change: Callable[[Any], Any]) -> Path:
    shutil.copytree(checkpoint, place)
    (file,) = place.glob(f"policy_{which}processor*.safetensors")
    known = load_file(file)
    save_file(change(known), file)
    return place


def written(checkpoint: Path, place: Path, change: Callable[[Any], Any]) -> Path:
    """A copy of the checkpoint whose preprocessor's file is another."""
    shutil.copytree(checkpoint, place)
    file = place / "policy_preprocessor.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    return place


def of(key: str, value: Any) -> Callable[[Any], Any]:
    return lambda known: {**known, key: (known[key] * value).astype(np.float32)}


@pytest.mark.parametrize(
    ("which", "change", "said"),
    [
        ("pre", of(f"{STATE}.mean", np.nan), f"{STATE} by MEAN_STD, and its 'mean' is nan at 0"),
        ("pre", of(f"{STATE}.std", np.inf), f"{STATE} by MEAN_STD, and its 'std' is inf at 0"),
        (
            "post",
            of("action.std", np.float32([1, np.nan, 1])),
            "action by MEAN_STD, and its 'std' is nan at 1",
        ),
        ("pre", of(f"{STATE}.std", -1), "'std' is -10 at 0, expected none below 0"),
        (
            "pre",
            lambda k: {**k, f"{STATE}.mean": np.zeros(4, np.float32)},
            r"is of shape \[4\], expected \[3\]",
        ),
        ("post", lambda k: {**k, "action.std": np.ones(1, np.float32)}, r"is of shape \[1\], expected \[3\]"),
        ("post", lambda k: {n: v for n, v in k.items() if n != "action.std"}, "statistics have no 'std'"),
    ],
)
def test_statistics_that_no_feature_has_are_refused(
    which: str, change: Callable[[Any], Any], said: str, checkpoint: Path, tmp_path: Path
) -> None:
    wrong = with_statistics(checkpoint, tmp_path / "wrong", which, change)
    policy = act.load(wrong)
    with pytest.raises(CheckpointError, match=said):
        pipelines(act.FAMILY, policy, wrong)


def test_what_stays_unnormalised_and_what_never_varied_is_said(
    checkpoint: Path, arm: Path, tmp_path: Path
) -> None:
    def without(known: Any) -> Any:
        return {name: value for name, value in known.items() if not name.startswith(STATE)}

    asked: Any = {"fixtures": 3, "stages": ["preprocess"], "threshold": 1e9}
    still = with_statistics(checkpoint, tmp_path / "still", "pre", of(f"{STATE}.std", np.float32([1, 0, 1])))
    noted = check_pipeline(act.load(still), open_bundle(arm), still, **asked).stages["preprocess"].notes
    assert f"{STATE}[1] never varied in the data that the statistics are of" in noted
    bare = with_statistics(checkpoint, tmp_path / "bare", "pre", without)
    loose = check_pipeline(act.load(bare), open_bundle(arm), bare, **asked).stages["preprocess"]
    said = " ".join(loose.notes)
    assert f"{STATE} is to be normalised by MEAN_STD, and the checkpoint has no statistics of it" in said
    strict = check_pipeline(act.load(bare), open_bundle(arm), bare, strict=True, **asked).stages["preprocess"]
    assert "has no statistics of it" in " ".join(answer.refusal or "" for answer in strict.answers)


def test_what_no_step_normalises_is_said(checkpoint: Path, arm: Path, tmp_path: Path) -> None:
    def bare(said: Any) -> Any:
        return {**said, "steps": [s for s in said["steps"] if s["registry_name"] != "normalizer_processor"]}

    place = written(checkpoint, tmp_path / "bare", bare)
    asked: Any = {"fixtures": 3, "stages": ["preprocess"], "threshold": 1e9, "strict": True}
    found = check_pipeline(act.load(place), open_bundle(arm), place, **asked).stages["preprocess"]
    said = (
        f"{STATE} is to be normalised by MEAN_STD, as the policy's configuration says, and no step does that"
    )
    assert said in " ".join(answer.refusal or "" for answer in found.answers)


def test_joints_are_drawn_where_the_data_lie(checkpoint: Path, arm: Path, tmp_path: Path) -> None:
    policy = act.load(checkpoint)
    whole = pipelines(act.FAMILY, policy, checkpoint)
    assert whole.raw()[0].meaning == Joints((-100.0,) * 3, (100.0,) * 3)
    # Of an element that never varied any other value would be divided by next to nothing.
    still = with_statistics(
        checkpoint, tmp_path / "still", "pre",
        lambda known: {**known, f"{STATE}.max": np.float32([100, -100, 100])},
    )  # fmt: skip
    assert pipelines(act.FAMILY, policy, still).raw()[0].meaning == Joints((-100,) * 3, (100, -100, 100))
    clipped = Fault("clipped", "preprocess", given=lambda raw: {n: v.clamp(-5, 5) for n, v in raw.items()})
    wrong = planted(clipped, open_bundle(arm), policy, (whole.before, whole.after), tmp_path / "wrong")
    assert (
        check_pipeline(policy, wrong, checkpoint, fixtures=3, stages=["preprocess"]).failing == "preprocess"
    )


@pytest.mark.parametrize("names", [("a", "a", "b"), ("a", "b"), (1, 2, 3)])
def test_names_of_joints_are_different_texts(names: Any) -> None:
    policy, before, after = blind_act()
    whole = pipelines(act.FAMILY, policy, (before, after))
    with pytest.raises(SettingsError, match="expected 3 different texts, one for each element"):
        Processing(whole, names=names)


def test_processors_are_replaced_or_stay_as_they_were(arm: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(arm, tmp_path / "arm"))
    held = {file.name: file.read_bytes() for file in place.iterdir()}
    policy, *both = blind_act(12.0)
    with pytest.raises(ParityError, match=r"^pipeline FAIL in policy"):
        add_processors(policy, open_bundle(place), tuple(both), fixtures=3, thresholds={"policy": 1e-30})
    assert {file.name: file.read_bytes() for file in place.iterdir()} == held
    made, result = add_processors(policy, open_bundle(place), tuple(both), fixtures=3)
    assert result.passed
    assert ulps(np.float32(made.stated.processors.scale), np.float32([12, 13, 14])) < 2


def test_a_scale_that_is_not_the_pipelines_is_refused(checkpoint: Path, arm: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(arm, tmp_path / "scaled"))
    stated = open_bundle(place).stated
    write_manifest(place, replace(stated, processors=replace(stated.processors, scale=(1e-6,) * 3)))
    asked: Any = {"fixtures": 3, "stages": ["postprocess"]}
    found = check_pipeline(act.load(checkpoint), open_bundle(place), checkpoint, **asked)
    assert found.failing == "postprocess"
    assert "one of the policy's own units is [1e-06, 1e-06, 1e-06] of the robot's, and by lerobot's" in str(
        found
    )


@pytest.mark.parametrize("scale", [(1e-6,) * 3, (10, 11, 11), (10.01, 11, 12)])
def test_a_scale_that_is_not_the_graphs_is_refused_where_the_policy_is_judged_alone(
    scale: tuple[float, ...], checkpoint: Path, arm: Path, tmp_path: Path
) -> None:
    policy, place = act.load(checkpoint), Path(shutil.copytree(arm, tmp_path / "scaled"))
    assert reflex.check(policy, open_bundle(place), threshold="0.1 deg", units="deg", fixtures=3).passed
    stated = open_bundle(place).stated
    write_manifest(place, replace(stated, processors=replace(stated.processors, scale=scale)))
    said = (
        rf"own units is {re.escape(str(list(map(float, scale))))} of the robot's, and postprocess\.onnx makes"
    )
    with pytest.raises(SettingsError, match=f"threshold: 0.1 deg is asked of actions, and its .*{said}"):
        reflex.check(policy, open_bundle(place), threshold="0.1 deg", units="deg", fixtures=3)
    # A number is of the policy's own unit, whatever that is to the robot, of which nothing is said then.
    found = reflex.check(policy, open_bundle(place), fixtures=3)
    assert found.passed
    assert not found.units


def test_observations_that_are_one_are_counted_as_one(checkpoint: Path, arm: Path) -> None:
    asked: Any = {"inputs": [RAW] * 3, "strict": True, "stages": ["preprocess"]}
    with pytest.raises(SettingsError, match="1 that differ by more than rounding are too few for strict"):
        check_pipeline(act.load(checkpoint), open_bundle(arm), checkpoint, **asked)


@pytest.mark.parametrize("policy", [torch.nn.Linear(1, 1), torch.nn.Linear, blind_act])
def test_what_is_no_live_policy_is_named(policy: Any, checkpoint: Path) -> None:
    with pytest.raises(ReflexError, match=r"was given as act, .* give the live policy, lerobot's ACTPolicy"):
        pipelines(act.FAMILY, policy, checkpoint)


def test_a_source_that_is_none_is_named(checkpoint: Path) -> None:
    policy, before, after = blind_act()
    for source, said in (
        ((after, before), "are turned round, or have each other's steps: UnnormalizerProcessorStep"),
        ((before,), "are a tuple of DataProcessorPipeline, expected a checkpoint's directory or"),
        (("a", "b"), "are a tuple of str, str, expected"),
        (3, "are an int, expected"),
    ):
        with pytest.raises(CheckpointError, match=said):
            pipelines(act.FAMILY, policy, source)  # type: ignore[arg-type]


def test_nothing_is_made_of_a_file_but_steps_that_are_known(checkpoint: Path, tmp_path: Path) -> None:
    run = {"class": "os.system", "config": {"command": f"touch {tmp_path / 'ran'}"}}
    wrong = written(checkpoint, tmp_path / "wrong", lambda said: {**said, "steps": [*said["steps"], run]})
    policy = act.load(wrong)
    with pytest.raises(ReflexError, match=r"the step os\.system cannot be put into a bundle; these can: abs"):
        pipelines(act.FAMILY, policy, wrong)
    assert not (tmp_path / "ran").exists()
    for at, (change, said) in enumerate(
        [
            (lambda _: [1], "is no pipeline"),
            (lambda _: {"name": "x"}, "is no pipeline .no 'steps'"),
            (lambda _: {"steps": [1]}, "a step is an int"),
        ]
    ):
        other = written(checkpoint, tmp_path / str(at), change)
        with pytest.raises(CheckpointError, match=said):
            pipelines(act.FAMILY, policy, other)
    (wrong / "policy_preprocessor.json").write_text(LFS_POINTER)
    with pytest.raises(CheckpointError, match=r"preprocessor\.json is a Git LFS pointer"):
        pipelines(act.FAMILY, policy, wrong)


def test_a_pipeline_without_a_device_is_one(checkpoint: Path, tmp_path: Path) -> None:
    def bare(said: Any) -> Any:
        return {**said, "steps": [s for s in said["steps"] if s["registry_name"] != "device_processor"]}

    place = written(checkpoint, tmp_path / "bare", bare)
    assert len(pipelines(act.FAMILY, act.load(place), place).before.steps) == 3


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"units": "rad"}, "element 0 is in deg, as the bundle says, and rad was given"),
        ({"threshold": "1 mm"}, "1 mm says nothing of actions's element 0, which is in deg"),
        ({"threshold": "-1 deg"}, "is not a threshold in a unit"),
        ({"thresholds": ["whole"]}, "thresholds is a list, expected those of stages by name"),
        ({"stages": "pre"}, "there is no stage 'pre'"),
        ({"fixtures": 0}, "fixtures: 0 is not a number of fixtures"),
        ({"seed": -1}, "seed: -1 is not a seed"),
        ({"inputs": [{STATE: RAW[STATE]}]}, f"'{SEEN}' is missing from the observation; it has {STATE}"),
        ({"inputs": [{**RAW, STATE: np.zeros(4, np.float32)}]}, r"is float32 \[4\]; the policy sees float32"),
        ({"inputs": [{**RAW, STATE: np.full(3, np.inf, np.float32)}]}, "is inf; every value must be finite"),
        ({"inputs": [{**RAW, "other": RAW[STATE]}]}, "'other' is not known; the policy sees"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(
    told: dict[str, Any], said: str, checkpoint: Path, arm: Path
) -> None:
    with pytest.raises((InputError, SettingsError), match=said) as caught:
        check_pipeline(act.load(checkpoint), open_bundle(arm), checkpoint, **{"fixtures": 3, **told})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("read", ["state"], "expected each of state, environment_state, which the policy reads"),
        ("read", ["state", "nothing"], "expected each of state, environment_state"),
        ("actions", "nothing", "expected one of actions, which the policy gives"),
        ("raw", [], "expected inputs of different names, and at least one"),
        ("history", 10**9, "expected as many observations as the policy reads of each input"),
        ("names", ["a", "a", "b"], "expected different names"),
        ("units", ["deg"], "expected as many as there are names and units"),
        ("scale", [1, 2, "3"], "expected a finite number"),
    ],
)
def test_a_manifest_of_other_processors_is_refused_though_its_digest_fits(
    key: str, value: Any, said: str, arm: Path
) -> None:
    text = json.loads((arm / "reflex.json").read_text())
    text["processors"][key] = value
    with pytest.raises(BundleError, match=said):
        Manifest.from_json(text)


def test_processors_of_another_policy_are_refused(checkpoint: Path, arm: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from exporters.bundle.store import file_facts

    other = with_statistics(checkpoint, tmp_path / "other", "post", of("action.std", 2))
    policy = act.load(checkpoint)
    theirs = export_policy(policy, tmp_path / "theirs", processors=other, fixtures=1)
    mixed = Path(shutil.copytree(arm, tmp_path / "mixed"))
    shutil.copy(theirs.path / "postprocess.onnx", mixed)
    stated = open_bundle(arm).stated
    with pytest.raises(BundleError, match=r"postprocess\.onnx was changed after its check"):
        open_bundle(mixed)
    write_manifest(mixed, replace(stated, files={**stated.files, **file_facts(mixed, ["postprocess.onnx"])}))
    found = check_pipeline(policy, open_bundle(mixed), checkpoint, fixtures=3)
    assert found.failing == "postprocess"
    with pytest.raises(ParityError, match=r"^pipeline FAIL in postprocess: parity FAIL"):
        found.require()
    from exporters.serving.service import prepared

    with pytest.raises(ParityError, match="parity FAIL"):
        prepared(mixed, port=0)


def test_an_observation_that_is_none_is_refused(arm: Path) -> None:
    with open_bundle(arm).runner() as robot:
        for raw, said in (
            ([1, 2], "the observation is a list; give what is seen by its name"),
            ({**RAW, STATE: None}, r"is object \[\]; the policy sees float32 \[3\]"),
            ({**RAW, STATE: np.zeros(3, bool)}, r"is bool \[3\]"),
            ({**RAW, STATE: np.full(3, 1e300)}, "is inf; every value must be finite"),
            ({**RAW, STATE: [[1], [1, 2]]}, r"is no array \(.*\); the policy sees float32 \[3\]"),
            ({1: 2}, "is missing from the observation; it has 1"),
            ({}, "is missing from the observation; it has nothing"),
        ):
            with pytest.raises(InputError, match=said):
                robot.act(raw)


def test_a_task_is_text() -> None:
    from exporters.bundle.processors import TASK, Processors, fitting
    from exporters.serving.observed import is_raw, raw_observation
    from pytest_reflex.inputs import InputSpec, Text

    task = InputSpec(TASK, (16,), "uint8", Text(), ("bytes",))
    for good in ("go", b"go", np.array("go"), np.frombuffer(b"go", np.uint8)):
        assert bytes(fitting(task, {TASK: good})) == b"go"
    for bad, said in (
        (3, "'task' is an int; give the task as text"),
        (["go"], "'task' is a list; give the task as text"),
        (b"\xff", "'task' is no UTF-8 text"),
        ("\ud800", "'task' is no UTF-8 text"),
        (np.array([255], np.uint8), "'task' is no UTF-8 text"),
    ):
        with pytest.raises(InputError, match=said):
            fitting(task, {TASK: bad})
    known = Processors([task], [], {})
    with pytest.raises(InputError, match="input 'prompt' is an int; send it as text"):
        raw_observation({"prompt": 3}, known, {})
    assert is_raw({}, {"state": None}), "a robot that sends nothing is told what it sees"


def test_recordings_without_frames_and_of_two_robots_are_named(
    checkpoint: Path, arm: Path, tmp_path: Path
) -> None:
    def of_frames(count: int, joints: int = 3) -> dict[str, np.ndarray]:
        return {STATE: np.ones((count, joints), np.float32), SEEN: np.ones((count, 2), np.float32)}

    np.savez(tmp_path / "a.npz", **of_frames(0))
    asked: Any = (act.load(checkpoint), open_bundle(arm), checkpoint)
    with pytest.raises(InputError, match="has no frame, so there is nothing to judge; record one"):
        check_pipeline(*asked, inputs=reflex.episodes(tmp_path))
    np.savez(tmp_path / "a.npz", **of_frames(4))
    np.savez(tmp_path / "b.npz", **of_frames(4, joints=4))
    with pytest.raises(InputError, match=f"episode 1, frame 0: {STATE} has 4 elements, and 3 in an episode"):
        check_pipeline(*asked, inputs=reflex.episodes(tmp_path))
