"""lerobot's own pre- and postprocessing of a policy, traced into a bundle's two graphs.

What is traced is lerobot's code: the steps of the checkpoint's pipelines with their own statistics, and the
policy's own resizing and padding. Only what handles text stays outside, for which ONNX has no operator.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from exporters import checkpoints
from exporters.bundle.processors import POSTPROCESS, PREPROCESS, SPOKEN, TASK, Processors
from exporters.families.lerobot_features import FeatureFamily
from exporters.families.lerobot_prompt import KINDS, prompt_of, require_prompt, tokenizer_text
from exporters.families.lerobot_statistics import ranges, require_statistics
from exporters.families.pipeline_files import require_known_steps
from pytest_reflex.errors import CheckpointError, InputError, ReflexError, a_type
from pytest_reflex.inputs import InputSpec, Integers, Joints, State, Text
from pytest_reflex.inputs.episodes import Episodes
from pytest_reflex.runners.float64 import lifted

Array = np.ndarray[Any, Any]
Named = Mapping[str, torch.Tensor]

_STATE: Final = "observation.state"
_DEVICE: Final = "device_processor"
_TOKENS, _MASKS = "observation.language.tokens", "observation.language.attention_mask"
# The steps that handle text, and where a pipeline puts its tensors; neither is traced.
_LEFT_OUT: Final = {*KINDS, "DeviceProcessorStep"}
# The steps that only rename, add an axis, or compute element by element: what a trace carries whole.
_TRACED: Final = {
    "RenameObservationsProcessorStep",
    "AddBatchDimensionProcessorStep",
    "NormalizerProcessorStep",
    "UnnormalizerProcessorStep",
    "RelativeActionsProcessorStep",
    "AbsoluteActionsProcessorStep",
}
# Those that stand behind a policy, and nowhere else.
_BEHIND: Final = {"UnnormalizerProcessorStep", "AbsoluteActionsProcessorStep"}


@dataclass(frozen=True)
class Pipelines:
    """A policy with what lerobot runs before and after it.

    Attributes:
        family: how the policy is called.
        policy: the live policy.
        before: lerobot's pipeline from a raw observation to the policy's batch.
        after: lerobot's pipeline from the policy's actions to the robot's.

    """

    family: Any
    policy: Any
    before: Any
    after: Any

    @property
    def renamed(self) -> dict[str, str]:
        maps = [step.rename_map for step in self.before.steps if hasattr(step, "rename_map")]
        return {new: old for one in maps for old, new in one.items()}

    @property
    def features(self) -> dict[str, tuple[int, ...]]:
        """What a robot gives, by name, in the policy's order: of cameras channels, height, width."""
        config = self.policy.config
        known = [
            *config.image_features,
            *(k for k in config.input_features if k not in config.image_features),
        ]
        return {self.renamed.get(key, key): tuple(config.input_features[key].shape) for key in known}

    @property
    def dim(self) -> int:
        """How many elements an action of the robot has."""
        return int(self.policy.config.output_features["action"].shape[0])

    @property
    def text(self) -> Any:
        """The step that makes tokens, or None."""
        return next(iter(tokenizing(self.before)), None)

    def raw(self) -> list[InputSpec]:
        """What a robot gives: cameras uint8 [height, width, 3], numbers float32 [dim], the task as bytes."""
        specs, known = [], {self.renamed.get(k, k): ends for k, ends in ranges(self.before.steps).items()}
        for name, shape in self.features.items():
            if len(shape) == 3:
                specs.append(InputSpec(name, (*shape[1:], shape[0]), "uint8", Integers(0, 256)))
            else:
                joints = Joints(*known[name]) if name in known else State()
                specs.append(InputSpec(name, shape, "float32", joints))
        return [*specs, *([InputSpec(TASK, (16,), "uint8", Text(), ("bytes",))] if self.text else [])]

    @property
    def named_state(self) -> str:
        """What a robot calls its joints."""
        return self.renamed.get(_STATE, _STATE)

    def remember(self, raw: Mapping[str, Array]) -> None:
        """Tell the pipelines the joints, which relative actions are counted from."""
        steps = [step for step in self.before.steps if type(step).__name__ in _TRACED]
        batch = {name: torch.from_numpy(np.array(array)) for name, array in raw.items()}
        with torch.no_grad():
            _again(self.before, steps)(prepared(batch))

    def observed(self, raw: Mapping[str, Array]) -> dict[str, Any]:
        """A raw observation through lerobot's own pipeline: the batch that its policy is given."""
        batch: dict[str, Any] = {
            name: torch.from_numpy(np.array(a)) for name, a in raw.items() if name != TASK
        }
        batch = prepared(batch)
        if TASK in raw:
            batch[TASK] = bytes(raw[TASK]).decode()
        with torch.no_grad():
            return dict(self.before(batch))

    def named(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The policy's inputs but its noise, of a batch, by the names that bundles give them."""
        family, policy = self.family, self.policy
        if isinstance(family, FeatureFamily):
            seen = {name: batch[key] for name, key in family.keys(policy).items()}
            count = int(policy.config.n_obs_steps)
            return {n: torch.stack([v] * count, 1) for n, v in seen.items()} if family.queued else seen
        if hasattr(policy, "_prepare_batch"):
            batch = policy._prepare_batch(dict(batch))
        prepare = getattr(policy, "prepare_images", None) or policy._preprocess_images
        images, present = prepare(batch)
        found = {f"image_{i}": image for i, image in enumerate(images)}
        found |= {f"image_mask_{i}": mask for i, mask in enumerate(present)}
        if family.state:
            found["state"] = policy.prepare_state(batch)
        return found

    def inputs(self, batch: Mapping[str, Any], length: int) -> dict[str, torch.Tensor]:
        """:meth:`named` with the prompt as the policy reads it, its tokens and their mask."""
        found = self.named(batch)
        if self.text is None:
            return found
        tokens, masks = batch[_TOKENS], batch[_MASKS].bool()
        if tokens.shape[1] > length:
            raise InputError(f"the prompt has {tokens.shape[1]} tokens, the policy reads {length}")
        rest = (0, length - tokens.shape[1])
        pad = torch.nn.functional.pad
        return {**found, "lang_tokens": pad(tokens, rest), "lang_masks": pad(masks, rest)}

    def episodes(self, seen: Episodes, specs: Sequence[InputSpec]) -> Episodes:
        """The frames of a recording as the policy reads them."""
        length = next((spec.shape[1] for spec in specs if spec.name == "lang_tokens"), 0)
        raw = {spec.name for spec in self.raw()}

        def through(frame: Mapping[str, Any]) -> dict[str, Array]:
            words = {
                n: np.frombuffer(v.encode(), np.uint8) if isinstance(v, str) else v for n, v in frame.items()
            }
            found = self.inputs(self.observed({n: v for n, v in words.items() if n in raw}), length)
            return {name: np.ascontiguousarray(value.numpy()) for name, value in found.items()}

        return replace(seen, through=through)

    def answered(self, actions: torch.Tensor) -> torch.Tensor:
        """Actions [batch, chunk, dim] through lerobot's own pipeline, in the robot's units."""
        with torch.no_grad():
            found: torch.Tensor = self.after(actions[..., : self.dim])
        return found


def prepared(batch: dict[str, Any]) -> dict[str, Any]:
    """As lerobot's ``prepare_observation_for_inference`` has it: a batch of one, cameras in [0, 1]."""
    found = {}
    for name, value in batch.items():
        if value.dtype == torch.uint8 and value.ndim == 3:
            value = (value.type(torch.float32) / 255).permute(2, 0, 1).contiguous()
        found[name] = value.unsqueeze(0)
    return found


def pipelines(family: Any, policy: Any, source: str | os.PathLike[str] | tuple[Any, Any]) -> Pipelines:
    """A policy with the pipelines of its checkpoint, or with these two.

    Args:
        family: the policy's family.
        policy: a live policy of lerobot's.
        source: the checkpoint's directory, or ``(preprocessor, postprocessor)`` as lerobot makes them.

    Raises:
        CheckpointError: the directory holds no such pipelines, or they cannot be made.
        ReflexError: a step is none that can be put into a bundle.
    """
    if not isinstance(family, FeatureFamily) and not any(
        hasattr(policy, name) for name in ("prepare_images", "_preprocess_images")
    ):
        raise ReflexError(
            f"{family.name} has images of its own making, so what is before it cannot be put in"
        )
    if not isinstance(policy, nn.Module) or not hasattr(policy, "config"):
        raise ReflexError(
            f"{_briefly(policy)} was given as {family.name}, around which lerobot's pipelines stand; give "
            f"the live policy, lerobot's {family.policy}"
        )
    before, after = _both(source)
    for step in (*before.steps, *after.steps):
        name = type(step).__name__
        if name not in _TRACED and name not in _LEFT_OUT:
            raise ReflexError(
                f"the step {name} cannot be put into a bundle; these can: "
                f"{', '.join(sorted(_TRACED | _LEFT_OUT))}"
            )
    if any(type(s).__name__ in _BEHIND for s in before.steps) or any(
        type(s).__name__ not in (*_BEHIND, "DeviceProcessorStep") for s in after.steps
    ):
        raise CheckpointError(
            "the preprocessor and the postprocessor are turned round, or have each other's steps: "
            f"{', '.join(type(s).__name__ for s in before.steps)} before the policy and "
            f"{', '.join(type(s).__name__ for s in after.steps)} behind; give (preprocessor, postprocessor)"
        )
    require_statistics((*before.steps, *after.steps))
    require_prompt(tokenizing(before))
    return Pipelines(family, policy, before, after)


def tokenizing(before: Any) -> list[Any]:
    """The steps of a pipeline that make tokens."""
    return [step for step in before.steps if type(step).__name__ == "TokenizerProcessorStep"]


def _both(source: object) -> tuple[Any, Any]:
    """The two pipelines of a source.

    Raises:
        CheckpointError: it is none, or they cannot be made.
    """
    if isinstance(source, (str, os.PathLike)):
        return _loaded(Path(source))
    if isinstance(source, tuple) and len(source) == 2 and all(hasattr(one, "steps") for one in source):
        return source
    raise CheckpointError(
        f"the processors are {_briefly(source)}, expected a checkpoint's directory or lerobot's two "
        "pipelines, (preprocessor, postprocessor)"
    )


def _briefly(value: object) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {', '.join(type(one).__name__ for one in value) or 'nothing'}"
    return a_type(value)


def _loaded(directory: Path) -> tuple[Any, Any]:
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.factory import make_pre_post_processors

    # The weights are here too; lerobot refuses what is to be changed in a step that is not there.
    here = [{n: {"device": "cpu"} for n in steps & {_DEVICE}} for steps in require_known_steps(directory)]
    try:
        before, after = make_pre_post_processors(
            PreTrainedConfig.from_pretrained(str(directory)),
            pretrained_path=str(directory),
            preprocessor_overrides=here[0],
            postprocessor_overrides=here[1],
        )
    except Exception as error:
        raise CheckpointError(
            f"the processors of {directory} cannot be made: {checkpoints.said(error)}"
        ) from error
    return before, after


class _Traced(nn.Module):
    """What is called in a trace; the policy's weights are none of its own."""

    def __init__(self, call: Callable[..., Named]) -> None:
        super().__init__()
        self._call = call

    def forward(self, **named: torch.Tensor) -> Named:
        return self._call(**named)


def graphs_of(
    whole: Pipelines, actions: tuple[int, ...]
) -> dict[str, tuple[nn.Module, dict[str, torch.Tensor]]]:
    """What is traced for each of the two graphs, and what with.

    Args:
        whole: the policy with its pipelines.
        actions: the shape of the policy's output.
    """
    example = {
        spec.name: torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype))
        for spec in whole.raw()
        if spec.name != TASK
    }
    steps = [step for step in whole.before.steps if type(step).__name__ not in _LEFT_OUT]
    spoken = "state" in {KINDS.get(type(step).__name__) for step in whole.before.steps}

    def before(**raw: torch.Tensor) -> Named:
        batch = dict(_again(whole.before, steps)(prepared(raw)))
        found = whole.named(batch)
        return {**found, SPOKEN: batch[_STATE]} if spoken else found

    after_steps = [step for step in whole.after.steps if type(step).__name__ not in _LEFT_OUT]
    relative = any(getattr(step, "enabled", False) for step in after_steps)
    dim = whole.policy.config.output_features["action"].shape[0]

    def after(actions: torch.Tensor, **raw: torch.Tensor) -> Named:
        if relative:  # it is told the state by the step before
            _again(whole.before, steps)(prepared(raw))
        return {"action": _again(whole.after, after_steps)(actions[..., :dim])}

    blank = torch.zeros(actions)
    state = {n: v for n, v in example.items() if n == whole.named_state} if relative else {}
    return {
        PREPROCESS: (_Traced(before), example),
        POSTPROCESS: (_Traced(after), {"actions": blank, **state}),
    }


