"""The physical units that a threshold may be given in, and those that a robot's actions are in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["DIMENSIONS", "UNITS", "unit_named"]

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
DIMENSIONS: Final = ("angle", "length", "share")
_WORDS: Final = {
    "radian": "rad", "radians": "rad", "degree": "deg", "degrees": "deg", "°": "deg",
    "metre": "m", "metres": "m", "meter": "m", "meters": "m",
    "millimetre": "mm", "millimetres": "mm", "millimeter": "mm", "millimeters": "mm", "percent": "%",
}  # fmt: skip


def unit_named(text: object) -> str | None:
    """The unit that a text names, also in full: ``degrees`` is ``deg``; None where it is none."""
    word = text.strip().lower() if isinstance(text, str) else ""
    return word if word in UNITS else _WORDS.get(word)
