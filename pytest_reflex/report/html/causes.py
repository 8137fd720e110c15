"""What the page and the summary show of why two sides differ: rounding or a bug, and where."""

from __future__ import annotations

import math
from typing import Any, Final

from pytest_reflex.report.html import cause_pictures
from pytest_reflex.report.text.divergence import around, by_layer, by_step, where_line
from pytest_reflex.report.text.rounding import COLUMNS, fixture_floors, floor_cells, reference_far, word_line
from pytest_reflex.verdict.divergence import Divergence, Growth
from pytest_reflex.verdict.results import RunResult, fixture_name, named_fixture
from pytest_reflex.verdict.rounding import WORDS

# Rows of the picture, of its table, and of the table of layers: what says most comes first, and the
# document holds all of it.
_DRAWN: Final = 10
_ROWS: Final = 20
_LAYERS: Final = 60


def floor_view(result: RunResult, *, pictured: bool = True) -> dict[str, Any] | None:
    """Rounding or a bug: the word, and the fixtures that say most; None where nobody asked."""
    if result.word is None:
        return None
    found = fixture_floors(result)
    found.sort(key=lambda pair: (-WORDS.index(pair[1].word), -(pair[1].ratio or 0.0)))
    drawn = [(idx, floor) for idx, floor in found if floor.candidate_max is not None][:_DRAWN]
    in_turn = sorted(drawn, key=lambda pair: pair[0])
    bugs = any(floor.word == "bug" for _, floor in drawn)
    return {
        "word": result.word,
        "line": word_line(result),
        "far": " ".join(reference_far(result)),
        "svg": cause_pictures.distances(in_turn) if in_turn and pictured else "",
        "bugs": bugs,
        "drawn": len(drawn),
        "of": len(found),
        "columns": COLUMNS,
        "rows": [floor_cells(idx, floor) for idx, floor in sorted(found[:_ROWS], key=lambda pair: pair[0])],
        "left_out": max(len(found) - _ROWS, 0),
    }


def where_view(divergence: Divergence | None, *, pictured: bool = True) -> dict[str, Any] | None:
    """Where the two sides part: the first wrong value, the error along the run; None where nobody looked."""
    if divergence is None:
        return None
    run = [g for g in divergence.growth if not g.module.startswith("the loop's")]
    layers = by_layer(divergence.growth)
    steps = by_step(divergence.growth)
    at = place_in(run, divergence)
    return {
        "cause": divergence.cause,
        "line": where_line(divergence),
        "fixture": fixture_name(divergence.fixture_idx),
        "facts": _facts(divergence),
        "compared": f"{divergence.values:,} values of {named_fixture(divergence.fixture_idx)} were compared "
        f"in {divergence.seconds:.1f} s; {divergence.unmatched:,} have no counterpart in PyTorch's program.",
        "svg": cause_pictures.error_along_run(run, at) if run and pictured else "",
        "marked": at is not None,
        "layers": [_row(g) for g in around(layers, divergence, _LAYERS)],
        "layers_left_out": max(len(layers) - _LAYERS, 0),
        "steps": [(g.step, _error(g.propagated)) for g in steps],
    }


def place_in(run: list[Growth], divergence: Divergence) -> int | None:
    """Which layer of the run the first wrong value belongs to: the one of its step with the longest path."""
    place = divergence.place
    if place is None:
        return None
    fits = [
        (len(g.module), -i)
        for i, g in enumerate(run)
        if g.step == place.step and f"{place.module}.".startswith(f"{g.module}.")
    ]
    return -max(fits)[1] if fits else None


def _facts(divergence: Divergence) -> list[tuple[str, str]]:
    place = divergence.place
    if place is None:
        return []
    rounding = "not run in float64" if place.rounding is None else f"{place.rounding:.1e}"
    alike = ", fed alike" if place.fed_alike else ""
    return [
        ("denoising step", "-" if place.step is None else str(place.step)),
        ("module", place.module or "-"),
        ("source", place.source or "-"),
        ("node", f"{place.operator} {place.node}".strip() or "-"),
        *([("compared together", place.operators)] if place.together else []),
        ("value", place.value),
        ("worst element", f"[{', '.join(map(str, place.index))}]"),
        (f"reference{alike}", repr(place.reference)),
        (f"candidate{alike}", repr(place.candidate)),
        ("difference", f"{place.error:.3e}"),
        ("PyTorch's own rounding", rounding),
        ("largest value", f"{place.scale:.3g}"),
    ]


def _row(growth: Growth) -> tuple[str, str, str, str]:
    step = "-" if growth.step is None else str(growth.step)
    return growth.module, step, _error(growth.propagated), _error(growth.local)


def _error(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else str(value)
