"""What every picture is made with: a drawing, its labels, the rules of a logarithmic axis."""

from __future__ import annotations

from typing import Any, Final

import svgwrite  # type: ignore[import-untyped]

from pytest_reflex.report.scale import Axis

# A picture fits beside a finger's margin on a screen of 400 px without being scaled.
WIDTH: Final = 340


def svg(width: float | str, height: float, said: str) -> Any:
    """An empty drawing; ``said`` is what it shows, for who does not see it."""
    drawing = svgwrite.Drawing(debug=False, size=(width, height))
    drawing.attribs.update({"role": "img", "aria-label": said})
    return drawing


def as_text(drawing: Any) -> str:
    """The drawing as a part of a page: without what only a file of its own needs."""
    text = str(drawing.tostring())
    for unused in (
        ' baseProfile="full"',
        ' version="1.1"',
        ' xmlns="http://www.w3.org/2000/svg"',
        ' xmlns:ev="http://www.w3.org/2001/xml-events"',
        ' xmlns:xlink="http://www.w3.org/1999/xlink"',
        "<defs />",
    ):
        text = text.replace(unused, "")
    return text


def label(drawing: Any, text: str, x: float, y: float, kind: str = "mark-label") -> Any:
    """A text at a share of the width; at its ends it stays inside."""
    side = "start" if x < 0.12 else "end" if x > 0.88 else "middle"
    return drawing.text(text, (percent(x), y), class_=f"{kind} {side}")


def percent(share: float) -> str:
    """A share as SVG takes it."""
    return f"{round(100 * share, 2):g}%"


def rules(drawing: Any, along: Axis, left: float, top: float, height: float) -> None:
    """Level lines at powers of ten, each with its name, for an axis that goes upwards."""
    for exponent in along.ticks(6):
        y = round(top + height * (1 - along.place(10.0**exponent)), 1)
        drawing.add(drawing.line((left, y), (WIDTH - 4, y), class_="rule"))
        drawing.add(drawing.text(f"1e{exponent:+03d}", (left - 5, y + 4), class_="tick-label end"))
