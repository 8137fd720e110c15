"""A threshold's unit, and a robot's: what its actions are in, and what an error of them is in those."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from pytest_reflex.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["OWN", "UNITS", "Amount", "InUnits", "Units", "unit_named", "units_of", "worst_elements"]

# How many of its dimension's first unit each is: angles in radians, lengths in metres, a gripper's or a
# motor's way in percent of it.
UNITS: Final[Mapping[str, tuple[str, float]]] = MappingProxyType(
    {
        "rad": ("angle", 1.0),
        "deg": ("angle", math.pi / 180),
        "m": ("length", 1.0),
        "mm": ("length", 1e-3),
        "%": ("share", 1.0),
    }
)
# Of a threshold: in what each element is in, whatever that is.
OWN: Final = "units"
_WORDS: Final = {
    "radian": "rad", "radians": "rad", "degree": "deg", "degrees": "deg",
    "metre": "m", "metres": "m", "meter": "m", "meters": "m",
    "millimetre": "mm", "millimetres": "mm", "millimeter": "mm", "millimeters": "mm", "percent": "%",
}  # fmt: skip


def unit_named(text: object) -> str | None:
    """The unit that a text names, also in full: ``degrees`` is ``deg``; None where it is none."""
    word = text.strip().lower() if isinstance(text, str) else ""
    return word if word in UNITS else _WORDS.get(word)


@dataclass(frozen=True)
class Amount:
    """One threshold.

    Attributes:
        number: in the output's own unit, in a physical one, or how many floors.
        in_floors: whether it is of floors.
        unit: the physical unit that it is in, of :data:`UNITS`; empty where it is in none.
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
    def in_words(self) -> str:
        """As it is written, but for a unit that each element has of its own."""
        return " and ".join(
            f"{one.number:g} in each element's own unit" if one.unit == OWN else str(replace(one, also=()))
            for one in self.parts
        )

    @property
    def parts(self) -> tuple[Amount, ...]:
        """The threshold of each unit."""
        return (self, *self.also)

    @property
    def plain(self) -> bool:
        """Whether it is a number in the output's own unit."""
        return not (self.in_floors or self.unit)


@dataclass(frozen=True)
class Units:
    """What somebody says of an action's units.

    Attributes:
        rest: the unit of every element without one of its own; empty where nobody says.
        elements: those of elements, by their name or their number.
    """

    rest: str = ""
    elements: Mapping[str, str] = field(default_factory=dict)

    def of(self, names: Sequence[str], count: int) -> tuple[str, ...]:
        """The unit of each of ``count`` elements.

        Raises:
            SettingsError: it names an element that is none.
        """
        known = {**{str(at): at for at in range(count)}, **{name: at for at, name in enumerate(names)}}
        found = [self.rest] * count
        for name, unit in self.elements.items():
            if name not in known:
                there = ", ".join(names) or f"0 to {count - 1}"
                raise SettingsError(
                    f"units: there is no element {name!r} of an action; there are {there}; another output is "
                    "in no unit"
                )
            found[known[name]] = unit
        return tuple(found)


