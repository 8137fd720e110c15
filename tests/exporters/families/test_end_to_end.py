"""From the camera to the joint, against lerobot's own pipelines around its own policies."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pytest_reflex as reflex
from exporters import open_bundle
from pytest_reflex.errors import BundleError, InputError, ParityError, SettingsError

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

import torch  # noqa: E402
from floors import require_rounding, ulps  # noqa: E402
from processor_faults import FAULTS, planted  # noqa: E402
from tiny_pipelines import FAMILIES, GOLDEN, exported, pipelines_of, policy_of  # noqa: E402

from exporters.bundle.manifest import write_manifest  # noqa: E402
from exporters.bundle.store import file_facts  # noqa: E402
from exporters.families.end_to_end import STAGES, add_processors, check_pipeline  # noqa: E402

Made = tuple[Any, tuple[Any, Any], Any]
PROVEN: dict[str, Any] = {}
TOP = "observation.images.top"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, act_arm: tuple[Path, int, str]) -> Callable[[str], Made]:
    """``made("act")``: a policy, lerobot's pipelines around it, and its bundle with processors, proven."""
    known: dict[str, Made] = {}

    def make(family: str) -> Made:
        if family not in known:
            work = tmp_path_factory.mktemp(family)
            policy = policy_of(family, work)
            both = pipelines_of(family, policy, work)
            seen = reflex.episodes(GOLDEN, frames=6)
            if family == "act":  # which the command has put in
                around = open_bundle(shutil.copytree(act_arm[0], work / "bundle"))
                PROVEN[family] = check_pipeline(policy, around, both, inputs=seen, floor=True)
            else:
                bundle = exported(family, policy, work / "bundle")
                around, PROVEN[family] = add_processors(policy, bundle, both, inputs=seen, floor=True)
            known[family] = policy, both, around
        return known[family]

    return make


def frame(episode: int, index: int, *, task: bool) -> dict[str, Any]:
    keys = [TOP, "observation.state", *(["task"] if task else [])]
    return reflex.episodes(GOLDEN).recording.frame(episode, index, keys)


def theirs(family: str, policy: Any, both: tuple[Any, Any], raw: dict[str, Any], noise: Any) -> np.ndarray:
    """lerobot's own way, as its ``predict_action`` goes it, for the whole chunk."""
    from lerobot.policies.utils import prepare_observation_for_inference

    before, after = both
    seen = {name: np.array(value) for name, value in raw.items() if name != "task"}
    with torch.no_grad():
        batch = before(prepare_observation_for_inference(seen, torch.device("cpu"), raw.get("task"), "so101"))
        policy.reset()
        told = {} if noise is None else {"noise": torch.from_numpy(noise)}
        return np.asarray(after(policy.predict_action_chunk(dict(batch), **told)))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_stage_passes_on_a_recording(family: str, made: Callable[[str], Made]) -> None:
    made(family)
    result = PROVEN[family]
    assert tuple(result.stages) == STAGES
    assert result.passed, str(result)
    assert result.failing is None
    assert str(result).startswith("pipeline PASS: preprocess, policy, postprocess, whole\n")
    assert {len(one.fixtures) for one in result.stages.values()} == {6}
    for stage in result.stages.values():
        require_rounding(stage)


@pytest.mark.parametrize("family", ["act", "smolvla"])
def test_a_robot_acts_as_lerobot_does(family: str, made: Callable[[str], Made]) -> None:
    policy, both, bundle = made(family)
    noises = [spec for spec in bundle.inputs if spec.name == "noise"]
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(noises[0].shape).astype(np.float32) if noises else None
    raw = frame(1, 3, task=family == "smolvla")
    with bundle.runner() as robot:
        ours = robot.act(raw, noise=noise)
        policy.config.num_steps = 3
        expected = theirs(family, policy, both, raw, noise)
        assert ours.shape == expected.shape
        assert ulps(ours, expected) < 64
        with pytest.raises(InputError, match=r"'observation\.state' is missing"):
            robot.act({TOP: raw[TOP]})
        with pytest.raises(
            InputError, match=r"top' is uint8 \[3, 32, 32\]; the policy sees uint8 \[32, 32, 3\]"
        ):
            robot.act({**raw, TOP: raw[TOP].transpose(2, 0, 1)})
        with pytest.raises(InputError, match=r"observation\.state\[2\] is nan"):
            robot.act({**raw, "observation.state": np.array([0, 0, np.nan, 0, 0, 0, 0], np.float32)})
        with pytest.raises(InputError, match="'other' is not known"):
            robot.act({**raw, "other": 1})


