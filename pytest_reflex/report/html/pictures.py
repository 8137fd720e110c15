"""Pictures of a result as static SVG. Colours come from the page's classes, and every shape has its number.

Nothing that comes from outside is written into a picture: names stand in the page beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pytest_reflex.report.html.svg import WIDTH, as_text, label, percent, rules, svg
from pytest_reflex.report.scale import Axis, axis
from pytest_reflex.report.text.terminal import bound, figure
from pytest_reflex.verdict.summaries import ErrorGrid, StepDifference

# Half decades below the largest error that get a shade of their own.
SHADES: Final = 7


def distance(
    value: float | None, threshold: float, floor: float | None, along: Axis, fixtures: Sequence[float] = ()
) -> str:
    """How far a figure is from its threshold, on a logarithmic axis as wide as its place.

    Args:
        value: the largest max_abs_diff.
        threshold: the bound.
        floor: the least difference that two floats of the reference's size can have.
        along: the axis.
        fixtures: each fixture's figure, as fine marks.
    """
    passed = value is not None and value < threshold
    said = f"max_abs_diff {figure(value, threshold)}, threshold {bound(threshold)}"
    said += f", float floor {floor:.1e}" if floor else ""
    drawing = svg("100%", 104, f"{said}, on a logarithmic axis")
    top, base = 40, 58
    drawing.add(drawing.line(("0%", base), ("100%", base), class_="track"))
    at = percent(along.place(threshold))
    drawing.add(drawing.rect((at, base - 9), (percent(1 - along.place(threshold)), 18), class_="over-zone"))
    for exponent in along.ticks():
        x = along.place(10.0**exponent)
        drawing.add(drawing.line((percent(x), base - 3), (percent(x), base + 3), class_="tick"))
        drawing.add(label(drawing, f"1e{exponent:+03d}", x, 98, "tick-label"))
    for x in sorted({round(along.place(v), 3) for v in fixtures}):
        drawing.add(drawing.line((percent(x), base - 6), (percent(x), base + 6), class_="rug"))
    if floor:
        x = along.place(floor)
        drawing.add(drawing.line((percent(x), base - 14), (percent(x), base + 10), class_="floor"))
        drawing.add(label(drawing, f"float floor {floor:.1e}", x, base + 22, "mark-label"))
    drawing.add(drawing.line((at, base - 16), (at, base + 10), class_="threshold"))
    # Each label has a height of its own: wherever the three marks lie, no two of them meet.
    drawing.add(label(drawing, f"threshold {bound(threshold)}", along.place(threshold), top - 2))
    if value is not None:
        x = along.place(value)
        _mark(drawing, x, base, passed)
        drawing.add(label(drawing, figure(value, threshold), x, 16, "value"))
    return as_text(drawing)


def strip(value: float | None, threshold: float, floor: float | None, along: Axis) -> str:
    """The same in one line of a table, without labels."""
    said = f"max_abs_diff {figure(value, threshold)} beside the threshold {bound(threshold)}"
    drawing = svg("100%", 20, said)
    drawing.add(drawing.line(("0%", 10), ("100%", 10), class_="track"))
    if floor:
        x = percent(along.place(floor))
        drawing.add(drawing.line((x, 3), (x, 17), class_="floor"))
    x = percent(along.place(threshold))
    drawing.add(drawing.line((x, 1), (x, 19), class_="threshold"))
    if value is not None:
        _mark(drawing, along.place(value), 10, value < threshold)
    return as_text(drawing)


def shade_edges(cells: Iterable[Iterable[float]]) -> list[float]:
    """The least error of each shade, the darkest first: half decades below the largest finite error."""
    finite = [v for row in cells for v in row if math.isfinite(v)]
    largest = max(finite, default=0.0)
    return [largest * 10 ** (-0.5 * (k + 1)) for k in range(SHADES - 1)] + [0.0] if largest > 0 else []


def heat_map(grid: ErrorGrid, threshold: float) -> str:
    """Error over chunk step (down) and action dimension (across), in shades of half a decade.

    The largest cell is framed, cells at or above the threshold have a mark of their own, and a cell that
    is not finite is crossed: none of that needs colour.
    """
    cells = grid.cells
    rows, columns = len(cells), len(cells[0])
    left, top = 34, 4
    width = WIDTH - left - 4
    wide = min(width / columns, 26)
    high = min(max(220 / rows, 2), 18)
    drawing = svg(
        WIDTH, math.ceil(top + rows * high + 34), f"Error over {grid.rows} chunk steps and "
        f"{grid.columns} action dimensions, as shades; the numbers are in the table beside"
    )  # fmt: skip
    body = drawing.g(transform=f"translate({left} {top}) scale({wide:.4g} {high:.4g})")
    drawing.add(body)
    body.add(drawing.rect((0, 0), (columns, rows), class_="heat-0"))
    edges = shade_edges(cells)
    shades = [[_shade(v, edges) for v in row] for row in cells]
    for k in range(1, SHADES + 1):
        if path := _runs(shades, k):
            body.add(drawing.path(path, class_=f"heat heat-{k}"))
    finite = [(v, y, x) for y, row in enumerate(cells) for x, v in enumerate(row)]
    over = [(y, x) for v, y, x in finite if not v < threshold and math.isfinite(v)]
    lost = [(y, x) for v, y, x in finite if not math.isfinite(v)]
    if over:
        dots = "".join(f"M{x + 0.35:.4g} {y + 0.5:.4g}h.3" for y, x in over)
        body.add(drawing.path(dots, class_="over"))
    if lost:
        crosses = "".join(f"M{x} {y}l1 1m-1 0l1 -1" for y, x in lost)
        body.add(drawing.path(crosses, class_="lost"))
    if edges and not lost:
        _, y, x = max(finite, key=lambda it: it[0])
        body.add(drawing.rect((x, y), (1, 1), class_="worst"))
    bottom = top + rows * high
    for at, text in _ends(columns, grid.block[1], grid.columns):
        along = round(left + (at + 0.5) * wide, 1)
        drawing.add(drawing.text(text, (along, bottom + 13), class_="tick-label middle"))
    for at, text in _ends(rows, grid.block[0], grid.rows):
        down = round(top + (at + 0.5) * high + 4, 1)
        drawing.add(drawing.text(text, (left - 5, down), class_="tick-label end"))
    drawing.add(drawing.text("action dimension", (left, bottom + 28), class_="axis-label"))
    middle = top + rows * high / 2
    turned = f"rotate(-90 10 {middle:.1f})"
    # Written along an axis that is too short for it, the words would run out of the picture.
    if rows * high > 70:
        drawing.add(
            drawing.text("chunk step", (10, round(middle, 1)), transform=turned, class_="axis-label middle")
        )
    return as_text(drawing)


def ulp_bars(counts: Sequence[int]) -> str:
    """How many elements are how many units in the last place apart, in doubling bins."""
    total = sum(counts) or 1
    left, top, height = 34, 12, 150
    bins = max(len(counts), 8)
    step = (WIDTH - left - 4) / bins
    drawing = svg(
        WIDTH, top + height + 34, f"Distribution of {sum(counts)} distances in units in the last place"
    )
    most = max(counts, default=0) / total or 1.0
    for share in (0.0, most / 2, most):
        y = top + height * (1 - share / most)
        drawing.add(drawing.line((left, y), (WIDTH - 4, y), class_="rule"))
        drawing.add(drawing.text(f"{share:.0%}", (left - 5, y + 4), class_="tick-label end"))
    every = -(-bins // 7)
    for k in range(bins):
        count = counts[k] if k < len(counts) else 0
        if count:
            tall = max(height * count / total / most, 1.5)
            place = (round(left + k * step + step * 0.12, 1), round(top + height - tall, 1))
            drawing.add(drawing.rect(place, (round(step * 0.76, 1), round(tall, 1)), class_="bar"))
        if k % every == 0:
            x = round(left + (k + 0.5) * step, 1)
            drawing.add(drawing.text(ulp_bin(k), (x, top + height + 14), class_="tick-label middle"))
    drawing.add(
        drawing.text("units in the last place (bins double)", (left, top + height + 30), class_="axis-label")
    )
    return as_text(drawing)


def ulp_bin(k: int) -> str:
    """The least distance of a bin: 0, 1, 2, 4, ... as text that stays short."""
    least = 0 if k == 0 else 1 << (k - 1)
    return str(least) if least < 10_000 else f"2^{k - 1}"


def growth(steps: Sequence[StepDifference], threshold: float) -> str:
    """Error after each denoising step, on a logarithmic axis; what is not finite as a cross at its top."""
    values = [step.max_abs_diff for step in steps]
    along = axis([*values, threshold])
    left, top, height = 44, 10, 152
    wide = (WIDTH - left - 14) / max(len(steps) - 1, 1)
    drawing = svg(WIDTH, top + height + 34, f"Error after each of {len(steps)} denoising steps")
    rules(drawing, along, left, top, height)
    limit = round(top + height * (1 - along.place(threshold)), 1)
    drawing.add(drawing.line((left, limit), (WIDTH - 4, limit), class_="threshold"))
    places = [
        (round(left + 5 + i * wide, 1), round(top + height * (1 - along.place(v)), 1))
        for i, v in enumerate(values)
    ]
    drawing.add(_beside(drawing, "threshold", places, limit, left, top + height))
    finite = [math.isfinite(v) for v in values]
    drawing.add(
        drawing.polyline([at for at, good in zip(places, finite, strict=True) if good], class_="line")
    )
    every = -(-len(steps) // 10)
    for i, (x, y) in enumerate(places):
        if finite[i]:
            drawing.add(drawing.circle((x, y), 3, class_="dot"))
        else:
            drawing.add(drawing.path(f"M{x - 4} {y - 4}l8 8m-8 0l8 -8", class_="mark fail-mark"))
        if i % every == 0:
            drawing.add(drawing.text(str(steps[i].step), (x, top + height + 14), class_="tick-label middle"))
    drawing.add(drawing.text("denoising step", (left, top + height + 30), class_="axis-label"))
    return as_text(drawing)


def _beside(
    drawing: Any, text: str, places: Sequence[tuple[float, float]], line: float, left: float, bottom: float
) -> Any:
    """A label on a level line: above or below it, at its start or its end, where the fewest points are."""
    long, high = 64, 18
    spots = [(x, y) for x in (left, WIDTH - 4 - long) for y in (line - high, line) if y + high <= bottom]

    def crowd(spot: tuple[float, float]) -> int:
        return sum(
            spot[0] - 4 <= x <= spot[0] + long + 4 and spot[1] - 4 <= y <= spot[1] + high + 4
            for x, y in places
        )

    x, y = min(spots, key=crowd)
    at = (x + 4 if x == left else WIDTH - 8, round(y + (high - 4 if y < line else 13), 1))
    return drawing.text(text, at, class_=f"mark-label{'' if x == left else ' end'}")


def _shade(value: float | None, edges: Sequence[float]) -> int:
    """1 for the faintest shade to SHADES for the darkest, 0 for equal."""
    if value is None or not value > 0 or not edges:
        return 0
    if math.isinf(value):
        return SHADES
    return SHADES - next((k for k, edge in enumerate(edges) if value > edge), SHADES - 1)


def _runs(shades: Sequence[Sequence[int]], shade: int) -> str:
    """All cells of one shade as one path of horizontal strokes, neighbours as one stroke."""
    parts = []
    for y, row in enumerate(shades):
        x = 0
        while x < len(row):
            start = x
            while x < len(row) and row[x] == shade:
                x += 1
            if x > start:
                parts.append(f"M{start} {y}.5h{x - start}")
            else:
                x += 1
    return "".join(parts)


def _ends(cells: int, block: int, whole: int) -> list[tuple[int, str]]:
    """The first, the middle and the last cell of an axis, with what they are called."""
    wanted = sorted({0, cells // 2, cells - 1} if cells > 2 else range(cells))
    return [(at, str(min(at * block, whole - 1))) for at in wanted]


def _mark(drawing: Any, x: float, y: float, passed: bool) -> None:
    """A circle for a pass, a cross for a fail; the cross in a box, for no path can start at a percentage."""
    if passed:
        drawing.add(drawing.circle((percent(x), y), 5.5, class_="mark pass-mark"))
        return
    place = drawing.svg((percent(x), y), (1, 1), class_="mark-box")
    place.add(drawing.path("M-6 -6L6 6M-6 6L6 -6", class_="mark fail-mark"))
    drawing.add(place)
