"""The multi-task diffusion transformer: its export computes what the policy computes.

Copy this file into your own repository. ``MULTI_TASK_DIT_CHECKPOINT`` names the checkpoint, a directory or a
hub id (lerobot's); by default ``checkpoints/multi_task_dit``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import pytest_reflex as reflex
from exporters import multi_task_dit

# Each layout is an export of its own; take the ones that you ship: "unrolled", "loop", "stepwise".
LAYOUTS = ["loop"]


@pytest.fixture(scope="module")
def policy() -> Any:
    return multi_task_dit.load(os.environ.get("MULTI_TASK_DIT_CHECKPOINT", "checkpoints/multi_task_dit"))


@reflex.parity(threshold=1e-5)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_multi_task_dit(layout: Any, policy: Any, parity: Any, tmp_path: Path) -> None:
    parity.check(
        policy, multi_task_dit.export(policy, tmp_path / "multi_task_dit", layout=layout, verify=False)
    )
