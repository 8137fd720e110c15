"""Checkpoints: a directory, a hub id from the local cache, and clear words for everything else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_cases import LFS_POINTER

from examples.tiny_pi0 import tiny_pi0
from exporters import checkpoints, family_of
from pytest_reflex.errors import CheckpointError

pytestmark = pytest.mark.once

HUB_ID = "somebody/tiny_pi0"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "pi0"
    tiny_pi0().save_pretrained(path)
    return path


def hub_cache(root: Path, checkpoint: Path) -> Path:
    """A local hub cache that holds the checkpoint under :data:`HUB_ID`, as a download leaves it."""
    repository = root / "hub" / f"models--{HUB_ID.replace('/', '--')}"
    revision = "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    shutil.copytree(checkpoint, repository / "snapshots" / revision)
    return root


def load_offline(hub_id: str, home: Path) -> subprocess.CompletedProcess[str]:
    code = f"""
from exporters import pi0
from pytest_reflex import ReflexError
try:
    policy = pi0.load({hub_id!r})
    print(sum(p.numel() for p in policy.parameters()))
except ReflexError as error:
    print(type(error).__name__, error)
"""
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_a_hub_id_is_read_from_the_local_cache(checkpoint: Path, tmp_path: Path) -> None:
    done = load_offline(HUB_ID, hub_cache(tmp_path, checkpoint))
    assert done.stdout.split() == [str(sum(p.numel() for p in tiny_pi0().parameters()))], done.stderr


def test_without_cache_and_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    done = load_offline(HUB_ID, tmp_path)
    assert done.stdout.splitlines() == [
        f"CheckpointError no directory '{HUB_ID}', and as a hub id it is neither in the local hub cache "
        f"nor can the hub be reached; fetch it where there is network (`hf download {HUB_ID}`) "
        "or give a directory"
    ], done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/place", "no checkpoint directory 'no/such/place', and it is no hub id"),
        ("nowhere", "no checkpoint directory 'nowhere', and it is no hub id"),
        ("", "no checkpoint directory ''"),
        (__file__, "is a file; expected a checkpoint directory or a hub id"),
    ],
)
def test_what_is_neither_is_named(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        checkpoints.resolve(name)


def test_a_training_is_its_last_checkpoint_or_says_which_there_are(tmp_path: Path) -> None:
    steps = tmp_path / "run" / "checkpoints"
    for step in ("000010", "000020"):
        (steps / step / "pretrained_model").mkdir(parents=True)
        (steps / step / "pretrained_model" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError) as refused:
        checkpoints.resolve(tmp_path / "run")
    assert str(refused.value) == (
        f"{tmp_path / 'run'} is a training of lerobot's without a last checkpoint; give one of 000010, "
        f"000020, such as {steps / '000020' / 'pretrained_model'}"
    )
    (steps / "last").symlink_to("000020")
    assert checkpoints.resolve(tmp_path / "run") == steps / "last" / "pretrained_model"
    assert checkpoints.resolve(steps / "000010") == steps / "000010" / "pretrained_model"


def test_configurations_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json in .*: it is no checkpoint directory"):
        checkpoints.read_config(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"config\.json holds a list, expected a JSON object"):
        checkpoints.read_config(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        checkpoints.read_config(tmp_path)


def test_a_directory_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors in .*: it holds no weights"):
        checkpoints.weight_files(tmp_path)


def test_an_adapter_is_no_policy(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(
        CheckpointError, match=r"a PEFT adapter \(adapter_config\.json\), .*merge it into its"
    ):
        checkpoints.read_config(tmp_path)
    # Beside its base's weights, which are whole and of another policy.
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="a PEFT adapter"):
        checkpoints.weight_files(tmp_path)


def test_the_digest_changes_with_any_byte(checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    assert checkpoints.digest(copy) == checkpoints.digest(checkpoint)
    file = copy / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert checkpoints.digest(copy) != checkpoints.digest(checkpoint)


def test_loading_shows_no_bar_where_nobody_looks(checkpoint: Path, python: list[str]) -> None:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    code = f"from exporters import pi0; pi0.load({str(checkpoint)!r})"
    done = subprocess.run([*python, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert logging.is_progress_bar_enabled() == shown


def training(place: Path, *steps: str) -> Path:
    """What lerobot's trainer leaves, as far as a loader looks."""
    for step in steps:
        model = place / "checkpoints" / step / "pretrained_model"
        model.mkdir(parents=True)
        (model / "config.json").write_text(json.dumps({"type": "act", "step": step}))
        (place / "checkpoints" / step / "training_state").mkdir()
    return place


def test_a_training_is_its_last_checkpoint(tmp_path: Path) -> None:
    place = training(tmp_path / "t", "000100", "last")
    last = place / "checkpoints" / "last" / "pretrained_model"
    for given in (place, place / "checkpoints", place / "checkpoints" / "last", last):
        assert checkpoints.resolve(given) == last
    assert checkpoints.resolve(place / "checkpoints" / "000100").parent.name == "000100"
    assert family_of(place) == "act"


def test_a_training_without_a_last_checkpoint_names_those_that_it_has(tmp_path: Path) -> None:
    place = training(tmp_path / "t", "000100", "000200")
    with pytest.raises(
        CheckpointError, match=r"give one of 000100, 000200, such as .*000200/pretrained_model"
    ):
        checkpoints.resolve(place)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pointer_of_git_lfs_is_told_from_the_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / name).write_text(LFS_POINTER)
    asked = checkpoints.read_config if name == "config.json" else checkpoints.weight_files
    with pytest.raises(CheckpointError, match=rf"{name} is a Git LFS pointer, .*; run `git lfs pull` in"):
        asked(tmp_path)
