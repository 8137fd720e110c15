"""A tiny checkpoint for each file beside this one, which a user copies as it is."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FEATURES = ("act", "diffusion", "gaussian_actor", "multi_task_dit", "tdmpc", "vqbet", "xvla")
VARIABLES = {
    **{family: f"{family.upper()}_CHECKPOINT" for family in FEATURES},
    "groot": "GROOT_CHECKPOINT",
    "pi0": "PI0_CHECKPOINT",
    "pi05": "PI05_CHECKPOINT",
    "pi0_fast": "PI0_FAST_CHECKPOINT",
    "smolvla": "SMOLVLA_CHECKPOINT",
}


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
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint of the module's family, as its upstream writes and loads it, named by the variable."""
    family = family_of(request.path)
    place = tmp_path_factory.mktemp("checkpoints") / family
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLES[family], str(place))
        if family == "pi0":
            from examples.tiny_pi0 import tiny_pi0

            tiny_pi0().save_pretrained(place)
            yield place
            return
        if family == "groot":
            from tiny_groot import config, weights, write_checkpoint

            yield write_checkpoint(place, config(), weights())
            return
        if family in FEATURES:
            from tiny_features import save_checkpoint as save_features

            yield save_features(family, place)
            return
        if family == "pi0_fast":
            from tiny_pi0_fast import save_checkpoint as save_pi0_fast
            from tiny_pi0_fast import small_parts

            save_pi0_fast(place)
            with small_parts():
                yield place
            return
        from tiny_lerobot import SHALLOW, save_checkpoint, small_sizes

        save_checkpoint(family, place, tmp_path_factory.mktemp("work"), **SHALLOW[family])
        # lerobot writes pi0.5's sizes into its code; while these tests run, small ones stand there.
        with small_sizes(family):
            yield place
