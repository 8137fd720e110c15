"""Where figures lie on a logarithmic axis, the step of their floats, how far a figure is from its bound."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pytest_reflex.verdict.results import RunResult

# Digits after the binary point of the significand, by numpy name.
_FRACTION_BITS: Final = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis in whole decades, from ``10**first`` to ``10**last``."""

    first: int
    last: int

    def place(self, value: float) -> float:
        """Where a figure lies, 0 to 1: 0 and what is below at the start, NaN and what is above at the end."""
        if math.isnan(value) or value == math.inf:
            return 1.0
        if value <= 0:
            return 0.0
        return min(max((math.log10(value) - self.first) / (self.last - self.first), 0.0), 1.0)

    def ticks(self, most: int = 6) -> list[int]:
        """Exponents to write, at most ``most`` of them, evenly spaced."""
        every = -(-(self.last - self.first) // most)
        return list(range(self.first, self.last + 1, max(every, 1)))


def axis(values: Iterable[float | None]) -> Axis:
    """An axis that holds every finite figure above 0, with a decade to spare on both sides."""
    decades = [math.log10(v) for v in values if v is not None and math.isfinite(v) and v > 0]
    first = math.floor(min(decades, default=-8.0) - 0.3)
    last = math.ceil(max(decades, default=0.0) + 0.3)
    return Axis(first, max(last, first + 2))


def ulp_step(result: RunResult) -> tuple[float, str, float] | None:
    """The least difference that two floats near the reference's largest value can have.

    One unit in the last place there: ``2**(floor(log2(scale)) - fraction bits)`` (IEEE 754).

    Returns:
        The step, the dtype, and the reference's largest value over all outputs and fixtures; None
        where no float output was measured.
    """
    found = [
        (math.ldexp(1.0, math.frexp(scale)[1] - 1 - bits), output.dtype, float(scale))
        for fixture in result.fixtures
        for output in fixture.outputs
        if (bits := _FRACTION_BITS.get(output.dtype)) is not None and output.difference is not None
        if (scale := output.difference.scale) and math.isfinite(scale)
    ]
    return max(found, key=lambda step: step[0], default=None)


def distance(value: float | None, threshold: float) -> str:
    """How far a figure is from its threshold, in words."""
    if value is None:
        return "not measured"
    if math.isnan(value) or math.isinf(value):
        return "not a finite number"
    if value == 0:
        return "equal to the last bit"
    if value == threshold:
        return "just at the threshold"
    ratio = value / threshold if value > threshold else threshold / value
    text = f"{ratio:.3g}" if ratio < 1000 else f"{ratio:,.0f}" if ratio < 1e6 else f"{ratio:.1e}"
    return f"{text} times {'above' if value > threshold else 'below'} the threshold"
