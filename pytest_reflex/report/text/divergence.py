"""Where two sides part, as text: the place in one line, then how the error grows along depth and steps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from pytest_reflex.report.text.layout import NARROW, UNBROKEN, wrapped
from pytest_reflex.verdict.divergence import Divergence, Growth, Location
from pytest_reflex.verdict.results import named_fixture

ROWS: Final = 8
_BAR: Final = 12


def where_line(divergence: Divergence) -> str:
    """``Where: bug: step 7, layers.2.norm_2 (modeling.py:88): Add is 1.0e-03 off by itself``."""
    word = "rounding" if divergence.cause == "rounding" else "bug"
    return f"Where: {word}: {divergence.said}"


def place_lines(divergence: Divergence) -> list[str]:
    """The first wrong value: node, element, both sides."""
    place = divergence.place
    if place is None:
        return []
    index = ", ".join(map(str, place.index))
    judge = "the evaluator" if divergence.cause == "runtime" else "PyTorch"
    rounding = "not run in float64" if place.rounding is None else f"{judge} rounds by {place.rounding:.1e}"
    return [
        f"First to differ: {place.value} ({named_fixture(divergence.fixture_idx)}, "
        f"{divergence.values} values compared)",
        *_node_lines(place),
        f"  reference     {place.reference!r} at [{index}]{', fed alike' if place.fed_alike else ''}",
        f"  candidate     {place.candidate!r}",
        f"  difference    {place.error:.3e}; {rounding}, values up to {place.scale:.3g}",
    ]


def _node_lines(place: Location) -> list[str]:
    """The node; of several that were compared as one, these, and which of them has no counterpart."""
    if not place.together:
        return [f"  node          {place.operator} {place.node}"]
    suspect = [f"  suspect       {place.operator} {place.node}"] if place.operator else []
    return [f"  together      {place.operators}", *suspect]


def growth_lines(divergence: Divergence, rows: int = ROWS, width: int = UNBROKEN) -> list[str]:
    """Behind each layer, the worst of all steps; then after each step. The longest bar is the largest.

    On fewer columns than :data:`~pytest_reflex.report.text.layout.NARROW` there are no bars.
    """
    layers = by_layer(divergence.growth)
    steps = by_step(divergence.growth)
    if not layers:
        return []
    largest = max((g.propagated for g in (*layers, *steps)), default=0.0)
    shown = around(layers, divergence, rows)
    wide = max(len(g.module) for g in shown)
    narrow = width < NARROW
    lines = wrapped("Growth of the error, propagated and local (the worst of all steps)", width)
    for growth in shown:
        bar = "" if narrow else _bar(growth.propagated, largest)
        figures = f"{growth.propagated:.1e}  {growth.local:.1e}  {bar}".rstrip()
        line = f"  {growth.module:<{wide}}  {figures}"
        lines += [line] if len(line) <= width or not narrow else [f"  {growth.module}", f"    {figures}"]
    if len(shown) < len(layers):
        lines.append(f"  ... {len(layers) - len(shown)} more layers")
    if steps:
        after = "after steps " + " ".join(f"{g.propagated:.0e}" for g in steps[:16])
        lines += wrapped(after, width, first="  ", rest="    ") if narrow else [f"  {after}"]
    return lines


def divergence_text(divergence: Divergence) -> str:
    """Everything, for ``reflex locate``."""
    compared = f"{divergence.values} values compared, {divergence.unmatched} without a counterpart"
    head = [
        where_line(divergence),
        f"{named_fixture(divergence.fixture_idx).capitalize()}: {compared}, in {divergence.seconds:.1f} s",
    ]
    blocks = [head, place_lines(divergence), growth_lines(divergence, rows=40)]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def by_layer(growth: tuple[Growth, ...]) -> list[Growth]:
    """Each layer once, the worst of all steps; the loop's own arithmetic is no layer."""
    worst: dict[str, Growth] = {}
    for one in growth:
        before = worst.get(one.module, one)
        far = one if one.propagated > before.propagated else before
        worst[one.module] = replace(far, local=max(one.local, before.local))
    return [g for g in worst.values() if not g.module.startswith("the loop's")]


def by_step(growth: tuple[Growth, ...]) -> list[Growth]:
    """The last thing that each step computes."""
    last = {one.step: one for one in growth if one.step is not None}
    return [last[step] for step in sorted(last)]


def around(layers: list[Growth], divergence: Divergence, rows: int) -> list[Growth]:
    """So many layers, the one of the place among them."""
    if len(layers) <= rows:
        return layers
    module = divergence.place.module if divergence.place else ""
    at = next((i for i, g in enumerate(layers) if module.startswith(g.module)), 0)
    first = max(0, min(at - 2, len(layers) - rows))
    return layers[first : first + rows]


def _bar(value: float, largest: float) -> str:
    """A bar on a log scale, six decades long."""
    if not value > 0:
        return ""
    if not (0 < largest < math.inf and value < math.inf):
        return "#" * _BAR
    length = _BAR * (1 + math.log10(value / largest) / 6)
    return "#" * max(1, round(length))
