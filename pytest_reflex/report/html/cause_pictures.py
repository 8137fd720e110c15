"""Pictures of why two sides differ: how far each is from float64, and the error along the whole run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from pytest_reflex.report.html.svg import WIDTH, as_text, rules, svg
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
    drawing = svg(WIDTH, bottom + 36, f"Distance from float64 of both sides in {len(rows)} fixtures")

    def x(value: float | None) -> float:
        return round(left + 6 + (WIDTH - left - 16) * along.place(value or 0.0), 1)

    for exponent in along.ticks(5):
        at = x(10.0**exponent)
        drawing.add(drawing.line((at, top), (at, bottom), class_="rule"))
        drawing.add(drawing.text(f"1e{exponent:+03d}", (at, bottom + 14), class_="tick-label middle"))
    for k, (idx, floor) in enumerate(rows):
        y = top + high * (k + 0.5)
        own, other, allowed = x(floor.reference_max), x(floor.candidate_max), x(floor.allowed)
        drawing.add(drawing.text(str(idx), (left - 5, y + 4), class_="tick-label end"))
        drawing.add(drawing.line((own, y), (other, y), class_="between"))
        drawing.add(drawing.line((allowed, y - 8), (allowed, y + 8), class_="floor"))
        drawing.add(drawing.circle((own, y), 5, class_="own-mark"))
        if floor.word == "bug":
            drawing.add(drawing.path(_cross(other, y), class_="mark fail-mark"))
        else:
            drawing.add(drawing.circle((other, y), 3.5, class_="mark pass-mark"))
    drawing.add(drawing.text("distance from float64", (left, bottom + 30), class_="axis-label"))
    return as_text(drawing)


def error_along_run(growth: Sequence[Growth], at: int | None) -> str:
    """The error behind every layer in the order of the run, a field for each denoising step.

    Args:
        growth: what was found behind each layer, in the order of the run.
        at: which of them the first wrong value belongs to, if any does.
    """
    left, top, height = 44, 14, 170
    errors = [v for g in growth for v in (g.propagated, g.local) if math.isfinite(v)]
    # What is further below the largest lies on the bottom line.
    along = axis([v for v in errors if v >= _DEEPEST * max(errors)])
    said = f"Error behind each of {len(growth)} layers in the order of the run, whole and local"
    drawing = svg(WIDTH, top + height + 36, said)
    wide = (WIDTH - left - 14) / max(len(growth) - 1, 1)

    def x(i: float) -> float:
        return round(left + 5 + i * wide, 1)

    def y(value: float) -> float:
        return round(top + height * (1 - along.place(value)), 1)

    _fields(drawing, growth, x, top, height)
    rules(drawing, along, left, top, height)
    parts = _parts(len(growth))
    for kind in ("local", "propagated"):
        line = []
        for first, last in parts:
            values = [getattr(g, kind) for g in growth[first:last]]
            finite = [v for v in values if math.isfinite(v)]
            if len(finite) < len(values):
                drawing.add(drawing.path(_cross(x((first + last - 1) / 2), top), class_="mark fail-mark"))
            elif max(finite) > 0:
                line.append((x((first + last - 1) / 2), y(max(finite))))
        drawing.add(drawing.polyline(line, class_=f"line {kind}"))
    if at is not None:
        drawing.add(drawing.line((x(at), top), (x(at), top + height), class_="threshold"))
        end = "end" if at > len(growth) / 2 else "start"
        place = (x(at) + (-6 if end == "end" else 6), top + height - 6)
        drawing.add(drawing.text("first wrong here", place, class_=f"mark-label {end}"))
        value = growth[at].propagated
        drawing.add(
            drawing.path(_cross(x(at), y(value) if math.isfinite(value) else top), class_="mark fail-mark")
        )
    drawing.add(
        drawing.text("layers in the order of the run", (left, top + height + 32), class_="axis-label")
    )
    return as_text(drawing)


def _fields(drawing: Any, growth: Sequence[Growth], x: Any, top: float, height: float) -> None:
    """Every other denoising step is shaded, and as many are numbered as there is room for."""
    starts = [
        (i, g.step)
        for i, g in enumerate(growth)
        if g.step is not None and (i == 0 or growth[i - 1].step != g.step)
    ]
    every = max(-(-len(starts) // 10), 1)
    for k, (i, step) in enumerate(starts):
        end = starts[k + 1][0] if k + 1 < len(starts) else len(growth)
        end = next((j for j in range(i, end) if growth[j].step != step), end)
        from_x, to_x = x(max(i - 0.5, 0)), x(min(end - 0.5, len(growth) - 1))
        if k % 2 == 0:
            size = (round(max(to_x - from_x, 1), 1), height)
            drawing.add(drawing.rect((from_x, top), size, class_="field"))
        if k % every == 0:
            middle = round((from_x + to_x) / 2, 1)
            drawing.add(drawing.text(str(step), (middle, top + height + 14), class_="tick-label middle"))


def _parts(count: int) -> list[tuple[int, int]]:
    """Neighbours that share one point, from one index to before another."""
    size = -(-count // _POINTS) or 1
    return [(first, min(first + size, count)) for first in range(0, count, size)]


def _cross(x: float, y: float) -> str:
    return f"M{x - 4:.1f} {y - 4:.1f}l8 8m-8 0l8 -8"
