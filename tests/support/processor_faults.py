"""Thirty wrong ways from the camera to the joint, each planted in a bundle's processors; the stage it is in.

A fault is made of lerobot's own pipelines: their statistics are changed, or what they are given or give is,
and the result is traced as the right one is. Nothing of the judge knows of it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from exporters.bundle.kept import linked
from exporters.bundle.manifest import write_manifest
from exporters.bundle.processors import POSTPROCESS, PREPROCESS, Prompt
from exporters.bundles import Bundle, open_bundle
from exporters.families.lerobot_processors import Pipelines, graphs_of, pipelines
from exporters.graph.graph_passes import write_graph
from exporters.graph.tracing import trace

Named = dict[str, torch.Tensor]
Change = Callable[[Named], Named]
STATE = "observation.state"
_RESIZE = torch.nn.functional.interpolate


@dataclass(frozen=True)
class Fault:
    """One of them.

    Attributes:
        name: what is wrong.
        stage: the stage that has to be named first.
        family: the policy that it is planted in.
        given: changes what the graph is given.
        gave: changes what it gives.
        statistics: changes the statistics of the stage's steps, in place.
        resize: what stands in for torch's ``interpolate`` while it is traced.
        prompt: changes how a task becomes tokens.
    """

    name: str
    stage: str
    family: str = "act"
    given: Change | None = None
    gave: Change | None = None
    statistics: Callable[[dict[str, dict[str, torch.Tensor]]], object] | None = None
    resize: Mapping[str, Any] | None = None
    prompt: Callable[[Prompt], Prompt] | None = None
    norm: str = ""


def _images(change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return lambda named: {n: change(v) if "image" in n and v.ndim >= 3 else v for n, v in named.items()}


def _state(change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return lambda named: {n: change(v) if n.endswith("state") else v for n, v in named.items()}


def _action(change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return lambda named: {n: change(v) if n == "action" else v for n, v in named.items()}


def _swapped(values: torch.Tensor) -> torch.Tensor:
    return torch.cat([values[..., 1:2], values[..., :1], values[..., 2:]], dim=-1)


def _each(key: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Any:
    return lambda stats: change(stats[key])


def _variance(one: dict[str, torch.Tensor]) -> None:
    one["std"] = one["std"] ** 2


def _other(one: dict[str, torch.Tensor]) -> None:
    one["mean"], one["std"] = one["mean"] * 1.05 + 0.5, one["std"] * 1.1
    one["q01"], one["q99"] = one["q01"] * 1.05 - 0.5, one["q99"] * 1.1


def _unclipped(one: dict[str, torch.Tensor]) -> None:
    one["q01"], one["q99"] = one["min"], one["max"]


TOP = "observation.images.top"
FAULTS = (
    Fault("channel order", PREPROCESS, given=_images(lambda x: x.flip(-1))),
    Fault("height for width", PREPROCESS, given=_images(lambda x: x.transpose(0, 1).reshape(x.shape))),
    Fault("HWC for CHW", PREPROCESS, gave=_images(lambda x: x.movedim(-3, -1).reshape(x.shape))),
    Fault("upside down", PREPROCESS, given=_images(lambda x: x.flip(0))),
    Fault("mirrored", PREPROCESS, given=_images(lambda x: x.flip(1))),
    Fault("one pixel off", PREPROCESS, given=_images(lambda x: x.roll(1, 1))),
    Fault("not divided by 255", PREPROCESS, gave=_images(lambda x: x * 255)),
    Fault("divided by 256", PREPROCESS, gave=_images(lambda x: x * 255 / 256)),
    Fault("variance for deviation of images", PREPROCESS, statistics=_each(TOP, _variance)),
    Fault("variance for deviation of joints", PREPROCESS, statistics=_each(STATE, _variance)),
    Fault("images of another dataset", PREPROCESS, statistics=_each(TOP, _other)),
    Fault("joints of another dataset", PREPROCESS, statistics=_each(STATE, _other)),
    Fault("min-max for mean and deviation", PREPROCESS, norm="MIN_MAX"),
    Fault("no normalisation", PREPROCESS, norm="IDENTITY"),
    Fault("joint order", PREPROCESS, given=_state(_swapped)),
    Fault("degrees for radians", PREPROCESS, given=_state(lambda x: x * (math.pi / 180))),
    Fault("resize by nearest", PREPROCESS, "pi05", resize={"mode": "nearest", "align_corners": None}),
    Fault("resize by bicubic", PREPROCESS, "pi05", resize={"mode": "bicubic"}),
    Fault("resize with antialias", PREPROCESS, "pi05", resize={"antialias": True}),
    Fault("resize by aligned corners", PREPROCESS, "pi05", resize={"align_corners": True}),
    Fault("pixels in [0, 1]", PREPROCESS, "pi05", gave=_images(lambda x: (x + 1) / 2)),
    Fault("smallest and largest for quantiles", PREPROCESS, "pi05", statistics=_each(STATE, _unclipped)),
    Fault("tokens cut", PREPROCESS, "pi05", prompt=lambda p: replace(p, most=20, padded=False)),
    Fault("tokens padded before the prompt", PREPROCESS, "pi05", prompt=lambda p: replace(p, left=True)),
    Fault("state left out of the prompt", PREPROCESS, "pi05", prompt=lambda p: replace(p, kind="plain")),
    Fault("newline lost", PREPROCESS, "smolvla", prompt=lambda p: replace(p, kind="plain")),
    Fault("variance for deviation of actions", POSTPROCESS, statistics=_each("action", _variance)),
    Fault("actions of another dataset", POSTPROCESS, statistics=_each("action", _other)),
    Fault("joint order of actions", POSTPROCESS, gave=_action(_swapped)),
    Fault("radians for degrees", POSTPROCESS, gave=_action(lambda x: x * (math.pi / 180))),
    Fault("min-max for mean and deviation of actions", POSTPROCESS, norm="MIN_MAX"),
    Fault("relative for absolute", POSTPROCESS, gave=_action(lambda x: x - x[:, :1])),
    Fault("actions one step late", POSTPROCESS, gave=_action(lambda x: x.roll(1, 1))),
)  # fmt: skip


def planted(fault: Fault, bundle: Bundle, policy: Any, both: tuple[Any, Any], place: Path) -> Bundle:
    """A copy of the bundle with the fault in it, every digest in order."""
    whole = pipelines(_family(fault.family), policy, _wrong(fault, both))
    place.mkdir()
    for name in bundle.stated.files:
        linked(bundle.path / name, place / name)
    processors, files = bundle.stated.processors, dict(bundle.stated.files)
    if processors is None:
        raise ValueError("the bundle has no processors")
    if fault.prompt is not None and processors.prompt is not None:
        processors = replace(processors, prompt=fault.prompt(processors.prompt))
    else:
        (place / f"{fault.stage}.onnx").unlink()
        shape = tuple(bundle.stated.outputs[0]["shape"])
        files |= write_graph(_traced(fault, whole, shape), place, fault.stage)
    write_manifest(place, replace(bundle.stated, processors=processors, files=files))
    return open_bundle(place)


class _Changed(nn.Module):
    def __init__(self, module: nn.Module, fault: Fault) -> None:
        super().__init__()
        self.module, self.fault = module, fault

    def forward(self, **named: torch.Tensor) -> Mapping[str, torch.Tensor]:
        given = self.fault.given(named) if self.fault.given is not None else named
        gave = dict(self.module(**given))
        return self.fault.gave(gave) if self.fault.gave is not None else gave


def _traced(fault: Fault, whole: Pipelines, shape: tuple[int, ...]) -> Any:
    module, example = graphs_of(whole, shape)[fault.stage]
    changed = _Changed(module, fault).eval()

    def resized(*given: Any, **named: Any) -> torch.Tensor:
        told = {**named, **(fault.resize or {})}
        return _RESIZE(*given, **{key: value for key, value in told.items() if value is not None})

    with mock.patch.object(torch.nn.functional, "interpolate", resized if fault.resize else _RESIZE):
        return trace(changed, changed, example)


def _wrong(fault: Fault, both: tuple[Any, Any]) -> tuple[Any, Any]:
    """The pipelines with other statistics, or another normalisation."""
    if fault.statistics is None and not fault.norm:
        return both
    again = copy.deepcopy(both)
    for step in again[0 if fault.stage == PREPROCESS else 1].steps:
        if not hasattr(step, "norm_map"):
            continue
        if fault.statistics is not None:
            fault.statistics(step._tensor_stats)
        if fault.norm:
            step.norm_map = {key: type(mode)(fault.norm) for key, mode in step.norm_map.items()}
    return again


def _family(name: str) -> Any:
    from exporters.bundle.registry import family_named

    return family_named(name)


__all__ = ["FAULTS", "Fault", "planted"]
