"""Does what a processor or a library does behind everyone's back explain why a candidate is off?

Each trap is tried, not believed: the worst fixture is run once more without it, and where the candidate is
then within its bounds, a note names it. A trap that cannot be ended here is not named.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, NamedTuple

import numpy as np

from pytest_reflex.errors import ReflexError
from pytest_reflex.inputs.fixtures import Fixtures
from pytest_reflex.judge.naming import Named
from pytest_reflex.judge.runs import opened
from pytest_reflex.judge.sides import Sides
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import Runner
from pytest_reflex.runners.base import FLUSHED, HasTraps, asked, copied
from pytest_reflex.verdict.metrics import distances
from pytest_reflex.verdict.results import TRAP

__all__ = ["trapped"]

Array = np.ndarray[Any, Any]
_NARROW: Final = (
    "PyTorch multiplies float32 in a narrower type (TF32 or bfloat16); torch.set_float32_matmul_precision("
    "'highest') and torch.backends.cudnn.allow_tf32 = False end that"
)


class _Without(NamedTuple):
    """A run without a trap."""

    words: str
    candidate: Runner
    during: Callable[[], AbstractContextManager[None]]


def trapped(result: ParityResult, sides: Sides, fixtures: Fixtures) -> list[str]:
    """A note for each trap without which the worst fixture is within its bounds. It decides nothing.

    Args:
        result: the verdict.
        sides: both sides, closed.
        fixtures: what they were given.
    """
    worst = result.worst_refused_for_figures
    if worst is None or worst.fixture_idx >= fixtures.count:
        return []
    limits = {output.name: result.limit_of(output) for output in worst.outputs}
    inputs = fixtures.make(worst.fixture_idx)
    found = []
    for trap in _present(sides.candidate):
        off = _off(sides.reference, trap, inputs, [*limits])
        if off and all(apart <= 0 or apart < limits.get(name, 0.0) for name, apart in off.items()):
            largest = max(off.values())
            found.append(f"{TRAP}{trap.words}; without it fixture {worst.fixture_idx} is {largest:.1e} off")
    return found


def _off(
    reference: Runner, trap: _Without, inputs: Mapping[str, Array], names: list[str]
) -> Mapping[str, float]:
    """How far the two are apart without it; nothing where that cannot be known."""
    candidate = Named(trap.candidate, names)
    try:
        # What sets a trap may do so when it is opened.
        with opened(reference), trap.during():
            truth = copied(asked(reference, copied(inputs)))
        with opened(candidate), trap.during():
            return distances(truth, asked(candidate, copied(inputs)))
    except ReflexError:
        return {}


def _present(candidate: Runner) -> Iterator[_Without]:
    """The traps that are there, as far as they can be seen."""
    torch = sys.modules.get("torch")  # without it nothing here can end what is the thread's own
    spared = dict(candidate.without_traps()) if isinstance(candidate, HasTraps) else {}
    flushed = spared.pop(FLUSHED, candidate)
    for words, runner in spared.items():
        yield _Without(words, runner, nullcontext)
    if torch is None:
        return
    if flushes():
        yield _Without(FLUSHED, flushed, _unflushed)
    if torch.get_float32_matmul_precision() != "highest" or torch.cuda.is_available():
        yield _Without(_NARROW, candidate, _wide)


def flushes() -> bool:
    """Whether this thread takes subnormal values for 0, or gives 0 in place of them."""
    smallest = np.array([2.0**-149], np.float32)
    return not bool((smallest * np.float32(1)).view(np.uint32)[0])


@contextmanager
def _unflushed() -> Iterator[None]:
    import torch

    before = flushes()
    torch.set_flush_denormal(False)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def _wide() -> Iterator[None]:
    import torch

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
