"""How far an output may be off: a number or a multiple of its floor, for each, and a share of its values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pytest_reflex.verdict.rounding import Floor

__all__ = ["STRICT_THRESHOLD", "THRESHOLD", "Amount", "Least", "Tolerances"]

THRESHOLD: Final = 1e-4
STRICT_THRESHOLD: Final = 1e-5


@dataclass(frozen=True)
class Amount:
    """One threshold.

    Attributes:
        number: in the output's own unit, or how many floors.
        in_floors: which of the two.
    """

    number: float
    in_floors: bool = False

    def __str__(self) -> str:
        return f"{self.number:g}x floor" if self.in_floors else f"{self.number!r}"


@dataclass(frozen=True)
class Tolerances:
    """What was asked of a run's outputs.

    An element passes where ``|candidate - reference| < threshold + rtol * |reference|``, in float64: numpy's
    rule, but for equality. No share of the elements is let off.

    Attributes:
        rest: the threshold of every output that has none of its own.
        outputs: the thresholds of those that have, by name.
        rtol: the share of the reference's value that is added.
    """

    rest: Amount = Amount(THRESHOLD)
    outputs: Mapping[str, Amount] = field(default_factory=dict)
    rtol: float = 0.0

    def of(self, name: str) -> Amount:
        """The threshold of one output."""
        return self.outputs.get(name, self.rest)

    @property
    def needs_floors(self) -> bool:
        """Whether any output's is in floors."""
        return any(amount.in_floors for amount in (self.rest, *self.outputs.values()))

    def bound(self, name: str, floor: Floor | None, *, strict: bool) -> float:
        """An output's threshold in its own unit. Without a floor to count it is 0, which refuses."""
        amount = self.of(name)
        unit = 1.0 if not amount.in_floors else floor.unit if floor is not None else None
        bound = 0.0 if unit is None else amount.number * unit
        return min(bound, STRICT_THRESHOLD) if strict else bound

    def bounds(self, floors: Mapping[str, Floor], names: Iterable[str], *, strict: bool) -> dict[str, float]:
        """The thresholds, in their own unit, of outputs whose is in floors or their own."""
        own = [name for name in names if name in self.outputs or (self.rest.in_floors and name in floors)]
        return {name: self.bound(name, floors.get(name), strict=strict) for name in own}

    def plain(self, *, strict: bool) -> float:
        """The threshold of outputs that have no own; infinite where that is in floors, but for strict's."""
        bound = math.inf if self.rest.in_floors else self.rest.number
        return min(bound, STRICT_THRESHOLD) if strict else bound

    @property
    def is_plain(self) -> bool:
        """Whether it is one number for all outputs."""
        return not (self.rest.in_floors or self.outputs or self.rtol)

    @property
    def text(self) -> str:
        """As it was asked: ``1e-05``, or ``logits 0.001, others 2x floor; rtol 1e-06``."""
        return self.said(by_default=False)

    def said(self, *, by_default: bool) -> str:
        """The same, and that nobody gave the threshold where nobody did."""
        named = [f"{name} {amount}" for name, amount in self.outputs.items()]
        rest = f"others {self.rest}" if named else f"{self.rest}{' by default' if by_default else ''}"
        return "; ".join([", ".join([*named, rest]), *([f"rtol {self.rtol:g}"] if self.rtol else [])])


@dataclass(frozen=True)
class Least:
    """The least of each kind of tolerance that an output would pass with, the others as they are.

    A verdict passes strictly above it.

    Attributes:
        name: the output.
        atol: the least threshold, in the output's own unit.
        rtol: the least rtol; None where none would do, for a value that differs is 0 in the reference, or
            where that is not known.
        floors: the least multiple of the floor; None where that is not known.
    """

    name: str
    atol: float
    rtol: float | None
    floors: float | None
