"""One threshold: a number in an output's own unit, in a robot's, or in floors."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Amount"]


@dataclass(frozen=True)
class Amount:
    """One threshold.

    Attributes:
        number: in the output's own unit, in a physical one, or how many floors.
        in_floors: whether it is of floors.
        unit: the physical unit that it is in, of :mod:`.units`; empty where it is in none.
        also: the thresholds of elements in other units, ``0.01 deg and 1 mm``.
    """

    number: float
    in_floors: bool = False
    unit: str = ""
    also: tuple[Amount, ...] = ()

    def __str__(self) -> str:
        if self.unit:
            return " and ".join(f"{one.number:g} {one.unit}" for one in self.parts)
        return f"{self.number:g}x floor" if self.in_floors else f"{self.number!r}"

    @property
    def parts(self) -> tuple[Amount, ...]:
        """The threshold of each unit."""
        return (self, *self.also)

    @property
    def plain(self) -> bool:
        """Whether it is a number in the output's own unit."""
        return not (self.in_floors or self.unit)
