"""lerobot's checkpoints: read by its own loader, lifted to float32, refused by name when they do not fit."""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporters import family_of
from pytest_reflex.errors import CheckpointError, ReflexError

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_lerobot import FAMILIES, SHALLOW, save_checkpoint, small_sizes, tiny_policy  # noqa: E402

every_family = pytest.mark.parametrize("family", FAMILIES)
SMALL: dict[str, Any] = {"steps": 1, "fixtures": 2, "cameras": 2, "prompt_tokens": 8}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, work: Path) -> dict[str, Path]:
    """A checkpoint of each family as lerobot writes it; not to be changed."""
    place = tmp_path_factory.mktemp("checkpoints")
    return {
        family: save_checkpoint(family, place / family, work, cameras=2, **SHALLOW[family])
        for family in FAMILIES
    }


@pytest.fixture(autouse=True)
def sizes(request: pytest.FixtureRequest) -> Iterator[None]:
    """The sizes that lerobot's pi0 and pi0.5 write into their code, small, for as long as a test runs."""
    with small_sizes("pi0"), small_sizes("pi05"):
        yield


def load(family: str, checkpoint: Path) -> Any:
    return importlib.import_module(f"exporters.families.{family}").load(checkpoint)


def spoiled(checkpoint: Path, tmp_path: Path, **changes: Any) -> Path:
    """A copy of a checkpoint with keys of its weights renamed, given anew or taken away (None)."""
    place = Path(shutil.copytree(checkpoint, tmp_path / "spoiled"))
    weights = load_file(place / "model.safetensors")
    for key, change in changes.items():
        value = weights.pop(key)
        if isinstance(change, str):
            weights[change] = value
        elif change is not None:
            weights[key] = change
    save_file(weights, place / "model.safetensors", {"format": "pt"})
    return place


