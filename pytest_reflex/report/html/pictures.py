"""Pictures of a result as static SVG. Colours come from the page's classes, and every shape has its number.

Nothing that comes from outside is written into a picture: names stand in the page beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from pytest_reflex.report.html.svg import WIDTH, Picture, Plot, cross, percent, power
from pytest_reflex.report.scale import Axis, axis
from pytest_reflex.report.text.terminal import bound, figure
from pytest_reflex.verdict.results import RunResult
from pytest_reflex.verdict.summaries import ErrorGrid, StepDifference

# Half decades below the largest error that get a shade of their own.
SHADES: Final = 7


def distance(
    value: float | None,
    threshold: float,
    floor: float | None,
    along: Axis,
    fixtures: Sequence[float] = (),
    *,
    passed: bool,
) -> str:
    """How far a figure is from its threshold, on a logarithmic axis as wide as its place.

    Args:
        value: the largest max_abs_diff.
        threshold: the bound.
        floor: the least difference that two floats of the reference's size can have.
        along: the axis.
        fixtures: each fixture's figure, as fine marks.
        passed: the verdict, which is a circle or a cross: a figure below the threshold is not all of it.
    """
    said = f"max_abs_diff {figure(value, threshold)}, threshold {bound(threshold)}"
    said += f", float floor {floor:.1e}" if floor else ""
    picture = Picture("100%", 104, f"{said}, on a logarithmic axis")
    top, base = 40, 58
    picture.put("line", ("0%", base), ("100%", base), kind="track")
    at = percent(along.place(threshold))
    picture.put("rect", (at, base - 9), (percent(1 - along.place(threshold)), 18), kind="over-zone")
    for exponent in along.ticks():
        x = along.place(10.0**exponent)
        picture.put("line", (percent(x), base - 3), (percent(x), base + 3), kind="tick")
        picture.label(power(exponent), x, 98, "tick-label")
    for x in sorted({round(along.place(v), 3) for v in fixtures}):
        picture.put("line", (percent(x), base - 6), (percent(x), base + 6), kind="rug")
    if floor:
        x = along.place(floor)
        picture.put("line", (percent(x), base - 14), (percent(x), base + 10), kind="floor")
        picture.label(f"float floor {floor:.1e}", x, base + 22)
    picture.put("line", (at, base - 16), (at, base + 10), kind="threshold")
    # Each label has a height of its own: wherever the three marks lie, no two of them meet.
    picture.label(f"threshold {bound(threshold)}", along.place(threshold), top - 2)
    if value is not None:
        x = along.place(value)
        _mark(picture, x, base, passed)
        picture.label(figure(value, threshold), x, 16, "value")
    return str(picture)


def strip(value: float | None, threshold: float, floor: float | None, along: Axis, *, passed: bool) -> str:
    """The same in one line of a table, without labels."""
    said = f"max_abs_diff {figure(value, threshold)} beside the threshold {bound(threshold)}"
    picture = Picture("100%", 20, said)
    picture.put("line", ("0%", 10), ("100%", 10), kind="track")
    if floor:
        x = percent(along.place(floor))
        picture.put("line", (x, 3), (x, 17), kind="floor")
    x = percent(along.place(threshold))
    picture.put("line", (x, 1), (x, 19), kind="threshold")
    if value is not None:
        _mark(picture, along.place(value), 10, passed)
    return str(picture)


def pair(before: RunResult | None, now: RunResult | None, along: Axis) -> str:
    """A result in two runs, in one line of a table: faint where it was, whole where it is.

    Args:
        before: the earlier one; None where it is new.
        now: the later one; None where it is gone.
        along: the axis of both runs.
    """
    there = [(result, when) for result, when in ((before, "before"), (now, "now")) if result is not None]
    said = ", ".join(f"{figure(*r.margin)} of {bound(r.margin[1])} {when}" for r, when in there)
    picture = Picture("100%", 20, f"max_abs_diff {said}")
    picture.put("line", ("0%", 10), ("100%", 10), kind="track")
    for limit in dict.fromkeys(result.margin[1] for result, _ in there):
        at = percent(along.place(limit))
        picture.put("line", (at, 1), (at, 19), kind="threshold")
    marks = [
        (along.place(value), result.passed, when == "before")
        for result, when in there
        if (value := result.margin[0]) is not None
    ]
    if len(marks) == 2:
        picture.put("line", (percent(marks[0][0]), 10), (percent(marks[1][0]), 10), kind="between")
    for place, passed, faint in marks:
        _mark(picture, place, 10, passed, faint=faint)
    return str(picture)


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
    picture = Picture(
        WIDTH, math.ceil(top + rows * high + 34), f"Error over {grid.rows} chunk steps and "
        f"{grid.columns} action dimensions, as shades; the numbers are in the table beside"
    )  # fmt: skip
    body = picture.inside("g", transform=f"translate({left} {top}) scale({wide:.4g} {high:.4g})")
    body.put("rect", (0, 0), (columns, rows), kind="heat-0")
    edges = shade_edges(cells)
    shades = [[_shade(v, edges) for v in row] for row in cells]
    for k in range(1, SHADES + 1):
        if path := _runs(shades, k):
            body.put("path", path, kind=f"heat heat-{k}")
    finite = [(v, y, x) for y, row in enumerate(cells) for x, v in enumerate(row)]
    over = [(y, x) for v, y, x in finite if not v < threshold and math.isfinite(v)]
    lost = [(y, x) for v, y, x in finite if not math.isfinite(v)]
    if over:
        dots = "".join(f"M{x + 0.35:.4g} {y + 0.5:.4g}h.3" for y, x in over)
        body.put("path", dots, kind="over")
    if lost:
        crosses = "".join(f"M{x} {y}l1 1m-1 0l1 -1" for y, x in lost)
        body.put("path", crosses, kind="lost")
    if edges and not lost:
        _, y, x = max(finite, key=lambda it: it[0])
        body.put("rect", (x, y), (1, 1), kind="worst")
    bottom = top + rows * high
    for at, text in _ends(columns, grid.block[1], grid.columns):
        along = round(left + (at + 0.5) * wide, 1)
        picture.put("text", text, (along, bottom + 13), kind="tick-label middle")
    for at, text in _ends(rows, grid.block[0], grid.rows):
        down = round(top + (at + 0.5) * high + 4, 1)
        picture.beside(text, left, down)
    picture.put("text", "action dimension", (left, bottom + 28), kind="axis-label")
    middle = top + rows * high / 2
    turned = f"rotate(-90 10 {middle:.1f})"
    # Written along an axis that is too short for it, the words would run out of the picture.
    if rows * high > 70:
        picture.put("text", "chunk step", (10, round(middle, 1)), kind="axis-label middle", transform=turned)
    return str(picture)


def ulp_bars(counts: Sequence[int]) -> str:
    """How many elements are how many units in the last place apart, in doubling bins."""
    total = sum(counts) or 1
    left, top, height = 34, 12, 150
    bins = max(len(counts), 8)
    step = (WIDTH - left - 4) / bins
    picture = Picture(
        WIDTH, top + height + 34, f"Distribution of {sum(counts)} distances in units in the last place"
    )
    most = max(counts, default=0) / total or 1.0
    for share in (0.0, most / 2, most):
        y = top + height * (1 - share / most)
        picture.put("line", (left, y), (WIDTH - 4, y), kind="rule")
        picture.beside(f"{share:.0%}", left, y + 4)
    every = -(-bins // 7)
    for k in range(bins):
        count = counts[k] if k < len(counts) else 0
        if count:
            tall = max(height * count / total / most, 1.5)
            place = (round(left + k * step + step * 0.12, 1), round(top + height - tall, 1))
            picture.put("rect", place, (round(step * 0.76, 1), round(tall, 1)), kind="bar")
        if k % every == 0:
            x = round(left + (k + 0.5) * step, 1)
            picture.below(ulp_bin(k), x, top + height)
    picture.put("text", "units in the last place (bins double)", (left, top + height + 30), kind="axis-label")
    return str(picture)


def ulp_bin(k: int) -> str:
    """The least distance of a bin: 0, 1, 2, 4, ... as text that stays short."""
    least = 0 if k == 0 else 1 << (k - 1)
    return str(least) if least < 10_000 else f"2^{k - 1}"


def growth(steps: Sequence[StepDifference], threshold: float) -> str:
    """Error after each denoising step, on a logarithmic axis; what is not finite as a cross at its top."""
    values = [step.max_abs_diff for step in steps]
    plot = Plot(44, 10, 152, len(steps), axis([*values, threshold]))
    picture = Picture(WIDTH, plot.bottom + 34, f"Error after each of {len(steps)} denoising steps")
    plot.rules(picture)
    limit = plot.y(threshold)
    picture.put("line", (plot.left, limit), (WIDTH - 4, limit), kind="threshold")
    places = [(plot.x(i), plot.y(value)) for i, value in enumerate(values)]
    _name_line(picture, "threshold", places, limit, plot)
    finite = [at for at, value in zip(places, values, strict=True) if math.isfinite(value)]
    picture.put("polyline", finite, kind="line")
    every = -(-len(steps) // 10)
    for i, (x, y) in enumerate(places):
        if math.isfinite(values[i]):
            picture.put("circle", (x, y), 3, kind="dot")
        else:
            picture.put("path", cross(x, y), kind="mark fail-mark")
        if i % every == 0:
            picture.below(str(steps[i].step), x, plot.bottom)
    picture.put("text", "denoising step", (plot.left, plot.bottom + 30), kind="axis-label")
    return str(picture)


def _name_line(
    picture: Picture, text: str, places: Sequence[tuple[float, float]], line: float, plot: Plot
) -> None:
    """Label a level line: above or below it, at its start or its end, where the fewest points are."""
    left, long, high = plot.left, 64, 18
    rows = [y for y in (line - high, line) if y + high <= plot.bottom]
    spots = [(x, y) for x in (left, WIDTH - 4 - long) for y in rows]

    def crowd(spot: tuple[float, float]) -> int:
        right, low = spot[0] + long + 4, spot[1] + high + 4
        return sum(spot[0] - 4 <= x <= right and spot[1] - 4 <= y <= low for x, y in places)

    x, y = min(spots, key=crowd)
    at = (x + 4 if x == left else WIDTH - 8, round(y + (high - 4 if y < line else 13), 1))
    picture.put("text", text, at, kind=f"mark-label{'' if x == left else ' end'}")


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


def _mark(picture: Picture, x: float, y: float, passed: bool, *, faint: bool = False) -> None:
    """A circle for a pass, a cross for a fail; faint ones are thinner and not filled."""
    kind = "mark was-mark" if faint else f"mark {'pass' if passed else 'fail'}-mark"
    if passed:
        picture.put("circle", (percent(x), y), 4.5 if faint else 5.5, kind=kind)
    else:
        # In a box of its own, for no path can start at a percentage.
        box = picture.inside("svg", (percent(x), y), (1, 1), class_="mark-box")
        box.put("path", "M-6 -6L6 6M-6 6L6 -6", kind=kind)
