"""A bundle with processors is certified from strict verdicts on every stage, and from nothing less."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = [pytest.mark.lerobot, pytest.mark.usefixtures("traced_once")]

import onnx  # noqa: E402
from certificate_cases import Keys, keys_in, statement_in  # noqa: E402
from tiny_pipelines import blind_act  # noqa: E402

from exporters import act, export_policy, open_bundle  # noqa: E402
from exporters.bundle.certificate import certified, certify  # noqa: E402
from exporters.bundle.envelope import canonical, private_key, sealed  # noqa: E402
from exporters.bundle.manifest import seal  # noqa: E402
from pytest_reflex import check  # noqa: E402
from pytest_reflex.errors import CertificateError  # noqa: E402
from pytest_reflex.judge.pipeline import check_pipeline  # noqa: E402
from pytest_reflex.report.json import document  # noqa: E402
from pytest_reflex.result import STAGES, WHOLE, PipelineResult  # noqa: E402

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A bundle that was exported strictly with its processors, and its policy; not to be changed."""
    work = tmp_path_factory.mktemp("arm")
    for part in blind_act():
        part.save_pretrained(work / "checkpoint")
    policy = act.load(work / "checkpoint")
    return export_policy(policy, work / "arm", processors=True, fixtures=3, strict=True).path, policy


@pytest.fixture(scope="module")
def judged(arm: tuple[Path, Any]) -> PipelineResult:
    found: PipelineResult = check_pipeline(arm[1], open_bundle(arm[0]), fixtures=3, strict=True)
    return found


def test_decisions_of_every_stage_are_looked_at(arm: tuple[Path, Any]) -> None:
    """Processors clamp and fill too; a share that is asked for is asked of each stage's own graphs."""
    found = check_pipeline(arm[1], open_bundle(arm[0]), fixtures=3, coverage=0)
    assert found.passed
    seen = {stage: one.coverage for stage, one in found.stages.items()}
    assert [stage for stage, one in seen.items() if one is None or one.unknown] == []
    whole = sum(one.reachable for stage, one in seen.items() if stage != WHOLE)
    # What ranges of inputs decide for the policy alone is a decision where it is handed what is made of them.
    assert seen[WHOLE].reachable >= whole > 0
    assert check_pipeline(arm[1], open_bundle(arm[0]), fixtures=3, coverage="1%").passed


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return keys_in(tmp_path)


def resealed(place: Path, change: Change) -> Path:
    """A bundle whose manifest says something else, and fits its files again."""
    said = json.loads((place / "reflex.json").read_text())
    change(said)
    for name in said["files"]:
        text = (place / name).read_bytes()
        said["files"][name] = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    said["sha256"] = seal(said)
    (place / "reflex.json").write_text(json.dumps(said))
    return place


def otherwise(place: Path, graph: str) -> Path:
    """The same with another graph in the place of one of its processors."""
    model = onnx.load(place / graph)
    model.doc_string = "another"
    onnx.save(model, place / graph)
    return resealed(place, lambda said: None)


def test_its_export_and_a_later_run_are_certified(
    arm: tuple[Path, Any], judged: PipelineResult, keys: Keys, tmp_path: Path
) -> None:
    bundle = open_bundle(arm[0])
    run = tmp_path / "run.json"
    run.write_text(json.dumps(document(judged.stages.values())))
    for verdict in (None, run):
        place = certify(bundle, keys.secret, verdict=verdict, place=tmp_path / "c.json")
        held = certified(bundle, [keys.public], place=place)
        assert {*held.terms["stages"]} == {*STAGES}
        # What is said first is of what a robot runs.
        assert held.terms["threshold"] == judged.stages["whole"].threshold
        said = [line.split()[0] for line in held.text.splitlines()[5:9]]
        assert said == ["coverage", *STAGES[:-1]]


def test_what_nobody_judged_is_not_certified(
    arm: tuple[Path, Any], judged: PipelineResult, keys: Keys, tmp_path: Path
) -> None:
    place = otherwise(Path(shutil.copytree(arm[0], tmp_path / "arm")), "postprocess.onnx")
    file = tmp_path / "run.json"

    def refusal(*results: Any, change: Change | None = None) -> str:
        bundle = open_bundle(place if change is None else resealed(place, change))
        file.write_text(json.dumps(document(results)))
        with pytest.raises(CertificateError) as error:
            certify(bundle, keys.secret, verdict=file if results else None, place=tmp_path / "c.json")
        return str(error.value)

    alone = check(arm[1], open_bundle(place), fixtures=3, strict=True)
    assert alone.candidate["sha256"].keys() == {"model.onnx", "model.onnx.data"}
    wanted = f"nobody judged preprocess.onnx and postprocess.onnx of {place}; run `reflex validate export"
    assert refusal(alone).startswith(wanted)
    # Of an earlier version's verdict all files of the manifest have their digests.
    earlier = json.loads(json.dumps(alone.to_json()))
    stated = open_bundle(place).stated
    earlier["candidate"]["sha256"] = {name: facts["sha256"] for name, facts in stated.files.items()}
    assert refusal(earlier).startswith(wanted)
    stages = judged.stages
    assert "postprocess.onnx is not the file that was judged" in refusal(*stages.values())
    assert "postprocess.onnx is not the file that was judged" in refusal()
    for left_out in ("preprocess", "postprocess"):
        rest = [result for stage, result in stages.items() if stage != left_out]
        assert refusal(*rest).startswith(f"nobody judged {left_out}.onnx of")
    assert "holds 5 results of one stage" in refusal(*stages.values(), stages["policy"])
    lax = check(arm[1], open_bundle(place), fixtures=3)
    assert ": policy was not judged strictly" in refusal(
        *(lax if stage == "policy" else result for stage, result in stages.items())
    )
    assert refusal(change=lambda said: said["processors"].update(checks={})).startswith(wanted)


def test_a_certificate_of_the_policy_alone_no_longer_holds(
    arm: tuple[Path, Any], keys: Keys, tmp_path: Path
) -> None:
    """As earlier versions signed it."""
    bundle, place = open_bundle(arm[0]), tmp_path / "c.json"
    statement = statement_in(certify(bundle, keys.secret, place=place))
    terms = statement["predicate"]["configuration"][0]["annotations"]
    stages = terms.pop("stages")

    def refusal() -> str:
        place.write_bytes(sealed(canonical(statement), private_key(keys.secret)))
        with pytest.raises(CertificateError) as error:
            certified(bundle, [keys.public], place=place)
        return str(error.value)

    assert "nobody judged preprocess.onnx and postprocess.onnx; run `reflex validate export" in refusal()
    for wrong in ({}, [], {**stages, "policy": None}, {**stages, "whole": {"claim": {}}}):
        terms["stages"] = wrong
        assert "does not say its" in refusal()
