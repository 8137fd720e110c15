"""Success of two policies over the same starts: whether they differ, and what could have been seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["LEVEL", "Paired", "mcnemar", "paired", "smallest_seen"]

# Below this a difference is called one: the level of the test.
LEVEL: Final = 0.05


@dataclass(frozen=True)
class Paired:
    """How often two sides did the job, start by start.

    Attributes:
        both: starts in which both did.
        reference_only: starts in which the reference alone did.
        candidate_only: starts in which the candidate alone did.
        neither: starts in which neither did.
    """

    both: int
    reference_only: int
    candidate_only: int
    neither: int

    @property
    def starts(self) -> int:
        """How many starts there were."""
        return self.both + self.reference_only + self.candidate_only + self.neither

    @property
    def reference(self) -> float:
        """The share of starts in which the reference did it."""
        return (self.both + self.reference_only) / self.starts

    @property
    def candidate(self) -> float:
        """The share of starts in which the candidate did it."""
        return (self.both + self.candidate_only) / self.starts

    @property
    def p_value(self) -> float:
        """McNemar's, exact; see :func:`mcnemar`."""
        return mcnemar(self.reference_only, self.candidate_only)

    @property
    def differ(self) -> bool:
        """Whether the two do the job differently often, at :data:`LEVEL`."""
        return self.p_value < LEVEL

    @property
    def smallest(self) -> float | None:
        """The smallest difference that so many starts could have shown; see :func:`smallest_seen`."""
        return smallest_seen(self.starts)


def paired(reference: Sequence[bool], candidate: Sequence[bool]) -> Paired:
    """Count both sides' successes, in the order of the same starts."""
    pairs = [*zip(reference, candidate, strict=True)]
    return Paired(
        both=pairs.count((True, True)),
        reference_only=pairs.count((True, False)),
        candidate_only=pairs.count((False, True)),
        neither=pairs.count((False, False)),
    )


def mcnemar(one: int, other: int) -> float:
    """The exact two-sided p-value of McNemar's test ("Note on the sampling error of the difference between
    correlated proportions or percentages", 1947): that of a fair coin over the starts that told them apart.

    Args:
        one: starts that the one alone did.
        other: starts that the other alone did.
    """
    tosses = one + other
    tail = sum(math.comb(tosses, k) for k in range(min(one, other) + 1)) / 2.0**tosses
    return min(1.0, 2.0 * tail)


def smallest_seen(starts: int) -> float | None:
    """The smallest difference of two shares that the test could call one over so many starts.

    It is reached where every start that tells the two apart tells the same; None where even all of them
    would be too few.
    """
    needed = next((n for n in range(1, starts + 1) if mcnemar(n, 0) < LEVEL), None)
    return None if needed is None else needed / starts
