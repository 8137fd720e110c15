"""GR00T's checkpoints: the head alone is read, lifted to float32, and refused by name if it does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exporters import family_of
from pytest_reflex.errors import CheckpointError

pytest.importorskip("lerobot", reason="GR00T's action head needs lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

import torch  # noqa: E402
from floors import ROUNDING, floors, rounding_of  # noqa: E402
from tiny_groot import GOLDEN, cases, config, n16_checkpoint, weights, write_checkpoint  # noqa: E402

from exporters import groot  # noqa: E402
from pytest_reflex.verdict.tolerances import THRESHOLD  # noqa: E402


def golden_floors(head: Any) -> float:
    """How many floors the recorded actions are from the head's float64 ones."""
    given = [inputs for inputs, _ in cases()]
    with groot.reference(head) as runner:
        actions = [runner.run(inputs)["actions"] for inputs in given]
        truths = [runner.exact(inputs)["actions"] for inputs in given]
        more = rounding_of(runner, groot.inputs(head), fixtures=8)
    return floors([recorded for _, recorded in cases()], actions, truths, more)


def test_shards_beside_a_backbone_that_is_not_read(tmp_path: Path) -> None:
    own = weights()
    names = sorted(own)
    first = {**{name: own[name] for name in names[:20]}, "backbone.model.lm_head.weight": torch.zeros(3)}
    place = write_checkpoint(tmp_path / "g", config(), first, {name: own[name] for name in names[20:]})
    assert family_of(place) == "groot"
    assert golden_floors(groot.load(place)) < ROUNDING


def test_a_policy_that_lerobot_fine_tuned_is_described_by_what_it_was_built_on(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", config())
    tuned = write_checkpoint(
        tmp_path / "tuned",
        {"type": "groot", "base_model_path": str(base), "num_inference_timesteps": 7},
        {f"_groot_model.{key}": value for key, value in weights().items()},
    )
    assert family_of(tuned) == "groot"
    head = groot.load(tuned)
    assert head.num_inference_timesteps == 7
    head.num_inference_timesteps = 4
    assert golden_floors(head) < ROUNDING

    (base / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"tuned was fine-tuned from .*base, whose config.json"):
        groot.load(tuned)


def test_n16_has_no_self_attention_over_the_features(tmp_path: Path) -> None:
    place = n16_checkpoint(tmp_path / "n16")
    assert family_of(place) == "groot"
    head = groot.load(place)
    assert isinstance(head.vl_self_attention, torch.nn.Identity)
    inputs, recorded = cases()[0]
    with groot.reference(head) as runner:  # another policy than N1.7
        assert abs(runner.run(inputs)["actions"] - recorded).max() > 100 * THRESHOLD


def test_half_precision_is_lifted_and_the_manifest_says_so(tmp_path: Path) -> None:
    halves = {key: value.bfloat16() for key, value in weights().items()}
    head = groot.load(write_checkpoint(tmp_path / "g", config(), halves))
    assert {p.dtype for p in head.parameters()} == {torch.float32}
    made = groot.export(head, tmp_path / "made", tokens=12, fixtures=5, strict=True)
    source = made.manifest["source"]
    assert source["stored_dtype"] == "bfloat16"
    assert source["checkpoint"] == "g"
    assert len(source["sha256"]) == 64
    assert made.result is not None
    assert made.result.passed


def test_a_loaded_head_is_all_there_and_in_eval_mode() -> None:
    head = groot.load(GOLDEN)
    assert not any(module.training for module in head.modules())
    assert not any(tensor.is_meta for tensor in (*head.parameters(), *head.buffers()))
    assert not any(parameter.requires_grad for parameter in head.parameters())


@pytest.mark.parametrize(
    ("fields", "change", "message"),
    [
        ({}, {"action_head.vlln.bias": None}, r"lacks 'action_head.vlln.bias'"),
        ({}, {"action_head.vlln.offset": torch.zeros(32)}, r"has unknown 'action_head.vlln.offset'"),
        ({}, {"action_head.vlln.bias": torch.zeros(31)}, r"action_head.vlln.bias is \[31\] there, .* \[32\]"),
        ({"num_timestep_buckets": None}, {}, "does not say num_timestep_buckets"),
        ({"action_horizon": None, "max_action_dim": None}, {}, "does not say action_horizon, max_action_dim"),
        ({"diffusion_model_cfg": {"layers": 3}}, {}, "describes no action head"),
        ({"model_type": "Gr00tN1d5"}, {}, "is a checkpoint of 'Gr00tN1d5', expected type 'groot'"),
    ],
)
def test_what_does_not_fit_is_named(
    fields: dict[str, Any], change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    stored = {k: v for k, v in {**weights(), **change}.items() if v is not None}
    place = write_checkpoint(tmp_path / "g", config(**fields), stored)
    with pytest.raises(CheckpointError, match=message):
        groot.load(place)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    place = write_checkpoint(tmp_path / "g", config())
    torch.save(weights(), place / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"holds pickled weights \(pytorch_model.bin\)"):
        groot.load(place)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    place = write_checkpoint(tmp_path / "g", config(), weights())
    file = place / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be read"):
        groot.load(place)


def test_the_command_exports_and_judges_a_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pytest_reflex.cli import main

    place = write_checkpoint(tmp_path / "g", config(), weights())
    out = str(tmp_path / "made")

    def reflex(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    assert reflex("export", str(place), out, "--embodiment", "1", "--tokens", "12", "--strict")[0] == 0
    manifest = json.loads((tmp_path / "made" / "reflex.json").read_text())
    assert (manifest["layout"], manifest["call"]) == ("stepwise", {"embodiment": 1})
    code, said = reflex("validate", "export", out, "--model", str(place), "--strict", "--fixtures", "3")
    assert (code, "passed                   yes" in said) == (0, True)
    code, said = reflex("export", str(place), out, "--cameras", "2")
    assert (code, "--cameras was given, and groot has no such choice" in said) == (2, True)
    code, said = reflex("export", str(place), out, "--embodiment", "9")
    assert (code, "embodiment is 9, expected a whole number from 0 to 3" in said) == (2, True)
    # What was not written anew is still what it was.
    assert json.loads((tmp_path / "made" / "reflex.json").read_text()) == manifest
