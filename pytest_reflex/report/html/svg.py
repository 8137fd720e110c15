"""What every picture is made with: shapes put on a drawing, and a plot over the steps of a run."""

from __future__ import annotations

import re
from copy import copy
from dataclasses import dataclass
from typing import Any, Final

import svgwrite  # type: ignore[import-untyped]

from pytest_reflex.report.scale import Axis

# A picture fits beside a finger's margin on a screen of 400 px without being scaled.
WIDTH: Final = 340

_OF_A_FILE: Final = re.compile(r' (?:baseProfile|version|xmlns(?::\w+)?)="[^"]*"|<defs />')


class Picture:
    """A drawing that shapes are put on, each of a kind that the page has a style for.

    Args:
        width: in pixels, or as a share of its place.
        height: in pixels.
        said: what it shows, for who does not see it.
    """

    def __init__(self, width: float | str, height: float, said: str) -> None:
        self._drawing = self._into = svgwrite.Drawing(debug=False, size=(width, height))
        self._drawing.attribs.update({"role": "img", "aria-label": said})

    def __str__(self) -> str:
        """The drawing as a part of a page: without what only a file of its own needs."""
        return _OF_A_FILE.sub("", str(self._drawing.tostring()))

    def put(self, shape: str, *given: Any, kind: str, **more: Any) -> None:
        """One of svgwrite's shapes, with what it takes."""
        self._into.add(getattr(self._drawing, shape)(*given, class_=kind, **more))

    def inside(self, part: str, *given: Any, **more: Any) -> Picture:
        """The same picture, whose shapes go into a part of it."""
        inner = copy(self)
        inner._into = self._into.add(getattr(self._drawing, part)(*given, **more))
        return inner

    def label(self, words: str, x: float, y: float, kind: str = "mark-label") -> None:
        """A text at a share of the width; at its ends it stays inside."""
        side = "start" if x < 0.12 else "end" if x > 0.88 else "middle"
        self.put("text", words, (percent(x), y), kind=f"{kind} {side}")

    def below(self, words: str, x: float, bottom: float) -> None:
        """What a place on an axis that goes across is called."""
        self.put("text", words, (x, bottom + 14), kind="tick-label middle")

    def beside(self, words: str, left: float, y: float) -> None:
        """What a place on an axis that goes upwards is called."""
        self.put("text", words, (left - 5, y), kind="tick-label end")


@dataclass(frozen=True)
class Plot:
    """A place for points in a row, their figures upwards on a logarithmic axis.

    Attributes:
        left: where the points begin, in pixels.
        top: where the largest figure lies.
        height: how far below it the least lies.
        points: how many there are.
        along: the axis of the figures.
    """

    left: float
    top: float
    height: float
    points: int
    along: Axis

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def x(self, i: float) -> float:
        return round(self.left + 5 + i * (WIDTH - self.left - 14) / max(self.points - 1, 1), 1)

    def y(self, value: float) -> float:
        return round(self.top + self.height * (1 - self.along.place(value)), 1)

    def rules(self, picture: Picture) -> None:
        """Level lines at powers of ten, each with its name."""
        for exponent in self.along.ticks(6):
            y = self.y(10.0**exponent)
            picture.put("line", (self.left, y), (WIDTH - 4, y), kind="rule")
            picture.beside(power(exponent), self.left, y + 4)


def percent(share: float) -> str:
    """A share as SVG takes it."""
    return f"{round(100 * share, 2):g}%"


def power(exponent: int) -> str:
    """A power of ten as an axis names it."""
    return f"1e{exponent:+03d}"


def cross(x: float, y: float) -> str:
    """The path of a cross."""
    return f"M{x - 4:.1f} {y - 4:.1f}l8 8m-8 0l8 -8"
