"""SmolVLA: its export computes what the policy computes.

Copy this file into your own repository. ``SMOLVLA_CHECKPOINT`` names the checkpoint, a directory or a hub
id (lerobot's); by default ``checkpoints/smolvla``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import pytest_reflex as reflex
from exporters import smolvla

# Each layout is an export of its own; take the ones that you ship: "unrolled", "loop", "stepwise".
LAYOUTS = ["unrolled"]


@pytest.fixture(scope="module")
def policy() -> Any:
    return smolvla.load(os.environ.get("SMOLVLA_CHECKPOINT", "checkpoints/smolvla"))


@reflex.parity(threshold=1e-5)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_smolvla(layout: Any, policy: Any, parity: Any, tmp_path: Path) -> None:
    parity.check(policy, smolvla.export(policy, tmp_path / "smolvla", layout=layout, verify=False))