def _again(pipeline: Any, steps: Sequence[Any]) -> Any:
    return type(pipeline)(
        steps=list(steps), to_transition=pipeline.to_transition, to_output=pipeline.to_output
    )


def said_of(whole: Pipelines, specs: Sequence[InputSpec], actions: str) -> Processors:
    """What a manifest says of the processors, for a bundle that reads ``specs``."""
    read = [spec.name for spec in specs if not spec.name.endswith("noise")]
    queued = isinstance(whole.family, FeatureFamily) and whole.family.queued
    history = int(whole.policy.config.n_obs_steps) if queued else 0
    step, prompt = whole.text, None
    if step is not None:
        kinds = [KINDS[type(s).__name__] for s in whole.before.steps if type(s).__name__ in KINDS]
        length = next(spec.shape[1] for spec in specs if spec.name == "lang_tokens")
        prompt = prompt_of(step, kinds[0], length)
    return Processors(whole.raw(), read, {}, prompt, history, actions)


def scale_of(whole: Pipelines, actions: tuple[int, ...]) -> tuple[float, ...]:
    """How much of the robot's unit one of the policy's own is, by element of an action.

    Asked of lerobot's pipeline in float64; nothing where it is no factor and shift, the same in every step.

    Args:
        whole: the policy with its pipelines.
        actions: the shape of the policy's output.
    """
    still = {
        spec.name: np.zeros(spec.shape, spec.dtype) for spec in whole.raw() if spec.name == whole.named_state
    }
    with lifted():
        if still:
            whole.remember(still)
        low, middle, high = (whole.answered(torch.full(actions, x)).double().numpy() for x in (0.0, 1.0, 2.0))
    found, twice = middle - low, high - low
    found, twice = (one.reshape(-1, one.shape[-1]) for one in (found, twice))  # an actor's have no chunk
    same = np.allclose(twice, 2 * found) and np.allclose(found, found[:1])
    return tuple(float(factor) for factor in found[0]) if same else ()


def content_of(whole: Pipelines) -> list[Any]:
    """What the two pipelines are: class, configuration and state of each step, and the tokenizer."""
    steps = [
        [type(step).__qualname__, dict(step.get_config()), dict(step.state_dict())]
        for step in (*whole.before.steps, *whole.after.steps)
    ]
    return [len(whole.before.steps), steps, tokenizer_text(whole.text) if whole.text is not None else None]
