"""TD-MPC's policy head: its export computes what the policy computes.

Copy this file into your own repository. ``TDMPC_CHECKPOINT`` names the checkpoint, a directory or a hub
id (lerobot's); by default ``checkpoints/tdmpc``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import pytest_reflex as reflex
from exporters import tdmpc


@pytest.fixture(scope="module")
def policy() -> Any:
    policy = tdmpc.load(os.environ.get("TDMPC_CHECKPOINT", "checkpoints/tdmpc"))
    # What it plans is no function of what it sees: its head alone is exported.
    policy.config.use_mpc = False
    return policy


@reflex.parity(threshold=1e-5)
def test_tdmpc(policy: Any, parity: Any, tmp_path: Path) -> None:
    parity.check(policy, tdmpc.export(policy, tmp_path / "tdmpc", verify=False))