def test_a_policy_that_looks_back_is_given_what_it_saw(made: Callable[[str], Made]) -> None:
    _, _, bundle = made("diffusion")
    noise = {s.name: np.zeros(s.shape, np.float32) for s in bundle.inputs if s.name.endswith("noise")}
    first, second = (frame(0, index, task=False) for index in (0, 5))
    with bundle.runner() as robot:
        alone = robot.act(second, noise=noise["noise"]) if len(noise) == 1 else None
        robot.reset()
        seen: list[dict[str, np.ndarray]] = []
        infer = robot.infer
        robot.infer = lambda read, **told: (seen.append(read), infer({**read, **noise}))[1]  # type: ignore[method-assign]
        robot.act(first)
        robot.act(second)
        assert np.array_equal(seen[0]["state"][0, 0], seen[0]["state"][0, 1])
        assert np.array_equal(seen[1]["state"][0, 0], seen[0]["state"][0, 1])
        assert not np.array_equal(seen[1]["state"][0, 0], seen[1]["state"][0, 1])
    assert alone is None or alone.shape
    with bundle.runner() as robot:
        clients: list[dict[str, Any]] = [{}, {}]
        robot.act(first, noise=noise, seen=clients[0])
        other = robot.act(second, noise=noise, seen=clients[1])
        assert np.array_equal(other, robot.act(second, noise=noise, seen={})), "one client's is no other's"
        assert not np.array_equal(other, robot.act(second, noise=noise, seen=clients[0]))


@pytest.mark.parametrize("family", ["smolvla", "pi05"])
def test_tokens_are_lerobots_whatever_the_task(family: str, made: Callable[[str], Made]) -> None:
    from exporters.bundle.processors import OpenProcessors

    policy, (before, _), bundle = made(family)
    processors = OpenProcessors(bundle.path, bundle.stated.processors)
    processors.open()
    for task in ("reach the cube", "go home\n", "", " put_it\ndown ", "x" * 300):
        raw = {**frame(2, 4, task=True), "task": task}
        batch = {TOP: torch.from_numpy(raw[TOP]).permute(2, 0, 1)[None] / 255}
        batch["observation.state"] = torch.from_numpy(raw["observation.state"])[None]
        known = before({**batch, "task": task})
        ours = processors.preprocess(raw)
        tokens = known["observation.language.tokens"].numpy()
        masks = known["observation.language.attention_mask"].numpy()
        assert np.array_equal(ours["lang_tokens"][:, : tokens.shape[1]], tokens)
        assert np.array_equal(ours["lang_masks"][:, : tokens.shape[1]], masks)
        assert not ours["lang_masks"][:, tokens.shape[1] :].any()
    processors.close()


def test_a_tokenizer_that_is_wrong_of_words_that_nobody_drew_is_refused(
    made: Callable[[str], Made], tmp_path: Path
) -> None:
    policy, both, bundle = made("smolvla")
    place = Path(shutil.copytree(bundle.path, tmp_path / "wrong"))
    file = place / "tokenizer.json"
    said = json.loads(file.read_text())
    ids = said["model"]["vocab"]
    ids["T"], ids["S"] = ids["S"], ids["T"]  # no task of the recording has a capital letter
    file.write_text(json.dumps(said))
    stated = bundle.stated
    write_manifest(
        place, dataclasses.replace(stated, files={**stated.files, **file_facts(place, [file.name])})
    )
    result = check_pipeline(
        policy, open_bundle(place), both, inputs=reflex.episodes(GOLDEN, frames=3), stages=["preprocess"]
    )
    assert result.failing == "preprocess"
    assert "of the token 'S' its tokenizer.json has the number" in str(result)


