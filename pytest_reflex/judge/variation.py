"""Did the fixtures vary what can vary? What had one size, or was never drawn, was not compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from pytest_reflex.inputs import InputSpec, free_sizes
from pytest_reflex.settings import FEWEST_STRICT
from pytest_reflex.verdict.results import OPEN_AXIS
from pytest_reflex.verdict.summaries import InputSummary

Array = np.ndarray[Any, Any]

# A free axis is judged in so many sizes at least, one of them beyond what it was traced with.
FEWEST_SIZES: Final = 3


def categories_of(specs: Sequence[InputSpec]) -> dict[str, set[int]]:
    """Of each input that has categories those that were drawn: none yet."""
    return {spec.name: set() for spec in specs if spec.meaning.categories()}


def note_categories(drawn: dict[str, set[int]], inputs: Mapping[str, Array]) -> None:
    """Add what one fixture has of them."""
    for name, seen in drawn.items():
        seen.update(inputs[name].reshape(-1).tolist() if name in inputs else ())


def judge_copies(count: int, distinct: int, came: str) -> list[str]:
    """A doubt where fewer fixtures differ by more than rounding than strict takes.

    Args:
        count: how many there are; a few that all differ are for the settings to refuse.
        distinct: how many of them differ.
        came: whether they were ``given`` or ``drawn``.
    """
    if distinct >= min(count, FEWEST_STRICT):
        return []
    return [
        f"{count} fixtures were {came} and {distinct} differ by more than rounding; near copies count as "
        f"one, and strict takes no fewer than {FEWEST_STRICT}"
    ]


def judge_open_axes(
    open_axes: Sequence[tuple[str, int, str]],
    specs: Sequence[InputSpec],
    fixtures: Sequence[Sequence[InputSummary]],
) -> list[str]:
    """A doubt for each axis that the candidate's graph leaves open and the fixtures did not vary.

    Args:
        open_axes: of each the input, the axis and the graph's name for it.
        specs: what the inputs stand for, as far as that is known; what is free there is judged as such.
        fixtures: what each fixture held.
    """
    known = {(spec.name, i) for spec in specs for i, name in enumerate(spec.free) if name}
    free = {name for spec in specs for name in spec.free if name}
    found: dict[str, tuple[set[int], list[tuple[str, int, int]]]] = {}
    for given, axis, name in open_axes:
        shapes = [held.shape for fixture in fixtures for held in fixture if held.name == given]
        sizes = {shape[axis] for shape in shapes if axis < len(shape)}
        if (given, axis) in known or name in free or not sizes or len(sizes) >= FEWEST_SIZES:
            continue
        _, places = found.setdefault(name, (sizes, []))
        places.append((given, axis, len(shapes[0])))
    return [_open_axis(name, sizes, places) for name, (sizes, places) in found.items()]


def _open_axis(name: str, sizes: Collection[int], places: Sequence[tuple[str, int, int]]) -> str:
    """What is said of one open axis: where it is, its sizes, and what to write in each InputSpec."""
    had = ", ".join(map(str, sorted(sizes)))
    axes = {axis for _, axis, _ in places}
    if len(axes) == 1:
        inputs = ", ".join(repr(given) for given, _, _ in places)
        where = f"axis {places[0][1]} of input{'s' * (len(places) > 1)} {inputs}"
    else:
        where = ", ".join(f"axis {axis} of input {given!r}" for given, axis, _ in places)
    write = " and ".join(
        f"InputSpec({given!r}, ..., free={tuple(name if i == axis else None for i in range(rank))!r})"
        for given, axis, rank in places
    )
    return (
        f"{where} ({name}) {OPEN_AXIS} and was judged in size{'s' * (len(sizes) > 1)} {had} alone; give "
        f"{write}, or fix it in the file"
    )


def judge_variation(
    specs: Sequence[InputSpec],
    fixtures: Sequence[Sequence[InputSummary]],
    drawn: Mapping[str, Collection[int]] = MappingProxyType({}),
    *,
    recorded: bool = False,
) -> list[str]:
    """A doubt for each free axis that had too few sizes, and each category that was never drawn.

    Args:
        specs: what the inputs stand for, as far as that is known.
        fixtures: what each fixture held.
        drawn: of the inputs that have categories, those that were drawn.
        recorded: whether the fixtures are given ones, of which more have no other sizes.
    """
    others = "judge it with drawn fixtures too, or give some of other sizes"
    more = others if recorded else "draw 5 fixtures or more"
    doubts = []
    for axis, plain in free_sizes(specs).items():
        places = [(s.name, i) for s in specs for i, name in enumerate(s.free) if name == axis]
        sizes = {
            held.shape[i]
            for fixture in fixtures
            for held in fixture
            for name, i in places
            if held.name == name and i < len(held.shape)
        }
        if sizes and (len(sizes) < FEWEST_SIZES or max(sizes) <= plain):
            had = ", ".join(map(str, sorted(sizes)))
            doubts.append(
                f"axis {axis!r} is free and was judged in sizes {had} alone, where {FEWEST_SIZES} are wanted "
                f"and one above {plain}; {more}"
            )
    for spec in specs:
        every, seen = spec.meaning.categories(), drawn.get(spec.name)
        missing = [n for n in every if seen is not None and n not in seen]
        if missing and seen:
            doubts.append(
                f"input {spec.name!r}: {len(seen)} of {len(every)} values were drawn, and {missing[0]} was "
                f"not; draw {len(every) + 1} fixtures to judge each"
            )
    return doubts
