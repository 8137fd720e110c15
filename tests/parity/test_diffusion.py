"""Diffusion Policy: its export computes what the policy computes.

Copy this file into your own repository. ``DIFFUSION_CHECKPOINT`` names the checkpoint, a directory or a hub
id (lerobot's); by default ``checkpoints/diffusion``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import pytest_reflex as reflex
from exporters import diffusion

# Each layout is an export of its own; take the ones that you ship: "unrolled", "loop", "stepwise".
LAYOUTS = ["loop"]


@pytest.fixture(scope="module")
def policy() -> Any:
    return diffusion.load(os.environ.get("DIFFUSION_CHECKPOINT", "checkpoints/diffusion"))


@reflex.parity(threshold=1e-5)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_diffusion(layout: Any, policy: Any, parity: Any, tmp_path: Path) -> None:
    parity.check(policy, diffusion.export(policy, tmp_path / "diffusion", layout=layout, verify=False))
