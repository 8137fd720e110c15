"""How far an output may be off: a number or a multiple of its floor, for each, and a share of its values."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from pytest_reflex.errors import SettingsError
from pytest_reflex.verdict.units import Amount

if TYPE_CHECKING:
    from pytest_reflex.verdict.rounding import Floor
    from pytest_reflex.verdict.units import InUnits

__all__ = ["STRICT_THRESHOLD", "THRESHOLD", "Amount", "Least", "Tolerances"]

THRESHOLD: Final = 1e-4
STRICT_THRESHOLD: Final = 1e-5
_THRESHOLD: Final = Amount(THRESHOLD)


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

    rest: Amount = _THRESHOLD
    outputs: Mapping[str, Amount] = field(default_factory=dict)
    rtol: float = 0.0

    def of(self, name: str) -> Amount:
        """The threshold of one output."""
        return self.outputs.get(name, self.rest)

    @property
    def needs_floors(self) -> bool:
        """Whether any output's is in floors."""
        return any(amount.in_floors for amount in (self.rest, *self.outputs.values()))

    def bound(
        self, name: str, floor: Floor | None, *, strict: bool, seen: tuple[InUnits, Sequence[float]] | None
    ) -> float:
        """An output's threshold in its own unit. Without a floor to count it is 0, which refuses.

        Raises:
            SettingsError: it is in a physical unit, and nobody says in which unit the output is.
        """
        amount = self.of(name)
        if amount.unit:
            if seen is None:
                raise SettingsError(
                    f"threshold: {amount} is asked of {name}, and nobody says in which unit that is; say "
                    "units='deg', judge a bundle with processors, or give a number"
                )
            return seen[0].bound(amount, name, seen[1])
        unit = 1.0 if not amount.in_floors else floor.unit if floor is not None else None
        bound = 0.0 if unit is None else amount.number * unit
        # Strict's 1e-5 is of what policies give, and of no degree or metre.
        robots = amount.in_floors and seen is not None and {*seen[0].scale} == {1.0}
        return min(bound, STRICT_THRESHOLD) if strict and not robots else bound

    def bounds(
        self,
        floors: Mapping[str, Floor],
        names: Iterable[str],
        *,
        strict: bool,
        seen: Mapping[str, tuple[InUnits, Sequence[float]]] | None = None,
    ) -> dict[str, float]:
        """The thresholds, in their own unit, of outputs whose is in floors, in a physical unit or their own.

        Args:
            floors: the floors of outputs that have any.
            names: the outputs of floats.
            strict: whether 1e-5 is the largest threshold.
            seen: of outputs with physical units those, and the largest difference of each element.

        Raises:
            SettingsError: as of :meth:`bound`.
        """

        def own(name: str) -> bool:
            counted = self.rest.in_floors and name in floors
            return name in self.outputs or counted or bool(self.rest.unit)

        return {
            name: self.bound(name, floors.get(name), strict=strict, seen=(seen or {}).get(name))
            for name in names
            if own(name)
        }

    def plain(self, *, strict: bool) -> float:
        """The threshold of outputs that have no own; infinite where it is not in theirs, but for strict's."""
        bound = self.rest.number if self.rest.plain else math.inf
        return min(bound, STRICT_THRESHOLD) if strict else bound

    @property
    def is_plain(self) -> bool:
        """Whether it is one number for all outputs."""
        return self.rest.plain and not (self.outputs or self.rtol)

    @property
    def text(self) -> str:
        """As it was asked: ``1e-05``, or ``logits 0.001, others 2x floor; rtol 1e-06``."""
        return self.said(by_default=False)

    def among(self, names: Collection[str]) -> Tolerances:
        """The same of these outputs alone: one threshold, where all of them have the same."""
        amounts = {self.of(name) for name in names}
        if len(amounts) != 1 or not self.outputs:
            return self
        return replace(self, rest=amounts.pop(), outputs={})

    def said(self, *, by_default: bool, names: Collection[str] = ()) -> str:
        """The same of these outputs, where they are known, and that nobody gave the threshold."""
        asked = self.among(names)
        named = [f"{name} {amount.in_words}" for name, amount in asked.outputs.items()]
        said = asked.rest.in_words
        rest = [f"others {said}" if named else f"{said}{' by default' if by_default else ''}"]
        if named and names and all(name in asked.outputs for name in names):
            rest = []  # there are no others
        return "; ".join([", ".join([*named, *rest]), *([f"rtol {self.rtol:g}"] if self.rtol else [])])

    def is_in_full(self, bound: float) -> bool:
        """Whether the numbers that were asked for say already that the largest bound is this one."""
        parts = [part.number for amount in (self.rest, *self.outputs.values()) for part in amount.parts]
        return not self.needs_floors and bound == max(parts)


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
