"""X-VLA: its export computes what the policy computes.

Copy this file into your own repository. ``XVLA_CHECKPOINT`` names the checkpoint, a directory or a hub
id (lerobot's); by default ``checkpoints/xvla``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import pytest_reflex as reflex
from exporters import xvla

# Each layout is an export of its own; take the ones that you ship: "unrolled", "loop", "stepwise".
LAYOUTS = ["unrolled"]
# Your robot's; None makes it an input, and each of them wants a fixture.
DOMAIN: int | None = None


@pytest.fixture(scope="module")
def policy() -> Any:
    return xvla.load(os.environ.get("XVLA_CHECKPOINT", "checkpoints/xvla"))


@reflex.parity(threshold=1e-5)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_xvla(layout: Any, policy: Any, parity: Any, tmp_path: Path) -> None:
    made = xvla.export(policy, tmp_path / "xvla", layout=layout, domain=DOMAIN, verify=False)
    parity.check(policy, made)
