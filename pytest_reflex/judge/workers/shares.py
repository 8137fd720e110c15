"""What of a check is shared between workers, and what the first process does by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pytest_reflex import settings
from pytest_reflex.errors import SettingsError, brief
from pytest_reflex.inputs.fixtures import Fixtures
from pytest_reflex.judge.sides import Sides
from pytest_reflex.judge.workers.pool import Pool
from pytest_reflex.judge.workers.ray_crew import RayCrew
from pytest_reflex.judge.workers.work import Work
from pytest_reflex.progress import Progress
from pytest_reflex.runners.base import said_by

__all__ = ["OWN", "STARTING", "own_share", "sharing"]

# The plain fixture and those where the ends of what is drawn lie. What is asked of a session, whether it
# repeats and keeps no count, takes more than one run of it.
OWN: Final = settings.FEWEST_STRICT
# Each is a process that holds both sides.
PER_CORE: Final = 16
# What progress is told under, while they start.
STARTING: Final = "workers"


def own_share(workers: Pool | None, count: int) -> int:
    """How many of a check's first fixtures the first process judges by itself."""
    return count if workers is None else min(OWN, count)


@contextmanager
def sharing(
    told: settings.Settings, sides: Sides, fixtures: Fixtures, report_progress: Progress, *, exact: bool
) -> Iterator[Pool | None]:
    """The workers of a check, which end with it; None where there are none.

    Args:
        told: what was asked for.
        sides: both sides, closed.
        fixtures: the fixtures.
        report_progress: told when they are asked for, and when somebody is there to start them.
        exact: whether the reference is asked in float64 too.

    Raises:
        RunnerError: a side cannot be sent to a worker, or no cluster answers.
        SettingsError: there are to be more of them than this machine can hold.
        MissingPackageError: Ray is not installed.
    """
    alone = any(said_by(side, "in_this_process", False) for side in (sides.reference, sides.candidate))
    if alone or (told.ray is None and (told.workers or 1) == 1):
        yield None
        return
    cores = os.cpu_count() or 1
    if told.ray is None and told.workers is not None and told.workers > PER_CORE * cores:
        raise SettingsError(
            f"workers is {brief(told.workers)}, and this machine has {cores} cores; give at most "
            f"{PER_CORE * cores}, or the address of a cluster too"
        )
    own = min(OWN, fixtures.count)
    work = Work(sides.reference, sides.candidate, fixtures.make, fixtures.specs, exact, own)
    report_progress(STARTING, 0, 1)
    crew = RayCrew(told.ray, told.workers, work)
    report_progress(STARTING, 1, 1)
    pool = Pool(crew, crew.size)
    try:
        if fixtures.count > OWN:
            pool.plan(range(OWN, fixtures.count))
        yield pool
    finally:
        pool.close()
