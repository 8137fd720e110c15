"""A flow's two halves as they are traced, by the exporter and by whoever looks into what it made."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from exporters.flow.policy import FlowPolicy, like_state, named_context
from exporters.flow.schedule import Loop
from exporters.graph.loop_invariant import TIME, VELOCITY, X_T
from exporters.graph.tracing import Traced, trace_program, with_lines
from pytest_reflex.errors import InputError, TracingError
from pytest_reflex.inputs import InputSpec, free_sizes, make_fixture
from pytest_reflex.runners import TorchRunner
from pytest_reflex.runners.structure import by_name

CONTEXT = "context."
Named = dict[str, torch.Tensor]


def prefix_call(flow: FlowPolicy) -> Callable[..., Named]:
    """Observation -> what the steps need of it, each name with ``context.`` before it."""

    seen = with_lines(flow.prefix)

    def prefix(**observation: torch.Tensor) -> Named:
        gave = named_context(flow, by_name(seen, observation, type(flow).__name__))
        return {CONTEXT + name: value for name, value in gave.items()}

    return prefix


def velocity_call(flow: FlowPolicy) -> Callable[..., Named]:
    """``x_t``, ``time`` and what :func:`prefix_call` gave -> ``velocity``."""

    seen = with_lines(flow.velocity)

    def velocity(**step: torch.Tensor) -> Named:
        x, time = step.pop(X_T), step.pop(TIME)
        context = {name.removeprefix(CONTEXT): value for name, value in step.items()}
        return {VELOCITY: like_state(flow, seen(x, time, **context), x)}

    return velocity


def require_float32(runner: TorchRunner) -> None:
    """Refuse to trace an open reference that is in half precision.

    Raises:
        TracingError: it is.
    """
    if runner.precision != "float32":
        raise TracingError(
            f"{runner.name} is in {runner.precision}, and a graph is traced from float32; call .float(), and "
            "export in another precision with precision="
        )


@dataclass(frozen=True)
class Example:
    """What a module is traced with.

    Attributes:
        arrays: an array for each input, by name.
        sizes: the size that each free axis has in them, by name.
        free: of the inputs that have free axes, what each of their axes is called.
    """

    arrays: dict[str, np.ndarray]
    sizes: dict[str, int]
    free: dict[str, Sequence[str | None]]

    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array.copy()) for name, array in self.arrays.items()}


def example_of(inputs: Sequence[InputSpec], seed: int) -> Example:
    """Fixture 0, in sizes to trace with: torch.export takes a size of 1, and two equal ones, for constant."""
    sizes: dict[str, int] = {}
    for name, plain in free_sizes(inputs).items():
        sizes[name] = next(n for n in itertools.count(max(plain, 2)) if n not in sizes.values())
    arrays = make_fixture([spec.sized(sizes) for spec in inputs], seed=seed, fixture_idx=0)
    return Example(arrays, sizes, {spec.name: spec.free for spec in inputs if spec.free})


def trace_halves(flow: FlowPolicy, example: Example, loop: Loop) -> Iterator[Traced]:
    """The two halves of a flow, each traced when it is asked for: the prefix, then the step.

    The step is traced on blanks: shapes and dtypes are enough, and the real ones would run the prefix.

    Raises:
        InputError: no input is named as the flow's noise.
        TracingError: torch could not trace a half, or the prefix makes a free size that no input has.
    """
    tensors = example.tensors()
    if loop.noise not in tensors:
        raise InputError(
            f"no input is named {loop.noise!r}, which the flow takes as its noise; add its InputSpec"
        )
    x_t, draws = tensors.pop(loop.noise), loop.schedule.draws
    drawn = tensors.pop(loop.step_noise, None) if draws else None
    if draws and (drawn is None or drawn.shape != (x_t.shape[0], draws, *x_t.shape[1:])):
        found = "there is none" if drawn is None else f"it is {list(drawn.shape)}"
        raise InputError(
            f"the flow takes the noise of {draws} steps as {loop.step_noise!r}, "
            f"{[x_t.shape[0], draws, *x_t.shape[1:]]}, and {found}; give its InputSpec so"
        )
    prefix = trace_program(flow, prefix_call(flow), tensors, free=example.free)
    blanks, axes = context_of(prefix, example.sizes)
    yield prefix
    noise_axes = example.free.get(loop.noise, ())
    now = torch.full(x_t.shape[:1], loop.times[0], dtype=getattr(torch, loop.schedule.dtype))
    free = {**axes, X_T: list(noise_axes), TIME: list(noise_axes[:1])}
    yield trace_program(flow, velocity_call(flow), {X_T: x_t, TIME: now, **blanks}, free=free)


def context_of(
    prefix: Traced, sizes: Mapping[str, int]
) -> tuple[dict[str, torch.Tensor], dict[str, list[str | None]]]:
    """Blanks of what the prefix gives, and what their free axes are called."""
    called: dict[str, str] = {}
    for name, node in prefix.given.items():
        for size, axis in zip(node.meta["val"].shape, prefix.free.get(name, ()), strict=False):
            if axis and not isinstance(size, int):
                called[str(size)] = axis
    blanks: dict[str, torch.Tensor] = {}
    axes: dict[str, list[str | None]] = {}
    for name, node in prefix.made.items():
        value = node.meta["val"]
        shape = [n if isinstance(n, int) else called.get(str(n), str(n)) for n in value.shape]
        if any(isinstance(n, str) and n not in sizes for n in shape):
            raise TracingError(
                f"{name!r} has shape {shape} out of the prefix; a free axis must keep the size that "
                f"an input has ({', '.join(sizes) or 'none is free'})"
            )
        axes[name] = [n if isinstance(n, str) else None for n in shape]
        blanks[name] = torch.zeros([sizes[n] if isinstance(n, str) else n for n in shape], dtype=value.dtype)
    return blanks, axes
