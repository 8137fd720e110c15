"""ACT: its export computes what the policy computes.

Copy this file into your own repository. ``ACT_CHECKPOINT`` names the checkpoint, a directory or a hub
id (lerobot's); by default ``checkpoints/act``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import pytest_reflex as reflex
from exporters import act


@pytest.fixture(scope="module")
def policy() -> Any:
    return act.load(os.environ.get("ACT_CHECKPOINT", "checkpoints/act"))


@reflex.parity(threshold=1e-5)
def test_act(policy: Any, parity: Any, tmp_path: Path) -> None:
    parity.check(policy, act.export(policy, tmp_path / "act", verify=False))
