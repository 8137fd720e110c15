"""The traced halves beside the policy itself: the first module that they call otherwise."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from exporters.divergence.local_error import ULPS, apart, spacing
from exporters.flow.policy import FlowPolicy

if TYPE_CHECKING:
    from exporters.bundle.store import StoredBundle
    from pytest_reflex.runners import TorchRunner

Array = np.ndarray[Any, Any]
# A policy -> the two halves that the bundle's graphs were traced from.
FlowOf = Callable[[nn.Module], FlowPolicy]
# Of each tensor so many elements are kept: enough to see that two differ, little enough to keep them all.
SAMPLE = 256


@dataclass(frozen=True)
class Call:
    """One call of a module: when it was entered and left, and samples of what it was given and gave."""

    entered: int
    left: int
    given: list[Array]
    made: list[Array]


Calls = dict[tuple[str, int], Call]


def first_differing_module(
    bundle: StoredBundle, runner: TorchRunner, flow_of: FlowOf, fixture: Mapping[str, Array]
) -> str:
    """The first module that is given, or gives, something else in the halves than in the policy.

    Both are run with hooks that look and change nothing; the modules are the same objects.
    """
    policy = runner.model
    loop = bundle.stated.loop
    if policy is None or loop is None:
        return "the traced call"
    flow = flow_of(policy)
    flow.steps = loop.steps
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in fixture.items()}
    theirs = _watched(policy, lambda: runner.run(fixture))
    with torch.no_grad():
        ours = _watched(policy, lambda: flow(**tensors))
    both = [(key, call, ours[key]) for key, call in theirs.items() if key in ours]
    # A module that gives something else, unless one was given something else before it was done.
    fed = [(c.entered, *key) for key, c, own in both if not _same(c.given, own.given)]
    wrong = [
        (c.left, *key) for key, c, own in both if _same(c.given, own.given) and not _same(c.made, own.made)
    ]
    if fed and (not wrong or min(fed)[0] < min(wrong)[0]):
        _, module, call = min(fed)
        return f"{module}, call {call + 1}, is given other inputs"
    if wrong:
        _, module, call = min(wrong)
        return f"{module}, call {call + 1}, gives something else"
    return "what happens between the modules"


def _watched(policy: nn.Module, run: Callable[[], object]) -> Calls:
    seen: Calls = {}
    clock = itertools.count()
    with contextlib.ExitStack() as stack:
        for name, module in policy.named_modules():
            for handle in _hooked(module, name or type(policy).__name__, seen, clock):
                stack.callback(handle.remove)
        run()
    return seen


def _hooked(
    module: nn.Module, name: str, seen: Calls, clock: Iterator[int]
) -> tuple[RemovableHandle, RemovableHandle]:
    entered: list[int] = []
    calls = itertools.count()

    def enter(_: nn.Module, args: tuple[Any, ...]) -> None:
        entered.append(next(clock))

    def leave(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        # Seen here and not on entry: other hooks may have changed them in between.
        seen[name, next(calls)] = Call(entered.pop(), next(clock), _samples((args, kwargs)), _samples(output))

    return module.register_forward_pre_hook(enter), module.register_forward_hook(leave, with_kwargs=True)


def _samples(value: object) -> list[Array]:
    from torch.utils import _pytree as pytree

    found = []
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, torch.Tensor) and leaf.numel():
            flat = leaf.detach().reshape(-1)
            found.append(flat[:: max(1, flat.numel() // SAMPLE)][:SAMPLE].to(torch.float64).numpy().copy())
    return found


def _same(a: list[Array], b: list[Array]) -> bool:
    if len(a) != len(b) or any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        return False
    found = [apart(x, y) for x, y in zip(a, b, strict=True)]
    return all(f.error <= ULPS * spacing(f.scale) for f in found)
