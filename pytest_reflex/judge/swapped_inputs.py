"""Does a candidate that is wrong throughout take two of its inputs for each other?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import ReflexError
from pytest_reflex.inputs.fixtures import Fixtures
from pytest_reflex.judge.naming import Named
from pytest_reflex.judge.runs import opened
from pytest_reflex.judge.sides import Sides
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import RecordedRunner
from pytest_reflex.runners.base import asked, copied
from pytest_reflex.verdict.metrics import distances
from pytest_reflex.verdict.results import SWAPPED

__all__ = ["swapped_inputs"]

Array = np.ndarray[Any, Any]
# So many pairs are tried, each for one run of the reference.
MOST: Final = 6


def swapped_inputs(result: ParityResult, sides: Sides, fixtures: Fixtures) -> list[str]:
    """A note that names two inputs where the reference, given them the other way round, gives what the
    candidate gives; nothing where none do, or where some fixture passes. It decides nothing.

    Args:
        result: the verdict.
        sides: both sides, closed.
        fixtures: what they were given.
    """
    worst = result.worst_fixture
    judged = [fixture for fixture in result.fixtures if fixture.fixture_idx < fixtures.count]
    if worst is None or worst.fixture_idx >= fixtures.count or any(fixture.passed for fixture in judged):
        return []
    if isinstance(sides.reference, RecordedRunner) or any(f.refusal is None for f in judged):
        return []
    if not {f.refusal.gate for f in judged if f.refusal is not None} <= {"exact", "threshold"}:
        return []
    inputs = fixtures.make(worst.fixture_idx)
    pairs = [*_alike(inputs)]
    if not 0 < len(pairs) <= MOST:
        return []
    limits = {o.name: result.limit_of(o) for o in worst.outputs}
    try:
        candidate = Named(sides.candidate, list(limits))
        with opened(candidate):
            got = copied(asked(candidate, copied(inputs)))
        with opened(sides.reference):
            for one, other in pairs:
                turned = {**inputs, one: inputs[other], other: inputs[one]}
                apart = distances(asked(sides.reference, copied(turned)), got)
                if all(apart[name] <= 0 or apart[name] < limits.get(name, 0.0) for name in apart):
                    return [
                        f"{SWAPPED}with {one!r} and {other!r} the other way round, the reference gives in "
                        f"fixture {worst.fixture_idx} what the candidate gives"
                    ]
    except ReflexError:  # the verdict stands, and some values are none for another input
        return []
    return []


def _alike(inputs: Mapping[str, Array]) -> Iterator[tuple[str, str]]:
    """Pairs of inputs that could stand for each other, and do not hold the same."""
    for (one, a), (other, b) in combinations(inputs.items(), 2):
        if a.shape == b.shape and a.dtype == b.dtype and not np.array_equal(a, b):
            yield one, other
