"""What a policy of someone's own reads, by its code: the lines to write, and inputs that it does not read."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from pytest_reflex.errors import CheckpointError

# How far what a function hands on is followed.
_DEEP = 4


def are_specs(value: Any) -> bool:
    """Whether it is a list of ``InputSpec``, and not empty."""
    from pytest_reflex.inputs import InputSpec

    return isinstance(value, list | tuple) and bool(value) and all(isinstance(v, InputSpec) for v in value)


def require_inputs(policy: Any, inputs: Any, model: str, found: Any) -> None:
    """Refuse one input in place of a dict, whose keys are inputs each, and inputs of which it has none.

    Where ``forward`` wants more than the inputs, as a loss does, and a sampler of the policy's reads just
    them, that is to be judged.

    Args:
        policy: a module, or a runner that says how one is asked.
        inputs: what its file says that it reads.
        model: ``file.py:name``.
        found: what that names, the policy or what gives it.

    Raises:
        CheckpointError: with the line to write.
    """
    if not are_specs(inputs):
        return
    names, source = {spec.name for spec in inputs}, model.rpartition(":")[0]
    called, asked = _asked_of(policy)
    for name in asked:
        keys = _keys_of(called, name, alone=len(asked) == 1)
        if keys == [name]:
            continue
        if name in names:
            raise CheckpointError(
                f"INPUTS in {source} has {name!r} as one input, and the policy reads a dict of it; each key "
                f"is an input; write there: {inputs_of(policy, model, found)}"
            )
        if not _covers(names, keys, name) and (sampler := _sampler(policy)):
            more = ", ".join(repr(key) for key in keys if not _covers(names, [key], name))
            raise CheckpointError(
                f"the forward of {model} reads {more} besides what INPUTS in {source} has, as a loss does; "
                f"{_runner_line(model, found, sampler)}"
            )
        if names.isdisjoint(_ways_to_say(keys, name)):
            raise CheckpointError(
                f"INPUTS in {source} has {', '.join(repr(spec.name) for spec in inputs)}, and the policy "
                f"reads none of these: its {name} is a dict with {', '.join(map(repr, keys))}; write there: "
                f"{inputs_of(policy, model, found)}"
            )


def inputs_of(policy: Any, model: str, found: Any) -> str:
    """The lines that say what a policy reads, but for shapes and meanings, which nothing else tells."""
    called, asked = _asked_of(policy)
    keys = {name: _keys_of(called, name, alone=len(asked) == 1) for name in asked}
    names, after = [key for name in asked for key in keys[name]], ""
    if sampler := _sampler(policy):
        (name,) = _wanted(getattr(policy, sampler))
        names = _keys_of(getattr(policy, sampler), name, alone=True)
        after = f"; {_runner_line(model, found, sampler)}"
    names += [policy.noise] if _is_flow(policy) else []
    specs = ", ".join(f'InputSpec("{name}", (1, ...))' for name in names) or "InputSpec(...), ..."
    return (
        f"from pytest_reflex import InputSpec; INPUTS = [{specs}], each with its shape, and with its dtype "
        f"where that is not float32{after}"
    )


def _runner_line(model: str, found: Any, sampler: str) -> str:
    """How the sampler of a policy is named as what is to be judged."""
    from torch import nn

    source, _, name = model.rpartition(":")
    loaded = "" if isinstance(found, nn.Module) else f"loaded = {name}(); "
    held = "loaded" if loaded else name
    return (
        f"to have its {sampler} judged, write in {source}: from pytest_reflex import TorchRunner; {loaded}"
        f"runner = TorchRunner({held}, {held}.{sampler}), and give {source}:runner"
    )


def _covers(names: set[str], keys: list[str], name: str) -> bool:
    return all(not names.isdisjoint(_ways_to_say([key], name)) for key in keys)


def _ways_to_say(keys: list[str], name: str) -> set[str]:
    """What keys of a dict may be called among the inputs."""
    return {*keys, *(key.removeprefix(f"{name}.") for key in keys)}


def _sampler(policy: Any) -> str:
    """A sampler that reads one dict, and of it less than ``forward`` does; empty where none is."""
    from torch import nn

    from pytest_reflex.runners.torch import samplers_of

    if not isinstance(policy, nn.Module) or _is_flow(policy):
        return ""
    wholly = {key for name in _wanted(policy.forward) for key in _keys_read(policy.forward, name, _DEEP)}
    for sampler in samplers_of(policy):
        called = getattr(policy, sampler)
        wanted = _wanted(called)
        read = set(_keys_read(called, wanted[0], _DEEP)) if len(wanted) == 1 else set()
        if read and read < wholly:
            return sampler
    return ""


def _is_flow(policy: Any) -> bool:
    from exporters.flow.policy import FlowPolicy

    return isinstance(policy, FlowPolicy)


def _keys_of(called: Callable[..., Any], name: str, *, alone: bool) -> list[str]:
    """What a parameter is called among the inputs: by the keys of a dict, where it is read as one."""
    keys = _keys_read(called, name, _DEEP)
    # A lone dict is given with just its keys where their names have dots; else by the parameter's name too.
    bare = alone and all("." in key for key in keys)
    return [key if bare else f"{name}.{key}" for key in dict.fromkeys(keys)] or [name]


def _keys_read(called: Callable[..., Any], name: str, deep: int) -> list[str]:
    """The keys that a function writes out, and those of the methods that it hands the dict on to."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(called)))
    except (OSError, TypeError, SyntaxError):
        return []
    keys: list[str] = []
    places = [node for node in ast.walk(tree) if isinstance(node, ast.Subscript | ast.Call)]
    for node in sorted(places, key=lambda node: (node.lineno, node.col_offset)):
        if isinstance(node, ast.Subscript) and _is(node.value, name):
            if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
                keys.append(node.slice.value)
        elif isinstance(node, ast.Call) and deep > 0 and (method := _method(called, node.func)) is not None:
            at = next((at for at, given in enumerate(node.args) if _is(given, name)), None)
            parameters = [*inspect.signature(method).parameters]
            if at is not None and at < len(parameters):
                keys += _keys_read(method, parameters[at], deep - 1)
    return keys


def _is(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _method(called: Callable[..., Any], function: ast.expr) -> Callable[..., Any] | None:
    """The method of the same object that ``self.name`` is, in a method."""
    owner = getattr(called, "__self__", None)
    if owner is None or not isinstance(function, ast.Attribute) or not _is(function.value, "self"):
        return None
    found = getattr(owner, function.attr, None)
    return found if inspect.ismethod(found) else None


def _asked_of(policy: Any) -> tuple[Any, list[str]]:
    """What of a policy reads the observation, and the parameters that it wants."""
    from pytest_reflex.runners import TorchRunner

    if isinstance(policy, TorchRunner):
        called = policy.asked_by
        return called, [] if called is None else _wanted(getattr(called, "forward", called))
    called = policy.prefix if _is_flow(policy) else policy.forward
    return called, _wanted(called)


def _wanted(called: Callable[..., Any]) -> list[str]:
    given = inspect.signature(called).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in given if p.kind in kinds and p.default is p.empty]
