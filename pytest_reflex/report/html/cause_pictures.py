"""Pictures of why two sides differ: how far each is from float64, and the error along the whole run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pytest_reflex.report.html.svg import WIDTH, Picture, Plot, cross, power
from pytest_reflex.report.scale import axis
from pytest_reflex.verdict.divergence import Growth
from pytest_reflex.verdict.rounding import Floor

_DEEPEST: Final = 1e-7
# A run of more layers than this is drawn as the largest of neighbours.
_POINTS: Final = 240


def distances(fixtures: Sequence[tuple[int, Floor]]) -> str:
    """Each fixture in a row of its own: PyTorch's largest error, the candidate's, and what is allowed.

    Args:
        fixtures: index and floor of each; those without figures are left out.
    """
    rows = [(idx, f) for idx, f in fixtures if f.reference_max is not None and f.candidate_max is not None]
    left, top, high = 34, 8, 22
    along = axis([v for _, f in rows for v in (f.reference_max, f.candidate_max, f.allowed)])
    bottom = top + high * len(rows)
    picture = Picture(WIDTH, bottom + 36, f"Distance from float64 of both sides in {len(rows)} fixtures")

    def x(value: float | None) -> float:
        return round(left + 6 + (WIDTH - left - 16) * along.place(value or 0.0), 1)

    for exponent in along.ticks(5):
        at = x(10.0**exponent)
        picture.put("line", (at, top), (at, bottom), kind="rule")
        picture.below(power(exponent), at, bottom)
    for k, (idx, floor) in enumerate(rows):
        y = top + high * (k + 0.5)
        own, other, allowed = x(floor.reference_max), x(floor.candidate_max), x(floor.allowed)
        picture.beside(str(idx), left, y + 4)
        picture.put("line", (own, y), (other, y), kind="between")
        picture.put("line", (allowed, y - 8), (allowed, y + 8), kind="floor")
        picture.put("circle", (own, y), 5, kind="own-mark")
        if floor.word == "bug":
            picture.put("path", cross(other, y), kind="mark fail-mark")
        else:
            picture.put("circle", (other, y), 3.5, kind="mark pass-mark")
    picture.put("text", "distance from float64", (left, bottom + 30), kind="axis-label")
    return str(picture)


def error_along_run(growth: Sequence[Growth], at: int | None) -> str:
    """The error behind every layer in the order of the run, a field for each denoising step.

    Args:
        growth: what was found behind each layer, in the order of the run.
        at: which of them the first wrong value belongs to, if any does.
    """
    errors = [v for g in growth for v in (g.propagated, g.local) if math.isfinite(v)]
    # What is further below the largest lies on the bottom line.
    along = axis([v for v in errors if v >= _DEEPEST * max(errors)])
    plot = Plot(44, 14, 170, len(growth), along)
    said = f"Error behind each of {len(growth)} layers in the order of the run, whole and local"
    picture = Picture(WIDTH, plot.bottom + 36, said)
    _fields(picture, growth, plot)
    plot.rules(picture)
    for kind in ("local", "propagated"):
        line = []
        for first, last in _parts(len(growth)):
            values = [getattr(g, kind) for g in growth[first:last]]
            finite = [v for v in values if math.isfinite(v)]
            x = plot.x((first + last - 1) / 2)
            if len(finite) < len(values):
                picture.put("path", cross(x, plot.top), kind="mark fail-mark")
            elif max(finite) > 0:
                line.append((x, plot.y(max(finite))))
        picture.put("polyline", line, kind=f"line {kind}")
    if at is not None:
        x, value = plot.x(at), growth[at].propagated
        picture.put("line", (x, plot.top), (x, plot.bottom), kind="threshold")
        end, aside = ("end", -6) if at > len(growth) / 2 else ("start", 6)
        picture.put("text", "first wrong here", (x + aside, plot.bottom - 6), kind=f"mark-label {end}")
        picture.put(
            "path", cross(x, plot.y(value) if math.isfinite(value) else plot.top), kind="mark fail-mark"
        )
    picture.put("text", "layers in the order of the run", (plot.left, plot.bottom + 32), kind="axis-label")
    return str(picture)


def _fields(picture: Picture, growth: Sequence[Growth], plot: Plot) -> None:
    """Every other denoising step is shaded, and as many are numbered as there is room for."""
    starts = [
        (i, g.step)
        for i, g in enumerate(growth)
        if g.step is not None and (i == 0 or growth[i - 1].step != g.step)
    ]
    every = max(-(-len(starts) // 10), 1)
    for k, (i, step) in enumerate(starts):
        end = next((j for j in range(i, len(growth)) if growth[j].step != step), len(growth))
        start, stop = plot.x(max(i - 0.5, 0)), plot.x(min(end - 0.5, len(growth) - 1))
        if k % 2 == 0:
            size = (round(max(stop - start, 1), 1), plot.height)
            picture.put("rect", (start, plot.top), size, kind="field")
        if k % every == 0:
            picture.below(str(step), round((start + stop) / 2, 1), plot.bottom)


def _parts(count: int) -> list[tuple[int, int]]:
    """Neighbours that share one point, from one index to before another."""
    size = -(-count // _POINTS) or 1
    return [(first, min(first + size, count)) for first in range(0, count, size)]
