"""A repair of a bundle with processors: they stay as they are, and every stage is proven again."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporters import export_policy, open_bundle
from pytest_reflex.cli.main import main
from pytest_reflex.errors import CheckpointError, ReflexError

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

from tiny_pipelines import blind_act  # noqa: E402

from exporters import act  # noqa: E402
from exporters.exporting.repair import repair  # noqa: E402


def test_processors_stay_and_are_proven_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in blind_act():
        part.save_pretrained(tmp_path / "checkpoint")
    policy = act.load(tmp_path / "checkpoint")
    made = export_policy(
        policy, tmp_path / "half", processors=True, precision="float16", fixtures=3, threshold=1.0
    )
    before = open_bundle(made.path).stated
    assert made.result is not None
    assert before.processors is not None
    budget = (made.result.max_abs_diff_across_all or 0.0) / 3
    with pytest.raises(ReflexError, match="are proven again around the policy itself; give the live policy"):
        repair(made, lambda: policy, budget=budget)
    with pytest.raises(CheckpointError, match="the policy was loaded from no checkpoint; give a checkpoint"):
        repair(made, blind_act()[0], budget=budget)
    assert open_bundle(made.path).stated.files == before.files
    told = ["--model", tmp_path / "checkpoint", "--budget", budget, "--fixtures", 3]
    with pytest.raises(SystemExit) as end:
        main([str(one) for one in ("repair", made.path, *told)])
    text = capsys.readouterr().out
    assert (end.value.code or 0, "pipeline PASS: preprocess, policy, postprocess, whole" in text) == (0, True)
    after = open_bundle(made.path).stated
    assert after.processors is not None
    for name in ("preprocess.onnx", "postprocess.onnx"):
        assert after.files[name] == before.files[name]
    assert after.files["model.onnx"] != before.files["model.onnx"]
    assert {name: check["passed"] for name, check in after.processors.checks.items()} == dict.fromkeys(
        ("preprocess", "policy", "postprocess", "whole"), True
    )
    held = after.processors.checks
    assert held["whole"]["threshold"] > held["policy"]["threshold"], "it is in the robot's units"
