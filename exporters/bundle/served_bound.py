"""What a bundle has to be held to for a server to take it: a bound that a wrong value does not pass."""

from __future__ import annotations

import math
import os
import shlex
from typing import Final

from pytest_reflex.result import ParityResult
from pytest_reflex.verdict.power import LARGEST_SHARE, rounded_down

__all__ = ["MODEL", "UNSERVED", "doubted_bounds", "not_served", "way_to_be_served"]

# Stands in a command for what only its caller knows.
MODEL: Final = "MODEL"
UNSERVED: Final = "will not be served: "
# A server asks with the values of the recording, which move an output otherwise than those of an export.
_OF_OTHER_VALUES: Final = 0.5


def doubted_bounds(result: ParityResult) -> list[str]:
    """Why a verdict's bounds are too large for a server, each in words; empty where they are not."""
    return [doubt.said for doubt in result.doubts if doubt.gate == "power"]


def way_to_be_served(result: ParityResult, place: str | os.PathLike[str], precision: str) -> str:
    """What makes a bundle one that is served, as a command where there is one.

    Args:
        result: the verdict that it has, with :func:`doubted_bounds`.
        place: where it is.
        precision: that of its manifest.
    """
    return _way(result, place, precision, _largest_bound(result, 1.0))


def not_served(result: ParityResult, place: str | os.PathLike[str], precision: str) -> str:
    """What an export says of a bundle that passed and that no server will take; empty of others.

    Arguments are as for :func:`way_to_be_served`.
    """
    if not doubted_bounds(result):
        return ""
    bound = _largest_bound(result, _OF_OTHER_VALUES)
    least = f"its bound has to be {bound:.1e} or less; " if 0 < bound < math.inf else ""
    return f"{UNSERVED}{least}{_way(result, place, precision, bound)}"


def _way(result: ParityResult, place: str | os.PathLike[str], precision: str, bound: float) -> str:
    largest = result.max_abs_diff_across_all
    if not 0 < bound < math.inf or largest is None:
        return "export it again"
    if largest < bound:  # a repair would find nothing to do, and leave the bound as it is
        return f"export it again with `--threshold {bound:.1e}`, which it is below"
    if precision == "float32":
        return "export it again"
    where = shlex.quote(os.fspath(place))
    return f"`reflex repair {where} --model {MODEL} --budget {bound:.1e}` brings it to that"


def _largest_bound(result: ParityResult, share: float) -> float:
    """The largest bound of all outputs that neither a swing nor an input makes doubtful, in two digits."""
    outputs = [output for fixture in result.fixtures for output in fixture.outputs]
    unequal = {o.name for o in outputs if o.difference is not None and o.difference.max_abs_diff != 0}
    bounds = [LARGEST_SHARE * swing for name, swing in result.swings.items() if name in unequal]
    bounds += [share * max(moved) for moved in (v.values() for v in result.effects.values()) if any(moved)]
    return rounded_down(min(bounds, default=math.inf))
