"""FlowPolicy: a flow-matching or diffusion policy as two halves and a schedule.

A policy of this kind looks at the observation once (the *prefix*) and then walks noise to actions
by what a network says of each ``x`` (the *step*, N times). Whoever wraps a policy says what the halves are;
everything else, the loop included, is done here and in :mod:`exporters.graph.layouts`.
"""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import torch
from torch import nn

from exporters.flow.schedule import EulerSchedule, Loop, Schedule
from exporters.flow.update import Update
from pytest_reflex.errors import RunnerError, a_type
from pytest_reflex.runners import TorchRunner
from pytest_reflex.runners.structure import arguments, by_name, misfit
from pytest_reflex.runners.torch import in_its_names, samplers_of

Context = dict[str, torch.Tensor]

# What a sampler may call its steps.
_STEPS: Final = ("num_steps", "steps", "num_inference_steps")


class FlowPolicy(nn.Module, ABC):
    """A policy's own submodules, called in two halves.

    Subclasses hold the upstream policy as a submodule and write :meth:`prefix` and
    :meth:`velocity` with its parts. They are what is traced; what is *true* remains the upstream
    policy, whole, and the split is judged against it like any other export.

    A policy that has no other implementation is its own reference: called as a module, it runs the
    loop in PyTorch. One with a ``sample_actions``, ``predict_action_chunk`` or ``select_action`` of its own
    is judged against that, called with the inputs by keyword.

    Attributes:
        steps: how many steps the loop takes.
        schedule: how the loop counts its time, and what a step does to ``x``.
        noise: name of the input that holds the initial ``x``.
        step_noise: name of the input that holds the noise of each step, ``[batch, draws, chunk, dim]``,
            where the schedule reads one.
        output: name of what the loop gives.
        epilogue: what is made of the last ``x``: a slice of its actions, a clip.
        features: what of the context a backbone gives, which is then a graph of its own: all that leads from
            the observation to it.
    """

    steps: int = 10
    schedule: Schedule = EulerSchedule()
    noise: str = "noise"
    step_noise: str = "step_noise"
    output: str = "actions"
    epilogue: Update = ()
    features: tuple[str, ...] = ()

    @abstractmethod
    def prefix(self, **observation: torch.Tensor) -> Context:
        """What every step needs of the observation, by name: keys, values, masks, the state.

        Called with every input except the noises, by keyword.
        """

    @abstractmethod
    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, **context: torch.Tensor) -> torch.Tensor:
        """What the network says, shaped like ``x_t`` ``[batch, chunk, dim]``, at ``time`` ``[batch]``.

        A velocity, or what else the schedule's update takes: the noise in ``x_t``, or ``x`` without it.
        ``time`` is of the schedule's dtype, float32 where it says nothing.
        """

    def forward(self, **inputs: torch.Tensor) -> Context:
        """The whole policy in PyTorch: ``{output: actions}`` for the named inputs, noise included."""
        return {self.output: flow_states(self, **inputs)[-1]}

    def loop(self, steps: int | None = None) -> Loop:
        """Its loop over so many steps, by default its own.

        Raises:
            SettingsError: its schedule is of another number of steps.
        """
        steps = steps or self.steps
        made = Loop(self.schedule, steps, self.noise, self.output, self.step_noise, self.epilogue)
        return made.taking(steps)

    def own_runner(self) -> TorchRunner:
        """The policy as a reference of what does not know how to ask it, such as a plain ``.onnx`` file."""
        return flow_runner(self, None)


def flow_runner(
    model: nn.Module | Callable[[], nn.Module],
    steps: int | None,
    outputs: Sequence[str] | None = None,
    *,
    looped: bool = True,
) -> TorchRunner:
    """A flow that is its own reference as a runner, over so many steps.

    Args:
        model: the flow, or a function that loads it; another module runs as it does by itself.
        steps: how many steps its loop takes; by default the flow's own.
        outputs: names of the outputs.
        looped: whether what is judged has a loop; without one, a module that is no flow is its ``forward``
            and not what it calls its sampler.
    """

    def call(flow: nn.Module, **inputs: torch.Tensor) -> Context:
        own = own_sampler(flow, inputs) if looped or isinstance(flow, FlowPolicy) else None
        if own is not None:
            told = [name for name in _STEPS if steps and name in inspect.signature(own).parameters]
            gave = own(**inputs, **dict.fromkeys(told[:1], steps))
            name = flow.output if isinstance(flow, FlowPolicy) else FlowPolicy.output
            return {name: gave} if isinstance(gave, torch.Tensor) else cast("Context", gave)
        # One that runs its loop in its own way knows how.
        if not isinstance(flow, FlowPolicy) or type(flow).forward is not FlowPolicy.forward:
            named = in_its_names(flow, arguments(flow, inputs))
            return cast("Context", by_name(flow, named, type(flow).__name__))
        return {flow.output: flow_states(flow, steps, **inputs)[-1]}

    def states(flow: nn.Module, **inputs: torch.Tensor) -> list[torch.Tensor]:
        return flow_states(flow, steps, **inputs)

    bound = functools.partial(call, model) if isinstance(model, nn.Module) else call
    runner = TorchRunner(model, bound, outputs=outputs, states=states if looped else None)
    runner.doubted_by = lambda flow, _: unasked(flow)
    return runner


