"""lerobot's own pipelines around its own tiny policies, with statistics of a recording of its own."""

from __future__ import annotations

import contextlib
import importlib
import json
from pathlib import Path
from typing import Any, Final
from unittest import mock

import tiny_features
import tiny_lerobot
import torch
import torchvision
from lerobot.configs import FeatureType, PolicyFeature
from torchvision.models.resnet import BasicBlock, ResNet

from exporters import Bundle
from exporters.bundle.registry import family_named

FAMILIES: Final = ("act", "diffusion", "smolvla", "pi05")
UNITS: Final = "deg, gripper.pos=%"
GOLDEN: Final = Path(__file__).parents[1] / "golden" / "episodes"
_OWN: Final[dict[str, dict[str, Any]]] = {
    "act": {"vision_backbone": "resnet10"},
    "diffusion": {"crop_shape": (28, 28), "vision_backbone": "resnet10"},
}


def _resnet10(*, weights: Any = None, **options: Any) -> ResNet:
    """torchvision's own, of half the blocks of the smallest that it gives a name: traced in half the time."""
    return ResNet(BasicBlock, [1, 1, 1, 1], **options)


# lerobot takes a backbone by its name there.
torchvision.models.resnet10 = _resnet10


def features(recording: Path) -> dict[str, dict[str, PolicyFeature]]:
    """What a policy that was trained on the recording reads and gives."""
    said = json.loads((recording / "meta/info.json").read_text())["features"]
    read: dict[str, PolicyFeature] = {}
    for key, feature in said.items():
        shape = tuple(feature["shape"])
        if feature["dtype"] == "video":
            read[key] = PolicyFeature(FeatureType.VISUAL, (shape[2], *shape[:2]))
        elif key == "observation.state":
            read[key] = PolicyFeature(FeatureType.STATE, shape)
    actions = PolicyFeature(FeatureType.ACTION, tuple(said["action"]["shape"]))
    return {"input_features": read, "output_features": {"action": actions}}


def statistics(recording: Path) -> dict[str, dict[str, torch.Tensor]]:
    said = json.loads((recording / "meta/stats.json").read_text())
    return {key: {name: torch.tensor(value) for name, value in one.items()} for key, one in said.items()}


def policy_of(family: str, work: Path, recording: Path = GOLDEN) -> Any:
    """A policy with seeded weights that reads what the recording has."""
    read = features(recording)
    if family in tiny_features.FAMILIES:
        return tiny_features.tiny_policy(family, **read, **_OWN.get(family, {}))
    policy = tiny_lerobot.tiny_policy(
        family, work, cameras=1, tokenizer_max_length=100, **tiny_lerobot.SHALLOW[family]
    )
    policy.config.input_features, policy.config.output_features = read.values()
    return policy


def pipelines_of(
    family: str, policy: Any, work: Path, recording: Path | None = GOLDEN, *, vocab: int = 90, **changes: Any
) -> tuple[Any, Any]:
    """The two pipelines as lerobot makes them; with a tokenizer that needs no network.

    Args:
        family: the family's name.
        policy: the policy.
        work: a directory for the tokenizer.
        recording: whose statistics they take; without one they are made up.
        vocab: how many tokens the tokenizer has at most.
        **changes: keywords of the tokenizer's step.
    """
    home = importlib.import_module(f"lerobot.policies.{family}.processor_{family}")
    with contextlib.ExitStack() as stack:
        if hasattr(home, "TokenizerProcessorStep"):
            tiny_lerobot.tiny_tokenizer(vocab).save_pretrained(work / "tokenizer")
            step = home.TokenizerProcessorStep

            def local(tokenizer_name: str, **options: Any) -> Any:
                return step(tokenizer_name=str(work / "tokenizer"), **{**options, **changes})

            stack.enter_context(mock.patch.object(home, "TokenizerProcessorStep", local))
        made: tuple[Any, Any] = getattr(home, f"make_{family}_pre_post_processors")(
            policy.config, made_up(policy) if recording is None else statistics(recording)
        )
    return made


def made_up(policy: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Statistics of every feature of a policy."""
    config, said = policy.config, {"mean": 0.4, "std": 0.3, "min": -1.0, "max": 2.0}
    shapes = {key: one.shape for key, one in {**config.input_features, **config.output_features}.items()}
    return {
        key: {name: torch.full((shape[0], *[1] * (len(shape) - 1)), value) for name, value in said.items()}
        for key, shape in shapes.items()
    }


def blind_act(std: float = 10.0) -> tuple[Any, Any, Any]:
    """ACT without a camera, which is traced in a second, and lerobot's two pipelines around it."""
    joints = 3
    state = {"observation.state": PolicyFeature(FeatureType.STATE, (joints,))}
    seen = {"observation.environment_state": PolicyFeature(FeatureType.ENV, (2,))}
    actions = {"action": PolicyFeature(FeatureType.ACTION, (joints,))}
    policy = tiny_features.tiny_policy("act", input_features={**state, **seen}, output_features=actions)
    told = {
        key: {
            "mean": torch.arange(feature.shape[0]) + 1.0,
            "std": torch.arange(feature.shape[0]) + std,
            "min": torch.full(feature.shape, -100.0),
            "max": torch.full(feature.shape, 100.0),
        }
        for key, feature in {**state, **seen, **actions}.items()
    }
    home = importlib.import_module("lerobot.policies.act.processor_act")
    return policy, *home.make_act_pre_post_processors(policy.config, told)


def exported(family: str, policy: Any, place: Path) -> Bundle:
    """Its bundle, unproven: what is put around it is what is looked at."""
    layout = {} if family == "act" else {"layout": "loop", "steps": 3}
    made: Bundle = family_named(family).export(policy, place, verify=False, **layout)
    return made
