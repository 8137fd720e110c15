"""A flow's two halves as they are traced, by the exporter and by whoever looks into what it made."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

from exporters.flow.policy import FlowPolicy
from exporters.graph.loop_invariant import TIME, VELOCITY, X_T
from pytest_reflex.inputs import InputSpec, free_sizes

CONTEXT = "context."
Named = dict[str, torch.Tensor]


def prefix_call(flow: FlowPolicy) -> Callable[..., Named]:
    """Observation -> what the steps need of it, each name with ``context.`` before it."""

    def prefix(**observation: torch.Tensor) -> Named:
        return {CONTEXT + name: value for name, value in flow.prefix(**observation).items()}

    return prefix


def velocity_call(flow: FlowPolicy) -> Callable[..., Named]:
    """``x_t``, ``time`` and what :func:`prefix_call` gave -> ``velocity``."""

    def velocity(**step: torch.Tensor) -> Named:
        x, time = step.pop(X_T), step.pop(TIME)
        context = {name.removeprefix(CONTEXT): value for name, value in step.items()}
        return {VELOCITY: flow.velocity(x, time, **context)}

    return velocity


def example_sizes(inputs: Sequence[InputSpec]) -> dict[str, int]:
    """Sizes to trace free axes with: torch.export takes a size of one, and two equal sizes, for constants."""
    sizes: dict[str, int] = {}
    for name, plain in free_sizes(inputs).items():
        sizes[name] = next(n for n in itertools.count(max(plain, 2)) if n not in sizes.values())
    return sizes
