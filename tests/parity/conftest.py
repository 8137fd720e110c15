"""A tiny checkpoint for each file beside this one, which a user copies as it is."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_checkpoints import tiny_checkpoint

HERE = Path(__file__).parent


def family_of(path: Path) -> str:
    return path.stem.removeprefix("test_")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # pi0 is transformers' here, which needs no lerobot.
        if item.path.parent == HERE and family_of(item.path) != "pi0":
            item.add_marker(pytest.mark.lerobot)
            if find_spec("lerobot") is None:
                item.add_marker(pytest.mark.skip(reason="needs lerobot (Python 3.12 or later)"))


@pytest.fixture(scope="module", autouse=True)
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, traced_once: None
) -> Iterator[Path]:
    """A checkpoint of the module's family, as its upstream writes and loads it, named by the variable."""
    family = family_of(request.path)
    place = tmp_path_factory.mktemp("checkpoints") / family
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"{family.upper()}_CHECKPOINT", str(place))
        with tiny_checkpoint(family, place, tmp_path_factory.mktemp("work")):
            yield place
