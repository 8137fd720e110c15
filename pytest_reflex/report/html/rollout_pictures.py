"""Pictures of a closed loop as static SVG: the ways in space, and their drift over time above rounding's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_reflex.report.html.svg import WIDTH, Picture, Plot
from pytest_reflex.report.scale import Axis, axis
from pytest_reflex.verdict.drift import Quantity
from pytest_reflex.verdict.rollout import CANDIDATE, FLOORS, REFERENCE, Rollout, Seen, Start

__all__ = ["drift_axis", "drift_picture", "part_picture", "space_picture", "starts_picture"]

Points = Sequence[tuple[float, float]]
# Drawn in this order: what is judged lies over what it is held against.
_ORDER = (*FLOORS, REFERENCE, CANDIDATE)


def space_picture(seen: Seen, across: int, up: int, names: Sequence[str], unit: str) -> str:
    """The ways of all sides, seen along one axis, in one measure for both directions.

    Args:
        seen: the start that is drawn.
        across: which axis goes across.
        up: which axis goes upwards.
        names: the axes' names.
        unit: what they are in.
    """
    ways = {side: [(row[across], row[up]) for row in rows] for side, rows in seen.places.items()}
    every = [point for way in ways.values() for point in way]
    least = [min(point[k] for point in every) for k in (0, 1)]
    size = max(max(point[k] for point in every) - least[k] for k in (0, 1)) or 1.0
    left, top, high = 12, 8, 240
    measure = min(WIDTH - 2 * left, high) / size

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return (
            round(left + (point[0] - least[0]) * measure, 1),
            round(top + high - (point[1] - least[1]) * measure, 1),
        )

    picture = Picture(
        WIDTH, top + high + 40, f"Ways of {len(ways)} sides, {names[across]} across and {names[up]} upwards"
    )
    for side in (side for side in _ORDER if side in ways):
        kind = "floor" if side in FLOORS else side
        picture.put("polyline", [place(point) for point in ways[side]], kind=f"way {kind}-way")
    start = place(ways[REFERENCE][0])
    picture.put("circle", start, 4, kind="own-mark")
    for side in (REFERENCE, CANDIDATE):
        end = place(ways[side][-1])
        picture.put("circle", end, 4, kind=f"end-mark {side}-mark")
    bar = _round_length(size / 3)
    long = round(bar * measure, 1)
    picture.put("line", (left, top + high + 16), (left + long, top + high + 16), kind="track")
    said = f"{bar:g} {unit}: {names[across]} across, {names[up]} upwards"
    picture.put("text", said, (left, top + high + 34), kind="axis-label")
    return str(picture)


def drift_picture(made: Rollout, start: Start) -> str:
    """The first quantity's drift over time in one start, above the band that rounding alone stays in."""
    floors = [start.curves[side] for side in FLOORS if side in start.curves]
    band = [max(values) for values in zip(*floors, strict=True)]
    quantity = made.quantities[0]
    return _over_time(
        made.instants,
        {CANDIDATE: start.curves[CANDIDATE]},
        band,
        quantity,
        start.drift(CANDIDATE, quantity.name).diverged_s,
    )


def part_picture(made: Rollout, seen: Seen, quantity: Quantity, part: int, along: Axis) -> str:
    """The drift of one joint over time above the band of rounding, small, on the axis of its fellows."""
    values = seen.parts[quantity.name][part]
    plot = Plot(44, 6, 84, len(values), along)
    picture = Picture(
        WIDTH, plot.bottom + 20, f"Drift of {quantity.parts[part]} over {made.seconds:g} seconds"
    )
    plot.rules(picture)
    _band(picture, plot, seen.floors[quantity.name])
    _line(picture, plot, values, "way candidate-way")
    _seconds(picture, plot, made.instants)
    return str(picture)


def starts_picture(made: Rollout) -> str:
    """The candidate's drift in every start over time, faint, above the band of rounding of all."""
    curves = [start.curves for start in made.starts]
    floors = [c[side] for c in curves for side in FLOORS if side in c]
    band = [max(values) for values in zip(*floors, strict=True)]
    lines = {f"start {start.start}": start.curves[CANDIDATE] for start in made.starts}
    return _over_time(made.instants, lines, band, made.quantities[0], None)


def _over_time(
    instants: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    band: Sequence[float],
    quantity: Quantity,
    diverged: float | None,
) -> str:
    every = [value for line in lines.values() for value in line] + [*band, quantity.visible]
    plot = Plot(44, 10, 190, len(instants), drift_axis(every, band))
    picture = Picture(WIDTH, plot.bottom + 36, f"Drift of the {quantity.name} over {instants[-1]:g} seconds")
    plot.rules(picture)
    _band(picture, plot, band)
    limit = plot.y(quantity.visible)
    picture.put("line", (plot.left, limit), (WIDTH - 4, limit), kind="floor")
    unit = f"{quantity.visible:g} {quantity.unit}".rstrip()
    picture.put("text", f"visible: {unit}", (WIDTH - 8, round(limit - 4, 1)), kind="mark-label end")
    kind = "way candidate-way" if len(lines) == 1 else "way candidate-way faint"
    for line in lines.values():
        _line(picture, plot, line, kind)
    if diverged is not None and instants[-1]:
        x = plot.x(diverged / instants[-1] * (plot.points - 1))
        picture.put("line", (x, plot.top), (x, plot.bottom), kind="threshold")
        side = "end" if diverged > instants[-1] / 2 else "start"
        picture.put(
            "text", f"apart from {diverged:.2f} s", (x + (-5 if side == "end" else 5), plot.top + 10),
            kind=f"mark-label {side}",
        )  # fmt: skip
    _seconds(picture, plot, instants)
    said = f"seconds; drift in {quantity.unit or 'its own unit'}"
    picture.put("text", said, (plot.left, plot.bottom + 31), kind="axis-label")
    return str(picture)


def drift_axis(values: Sequence[float], band: Sequence[float]) -> Axis:
    """The axis of a drift: down to a decade below the band, and not to every last place at the start."""
    finite = [value for value in values if 0 < value < float("inf")]
    least = min(max(finite, default=1.0), max(band, default=0.0) or 1.0) / 10
    return axis([max(value, least) for value in finite])


def _band(picture: Picture, plot: Plot, band: Sequence[float]) -> None:
    upper = [(plot.x(i), plot.y(value)) for i, value in enumerate(band)]
    corners = [(plot.x(0), plot.bottom), *upper, (plot.x(len(band) - 1), plot.bottom)]
    picture.put("polygon", corners, kind="floor-band")


def _line(picture: Picture, plot: Plot, values: Sequence[float], kind: str) -> None:
    picture.put("polyline", [(plot.x(i), plot.y(value)) for i, value in enumerate(values)], kind=kind)


def _seconds(picture: Picture, plot: Plot, instants: Sequence[float]) -> None:
    for share in (0.0, 0.5, 1.0):
        at = share * (plot.points - 1)
        second = share * instants[-1]
        picture.below(f"{second:.3g}", plot.x(at) - (6 if share == 1.0 else 0), plot.bottom)


def _round_length(length: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is no longer."""
    found = 1e-6
    for exponent in range(-6, 7):
        for digit in (1, 2, 5):
            if digit * 10.0**exponent <= length:
                found = digit * 10.0**exponent
    return found
