"""GR00T whole: patches, tokens and state in, actions out, against lerobot's own backbone and action head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pytest_reflex import check
from pytest_reflex.errors import InputError, ReflexError
from pytest_reflex.inputs import make_fixture

pytest.importorskip("lerobot", reason="GR00T's action head needs lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

from floors import require_rounding  # noqa: E402
from tiny_groot import GOLDEN, whole_policy  # noqa: E402

from exporters import groot, open_bundle  # noqa: E402
from exporters.families.groot_backbone import Grid, GrootBackbone  # noqa: E402

IMAGES = 2


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    made: dict[str, Any] = {}
    work = tmp_path_factory.mktemp("whole")

    def live(kind: str) -> Any:
        if kind not in made:
            made[kind] = whole_policy(Path(work), n16=kind != "N1.7")
        return made[kind]

    return live


@pytest.mark.parametrize(("kind", "layout"), [("N1.7", "stepwise"), ("no self-attention", "loop")])
def test_from_patches_and_tokens_to_actions(
    kind: str, layout: Any, live: Callable[[str], Any], tmp_path: Path
) -> None:
    made = groot.export(
        live(kind), tmp_path / "p", images=IMAGES, layout=layout, fixtures=5, strict=True, floor=True
    )
    require_rounding(made.result)
    names = ["pixel_values", "attention_mask", "input_ids", "state", "embodiment_id", "noise"]
    assert made.result.candidate["live_inputs"] == names
    assert (made.manifest["call"]["images"], made.manifest["options"]["images"]) == (IMAGES, IMAGES)
    # The backbone is a graph of its own: tokens in, features out.
    bundle = open_bundle(made.path)
    assert next(iter(bundle.stated.graphs)) == "backbone"
    with bundle.runner() as runner:
        backbone = runner.sessions["backbone"]
        assert sorted(backbone.inputs) == sorted(names[:3])
        assert list(backbone.outputs) == ["backbone_features", "backbone_attention_mask", "image_mask"]


def test_the_backbone_gives_lerobot_s_features(live: Callable[[str], Any]) -> None:
    """Its own forward, whole, with every mask and position that it makes of a prompt."""
    model = live("N1.7")
    grid = Grid(model, IMAGES)
    mine = GrootBackbone(model.backbone, grid)
    specs = groot.inputs(model, images=IMAGES, batch=2)
    for number in range(6):
        given = {n: torch.from_numpy(a.copy()) for n, a in make_fixture(specs, 1, number).items()}
        told = {name: given[name] for name in ("input_ids", "attention_mask", "pixel_values")}
        with torch.no_grad():
            own = model.backbone({**told, "image_grid_thw": grid.rows(2 * IMAGES)})
            got = mine(**told)
            seen = own["backbone_attention_mask"]
            positions = model.backbone.model.model.compute_3d_position_ids(
                input_ids=told["input_ids"], image_grid_thw=grid.rows(2 * IMAGES), inputs_embeds=None,
                attention_mask=told["attention_mask"],
                mm_token_type_ids=(told["input_ids"] == 70).int(),
            )  # fmt: skip
            assert torch.equal(mine.positions(own["image_mask"], seen), positions)
        for name in ("backbone_attention_mask", "image_mask"):
            assert torch.equal(got[name], own[name]), name
        assert torch.equal(got["backbone_features"], own["backbone_features"])


def test_a_fault_in_the_backbone_is_found_in_it(live: Callable[[str], Any], tmp_path: Path) -> None:
    made = groot.export(live("N1.7"), tmp_path / "p", images=IMAGES, verify=False)
    other = whole_policy(tmp_path, seed=0)
    with torch.no_grad():
        other.backbone.language_model.layers[2].mlp.down_proj.weight.mul_(1.01)
    result = check(other, made)
    assert not result.passed
    found = made.locate(other)
    assert "language_model.layers.2.mlp" in str(found.place), found


def test_the_head_alone_stays(live: Callable[[str], Any]) -> None:
    read = [spec.name for spec in groot.inputs(live("N1.7"), tokens=12)]
    assert read[0] == "backbone_features"
    assert "pixel_values" not in read
    assert groot.flow(live("N1.7")).features == ()


def test_what_has_no_room_or_no_backbone_is_said(live: Callable[[str], Any]) -> None:
    with pytest.raises(
        ReflexError, match="GR00TN17ActionHead has no vision-language backbone; give lerobot's"
    ):
        groot.inputs(groot.load(GOLDEN), images=1)
    with pytest.raises(InputError, match=r"shape is \[1, 10\]; give \[batch, length\] with a length of 11"):
        groot.inputs(live("N1.7"), images=2, tokens=10)
    with pytest.raises(InputError, match="images is 0, expected a whole number of at least 1"):
        groot.inputs(live("N1.7"), images=0)


def test_prompts_have_their_images_in_runs(live: Callable[[str], Any]) -> None:
    specs = groot.inputs(live("N1.7"), images=IMAGES, batch=3)
    tokens = Grid(live("N1.7"), IMAGES).tokens
    for number in range(8):
        drawn = make_fixture(specs, 0, number)
        for ids, seen in zip(drawn["input_ids"], drawn["attention_mask"], strict=True):
            assert (np.diff(seen) >= 0).all()
            image = ids == 70
            assert image.sum() == IMAGES * tokens
            starts = np.flatnonzero(np.diff(np.concatenate([[0], image.astype(int)])) == 1)
            assert len(starts) == IMAGES
            assert all(image[at : at + tokens].all() for at in starts)
            assert not image[~seen.astype(bool)].any()
            assert (ids[~image & seen.astype(bool)] < 70).all()