def own_sampler(flow: nn.Module, inputs: Iterable[str]) -> Callable[..., Any] | None:
    """A policy's own way from inputs to actions, where it has one: what is true is that, and not its halves.

    Args:
        flow: the flow, or a policy that is exported by the halves of another.
        inputs: the inputs' names.

    Raises:
        RunnerError: it has one that cannot be called with these inputs.
    """
    found = samplers_of(flow)
    if not found:
        return None
    names = list(inputs)
    for name in found:
        own: Callable[..., Any] = getattr(flow, name)
        try:
            inspect.signature(own).bind(**dict.fromkeys(names))
        except (TypeError, ValueError):
            continue
        return own
    if type(flow).forward is not FlowPolicy.forward:
        return None  # it says itself what is true
    kind = type(flow).__name__
    raise RunnerError(
        f"{kind} has its own {found[0]}, which its halves are judged against, and it cannot be called "
        f"with {', '.join(names)}; give a TorchRunner(policy, call) that calls it, and flow=policy beside it"
    )


def unasked(flow: nn.Module) -> list[str]:
    """A doubt where a flow is its own reference and holds a policy that has a sampler nobody asks."""
    if not isinstance(flow, FlowPolicy) or samplers_of(flow) or type(flow).forward is not FlowPolicy.forward:
        return []
    for path, module in flow.named_modules():
        if path and (names := samplers_of(module)):
            return [
                f"{type(flow).__name__} is judged by its own halves, and {path} ({type(module).__name__}) "
                f"has a {names[0]} of its own; give a reference that calls it, and flow="
            ]
    return []


def named_context(flow: nn.Module, gave: Any) -> Context:
    """What a flow's ``prefix`` gave, once it is sure to be tensors by name.

    Raises:
        RunnerError: it is something else.
    """
    if isinstance(gave, Mapping) and all(isinstance(name, str) for name in gave):
        return dict(gave)
    what = "a tensor" if isinstance(gave, torch.Tensor) else a_type(gave)
    raise RunnerError(
        f"the prefix of {type(flow).__name__} returned {what}; return a dict of tensors by name, "
        "which velocity takes by keyword"
    )


def like_state(flow: nn.Module, gave: Any, x: torch.Tensor) -> torch.Tensor:
    """What a flow's ``velocity`` gave, once it is sure to be shaped like the state, where sizes are known.

    Raises:
        RunnerError: it is no tensor, or of another shape.
    """
    if not isinstance(gave, torch.Tensor):
        raise RunnerError(
            f"the velocity of {type(flow).__name__} returned {a_type(gave)}; return a tensor shaped like x_t"
        )
    sizes = zip(gave.shape, x.shape, strict=False)
    # A size that is free while it is traced is no int.
    apart = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in sizes)
    if apart or gave.ndim != x.ndim:
        raise RunnerError(
            f"the velocity of {type(flow).__name__} has shape {list(gave.shape)}, and x_t {list(x.shape)}; "
            "return one shaped like x_t"
        )
    return gave


def flow_states(flow: nn.Module, steps: int | None = None, /, **inputs: torch.Tensor) -> list[torch.Tensor]:
    """What the loop of a flow that is its own reference holds after each step, by way of its epilogue.

    Args:
        flow: the flow.
        steps: how many steps the loop takes; by default the flow's own.
        inputs: the inputs, noise included.

    Raises:
        RunnerError: the module is no :class:`FlowPolicy`, so nobody knows its steps.
    """
    if not isinstance(flow, FlowPolicy):
        raise RunnerError(f"{a_type(flow)} is no FlowPolicy, whose loop is known")
    loop = flow.loop(steps)
    if said := misfit(flow.prefix, inputs, loop.noises):
        raise RunnerError(f"{type(flow).__name__} {said}")
    x, *noises = (inputs.pop(name) for name in loop.noises)
    context = named_context(flow, flow.prefix(**inputs))
    dtype: torch.dtype = getattr(torch, loop.schedule.dtype)

    def velocity(index: int, x: torch.Tensor) -> torch.Tensor:
        time = torch.full(x.shape[:1], loop.times[index], dtype=dtype, device=x.device)
        return like_state(flow, flow.velocity(x, time, **context), x)

    return [loop.finished(state) for state in loop.states(x, velocity, *noises)]
