"""Live lerobot policies for the tests that need lerobot; where it is not installed these ask for nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module", autouse=True)
def _traced_once(request: pytest.FixtureRequest) -> None:
    """The tests of this room export the same few policies in many ways, and trace each of them once.

    But for those of the cache, which change what an export calls and count how often it is called.
    """
    if request.path.parent.name != "caching":
        request.getfixturevalue("traced_once")


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """``golden("pi0")``: the live policy with the golden weights, made once; not to be changed.

    It has run: what lerobot sets at a first run, such as how attention is computed, is set before any trace.
    """
    pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
    import importlib

    from tiny_lerobot import golden_policy

    from pytest_reflex.inputs import make_fixture

    made: dict[str, Any] = {}
    work = tmp_path_factory.mktemp("golden")

    def golden(family: str) -> Any:
        if family not in made:
            policy = golden_policy(family, Path(work))
            module = importlib.import_module(f"exporters.families.{family}")
            with module.reference(policy, steps=1) as runner:
                runner.run(make_fixture(module.inputs(policy, cameras=1, prompt_tokens=4), 0, 0))
            made[family] = policy
        return made[family]

    return golden
