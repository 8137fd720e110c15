"""The ranges that inputs are declared to have: their ends, where they rest, and what hangs together.

Of them the fixtures are made that nobody draws: corners, at which inputs are at the ends of their ranges, and
swaps, the plain fixture with one input of another. Each has a number of its own from :data:`FIRST_MADE` on
and is, like those that are drawn, a pure function of specs, seed and number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from pytest_reflex.inputs.distributions import (
    Bernoulli,
    Gaussian,
    Image,
    Integers,
    ScaledImage,
    State,
    Uniform,
)
from pytest_reflex.inputs.spec import InputSpec
from pytest_reflex.verdict.results import FIRST_MADE, FIRST_SWAP

__all__ = ["CORNERS", "corners", "ends", "far_ends", "groups", "made", "rest", "swaps", "whole_ends"]

Array = np.ndarray[Any, Any]
# How many corners stand beside a claim's draws.
CORNERS: Final = 8
# Of so many inputs every choice of those that are high is listed, and of more some are drawn.
_LISTED: Final = 10
# So many standard deviations from its mean a normal value is looked for.
_FAR: Final = 6.0
# Swaps have the numbers from here on.
_FIRST_SWAP: Final = FIRST_SWAP - FIRST_MADE


def ends(spec: InputSpec) -> tuple[Any, Any] | None:
    """The ends of an input's declared range; None where it has none, as noise, or its values are no range."""
    meaning = spec.meaning
    if isinstance(meaning, Uniform | ScaledImage):
        return float(meaning.low), float(meaning.high)
    if isinstance(meaning, Image | State):
        return -1.0, 1.0
    if isinstance(meaning, Integers):
        return meaning.low, meaning.high - 1
    return (False, True) if isinstance(meaning, Bernoulli) else None


def whole_ends(spec: InputSpec) -> tuple[Array, Array]:
    """What each element of an input of whole numbers or booleans can be at least and at most, however rarely.

    Of a meaning that does not say so that is all that its dtype holds.
    """
    dtype = np.dtype(spec.dtype)
    found: tuple[Any, Any] | None = spec.meaning.reach(spec)
    if found is None:
        found = (False, True) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    low, high = (np.broadcast_to(np.asarray(end, dtype), spec.shape) for end in found)
    return low, high


def far_ends(spec: InputSpec) -> tuple[Any, Any] | None:
    """The same, and of noise, which has no ends, what is so far out that none is ever drawn there."""
    meaning = spec.meaning
    if isinstance(meaning, Gaussian):
        return meaning.mean - _FAR * meaning.std, meaning.mean + _FAR * meaning.std
    return ends(spec)


def rest(spec: InputSpec) -> float | int | bool | None:
    """What an input is at rest: 0, or what of its range is nearest to it; None where no one value says so."""
    found = far_ends(spec)
    if found is None:
        return None
    if isinstance(spec.meaning, Gaussian):
        return spec.meaning.mean
    nearest: float | int | bool = type(found[0])(min(max(0, found[0]), found[1]))
    return nearest


def groups(inputs: Sequence[InputSpec]) -> list[list[InputSpec]]:
    """The inputs, those that hang on each other together."""
    found: list[list[InputSpec]] = []
    for spec in inputs:
        needed = set(spec.meaning.needs())
        near = [group for group in found if needed & {other.name for other in group}]
        found = [group for group in found if group not in near]
        found.append([*(other for group in near for other in group), spec])
    return found


def corners(specs: Sequence[InputSpec], count: int = CORNERS) -> list[int]:
    """The numbers of the first corners: all inputs low, all high, then each input, each element at an end.

    Nothing where no input has a range.
    """
    ranged = any(ends(spec) is not None for spec in specs)
    return [FIRST_MADE + number for number in range(count)] if ranged else []


def swaps(specs: Sequence[InputSpec], count: int) -> list[int]:
    """The numbers of the first swaps: of each group of inputs, from corners and drawn fixtures in turn."""
    return [FIRST_MADE + _FIRST_SWAP + number for number in range(count * len(groups(specs)))]


def made(
    specs: Sequence[InputSpec], seed: int, fixture_idx: int, draw: Callable[[int], dict[str, Array]]
) -> dict[str, Array]:
    """A fixture that is not drawn.

    Args:
        specs: the inputs.
        seed: what fixtures are drawn with.
        fixture_idx: its number, :data:`FIRST_MADE` or more.
        draw: gives a drawn fixture, in the sizes of fixture 0.
    """
    number = fixture_idx - FIRST_MADE
    if number < _FIRST_SWAP:
        return _corner(specs, seed, number, draw(_FIRST_SWAP + number))
    groups_of = groups(specs)
    turn, which = divmod(number - _FIRST_SWAP, len(groups_of))
    other = draw(1 + turn // 2) if turn % 2 else _corner(specs, seed, turn // 2, draw(0))
    return {**draw(0), **{spec.name: other[spec.name] for spec in groups_of[which]}}


def _whole_inputs(count: int, seed: int, number: int) -> list[bool]:
    """Which inputs are high as wholes: none, all; then every other choice before one comes again."""
    if number < 2:
        return [number == 1] * count
    turn = number // 2 - 1
    if count > _LISTED:
        chosen = np.random.default_rng([seed, FIRST_MADE, number]).random(count) < 0.5
        return [bool(one) for one in chosen]
    mixed = np.random.default_rng([seed, FIRST_MADE]).permutation(np.arange(1, max(2, 2**count - 1)))
    return [bool(int(mixed[turn % len(mixed)]) >> place & 1) for place in range(count)]


def _corner(
    specs: Sequence[InputSpec],
    seed: int,
    number: int,
    plain: Mapping[str, Array],
) -> dict[str, Array]:
    rng = np.random.default_rng([seed, FIRST_MADE, number])
    found = dict(plain)
    ranged = [spec for spec in specs if ends(spec) is not None]
    whole = _whole_inputs(len(ranged), seed, number)
    for spec, at_high in zip(ranged, whole, strict=True):
        own = ends(spec) or (0, 0)
        array = plain[spec.name]
        # From the fourth on every other has each element at an end of its own.
        high: Any = rng.random(array.shape) < 0.5 if number > 2 and number % 2 else at_high
        found[spec.name] = np.full(array.shape, np.where(high, own[1], own[0]), dtype=array.dtype)
    return found
