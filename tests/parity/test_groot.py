"""GR00T: the export of its action head computes what the head computes.

Copy this file into your own repository. ``GROOT_CHECKPOINT`` names the checkpoint, a directory or a hub
id, of GR00T N1.7 or N1.6 or of a policy that lerobot fine-tuned from it; by default ``checkpoints/groot``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import pytest_reflex as reflex
from exporters import groot

# Each layout is an export of its own; take the ones that you ship: "stepwise", "unrolled", "loop".
LAYOUTS = ["stepwise"]
# Your robot's, to leave the weights of all others out; None makes it an input.
EMBODIMENT: int | None = None


@pytest.fixture(scope="module")
def policy() -> Any:
    return groot.load(os.environ.get("GROOT_CHECKPOINT", "checkpoints/groot"))


@reflex.parity(threshold=1e-5)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_groot(layout: Any, policy: Any, parity: Any, tmp_path: Path) -> None:
    made = groot.export(policy, tmp_path / "groot", layout=layout, embodiment=EMBODIMENT, verify=False)
    parity.check(policy, made)
