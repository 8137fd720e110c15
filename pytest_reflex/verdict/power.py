"""Could this comparison have failed? A bound as large as what an output does tells nothing of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_reflex.verdict.tolerances import Tolerances

if TYPE_CHECKING:
    import numpy as np

    from pytest_reflex.verdict.results import FixtureResult

    Array = np.ndarray[Any, Any]

__all__ = ["LARGEST_SHARE", "Power", "judge_power", "rounded_down", "swings_of"]

# A bound above this share of an output's swing is doubted.
LARGEST_SHARE: Final = 0.01
# So many values of an output in one fixture are looked at, evenly spread: a quartile needs no more.
_SAMPLE: Final = 1 << 14


@dataclass(frozen=True)
class Power:
    """What the outputs' bounds can tell.

    Attributes:
        refused: a reason for each output that its floors, or its threshold beside rtol, say nothing of.
        doubted: a reason for each output whose bound is large beside its swing.
    """

    refused: list[str]
    doubted: list[str]


def swings_of(outputs: Sequence[Mapping[str, Array]]) -> dict[str, float]:
    """The swing of each output of floats: how far most of what it gives lies from its middle.

    It is the upper quartile of ``|value - median|`` over all fixtures and elements, those that are the median
    left out. A standard deviation or a range would be made by one large value among a thousand that no bound
    can tell from zero, and a plain quartile is 0 where most of an output is padding. An output that has one
    value only swings by the size of that value.
    """
    from pytest_reflex.verdict.metrics import is_float

    names = dict.fromkeys(name for fixture in outputs for name in fixture)
    arrays = {name: [fixture[name] for fixture in outputs if name in fixture] for name in names}
    # One that is of integers in some fixture is judged by its bound in the others.
    return {name: _swing(a) for name, a in arrays.items() if any(is_float(one.dtype) for one in a)}


def judge_power(
    fixtures: Sequence[FixtureResult],
    swings: Mapping[str, float],
    threshold: float,
    effects: Mapping[str, Mapping[str, float]],
    asked: Tolerances | None = None,
) -> Power:
    """Whether the bounds that a run was judged by could tell anything of its outputs, and of its inputs.

    An output that both sides give to the bit in every fixture needs no bound, and is not asked about.

    Args:
        fixtures: what was found of each fixture.
        swings: what :func:`swings_of` found of the reference.
        threshold: the bound of the outputs that have none of their own.
        effects: for each input, how far another value of it moved each output.
        asked: what was asked of each output; by default ``threshold`` of all.
    """
    found = Power([], [])
    asked = asked or Tolerances()
    # What is no float is compared exactly: any move of it is seen.
    bounds: dict[str, float] = {}
    for name, swing in swings.items():
        outputs = [o for fixture in fixtures for o in fixture.outputs if o.name == name]
        if all(o.difference is None or o.difference.max_abs_diff == 0 for o in outputs):
            bounds[name] = 0.0
            continue
        own = [o.bound for o in outputs if o.bound is not None]
        bound = max(own, default=threshold)
        # With rtol the largest value has the widest bound; an error of that size anywhere is what may pass.
        sizes = [o.difference.scale or 0.0 for o in outputs if o.difference is not None]
        added = asked.rtol * max(sizes, default=0.0)
        bounds[name] = bound = bound + added
        units = [o.floor.unit for o in outputs if o.floor is not None]
        unit = max((u for u in units if u is not None), default=0.0)
        does = f"{name} swings by {swing:.1e}"
        if asked.rtol and not asked.of(name).in_floors and not bound < swing:
            # Who asks in shares of a value counts on its size; a threshold as large as that undoes it.
            found.refused.append(
                f"{does}, and the bound is {bound:.1e}, of which rtol adds {added:.1e}: a bound as large as "
                f"what the output does tells nothing; {_smaller(swing, added, sizes)}"
            )
        elif asked.of(name).in_floors and not max(bound, unit) < swing:
            found.refused.append(
                f"{does}, and one floor is {unit:.1e}, the bound {bound:.1e}: a bound as large as what the "
                "output does tells nothing; give a number, or fewer floors"
            )
        elif not bound <= LARGEST_SHARE * swing:
            advice = _smaller(swing, added, sizes)
            found.doubted.append(
                f"{does}, and the bound is {bound:.1e}, above 1 % of that: a wrong value may pass; {advice}"
            )
    for name, changes in effects.items():
        # Asked this way round, a NaN is something that was seen.
        if any(changes.values()) and all(
            change == 0 or change < bounds.get(output, 0.0) for output, change in changes.items()
        ):
            found.doubted.append(
                f"input {name!r} moves no output by more than {max(changes.values()):.1e}, which is below "
                "the bound, so that whether it is used rightly was not judged; give a threshold below that"
            )
    return found


def _smaller(swing: float, added: float, sizes: Sequence[float]) -> str:
    """What to give in place of a bound that is large beside a swing, where rtol adds so much to it."""
    if not swing:
        return "scale it"
    if added > LARGEST_SHARE * swing:
        return f"give an rtol of {rounded_down(LARGEST_SHARE * swing / max(sizes)):.1e} or less"
    return f"give a threshold of {rounded_down(LARGEST_SHARE * swing):.1e} or less"


def rounded_down(bound: float) -> float:
    """In two digits that are no more than it, so that what is advised is enough."""
    if not 0 < bound < math.inf:
        return bound
    near = float(f"{bound:.1e}")
    return near if near <= bound else float(f"{near - 10.0 ** (math.floor(math.log10(bound)) - 1):.1e}")


def _swing(arrays: Iterable[Array]) -> float:
    import numpy as np

    given = [array for array in arrays if array.size]
    values = np.concatenate([np.zeros(0), *(_sample(array) for array in given)])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0
    middle = float(np.median(values))
    # The nearest that occurs: between two values there may be none.
    middle = float(values[np.argmin(np.abs(values - middle))])
    apart = np.abs(values - middle)
    apart = apart[apart > 0]
    if not apart.size:  # one value in all that was looked at; others may stand between
        ends = [float(end) - middle for array in given for end in (np.nanmin(array), np.nanmax(array))]
        apart = np.array([abs(end) for end in ends if end and math.isfinite(end)])
    return float(np.quantile(apart, 0.75, method="higher")) if apart.size else abs(middle)


def _sample(array: Array) -> Array:
    """At most :data:`_SAMPLE` values; the stride shares no factor with the size, and so meets each column."""
    import numpy as np

    flat = array.reshape(-1)
    step = -(-flat.size // _SAMPLE)
    while math.gcd(step, flat.size) != 1 and step > 1:
        step += 1
    return np.asarray(flat[::step]).astype(np.float64)
