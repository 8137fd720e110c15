"""Recorded observations through lerobot's own preprocessing: judged as they are, without drawn inputs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from pytest_reflex import check
from pytest_reflex.errors import CheckpointError, InputError

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

import torch  # noqa: E402
from floors import ROUNDING, floors, rounding_of  # noqa: E402
from tiny_lerobot import FAMILIES, SHALLOW, tiny_policy, tiny_tokenizer  # noqa: E402

from exporters.families.lerobot import observation_inputs  # noqa: E402

Made = tuple[Any, Path]
PROMPT = 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """``made("pi0")``: a tiny policy of two cameras, and a directory with its preprocessing."""
    known: dict[str, Made] = {}

    def make(family: str) -> Made:
        if family not in known:
            work = tmp_path_factory.mktemp(family)
            policy = tiny_policy(family, work, cameras=2, tokenizer_max_length=PROMPT, **SHALLOW[family])
            known[family] = policy, preprocessing(family, policy, work)
        return known[family]

    return make


def preprocessing(family: str, policy: Any, work: Path) -> Path:
    """The pipeline that lerobot makes for the family, saved; with a tokenizer that needs no network."""
    tokenizer = work / "tokenizer"
    tiny_tokenizer().save_pretrained(tokenizer)
    home = importlib.import_module(f"lerobot.policies.{family}.processor_{family}")
    step = home.TokenizerProcessorStep

    def local(tokenizer_name: str, **options: Any) -> Any:
        return step(tokenizer_name=str(tokenizer), **options)

    def spread(size: int) -> dict[str, torch.Tensor]:
        mean, std = torch.linspace(-1, 1, size), torch.linspace(0.5, 2, size)
        return {"mean": mean, "std": std, "q01": mean - 2 * std, "q99": mean + 2 * std}

    stats = {"observation.state": spread(6), "action": spread(6)}
    with mock.patch.object(home, "TokenizerProcessorStep", local):
        before, _ = getattr(home, f"make_{family}_pre_post_processors")(policy.config, stats)
    before.save_pretrained(work / "checkpoint")
    return work / "checkpoint"


def observation(number: int, cameras: int = 2, task: str = "pick up the cube") -> dict[str, Any]:
    generator = torch.Generator().manual_seed(number)
    seen = {
        f"observation.images.camera_{index}": torch.rand(3, 24, 40, generator=generator)
        for index in range(cameras)
    }
    return {**seen, "observation.state": torch.randn(6, generator=generator), "task": task}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bundle_is_judged_with_recorded_observations(
    family: str, made: Callable[[str], Made], tmp_path: Path
) -> None:
    policy, directory = made(family)
    episode = [observation(0), observation(1, task="go"), observation(2)]
    recorded = [observation_inputs(policy, directory, seen, seed=i) for i, seen in enumerate(episode)]
    bundle = importlib.import_module(f"exporters.families.{family}").export(
        policy, tmp_path / "p", steps=3, layout="loop", verify=False
    )
    result = check(policy, bundle, inputs=recorded)
    assert result.passed, str(result)
    assert len(result.fixtures) == 3
    assert result.seed is None
    assert set(recorded[0]) == {spec.name for spec in bundle.inputs}


@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_what_the_policy_makes_of_the_observation(family: str, made: Callable[[str], Made]) -> None:
    """Recorded inputs give the actions that the policy's own ``predict_action_chunk`` gives."""
    from lerobot.processor import PolicyProcessorPipeline

    policy, directory = made(family)
    inputs = observation_inputs(policy, directory, observation(5))
    pipeline = PolicyProcessorPipeline.from_pretrained(
        str(directory), config_filename="policy_preprocessor.json"
    )
    batch = pipeline(observation(5))
    noise = torch.from_numpy(inputs["noise"])
    policy.reset()
    expected = policy.predict_action_chunk(batch, noise=noise)
    with importlib.import_module(f"exporters.families.{family}").reference(policy) as runner:
        actions, truth = (f(inputs)["actions"] for f in (runner.run, runner.exact))
        specs = importlib.import_module(f"exporters.families.{family}").inputs(policy)
        more = rounding_of(runner, specs)
    # lerobot pads SmolVLA's prompt to the longest of a batch, a bundle's to its full length.
    six = slice(None), slice(None), slice(6)
    assert floors([expected.numpy()], [actions[six]], [truth[six]], more) < ROUNDING


@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_a_camera_that_is_missing_is_masked(family: str, made: Callable[[str], Made]) -> None:
    policy, directory = made(family)
    inputs = observation_inputs(policy, directory, observation(0, cameras=1))
    assert (inputs["image_1"] == -1).all()
    assert [bool(inputs["image_mask_0"].all()), bool(inputs["image_mask_1"].any())] == [True, False]


def test_the_prompt_is_padded_to_the_length_of_the_inputs(made: Callable[[str], Made]) -> None:
    policy, directory = made("smolvla")
    inputs = observation_inputs(policy, directory, observation(0, task="go"))
    assert inputs["lang_tokens"].shape == inputs["lang_masks"].shape == (1, PROMPT)
    assert int(inputs["lang_masks"].sum()) == 3  # and a newline
    with pytest.raises(InputError, match="the prompt has 17 tokens, the policy's inputs have 8"):
        observation_inputs(policy, directory, observation(0), prompt_tokens=8)


def test_what_does_not_fit_is_named(made: Callable[[str], Made], tmp_path: Path) -> None:
    policy, directory = made("pi0")
    with pytest.raises(InputError, match=r"observation \(.*\) does not fit: All image features are missing"):
        observation_inputs(policy, directory, observation(0, cameras=0))
    with pytest.raises(InputError, match=r"noise is \[3\], expected \[1, 6, 8\]"):
        observation_inputs(policy, directory, observation(0), noise=np.zeros(3))
    with pytest.raises(CheckpointError, match=r"no policy_preprocessor\.json in"):
        observation_inputs(policy, tmp_path, observation(0))
