"""What the cache keeps of a policy with processors: they are in the bundle, and part of its key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporters import Bundle, cached
from exporters.caching.fingerprint import Fingerprint
from pytest_reflex.errors import SettingsError

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = [pytest.mark.lerobot, pytest.mark.usefixtures("traced_once")]

import torch  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402
from tiny_pipelines import blind_act  # noqa: E402

from exporters import act, export_policy  # noqa: E402
from exporters.families.one_call import processors_of  # noqa: E402


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("checkpoint") / "act"
    for part in blind_act():
        part.save_pretrained(place)
    return place


def kept(export: Callable[..., Any], checkpoint: Path, cache: Path, **options: object) -> Bundle:
    return cached(export, act.load(checkpoint), cache=cache, fixtures=1, **options)


def content(policy: object, asked: object = None) -> str:
    """What of the processors is in a key."""
    return Fingerprint().add(processors_of(policy, asked)).hexdigest()


def test_processors_are_in_what_is_cached_and_other_statistics_are_another_bundle(
    checkpoint: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = kept(act.export, checkpoint, cache)
    assert first.stated.processors is not None
    assert all(check["passed"] for check in first.stated.processors.checks.values())
    assert kept(act.export, checkpoint, cache).path == first.path
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    (file,) = other.glob("policy_postprocessor*.safetensors")
    known = load_file(file)
    save_file({**known, "action.std": known["action.std"] * 2}, file)
    scaled = kept(export_policy, other, cache)
    assert scaled.path != first.path
    assert scaled.stated.processors is not None
    assert scaled.stated.processors.scale == tuple(2 * one for one in first.stated.processors.scale)


def test_statistics_and_configuration_are_told_by_their_content(checkpoint: Path, tmp_path: Path) -> None:
    policy = act.load(checkpoint)
    known = content(policy)
    assert content(act.load(shutil.copytree(checkpoint, tmp_path / "copy"))) == known
    other = Path(shutil.copytree(checkpoint, tmp_path / "configuration"))
    said = json.loads((other / "policy_preprocessor.json").read_text())
    next(step for step in said["steps"] if "norm" in step["registry_name"])["config"]["eps"] = 1e-3
    (other / "policy_preprocessor.json").write_text(json.dumps(said))
    assert content(act.load(other)) != known
    live, before, after = blind_act()
    assert processors_of(live, None) is None, "it was loaded from no checkpoint"
    assert content(live, (before, after)) == content(live, blind_act()[1:])
    assert content(live, (before, after)) != content(live, (before, blind_act(std=11.0)[2]))
    assert processors_of(policy, False) is None


def test_a_function_that_takes_none_is_not_given_them(tmp_path: Path) -> None:
    def own(policy: object, out_dir: Path) -> None:
        raise AssertionError("it was called")

    with pytest.raises(SettingsError, match=r"processors is given, and .*own takes none; leave it out"):
        cached(own, torch.nn.Linear(2, 2), cache=tmp_path, processors=True)
