"""pi0: its export computes what the policy computes.

Copy this file into your own repository. ``PI0_CHECKPOINT`` names the checkpoint, a directory or a hub
id (lerobot's or transformers', as its config.json says); by default ``checkpoints/pi0``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import pytest_reflex as reflex
from exporters import pi0

# Each layout is an export of its own; take the ones that you ship: "unrolled", "loop", "stepwise".
LAYOUTS = ["unrolled"]


@pytest.fixture(scope="module")
def policy() -> Any:
    return pi0.load(os.environ.get("PI0_CHECKPOINT", "checkpoints/pi0"))


@reflex.parity(threshold=1e-5)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pi0(layout: Any, policy: Any, parity: Any, tmp_path: Path) -> None:
    parity.check(policy, pi0.export(policy, tmp_path / "pi0", layout=layout, verify=False))
