"""What a denoising loop holds after each step: of an upstream's own loop, and of a bundle's graph.

An upstream's loop is watched from outside and runs as it is: its sampler calls one submodule with ``x_t``,
once a step, and what that one is given at a step is what the loop held after the step before. A graph that
keeps its loop inside is copied in memory with the states among its outputs; the bundle's files stay as they
were proven.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from exporters.flow.update import Update, finished
from pytest_reflex.errors import RunnerError

if TYPE_CHECKING:
    import torch

    from exporters.flow.schedule import Loop

STATES: Final = "x_after_each_step"


def watched_states(
    module: torch.nn.Module,
    run: Callable[[], torch.Tensor],
    noise: torch.Tensor,
    epilogue: Update = (),
) -> list[torch.Tensor]:
    """The states of an upstream's own loop, by way of its epilogue.

    Args:
        module: what the loop gives ``x_t`` to, as its first argument, once a step.
        run: runs the loop, unpatched.
        noise: what the loop starts from.
        epilogue: what the upstream makes of the last state.

    Raises:
        RunnerError: the module was given something else, so that what it was given are not the states.
    """
    import torch

    given: list[torch.Tensor] = []

    def look(_: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        given.append(arguments[0].detach().clone())  # a copy, should the loop write where it reads

    handle = module.register_forward_pre_hook(look)
    try:
        output = run()
    finally:
        handle.remove()
    if not given or not torch.equal(given[0], noise):
        raise RunnerError(f"{type(module).__name__} is not what the loop gives its noise to")
    return [*(finished(epilogue, state) for state in given[1:]), output]


def answered_states(
    module: torch.nn.Module,
    run: Callable[[], torch.Tensor],
    noise: torch.Tensor,
    loop_of: Callable[[int], Loop],
    answer: Callable[[torch.Tensor], torch.Tensor],
    shown: Callable[[Mapping[str, torch.Tensor], torch.Tensor], bool],
) -> list[torch.Tensor]:
    """The states of an upstream's own loop that shows its network something made of them.

    They are what the loop's update makes of what the network answers in each step, and what it was shown says
    whether that is so.

    Args:
        module: what the loop calls by keyword, once a step.
        run: runs the loop, unpatched.
        noise: what the loop starts from.
        loop_of: the loop over so many steps.
        answer: what the update reads, of what the module gave.
        shown: whether what the module was given is made of this state.

    Raises:
        RunnerError: it was shown something else, so that the states are not these.
    """
    import torch

    seen: list[tuple[dict[str, Any], torch.Tensor]] = []

    def look(_: Any, __: Any, given: dict[str, Any], gave: torch.Tensor) -> None:
        copied = {n: v.detach().clone() if isinstance(v, torch.Tensor) else v for n, v in given.items()}
        seen.append((copied, gave.detach().clone()))

    handle = module.register_forward_hook(look, with_kwargs=True)
    try:
        output = run()
    finally:
        handle.remove()
    loop = loop_of(len(seen))
    states = list(loop.states(noise, lambda index, _: answer(seen[index][1])))
    if not all(shown(given, x) for (given, _), x in zip(seen, [noise, *states], strict=False)):
        raise RunnerError(f"{type(module).__name__} is not shown what the loop is known to hold")
    return [*(loop.finished(state) for state in states[:-1]), output]


def with_states(file: Path, layout: str, loop: Loop) -> tuple[bytes, list[str]]:
    """A graph of layout ``unrolled`` or ``loop`` that gives its states too, and their outputs' names.

    Of ``unrolled`` an output for each step but the last, which makes the policy's own. Of ``loop`` one for
    all, ``[steps, batch, chunk, dim]``.

    Raises:
        RunnerError: onnx is not installed, or the graph is not as this version composes it.
    """
    try:
        import onnx
    except ImportError as error:
        raise RunnerError("its graph has to be read for them; pip install onnx") from error
    model = onnx.load(file, load_external_data=False)
    graph = model.graph
    if len(graph.output) != 1:
        raise RunnerError(f"{file.name} has {len(graph.output)} outputs, and a flow has one")
    given = next((value.type for value in graph.input if value.name == loop.noise), graph.output[0].type)
    if layout == "unrolled":
        names = [f"step.{index}/x_next" for index in range(loop.steps - 1)]
        made = {name for node in graph.node for name in node.output}
        if not made.issuperset(names):
            raise RunnerError(
                f"{file.name} has no {loop.steps} steps by the names that they are composed with"
            )
        for name in names:
            graph.output.add(name=name, type=given)
        return model.SerializeToString(), names
    # The Loop that the actions come from: themselves, or by way of the epilogue.
    ends = {name for node in graph.node if node.op_type != "Loop" for name in node.input}
    ends.add(graph.output[0].name)
    loops = [node for node in graph.node if node.op_type == "Loop" and node.output[0] in ends]
    states = "one state" if loop.schedule.earlier is None else "two states"
    if len(loops) != 1 or len(loops[0].output) != (1 if states == "one state" else 2):
        raise RunnerError(f"{file.name} gives its actions by no Loop of {states}")
    (body,) = (attribute.g for attribute in loops[0].attribute if attribute.name == "body")
    state = body.output[1]
    shown = f"{state.name}/shown"
    body.node.append(onnx.helper.make_node("Identity", [state.name], [shown], name=shown))
    body.output.add(name=shown, type=state.type)
    loops[0].output.append(STATES)
    graph.output.add(name=STATES).type.tensor_type.elem_type = given.tensor_type.elem_type
    return model.SerializeToString(), [STATES]
