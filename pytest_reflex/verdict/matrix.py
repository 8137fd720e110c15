"""Many runtimes of one policy beside each other: their verdicts, all distances, and the odd one out."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np

from pytest_reflex.verdict.results import RunResult

__all__ = ["REFERENCE", "Column", "Matrix"]

# What the reference is called among the runtimes.
REFERENCE: Final = "reference"


@dataclass(frozen=True)
class Column:
    """One runtime.

    Attributes:
        runtime: its name.
        result: its verdict; None where none was reached.
        error: why there is none, in one line; else empty.
        opened_s: seconds that opening it took.
        run_s: seconds of one run, the median over the fixtures.
        taken_bytes: the most memory that it took while it was open, beyond what the process held before.
    """

    runtime: str
    result: RunResult | None
    error: str = ""
    opened_s: float | None = None
    run_s: float | None = None
    taken_bytes: int | None = None

    @property
    def passed(self) -> bool:
        return self.result is not None and self.result.passed

    @property
    def share(self) -> float:
        """Of what it may be off, how much it is; infinite where that is not known, or there is no verdict."""
        off = None if self.result is None else self.result.max_abs_diff_across_all
        if self.result is None or off is None or np.isnan(off):
            return math.inf
        bound = self.result.threshold
        return off / bound if bound else math.inf if off else 0.0


@dataclass(frozen=True)
class Matrix:
    """The verdict on all of them.

    Attributes:
        name: what was run.
        columns: the runtimes, in the order in which they were given.
        apart: the largest difference of any output between two of them, or one and the ``reference``, over
            the fixtures; infinite where their outputs cannot be laid side by side.
    """

    name: str
    columns: tuple[Column, ...]
    apart: Mapping[tuple[str, str], float]

    @property
    def passed(self) -> bool:
        """Whether every runtime has a verdict, and every verdict is a pass."""
        return bool(self.columns) and all(column.passed for column in self.columns)

    def __bool__(self) -> bool:
        """The verdict."""
        return self.passed

    @property
    def exit_code(self) -> int:
        """The worst: 2 where a runtime reached no verdict, 1 where one failed, else 0."""
        if not self.columns or any(column.result is None for column in self.columns):
            return 2
        return 0 if self.passed else 1

    @property
    def worst(self) -> Column:
        """That which decides: one that failed before one that passed, and of these the furthest off.

        One without a verdict comes after those that failed, whose figures say more.
        """
        order = {True: 0, False: 2}
        return max(
            self.columns,
            key=lambda column: (1 if column.result is None else order[column.passed], column.share),
        )

    def distance(self, one: str, other: str) -> float | None:
        """How far two are apart; None where one of them gave nothing."""
        return self.apart.get((one, other), self.apart.get((other, one)))

    @property
    def members(self) -> tuple[str, ...]:
        """The reference and each runtime that answered."""
        ran = [column.runtime for column in self.columns if (REFERENCE, column.runtime) in self.apart]
        return (REFERENCE, *ran)

    @property
    def odd(self) -> tuple[str, ...]:
        """Those that do not agree with the others, where most agree with each other.

        Where it is the reference, the runtimes agree: they run one graph, and the graph is wrong. One that
        runs the policy itself says nothing of the graph, so that it has no vote; it is odd where it agrees
        neither with those that most are nor with the reference.
        """
        if len(self.members) < 3:
            return ()
        itself = self.of_policy
        members = [member for member in self.members if member not in itself]
        # The largest group in which everyone is near to everyone, where that is most of them.
        groups = [
            group
            for size in range(len(members), len(members) // 2, -1)
            for group in combinations(members, size)
            if all((self.distance(a, b) or 0.0) < self.bound for a, b in combinations(group, 2))
        ]
        if not groups:
            return ()
        apart = [
            one
            for one in itself
            if any(not (self.distance(one, other) or 0.0) < self.bound for other in groups[0])
            and not (self.distance(one, REFERENCE) or 0.0) < self.bound
        ]
        return tuple(m for m in self.members if m in apart or (m in members and m not in groups[0]))

    @property
    def of_policy(self) -> tuple[str, ...]:
        """Those that run the policy itself, by what they say of themselves, and no graph."""
        ran = [column for column in self.columns if column.result is not None]
        return tuple(c.runtime for c in ran if c.result and c.result.candidate.get("runs_policy") is True)

    @property
    def bound(self) -> float:
        """How near two are who agree: what the verdicts ask for, and where outputs must be equal, any bit."""
        told = [column.result.threshold for column in self.columns if column.result is not None]
        return max(told, default=0.0) or sys.float_info.min
