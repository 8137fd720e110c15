"""The cache's key of lerobot's live policies."""

from __future__ import annotations

from pathlib import Path

import pytest
from cached_cases import in_two_processes

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

FAMILIES = """
import sys; sys.path[:0] = ["tests/support"]
from pathlib import Path
import exporters, tiny_groot, tiny_lerobot
from exporters.caching import cached as once
for family in tiny_lerobot.FAMILIES:
    policy = tiny_lerobot.golden_policy(family, Path(sys.argv[1]))
    print("key", once._key(getattr(exporters, family).export, policy, {"layout": "loop"}))
print("key", once._key(exporters.groot.export, exporters.groot.load(tiny_groot.GOLDEN), {}))
"""


def test_live_policies_have_the_same_key_in_every_process(tmp_path: Path, python: list[str]) -> None:
    keys = [
        [line for line in said.splitlines() if line.startswith("key ")]
        for said in in_two_processes(python, FAMILIES, tmp_path)
    ]
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 4
