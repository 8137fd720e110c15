"""VQ-BeT: its export computes what the policy computes.

Copy this file into your own repository. ``VQBET_CHECKPOINT`` names the checkpoint, a directory or a hub
id (lerobot's); by default ``checkpoints/vqbet``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import pytest_reflex as reflex
from exporters import vqbet


@pytest.fixture(scope="module")
def policy() -> Any:
    return vqbet.load(os.environ.get("VQBET_CHECKPOINT", "checkpoints/vqbet"))


@reflex.parity(threshold=1e-5)
def test_vqbet(policy: Any, parity: Any, tmp_path: Path) -> None:
    parity.check(policy, vqbet.export(policy, tmp_path / "vqbet", verify=False))
