"""pi0.5: its export computes what the policy computes.

Copy this file into your own repository. ``PI05_CHECKPOINT`` names the checkpoint, a directory or a hub
id (lerobot's); by default ``checkpoints/pi05``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import pytest_reflex as reflex
from exporters import pi05

# Each layout is an export of its own; take the ones that you ship: "unrolled", "loop", "stepwise".
LAYOUTS = ["unrolled"]


@pytest.fixture(scope="module")
def policy() -> Any:
    return pi05.load(os.environ.get("PI05_CHECKPOINT", "checkpoints/pi05"))


@reflex.parity(threshold=1e-5)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pi05(layout: Any, policy: Any, parity: Any, tmp_path: Path) -> None:
    parity.check(policy, pi05.export(policy, tmp_path / "pi05", layout=layout, verify=False))