@every_family
def test_a_checkpoint_gives_the_live_policy(
    family: str, checkpoints: dict[str, Path], work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert family_of(checkpoints[family]) == family
    live = tiny_policy(family, work, cameras=2, **SHALLOW[family])
    capsys.readouterr()
    disabled = logging.root.manager.disable
    loaded = load(family, checkpoints[family])
    assert capsys.readouterr().out == ""
    assert logging.root.manager.disable == disabled
    assert type(loaded) is type(live)
    assert not loaded.training
    weights = dict(loaded.named_parameters())
    assert list(weights) == [name for name, _ in live.named_parameters()]
    for name, same in live.named_parameters():
        assert torch.equal(weights[name], same), name
    assert [len(loaded.config.image_features), loaded.config.compile_model] == [2, False]


@every_family
def test_the_manifest_names_its_source(family: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    policy = load(family, checkpoints[family])
    made = importlib.import_module(f"exporters.families.{family}").export(policy, tmp_path / "p", **SMALL)
    source = made.manifest["source"]
    assert source["checkpoint"] == family
    assert source["stored_dtype"] == "float32"
    assert len(source["sha256"]) == 64
    assert source["class"] == f"{type(policy).__module__}.{type(policy).__qualname__}"
    assert (made.family, made.manifest["versions"]["lerobot"]) == (family, "0.6.1")
    assert str(checkpoints[family].parent) not in json.dumps(made.manifest)


@every_family
def test_stored_in_half_precision_it_is_lifted_and_said_so(family: str, work: Path, tmp_path: Path) -> None:
    half = tiny_policy(family, work, **SHALLOW[family]).bfloat16()
    half.save_pretrained(tmp_path / "half")
    policy = load(family, tmp_path / "half")
    assert {p.dtype for p in policy.parameters()} == {torch.float32}
    for (name, weight), stored in zip(policy.named_parameters(), half.parameters(), strict=True):
        assert torch.equal(weight, stored.float()), name
    made = importlib.import_module(f"exporters.families.{family}").export(policy, tmp_path / "p", **SMALL)
    assert made.manifest["source"]["stored_dtype"] == "bfloat16"
    assert made.manifest["dtype"] == "float32"


@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_stored_in_float32_it_is_not_narrowed(family: str, work: Path, tmp_path: Path) -> None:
    """A configuration may ask for bfloat16 beside float32 weights; made so, the policy would lose bits."""
    place = save_checkpoint(family, tmp_path / "c", work)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    for (name, weight), same in zip(
        load(family, place).named_parameters(), tiny_policy(family, work).parameters(), strict=True
    ):
        assert torch.equal(weight, same), name


@every_family
def test_a_missing_key_is_named_with_the_nearest(
    family: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """lerobot's own loaders for pi0 and pi0.5 print this and go on with random weights."""
    place = spoiled(
        checkpoints[family], tmp_path, **{"model.action_out_proj.bias": "model.action_out_projection.bias"}
    )
    with pytest.raises(
        CheckpointError,
        match=r"does not fit its model: it lacks 'model\.action_out_proj\.bias' "
        r"\(nearest: 'model\.action_out_projection\.bias'\)",
    ):
        load(family, place)


@every_family
def test_a_weight_of_another_shape_is_named(
    family: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    place = spoiled(checkpoints[family], tmp_path, **{"model.action_out_proj.bias": torch.zeros(9)})
    with pytest.raises(
        CheckpointError, match=r"model\.action_out_proj\.bias is \[9\] there, the model has \[8\]"
    ):
        load(family, place)


@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_lerobots_own_renaming_of_keys_holds(
    family: str, checkpoints: dict[str, Path], tmp_path: Path, work: Path
) -> None:
    """Published files may lack the prefix and the embedding, which lerobot takes from the language head."""
    place = Path(shutil.copytree(checkpoints[family], tmp_path / "c"))
    weights = load_file(place / "model.safetensors")
    embedding = "model.paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"
    head = weights["model.paligemma_with_expert.paligemma.lm_head.weight"]
    del weights[embedding]
    bare = {key.removeprefix("model."): value for key, value in weights.items()}
    save_file(bare, place / "model.safetensors", {"format": "pt"})
    loaded = dict(load(family, place).named_parameters())
    assert torch.equal(loaded[embedding], head)
    assert torch.equal(loaded["model.action_in_proj.weight"], weights["model.action_in_proj.weight"])


@every_family
def test_a_truncated_file_is_no_policy(family: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    place = Path(shutil.copytree(checkpoints[family], tmp_path / "c"))
    whole = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        load(family, place)


def test_a_loader_that_loads_nothing_is_not_believed(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot.policies.pi0.modeling_pi0 import PI0Policy

    def broken(self: Any, state_dict: Any, config: Any) -> Any:
        raise ValueError("a key that nobody knows")

    monkeypatch.setattr(PI0Policy, "_fix_pytorch_state_dict_keys", broken)
    with pytest.raises(CheckpointError, match=r"was not loaded: .*a key that nobody knows"):
        load("pi0", checkpoints["pi0"])


def test_another_family_is_refused(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"is a checkpoint of 'pi05', expected type 'smolvla'"):
        load("smolvla", checkpoints["pi05"])
    with pytest.raises(CheckpointError, match=r"is a checkpoint of 'pi05', expected "):
        load("pi0", checkpoints["pi05"])


def test_a_configuration_that_lerobot_does_not_know_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    place = Path(shutil.copytree(checkpoints["pi0"], tmp_path / "c"))
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "no_such_field": 1}))
    with pytest.raises(CheckpointError, match=r"config\.json is not as lerobot wants it: .*no_such_field"):
        load("pi0", place)


def test_an_adapter_without_its_weights_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    place = Path(shutil.copytree(checkpoints["pi0"], tmp_path / "c"))
    (place / "model.safetensors").rename(place / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"holds a PEFT adapter \(adapter_model\.safetensors\)"):
        load("pi0", place)


def test_smolvla_without_its_hub_model_says_what_to_fetch(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    place = Path(shutil.copytree(checkpoints["smolvla"], tmp_path / "c"))
    config = json.loads((place / "config.json").read_text())
    base = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
    (place / "config.json").write_text(json.dumps({**config, "vlm_model_name": base}))
    code = (
        "from exporters import smolvla\nfrom pytest_reflex import ReflexError\n"
        f"try:\n    smolvla.load({str(place)!r})\nexcept ReflexError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith(f"{place} is built on {base}, whose configuration"), done.stderr
    assert f"`hf download {base} --include" in done.stdout


@pytest.mark.parametrize(
    ("package", "found", "expected"),
    [
        ("lerobot", "0.5.1", r"lerobot 0\.5\.1 is installed; .* lerobot >=0\.6,<0\.7"),
        ("transformers", "5.23.0", r"transformers 5\.23\.0 is installed; .* transformers >=5\.4,<5\.6"),
    ],
)
def test_an_unsupported_version_is_named(
    package: str, found: str, expected: str, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import version

    monkeypatch.setattr(
        "exporters.families.lerobot.version", lambda name: found if name == package else version(name)
    )
    with pytest.raises(ReflexError, match=expected):
        load("pi05", checkpoints["pi05"])
