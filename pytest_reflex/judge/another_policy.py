"""Is the policy still the one that a failing candidate was made of?"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from pytest_reflex.errors import ReflexError
from pytest_reflex.judge.naming import Named
from pytest_reflex.judge.runs import opened
from pytest_reflex.judge.sides import Sides, changed
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import RecordedRunner
from pytest_reflex.runners.base import asked, copied
from pytest_reflex.verdict.metrics import distances
from pytest_reflex.verdict.results import ANOTHER

__all__ = ["another_policy"]


@runtime_checkable
class Remembers(Protocol):
    """A candidate that keeps what its policy gave when it was made, as a bundle does."""

    def recording(self) -> RecordedRunner:
        """Inputs, and what the policy gave for them."""
        ...


def another_policy(result: ParityResult, sides: Sides, candidate: Any) -> list[str]:
    """A note where the reference, asked again what it was asked then, is itself beyond the bounds.

    A policy that was trained on, another checkpoint, or one that is made anew without a seed: what the
    candidate holds is then not what is wrong. It decides nothing.

    Args:
        result: the verdict.
        sides: both sides, closed.
        candidate: what was given as the candidate.
    """
    worst = result.worst_refused_for_figures
    if worst is None or isinstance(sides.reference, RecordedRunner) or not isinstance(candidate, Remembers):
        return []
    if changed(candidate, sides.candidate):  # and so may be what it remembers
        return []
    limits = {output.name: result.limit_of(output) for output in worst.outputs}
    try:
        then = candidate.recording()
        with opened(then):
            inputs = then.recorded()[0]
            gave = asked(then, inputs)
        now = Named(sides.reference, list(gave))
        with opened(now):
            apart = distances(gave, asked(now, copied(inputs)))
    except ReflexError:  # nothing was kept, or it is asked otherwise now
        return []
    beyond = {name: off for name, off in apart.items() if off > 0 and off >= limits.get(name, 0.0)}
    if not beyond:
        return []
    name = max(beyond, key=lambda each: beyond[each])
    return [
        f"{ANOTHER}for the same inputs {sides.reference.name} gives in {name} by now what is "
        f"{beyond[name]:.1e} off from what it gave when it was exported"
    ]