def test_a_robot_without_torch_acts(made: Callable[[str], Made], tmp_path: Path) -> None:
    _, _, bundle = made("act")
    raw = frame(0, 2, task=False)
    with bundle.runner() as here:
        expected = here.act(raw)
    np.savez(tmp_path / "raw.npz", **raw)
    code = (
        "import sys; sys.modules['torch'] = sys.modules['lerobot'] = sys.modules['transformers'] = None\n"
        "import numpy as np; from exporters import open_bundle\n"
        f"raw = dict(np.load({str(tmp_path / 'raw.npz')!r}))\n"
        f"with open_bundle({str(bundle.path)!r}).runner() as robot: gave = robot.act(raw)\n"
        f"np.save({str(tmp_path / 'a.npy')!r}, gave)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert np.array_equal(np.load(tmp_path / "a.npy"), expected)


def test_a_bundle_without_processors_says_so(made: Callable[[str], Made]) -> None:
    policy, both, bundle = made("act")
    bare = dataclasses.replace(bundle, manifest={**bundle.manifest, "processors": None})
    with pytest.raises(BundleError, match="has no processors"):
        check_pipeline(policy, bare, both)
    with bare.runner() as robot, pytest.raises(InputError, match="has no processors"):
        robot.act({})
    with pytest.raises(SettingsError, match="there is no stage 'pre'"):
        check_pipeline(policy, bundle, both, thresholds={"pre": 1.0})


def test_nothing_is_put_in_where_a_stage_fails(made: Callable[[str], Made]) -> None:
    policy, both, bundle = made("act")
    held = sorted(file.name for file in bundle.path.iterdir())
    with pytest.raises(ParityError, match=r"^pipeline FAIL in policy: "):
        add_processors(policy, bundle, both, thresholds={"policy": 1e-30}, fixtures=3)
    assert sorted(file.name for file in open_bundle(bundle.path).path.iterdir()) == held


def test_a_stage_that_was_not_judged_is_no_pass(made: Callable[[str], Made]) -> None:
    policy, both, bundle = made("act")
    part = check_pipeline(policy, bundle, both, fixtures=3, stages=["postprocess"])
    assert part.failing is None
    assert not part.passed
    with pytest.raises(ParityError, match=r"^pipeline FAIL: not judged: preprocess, policy, whole"):
        part.require()


SLICE = ("channel order", "degrees for radians", "variance for deviation of joints", "relative for absolute")


@pytest.mark.parametrize("name", SLICE)
def test_a_planted_fault_is_refused_with_its_stage_first(
    name: str, made: Callable[[str], Made], tmp_path: Path
) -> None:
    # All of them: benchmarks/processor_faults.py.
    policy, both, bundle = made("act")
    fault = next(fault for fault in FAULTS if fault.name == name)
    wrong = planted(fault, bundle, policy, both, tmp_path / "wrong")
    result = check_pipeline(
        policy, wrong, both, inputs=reflex.episodes(GOLDEN, frames=3), stages=["preprocess", "postprocess"]
    )
    assert result.failing == fault.stage
    assert str(result).startswith(f"pipeline FAIL in {fault.stage}: parity FAIL")


def test_a_prompt_that_was_cut_is_refused_in_preprocessing(
    made: Callable[[str], Made], tmp_path: Path
) -> None:
    policy, both, bundle = made("pi05")
    fault = next(fault for fault in FAULTS if fault.name == "tokens cut")
    wrong = planted(fault, bundle, policy, both, tmp_path / "wrong")
    result = check_pipeline(
        policy, wrong, both, inputs=reflex.episodes(GOLDEN, frames=3), stages=["preprocess"]
    )
    assert result.failing == "preprocess"
    assert "lang_tokens" in str(result)
