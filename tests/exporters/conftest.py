"""Live lerobot policies for the tests that need lerobot; where it is not installed these ask for nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """``golden("pi0")``: the live policy with the golden weights, made once; not to be changed."""
    pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
    from tiny_lerobot import golden_policy

    made: dict[str, Any] = {}
    work = tmp_path_factory.mktemp("golden")

    def policy(family: str) -> Any:
        if family not in made:
            made[family] = golden_policy(family, Path(work))
        return made[family]

    return policy
