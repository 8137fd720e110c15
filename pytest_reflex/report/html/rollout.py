"""A closed loop as HTML: a page of its own, or a part of a notebook; no network, no script."""

from __future__ import annotations

import base64
from typing import Any

from pytest_reflex._version import __version__
from pytest_reflex.report.html.pages import rendered, template_text
from pytest_reflex.report.html.rollout_pictures import (
    drift_axis,
    drift_picture,
    part_picture,
    space_picture,
    starts_picture,
)
from pytest_reflex.report.json.documents import TOOL
from pytest_reflex.report.text.rollout import (
    HEADER,
    drift_rows,
    sentence,
    start_rows,
    success_lines,
    told_lines,
)
from pytest_reflex.verdict.rollout import Rollout

__all__ = ["rollout_html", "rollout_page"]


def rollout_page(made: Rollout, film: bytes | None = None) -> str:
    """The page of a closed loop.

    Args:
        made: the verdict.
        film: a WebM to be shown in it.
    """
    return rendered("rollout.html", _shown(made, film))


def rollout_html(made: Rollout, film: bytes | None = None) -> str:
    """The same without what makes it a page, for a notebook."""
    return rendered("rollout_fragment.html", _shown(made, film))


def _shown(made: Rollout, film: bytes | None) -> dict[str, Any]:
    return {
        "tool": TOOL,
        "version": __version__,
        "style": template_text("style.css"),
        "r": made,
        "sentence": sentence(made),
        "header": HEADER,
        "rows": drift_rows(made) if made.starts else [],
        "starts": start_rows(made) if made.starts else ((), []),
        "lines": [*success_lines(made), *told_lines(made)] if made.starts else [],
        "pictures": _pictures(made),
        "film": None if film is None else base64.b64encode(film).decode(),
    }


def _pictures(made: Rollout) -> dict[str, Any] | None:
    """Every picture of the start that drifted most, and one of all starts; None where none was driven."""
    seen = made.seen
    if seen is None or not made.starts:
        return None
    tip, start = made.quantities[0], made.starts[seen.start]
    axes = len(next(iter(seen.places.values()))[0])
    names = [part.rpartition(" ")[2] if axes > 1 else part for part in tip.parts[:axes]]
    planes = [(0, 1), (0, 2)] if axes == 3 else [(0, 1)] if axes == 2 else []
    parts = []
    for quantity in made.quantities:
        if quantity.whole > 1:
            continue
        band = seen.floors[quantity.name]
        along = drift_axis([value for row in seen.parts[quantity.name] for value in row] + [*band], band)
        parts += [
            {
                "name": f"{part}, {quantity.unit or 'its own unit'}",
                "svg": part_picture(made, seen, quantity, index, along),
            }
            for index, part in enumerate(quantity.parts)
        ]
    return {
        "start": seen.start,
        "space": [space_picture(seen, a, b, names, tip.unit) for a, b in planes],
        "drift": drift_picture(made, start),
        "all": starts_picture(made),
        "parts": parts,
        "tip": tip.name,
    }
