"""SAC's actor: its export computes what the policy computes.

Copy this file into your own repository. ``GAUSSIAN_ACTOR_CHECKPOINT`` names the checkpoint, a directory or a
hub id (lerobot's); by default ``checkpoints/gaussian_actor``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import pytest_reflex as reflex
from exporters import gaussian_actor


@pytest.fixture(scope="module")
def policy() -> Any:
    return gaussian_actor.load(os.environ.get("GAUSSIAN_ACTOR_CHECKPOINT", "checkpoints/gaussian_actor"))


@reflex.parity(threshold=1e-5)
def test_gaussian_actor(policy: Any, parity: Any, tmp_path: Path) -> None:
    parity.check(policy, gaussian_actor.export(policy, tmp_path / "b", verify=False))
