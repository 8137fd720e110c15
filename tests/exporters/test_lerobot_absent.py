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

    monkeypatch.setattr("exporters.lerobot.version", installed)


@pytest.mark.parametrize("family", ["pi0", "pi05", "smolvla"])
def test_a_checkpoint_of_lerobots_says_what_to_install(family: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"type": family}))
    assert family_of(tmp_path) == family
    with pytest.raises(
        ReflexError, match=r"lerobot is not installed, .* install 'lerobot\[smolvla,pi\]==0\.6\.\*'"
    ):
        import_module(f"exporters.{family}").load(tmp_path)


@pytest.mark.parametrize("family", ["pi05", "smolvla"])
def test_what_is_no_policy_is_refused_with_what_it_lacks(family: str) -> None:
    import torch

    with pytest.raises(ReflexError, match=rf"Linear was given as {family}, and .* has no sample_actions"):
        import_module(f"exporters.{family}").reference(torch.nn.Linear(2, 2))
