"""What several files of tests share: a tiny checkpoint, a bundle exported from it, and the command itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_cases import Exported, Ran, Reflex

ROOT = Path(__file__).resolve().parent.parent
# Small on purpose: what is tested here is the command, not the arithmetic.
SMALL = ["--cameras", "2", "--prompt-tokens", "8", "--fixtures", "3"]


@pytest.fixture(autouse=True)
def _at_a_desk(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest and rich print other text where these are set, and the tests pin what a person sees."""
    for name in (
        "CI",
        "BUILD_NUMBER",
        "NO_COLOR",
        "FORCE_COLOR",
        "PY_COLORS",
        "PYTEST_ADDOPTS",
        "GITHUB_ACTIONS",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def reflex() -> Reflex:
    """The real command in a process of its own: ``reflex("export", ..., cwd=..., env={...})``."""

    def run(*arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Ran:
        around = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "COLUMNS": "80", **(env or {})}
        done = subprocess.run(
            [sys.executable, "-m", "pytest_reflex", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, **around},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pi0 policy as ``save_pretrained`` writes it; not to be changed."""
    from examples.tiny_pi0 import tiny_pi0

    place = tmp_path_factory.mktemp("checkpoint") / "pi0"
    tiny_pi0(depth=(1, 1, 1), steps=2, chunk=4).save_pretrained(place)
    return place


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, reflex: Reflex) -> Exported:
    place = tmp_path_factory.mktemp("bundle") / "p0"
    return Exported(place, reflex("export", checkpoint, place, *SMALL, "--output-json"))


@pytest.fixture(scope="session")
def bundle(exported: Exported) -> Path:
    """A good bundle of :func:`checkpoint`; not to be changed."""
    if exported.ran.code != 0:
        pytest.fail(f"the export that these tests start from failed:\n{exported.ran.err}")
    return exported.path


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, named ``p0``, to be damaged."""
    return Path(shutil.copytree(bundle, tmp_path / "p0"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``small(layout="loop", seed=1)``: a bundle of serve_cases, made once; not to be changed."""
    from serve_cases import made

    kept: dict[tuple[str, int], Path] = {}
    work = tmp_path_factory.mktemp("small")

    def bundle(layout: str = "unrolled", seed: int = 0) -> Path:
        if (layout, seed) not in kept:
            kept[layout, seed] = made(work / f"{layout}{seed}", layout=layout, seed=seed)
        return kept[layout, seed]

    return bundle
