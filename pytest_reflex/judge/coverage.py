"""Which decisions of the candidate's graph the fixtures took both ways, and further fixtures that take more.

The candidate runs once more, in a copy that counts its decisions. Further fixtures are chosen by what they
add to that, among corners of the inputs' ranges, draws, and the plain fixture with one input of another: they
are judged like all others, and count for no claim, as they were not drawn at random.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import MissingPackageError, ReflexError
from pytest_reflex.inputs.fixtures import Fixtures
from pytest_reflex.inputs.ranges import corners, swaps, whole_ends
from pytest_reflex.progress import Progress
from pytest_reflex.runners import Runner
from pytest_reflex.runners.base import HasDecisions, Watching, asked
from pytest_reflex.verdict.coverage import Coverage

__all__ = ["MOST", "POOL", "covered", "input_ranges"]

# So many fixtures are judged at most to reach what was asked for, chosen among the first so many draws and
# so many swaps of each input.
MOST: Final = 32
POOL: Final = 256
SWAPS: Final = 16

Array = np.ndarray[Any, Any]


def covered(
    candidate: Runner, fixtures: Fixtures, share: float, report_progress: Progress, *, choose: bool = True
) -> Coverage:
    """What the fixtures asked of the candidate's graph, with others that are to be judged for it.

    Args:
        candidate: its runner, closed.
        fixtures: what is judged.
        share: the share of decisions that has to go both ways; 0 to look, and to choose nothing.
        report_progress: told of each run.
        choose: whether more may be chosen.

    Raises:
        MissingPackageError: onnx is not installed, so nobody can look.
    """
    if not isinstance(candidate, HasDecisions):
        return Coverage(asked=share, unknown=f"{candidate.name} shows no graph")
    try:
        ranges = input_ranges(fixtures)
        watched = candidate.watching(ranges)
        watched.open()
    except MissingPackageError:
        raise
    except ReflexError as error:
        return Coverage(asked=share, unknown=str(error))
    try:
        watch = functools.partial(candidate.watching, ranges)
        return _looked(watched, watch, fixtures, share, report_progress, choose)
    except ReflexError as error:
        return Coverage(asked=share, unknown=str(error))
    finally:
        watched.close()


def _looked(
    watched: Watching,
    watch: Callable[[], Watching],
    fixtures: Fixtures,
    share: float,
    report_progress: Progress,
    choose: bool,
) -> Coverage:
    chosen: list[int] = []
    for idx in range(fixtures.count):
        asked(watched, fixtures.make(idx))
        report_progress("coverage", idx + 1, fixtures.count)
    found = _found(watched, fixtures.count, chosen, share)
    pool = _pool(fixtures) if choose and fixtures.seed is not None else []
    for done, idx in enumerate(pool, 1):
        if not found.share < share:
            break
        ways = _ways(watched)
        asked(watched, fixtures.make(idx))
        report_progress("coverage", done, len(pool))
        if _ways(watched) > ways:
            chosen.append(idx)
            found = _found(watched, fixtures.count, chosen, share)
    if not chosen:
        return found
    return _fewer(watch, fixtures, chosen, share)


def _pool(fixtures: Fixtures) -> list[int]:
    """What further fixtures are chosen from, what reaches furthest first."""
    return [*corners(fixtures.specs), *range(fixtures.count, POOL), *swaps(fixtures.specs, SWAPS)]


def _fewer(watch: Callable[[], Watching], fixtures: Fixtures, chosen: list[int], share: float) -> Coverage:
    """The same ways with fewer fixtures, the last first: what came early is often in what came late.

    Where they are too many still, those that came last are left out, which took the least.
    """
    kept: list[int] = []
    watched = watch()
    watched.open()
    try:
        for idx in range(fixtures.count):
            asked(watched, fixtures.make(idx))
        found = _found(watched, fixtures.count, kept, share)
        for idx in reversed(chosen):
            ways = _ways(watched)
            asked(watched, fixtures.make(idx))
            if _ways(watched) > ways and fixtures.count + len(kept) < MOST:
                kept.append(idx)
                found = _found(watched, fixtures.count, sorted(kept), share)
    finally:
        watched.close()
    return found


def input_ranges(fixtures: Fixtures) -> dict[str, tuple[Array, Array]]:
    """What inputs of whole numbers and booleans can be: as they are meant; of recorded booleans, both."""
    if any(spec.free for spec in fixtures.specs):
        return {}
    if fixtures.seed is not None:
        whole = [spec for spec in fixtures.specs if np.dtype(spec.dtype).kind in "biu"]
        return {spec.name: whole_ends(spec) for spec in whole}
    given = {name: array for name, array in fixtures.make(0).items() if array.dtype.kind == "b"}
    return {name: (np.zeros_like(array), np.ones_like(array)) for name, array in given.items()}


def _ways(watched: Watching) -> int:
    """How many ways decisions went that inputs can turn round."""
    return sum(len(decision.went) for decision in watched.decisions if decision.reachable)


def _found(watched: Watching, judged: int, chosen: list[int], share: float) -> Coverage:
    return Coverage.of(watched.decisions, fixtures=judged + len(chosen), chosen=chosen, asked=share)
