"""Where lerobot is not installed its families can be imported, and say what is missing when it is needed."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from exporters import family_of
from pytest_reflex.errors import ReflexError

pytestmark = pytest.mark.usefixtures("without_lerobot")


@pytest.fixture
def without_lerobot(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(package: str) -> str:
        if package == "lerobot":
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr("exporters.families.lerobot.version", installed)


@pytest.mark.parametrize("family", ["pi0", "pi05", "smolvla"])
def test_a_checkpoint_of_lerobots_says_what_to_install(family: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"type": family}))
    assert family_of(tmp_path) == family
    with pytest.raises(
        ReflexError, match=r"lerobot is not installed, .* pip install 'pytest-reflex\[lerobot\]' \("
    ):
        import_module(f"exporters.families.{family}").load(tmp_path)


@pytest.mark.parametrize("release", ["Gr00tN1d6", "Gr00tN1d7"])
def test_a_checkpoint_of_groot_says_what_to_install(release: str, tmp_path: Path) -> None:
    """Whose weights and configuration are in order: what is amiss is the machine."""
    import torch
    from tiny_groot import config, weights, write_checkpoint

    from exporters import groot

    place = write_checkpoint(tmp_path / "g", config(model_type=release), weights())
    assert family_of(place) == "groot"
    with pytest.raises(ReflexError, match="lerobot is not installed"):
        groot.load(place)
    with pytest.raises(ReflexError, match="Linear was given as groot, and it has no get_action"):
        groot.reference(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("family", ["pi05", "smolvla"])
def test_what_is_no_policy_is_refused_with_what_it_lacks(family: str) -> None:
    import torch

    with pytest.raises(ReflexError, match=rf"Linear was given as {family}, and .* has no sample_actions"):
        import_module(f"exporters.families.{family}").reference(torch.nn.Linear(2, 2))
