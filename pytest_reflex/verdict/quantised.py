"""A quantised graph's two distances: what the runtime makes of its graph, and what quantising cost.

The first is judged by rounding; the second is a budget that only whoever knows the arm can set, and is shown.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pytest_reflex.verdict.rounding import ABSOLUTE_ULPS, FACTOR, Word

__all__ = ["QuantisedDistances", "same_scales"]

# Two scales are of the same values where they differ by no more than rounding in what made those.
_ALIKE: Final = 1e-4
# So many of a graph's scales are those of a program, and the few others are what is wrong with it.
_NEARLY_ALL: Final = 0.9


@dataclass(frozen=True)
class QuantisedDistances:
    """The largest distances of one output of one fixture, in the output's unit.

    Attributes:
        runtime: the runtime's from its own graph in float64.
        floor: how far float32 rounding moves that graph's result: a value that lies between two steps of a
            scale falls to either side.
        cost: the graph's, in float64, from the float64 reference; None where none was given.
        scale: the largest value that the graph gives in float64.
    """

    runtime: float
    floor: float
    cost: float | None
    scale: float

    @property
    def allowed(self) -> float:
        """How far the runtime may be: twice the floor, or some bits of the largest value."""
        return max(FACTOR * self.floor, ABSOLUTE_ULPS * self.scale * 2.0**-23)

    @property
    def word(self) -> Word:
        """``rounding``: the runtime computes its graph; ``bug``: it computes something else."""
        # Whatever is NaN is no rounding.
        return "rounding" if self.runtime <= self.allowed else "bug"

    @property
    def text(self) -> str:
        """For people, in one line."""
        runtime = f"the runtime is {self.runtime:.1e} from its own graph"
        said = f"{self.word}: {runtime}, where float32 rounding explains {self.allowed:.1e}"
        return said if self.cost is None else f"{said}; quantising cost {self.cost:.1e}"


def same_scales(graph: Sequence[float], seen: Sequence[float]) -> bool:
    """Whether a graph was calibrated with what was seen: nearly all its scales are among those of that.

    Then no other data explains an error, and neither do operators that are quantised beside the products.

    Args:
        graph: the scales of a graph's activations.
        seen: the scales that operands and results of the reference's products have over its fixtures.
    """
    known = sorted(seen)

    def there(scale: float) -> bool:
        at = bisect.bisect_left(known, scale)
        return any(abs(scale - near) <= _ALIKE * scale for near in known[max(at - 1, 0) : at + 1])

    return bool(graph) and sum(map(there, graph)) >= _NEARLY_ALL * len(graph)