@dataclass(frozen=True)
class InUnits:
    """What the elements of an output's last axis are in the robot's units.

    Attributes:
        units: the unit of each; empty where nobody says.
        scale: how much of its unit one of the output's own is, for each; 0 where it moves nothing of the
            robot, as what pads a policy's actions.
        names: what each is called; empty where nobody says.
    """

    units: tuple[str, ...]
    scale: tuple[float, ...]
    names: tuple[str, ...] = ()

    def name(self, at: int) -> str:
        return self.names[at] if at < len(self.names) else str(at)

    def bounds(self, asked: Amount, output: str) -> list[float]:
        """A threshold in physical units as one in the output's own, for each element.

        Raises:
            SettingsError: it says nothing of an element, which has another unit or none.
        """
        by_dimension = {UNITS[one.unit][0]: one for one in asked.parts if one.unit != OWN}
        own = next((one for one in asked.parts if one.unit == OWN), None)
        found = []
        for at, (unit, scale) in enumerate(zip(self.units, self.scale, strict=True)):
            one = by_dimension.get(UNITS[unit][0]) if unit else None
            if not scale:
                found.append(math.inf)
            elif one is not None:
                found.append(one.number * UNITS[one.unit][1] / UNITS[unit][1] / abs(scale))
            elif own is not None:
                found.append(own.number / abs(scale))
            else:
                raise SettingsError(self._unsaid(asked, output, at))
        # What moves nothing is held to what the strictest of the others is.
        least = min(found, default=0.0)
        return [bound if math.isfinite(bound) else least if math.isfinite(least) else 0.0 for bound in found]

    def _unsaid(self, asked: Amount, output: str, at: int) -> str:
        unit = self.units[at]
        if not unit:
            return (
                f"threshold: {asked} is asked of {output}, and nobody says in which unit its element "
                f"{self.name(at)} is; say units='deg', or units='deg, {self.name(at)}=%'"
            )
        return (
            f"threshold: {asked} says nothing of {output}'s element {self.name(at)}, which is in {unit}; say "
            f"that too, such as '{asked} and 1 {unit}'"
        )

    def bound(self, asked: Amount, output: str, worst: Sequence[float]) -> float:
        """A threshold in physical units as one of ``max_abs_diff`` in the output's own unit.

        Where elements have different thresholds it is the one that the largest difference is as far from as
        the element that is nearest to its own, so that one is below if and only if every other is.

        Args:
            asked: the threshold.
            output: the output's name.
            worst: the largest difference of each element, in the output's own unit.
        """
        bounds = self.bounds(asked, output)
        if len({*bounds}) == 1 or not any(worst):
            return min(bounds, default=0.0)
        shares = [
            apart / bound if bound else math.inf
            for apart, bound in zip(worst, bounds, strict=True)
            if apart != 0
        ]
        largest = max(shares, key=lambda share: (math.isnan(share), share))
        return 0.0 if math.isnan(largest) or math.isinf(largest) else max(worst) / largest


def worst_elements(reference: Array, candidate: Array) -> tuple[float, ...]:
    """The largest ``|reference - candidate|`` of each element of the last axis, in float64."""
    import numpy as np

    with np.errstate(all="ignore"):
        apart = np.abs(reference.astype(np.float64) - candidate.astype(np.float64))
    return tuple(float(one) for one in apart.reshape(-1, apart.shape[-1]).max(axis=0))


def units_of(
    said: Mapping[str, InUnits], told: Units | None, name: str, shape: Sequence[int]
) -> InUnits | None:
    """What an output is in the robot's units; None where nobody says.

    Args:
        said: what the candidate says of its outputs.
        told: what the caller says, of elements of which the candidate says nothing.
        name: the output.
        shape: its shape.

    Raises:
        SettingsError: the caller names an element that is none, or says another unit than the candidate.
    """
    count = shape[-1] if shape else 0
    known = said.get(name)
    if known is not None and len(known.units) > count:
        known = None
    elif known is not None:  # a policy's actions may be padded
        rest = count - len(known.units)
        known = InUnits((*known.units, *[""] * rest), (*known.scale, *[0.0] * rest), known.names)
    if told is None or not count:
        return known
    names = known.names if known is not None else ()
    units = told.of(names, count)
    if known is not None:
        for at, (one, before) in enumerate(zip(units, known.units, strict=True)):
            if one and before and one != before:
                raise SettingsError(
                    f"units: {name}'s element {known.name(at)} is in {before}, as the bundle says, and {one} "
                    "was given; leave it out, or export the bundle with the unit that is right"
                )
        units = tuple(one or before for one, before in zip(units, known.units, strict=True))
    return InUnits(units, known.scale if known is not None else (1.0,) * count, names)
