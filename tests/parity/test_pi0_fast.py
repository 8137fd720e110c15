"""pi0-FAST: its export says the tokens that the policy says.

Copy this file into your own repository. ``PI0_FAST_CHECKPOINT`` names the checkpoint, a directory or a hub
id (lerobot's); by default ``checkpoints/pi0_fast``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import pytest_reflex as reflex
from exporters import pi0_fast


@pytest.fixture(scope="module")
def policy() -> Any:
    return pi0_fast.load(os.environ.get("PI0_FAST_CHECKPOINT", "checkpoints/pi0_fast"))


@reflex.parity(threshold=1e-5)
def test_pi0_fast(policy: Any, parity: Any, tmp_path: Path) -> None:
    parity.check(policy, pi0_fast.export(policy, tmp_path / "pi0_fast", verify=False))
