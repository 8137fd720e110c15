"""pi0 from transformers: its own sample_actions, whole, against every layout, step count and attention."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from floors import Remembered, require_rounding
from safetensors.torch import load_file, save_file

from examples.tiny_pi0 import scatter, tiny_pi0
from exporters import Export, Policy, family_of, open_bundle, pi0
from exporters.flow.schedule import LAYOUTS, Layout
from pytest_reflex import InputSpec, ParityError, check
from pytest_reflex.errors import CheckpointError, InputError, TracingError
from pytest_reflex.inputs import make_fixture

# A short prompt and two cameras keep an export to a few seconds; what is compared is the whole chunk.
SMALL = {"cameras": 2, "prompt_tokens": 6}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "pi0"
    tiny_pi0().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def open_bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Export]]:
    """``open_bundles("sdpa")``: a bundle of each layout whose number of steps is open, made with one step."""
    made: dict[str, dict[str, Export]] = {}

    def bundles(attention: str) -> dict[str, Export]:
        if attention not in made:
            policy, work = tiny_pi0(attention=attention), tmp_path_factory.mktemp(attention)
            made[attention] = {
                layout: pi0.export(policy, work / layout, steps=1, layout=layout, verify=False, **SMALL)
                for layout in ("loop", "stepwise")
            }
        return made[attention]

    return bundles


@pytest.mark.parametrize(
    ("attention", "steps"), [("sdpa", 1), ("sdpa", 10), ("sdpa", 50), ("eager", 1), ("eager", 10)]
)
def test_parity(
    attention: str, steps: int, open_bundles: Callable[[str], dict[str, Export]], tmp_path: Path
) -> None:
    policy = tiny_pi0(attention=attention)
    unrolled = pi0.export(policy, tmp_path / "unrolled", steps=steps, verify=False, **SMALL)
    assert (unrolled.layout, unrolled.manifest["steps"]) == ("unrolled", steps)
    truth = Remembered(unrolled.reference_runner(policy))
    actions: dict[str, list[np.ndarray]] = {}
    for layout in LAYOUTS:
        made = unrolled if layout == "unrolled" else open_bundles(attention)[layout]
        runner = made.runner() if layout == "unrolled" else Policy(made, steps=steps)
        require_rounding(check(truth, runner, inputs=made.inputs, fixtures=8, strict=True, floor=True))
        with runner:
            actions[layout] = [
                runner.run(make_fixture(made.inputs, 0, fixture_idx))["actions"] for fixture_idx in range(8)
            ]
    # Small figures prove little about small actions: these reach as far as real ones do.
    assert max(np.abs(a).max() for a in actions["unrolled"]) > 3
    for unrolled, looped, stepwise in zip(*(actions[layout] for layout in LAYOUTS), strict=True):
        assert np.array_equal(unrolled, stepwise)
        assert np.array_equal(unrolled, looped)


def test_the_mask_of_an_only_camera_is_varied_and_what_the_policy_makes_of_it_is_said(tmp_path: Path) -> None:
    """In newer transformers it only chooses among images, so that one alone is the same either way."""
    given = {"steps": 1, "cameras": 1, "prompt_tokens": 6}
    made = pi0.export(tiny_pi0(), tmp_path / "p", **given)
    idle = "input 'pixel_attention_mask' changes neither side where it was swapped, in fixture"
    live = "pixel_attention_mask" in made.result.candidate["live_inputs"]
    assert "never varies" not in str(made.result.notes)
    assert any(note.startswith(idle) for note in made.result.notes) is not live
    if live:
        assert pi0.export(tiny_pi0(), tmp_path / "strict", strict=True, **given).result.passed
        return
    with pytest.raises(ParityError, match=idle):
        pi0.export(tiny_pi0(), tmp_path / "strict", strict=True, **given)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parity_with_a_free_batch(layout: Layout, tmp_path: Path) -> None:
    def exported() -> Export:
        return pi0.export(
            tiny_pi0(), tmp_path / "p", layout=layout, fixtures=4, strict=True, floor=True,
            dynamic_batch=True, **SMALL,
        )  # fmt: skip

    if transformers.__version__.startswith("5.5."):
        # This release fills image tokens in by a count over the whole batch, which fixes the batch.
        with pytest.raises(TracingError, match="the size of batch is free, and the model fixes it to 2"):
            exported()
        return
    require_rounding(exported().result)


def test_the_reference_is_sample_actions_itself() -> None:
    policy = tiny_pi0()
    inputs = make_fixture(pi0.inputs(policy, **SMALL), 3, 0)
    expected = policy.sample_actions(**{n: torch.from_numpy(a) for n, a in inputs.items()}, num_steps=4)
    with pi0.reference(policy, steps=4) as runner:
        got = runner.run(inputs)
    assert list(got) == ["actions"]
    assert np.array_equal(got["actions"], expected.numpy())
    assert "forward" not in vars(policy)
    assert "sample_actions" not in vars(policy)


def test_fixtures_reach_every_input() -> None:
    specs = pi0.inputs(tiny_pi0(), cameras=3, prompt_tokens=48)
    fixtures = [make_fixture(specs, 0, fixture_idx) for fixture_idx in range(8)]
    for name in fixtures[0]:
        assert len({f[name].tobytes() for f in fixtures}) > 1, name
    cameras = [int(f["pixel_attention_mask"].sum()) for f in fixtures]
    assert min(cameras) < 3
    assert max(cameras) == 3
    text = [int(f["attention_mask"].sum()) - 4 * c for f, c in zip(fixtures, cameras, strict=True)]
    assert min(text) == 1
    assert max(text) == 48
    for fixture, count in zip(fixtures, cameras, strict=True):
        # As many image tokens as transformers' processor writes for the cameras that are there.
        assert int((fixture["input_ids"] == 512).sum()) == 4 * count
        assert (fixture["input_ids"][fixture["attention_mask"] == 0] == 0).all()


def test_a_checkpoint_directory_gives_the_live_policy(checkpoint: Path) -> None:
    assert family_of(checkpoint) == "pi0"
    loaded, live = pi0.load(checkpoint), tiny_pi0()
    assert not loaded.training
    for (name, weight), (_, same) in zip(loaded.named_parameters(), live.named_parameters(), strict=True):
        assert torch.equal(weight, same), name


def test_the_manifest_names_its_source(checkpoint: Path, tmp_path: Path) -> None:
    made = pi0.export(pi0.load(checkpoint), tmp_path / "p", steps=1, fixtures=2, **SMALL)
    source = made.manifest["source"]
    assert source["checkpoint"] == "pi0"
    assert source["stored_dtype"] == "float32"
    assert len(source["sha256"]) == 64
    assert source["class"].endswith("PI0ForConditionalGeneration")
    assert (made.family, made.layout, made.manifest["steps"]) == ("pi0", "unrolled", 1)
    assert str(checkpoint.parent) not in json.dumps(made.manifest)


def test_a_half_precision_checkpoint_is_lifted_and_said_so(tmp_path: Path) -> None:
    tiny_pi0().to(torch.bfloat16).save_pretrained(tmp_path / "half")
    policy = pi0.load(tmp_path / "half")
    assert {p.dtype for p in policy.parameters()} == {torch.float32}
    made = pi0.export(policy, tmp_path / "p", steps=1, fixtures=2, **SMALL)
    assert made.manifest["source"]["stored_dtype"] == "bfloat16"
    assert made.manifest["dtype"] == "float32"


def test_ten_steps_by_default_as_the_configuration_says(tmp_path: Path) -> None:
    made = pi0.export(tiny_pi0(steps=3), tmp_path / "p", fixtures=2, **SMALL)
    assert made.manifest["steps"] == 3


def test_nine_steps_are_not_ten(tmp_path: Path) -> None:
    policy = tiny_pi0()
    made = pi0.export(policy, tmp_path / "p", steps=9, verify=False, **SMALL)
    result = check(pi0.reference(policy, steps=10), made, fixtures=2)
    assert not result.passed


def test_another_policy_is_not_this_one(tmp_path: Path) -> None:
    policy = tiny_pi0()
    made = pi0.export(policy, tmp_path / "p", steps=2, fixtures=2, **SMALL)
    scatter(policy, seed=1)
    with pytest.raises(ParityError, match="5 of 5 fixtures fail"):
        check(policy, open_bundle(made.path)).require()


def test_a_missing_key_is_named_with_the_nearest(checkpoint: Path, tmp_path: Path) -> None:
    spoiled = Path(shutil.copytree(checkpoint, tmp_path / "spoiled"))
    weights = load_file(spoiled / "model.safetensors")
    weights["action_out_projection.bias"] = weights.pop("action_out_proj.bias")
    save_file(weights, spoiled / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"lacks 'action_out_proj\.bias' \(nearest: 'action_out_projection"
    ):
        pi0.load(spoiled)


def test_a_weight_of_another_shape_is_named(checkpoint: Path, tmp_path: Path) -> None:
    spoiled = Path(shutil.copytree(checkpoint, tmp_path / "spoiled"))
    weights = load_file(spoiled / "model.safetensors")
    weights["action_out_proj.bias"] = torch.zeros(9)
    save_file(weights, spoiled / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"action_out_proj\.bias"):
        pi0.load(spoiled)


def test_another_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="is a checkpoint of 'llama', expected"):
        pi0.load(tmp_path)
    with pytest.raises(CheckpointError, match="is a checkpoint of 'llama', expected one of act, diffusion"):
        family_of(tmp_path)


def test_pickled_weights_are_refused_unread(checkpoint: Path, tmp_path: Path) -> None:
    spoiled = Path(shutil.copytree(checkpoint, tmp_path / "spoiled"))
    (spoiled / "model.safetensors").unlink()
    (spoiled / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(
        CheckpointError, match=r"holds pickled weights \(pytorch_model\.bin\), which run code"
    ):
        pi0.load(spoiled)


@pytest.mark.parametrize("option", [{"cameras": 0}, {"prompt_tokens": 1.5}, {"batch": True}])
def test_bad_sizes_are_named(option: dict[str, object]) -> None:
    (name, value), *_ = option.items()
    with pytest.raises(InputError, match=f"{name} is {value!r}, expected a whole number of at least 1"):
        pi0.inputs(tiny_pi0(), **option)  # type: ignore[arg-type]


def test_inputs_are_those_of_the_published_sizes() -> None:
    shapes = {spec.name: spec.shape for spec in pi0.inputs(tiny_pi0(), cameras=3, prompt_tokens=48)}
    assert shapes == {
        "pixel_attention_mask": (1, 3),
        "pixel_values": (1, 3, 3, 28, 28),
        "attention_mask": (1, 60),
        "input_ids": (1, 60),
        "state": (1, 8),
        "noise": (1, 6, 8),
    }
    assert all(isinstance(spec, InputSpec) for spec in pi0.inputs(tiny_pi0()))
