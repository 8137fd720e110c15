"""``In the robot's units``: what the largest errors are in degrees or metres, by joint and by chunk step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pytest_reflex.report.text.layout import Form, table
from pytest_reflex.verdict.results import FixtureResult, OutputResult, RunResult, named_fixture
from pytest_reflex.verdict.units import InUnits

__all__ = ["in_units_lines", "nearest_in_units"]

_ROWS = 20
_FORMS = (
    Form(("element", "in its unit", "unit", "max_abs_diff", "below"), (0, 1, 2, 3, 4)),
    Form(("element", "in its unit", "unit", "max_abs_diff", "below"), (0, 1, 2, 3)),
    Form(("element", "error", "unit", "max_abs_diff", "below"), (0, 1, 2), gap=1),
)
_THE_SAME = (
    Form(("element", "max_abs_diff", "unit", "", "below"), (0, 1, 2, 4)),
    Form(("element", "error", "unit", "", "below"), (0, 1, 2), gap=1),
)
_STEPS = (
    Form(("chunk step", "in its unit", "unit", "element"), (0, 1, 2, 3)),
    Form(("step", "error", "unit", "element"), (0, 1, 2), gap=1),
)


def in_units_lines(result: RunResult, width: int) -> list[str]:
    """The lines, for each output whose units are known; none where none is."""
    lines: list[str] = []
    for name, units in result.units.items():
        if not any(units.units):
            continue
        outputs = [o for f in result.fixtures for o in f.outputs if o.name == name and o.elements]
        if not outputs:
            continue
        rows = _by_element(result, units, outputs)
        # Behind postprocessing an output is in the robot's units itself.
        forms = _FORMS if any(row[1] != row[3] for row in rows) else _THE_SAME
        lines += ["", f"{name}, largest of any fixture", *table(rows, forms, width)]
        worst = next(((f, o) for f in result.fixtures for o in f.outputs if o.name == name and o.grid), None)
        if worst is not None and (steps := _by_step(units, *worst)):
            lines += [
                "",
                f"{name} by chunk step, {named_fixture(worst[0].fixture_idx)}",
                *table(steps, _STEPS, width),
            ]
    return ["In the robot's units", *lines[1:]] if lines else []


def nearest_in_units(result: RunResult, output: OutputResult) -> tuple[str, float, float, str] | None:
    """The element of an output that came nearest to its threshold in a physical unit, or furthest beyond.

    Returns:
        Its name, its largest difference and its threshold, both in its unit, and the unit; None where the
        threshold is in none, or nobody says the element's.
    """
    asked, units = result.asked.of(output.name), result.units.get(output.name)
    if not asked.unit or units is None or not output.elements:
        return None
    bounds = units.bounds(asked, output.name)
    shares = [
        (math.isnan(apart), apart / bound if bound else math.inf, at)
        for at, (apart, bound) in enumerate(zip(output.elements, bounds, strict=True))
        if units.units[at] and units.scale[at]
    ]
    if not shares:
        return None
    at = max(shares, key=lambda it: (it[:2], -it[2]))[2]
    scale = abs(units.scale[at])
    return units.name(at), output.elements[at] * scale, bounds[at] * scale, units.units[at]


def _by_element(result: RunResult, units: InUnits, outputs: Sequence[OutputResult]) -> list[tuple[str, ...]]:
    asked = result.asked.of(outputs[0].name)
    bounds = units.bounds(asked, outputs[0].name) if asked.unit else []
    rows: list[tuple[str, ...]] = []
    for at, (unit, scale) in enumerate(zip(units.units, units.scale, strict=True)):
        apart = max((o.elements[at] for o in outputs), key=lambda x: (math.isnan(x), x))
        below = f"{bounds[at] * abs(scale):.3g}" if bounds else ""
        rows.append((units.name(at), f"{apart * abs(scale):.3e}", unit or "?", f"{apart:.3e}", below))
    moved = [row for row, scale in zip(rows, units.scale, strict=True) if scale]
    return moved[:_ROWS]


def _by_step(units: InUnits, fixture: FixtureResult, output: OutputResult) -> list[tuple[str, ...]]:
    """The largest error of each chunk step, where the grid has every element."""
    grid = output.grid
    if grid is None or grid.block != (1, 1) or grid.rows < 2 or grid.columns != len(units.units):
        return []
    rows: list[tuple[str, ...]] = []
    for step, cells in enumerate(grid.cells):
        # Of several kinds of unit each has a row of its own.
        for unit in dict.fromkeys(u for u, scale in zip(units.units, units.scale, strict=True) if scale):
            every = [
                (cell * abs(scale), at)
                for at, (cell, scale) in enumerate(zip(cells, units.scale, strict=True))
                if scale and units.units[at] == unit
            ]
            apart, at = max(every, key=lambda it: (math.isnan(it[0]), it[0]))
            rows.append((str(step), f"{apart:.3e}", unit or "?", units.name(at)))
    return rows if len(rows) <= _ROWS else _spread(rows)


def _spread(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The rows with the largest errors, in order."""
    largest = sorted(range(len(rows)), key=lambda at: -_size(rows[at][1]))[:_ROWS]
    return [rows[at] for at in sorted(largest)]


def _size(figure: str) -> float:
    value = float(figure)
    return math.inf if math.isnan(value) else value
