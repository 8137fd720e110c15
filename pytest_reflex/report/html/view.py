"""What the page shows of each result, as text and pictures that a template only has to place.

Everything is taken from the result that a document holds, so the page of a stored document is the run's own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pytest_reflex.report import scale
from pytest_reflex.report.html import pictures
from pytest_reflex.report.html.causes import floor_view, where_view
from pytest_reflex.report.json.values import plain
from pytest_reflex.report.text import advice
from pytest_reflex.report.text.in_units import in_units_lines
from pytest_reflex.report.text.terminal import (
    asked_text,
    cosine,
    coverage_lines,
    element,
    figure,
    first_refusal,
    least_lines,
    limit_text,
    precision_lines,
    side,
)
from pytest_reflex.verdict.results import (
    FIRST_MADE,
    Answer,
    FixtureResult,
    OutputResult,
    RunResult,
    fixture_counts,
    fixture_name,
    named_fixture,
)
from pytest_reflex.verdict.summaries import InputSummary

# A page breaks its lines itself.
_UNBROKEN: Final = 1 << 30
# How many fixtures of a page can be opened; the figures of all of them are in the table.
OPENABLE: Final = 150
# How many cells all tables of inputs may have together, so that a page of thousands of fixtures stays light.
INPUT_CELLS: Final = 30_000


def result_view(
    result: RunResult,
    *,
    openable: int = OPENABLE,
    input_cells: int = INPUT_CELLS,
    along: Any = None,
    anchor: str = "result",
    pictured: bool = True,
) -> dict[str, Any]:
    """Everything the page says of one result.

    Args:
        result: the result.
        openable: how many of its fixtures can be opened, the failing ones first.
        input_cells: how many cells its table of inputs may have, the failing fixtures' first.
        along: the axis of its distance; by default its own.
        anchor: what a link to it leads to.
        pictured: whether it has pictures beside that of its distance, and tables of their numbers.
    """
    largest, threshold = result.margin
    floor = scale.ulp_step(result)
    each = _figures(result, threshold)
    least = floor[0] if floor else None
    along = along or scale.axis([largest, threshold, least, *each])
    failing = sum(not f.passed for f in result.fixtures)
    openable = openable if pictured else min(openable, failing)
    return {
        "name": str(result.name),
        "anchor": anchor,
        "pictured": pictured,
        "why": _why(result),
        "passed": result.passed,
        "against": result.against,
        "figure": figure(largest, threshold),
        "threshold": limit_text(result, threshold),
        "asked": asked_text(result),
        "nearest": _nearest(result),
        "precision": precision_lines(result, _UNBROKEN).splitlines(),
        "least": least_lines(result, _UNBROKEN).splitlines()[1:],
        "distance": scale.distance(largest, threshold),
        "floor": f"{floor[0]:.1e}" if floor else None,
        "floor_words": f"one {floor[1]} step at {floor[2]:.3g}, the reference's largest value"
        if floor
        else None,
        "picture": pictures.distance(largest, threshold, least, along, each, passed=result.passed),
        "strip": pictures.strip(largest, threshold, least, along, passed=result.passed),
        **_established(result),
        "failing": failing,
        "elements": f"{_elements(result):,}",
        "refusals": _refusals(result),
        "next": "" if result.passed else advice.next_steps(result, first_refusal(result)[1]),
        "fixtures": _fixtures(result, openable),
        "kept_back": len(result.fixtures) - min(openable, len(result.fixtures)),
        "heat_maps": _heat_maps(result) if pictured else [],
        "ulps": _ulps(result) if pictured else None,
        "growth": _growth(result) if pictured else None,
        "rounding": floor_view(result, pictured=pictured),
        "where": where_view(result.located, pictured=pictured),
        "unseen": result.unseen or "nobody looked at the steps",
        "inputs": _inputs(result, input_cells) if pictured else None,
        "facts": [("Reference", _facts(result.reference)), ("Candidate", _facts(result.candidate))],
        "notes": [str(note) for note in result.notes],
    }


def _source(result: RunResult) -> str:
    """Where the fixtures come from."""
    if result.seed is not None:
        return f"drawn with seed {result.seed}"
    derived = result.claim is not None and result.claim.source == "derived"
    return "made of drawn observations" if derived else "recorded"


def _established(result: RunResult) -> dict[str, Any]:
    """The two sides, over which fixtures they were compared, and what that establishes."""
    return {
        "reference": side(result.reference) or "not stated",
        "candidate": side(result.candidate) or "not stated",
        "drawn": _source(result),
        "strict": result.strict,
        "count": result.count,
        "counts": fixture_counts(result),
        "left_out": result.left_out,
        "claim": "" if result.claim is None else result.claim.text,
        "coverage": coverage_lines(result, _UNBROKEN).splitlines(),
        "in_units": "\n".join(in_units_lines(result, _UNBROKEN)[1:]),
    }


def _why(result: RunResult) -> str:
    """What refused it first, where that is no figure above its threshold, whole; else empty."""
    idx, answer = first_refusal(result)
    if result.passed or answer.gate == "threshold":
        return ""
    return f"{answer.gate}{'' if idx is None else f', {named_fixture(idx)}'}: {answer.said}"


def _figures(result: RunResult, threshold: float) -> list[float]:
    """Each fixture's figure; where outputs have their own tolerances, as far along as it is in its own."""
    if result.asked.is_plain:
        return [f.max_abs_diff for f in result.fixtures if f.max_abs_diff is not None]
    nearest = [replace(result, fixtures=(f,)).margin for f in result.fixtures if f.max_abs_diff is not None]
    return [threshold * value / limit for value, limit in nearest if value is not None and limit]


def _nearest(result: RunResult) -> str:
    """Which output the result's figure is of, where each has its own threshold."""
    nearest = None if result.asked.is_plain else result.nearest
    return "" if nearest is None else nearest[1].name


def _elements(result: RunResult) -> int:
    return sum(o.difference.elements for f in result.fixtures for o in f.outputs if o.difference)


def _refusals(result: RunResult) -> list[dict[str, str]]:
    """Why, gate by gate; fixtures that a gate refused with the same words stand together."""
    grouped: dict[tuple[str, str], list[int]] = {}
    for f in result.fixtures:
        if refusal := f.refusal:
            # The threshold's figures stand in the table; here it is said once.
            reason = _beyond(f, refusal)
            grouped.setdefault((refusal.gate, reason), []).append(f.fixture_idx)
    found = [
        {"gate": gate, "reason": reason, "where": _few(idxs)} for (gate, reason), idxs in grouped.items()
    ]
    for answer in result.answers:
        if not answer.passed:
            found.append({"gate": answer.gate, "reason": answer.said, "where": "the whole run"})
    return found


def _beyond(fixture: FixtureResult, refusal: Answer) -> str:
    unheld = any(o.bound == 0 and o.floor is not None and o.floor.unknown for o in fixture.outputs)
    return "max_abs_diff is not below it" if refusal.gate == "threshold" and not unheld else refusal.said


def _few(idxs: Sequence[int]) -> str:
    shown = ", ".join(map(fixture_name, idxs[:8]))
    more = f" and {len(idxs) - 8} more" if len(idxs) > 8 else ""
    if all(idx >= FIRST_MADE for idx in idxs):
        return f"{shown}{more}"
    return f"fixture{'s' if len(idxs) > 1 else ''} {shown}{more}"


def _fixtures(result: RunResult, openable: int) -> list[dict[str, Any]]:
    order = sorted(result.fixtures, key=lambda f: f.passed)
    opened = {f.fixture_idx for f in order[:openable]}
    return [
        {
            "idx": f.fixture_idx,
            "called": fixture_name(f.fixture_idx),
            "passed": f.passed,
            "cells": (figure(f.max_abs_diff, result.threshold), figure(f.mean_abs_diff), cosine(f.cos)),
            "gate": f.refusal.gate if f.refusal else "",
            "more": _more(f) if f.fixture_idx in opened else None,
        }
        for f in result.fixtures
    ]


def _more(fixture: FixtureResult) -> dict[str, Any]:
    """What an opened fixture shows: why it was refused, each output's worst element, what was fed in."""
    outputs = [
        {
            "where": element(output.name, d.worst_index),
            "form": _form(output),
            "figures": (
                ("reference", str(plain(d.worst_reference))),
                ("candidate", str(plain(d.worst_candidate))),
                ("difference", str(plain(d.max_abs_diff))),
                ("differing", f"{d.unequal} of {d.elements} elements"),
                ("ULP p50, p99, max", f"{d.ulp_p50}, {d.ulp_p99}, {d.ulp_max}"),
                ("mean_abs_diff", figure(d.mean_abs_diff)),
                ("rmse", figure(d.rmse)),
                ("max relative", figure(d.max_rel_diff)),
                ("SQNR", f"{d.sqnr_db:.1f} dB"),
            ),
        }
        for output in fixture.outputs
        if (d := output.difference) is not None
    ]
    given = [(i.name, _form(i, " "), input_words(i), i.digest) for i in fixture.inputs]
    return {"reason": fixture.refusal and fixture.refusal.said, "outputs": outputs, "inputs": given}


def _form(array: OutputResult | InputSummary, between: str = ", ") -> str:
    return f"{array.dtype}{between}{'x'.join(map(str, array.shape)) or 'scalar'}"


def input_words(given: InputSummary) -> str:
    """What an input held, in a few words: ``2 of 2`` of a mask, ``-1 to 1`` of an image, ``all 0``."""
    low, high = plain(given.low), plain(given.high)
    if low is None or high is None:
        return "-"
    whole = math.prod(given.shape)
    if given.dtype == "bool" or ("int" in given.dtype and low >= 0 and high <= 1):
        return f"{given.nonzero} of {whole}"
    if low == high:
        return f"all {_brief(low)}"
    return f"{_brief(low)} to {_brief(high)}"


def _brief(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _inputs(result: RunResult, most: int) -> dict[str, Any] | None:
    """Fixtures down, inputs across; below, how many different values each input took."""
    fixtures = [f for f in result.fixtures if f.inputs]
    if not fixtures:
        return None
    first = fixtures[0].inputs
    held = [(f, {i.name: i for i in f.inputs}) for f in fixtures]
    fit = sorted(held, key=lambda pair: pair[0].passed)[: max(most // len(first), 5)]
    fit.sort(key=lambda pair: pair[0].fixture_idx)
    live = result.candidate.get("live_inputs")
    return {
        "names": [i.name for i in first],
        "forms": [_form(i, " ") for i in first],
        "rows": [
            (fixture_name(f.fixture_idx), [_input_cell(given.get(i.name), i) for i in first])
            for f, given in fit
        ],
        "left_out": len(fixtures) - len(fit),
        "different": [len({given[i.name].digest for _, given in held if i.name in given}) for i in first],
        "live": ["yes" if i.name in live else "no" for i in first] if isinstance(live, list) else None,
    }


def _input_cell(given: InputSummary | None, first: InputSummary) -> str:
    """What an input held, and its shape where that is another one than in the first fixture."""
    if given is None:
        return "-"
    sized = "" if given.shape == first.shape else "x".join(map(str, given.shape)) + ": "
    return sized + input_words(given)


def _heat_maps(result: RunResult) -> list[dict[str, Any]]:
    return [
        {
            "output": output.name,
            "fixture": fixture_name(f.fixture_idx),
            "svg": pictures.heat_map(grid, result.most_of(output)),
            "threshold": _most(result, output),
            "largest": _largest(flat := [v for row in grid.cells for v in row]),
            "cells": len(flat),
            "block": None if grid.block == (1, 1) else "x".join(map(str, grid.block)),
            "over": sum(not v < result.most_of(output) for v in flat),
            "lost": sum(not math.isfinite(v) for v in flat),
            "legend": _legend(pictures.shade_edges(grid.cells)),
            "by_row": [(at * grid.block[0], _largest(row)) for at, row in enumerate(grid.cells)],
            "by_column": [
                (at * grid.block[1], _largest(column))
                for at, column in enumerate(zip(*grid.cells, strict=True))
            ],
        }
        for f in result.fixtures
        for output in f.outputs
        if (grid := output.grid) is not None
    ]


def _most(result: RunResult, output: OutputResult) -> str:
    text = limit_text(result, result.most_of(output))
    return f"{text}, that of the largest value" if result.asked.rtol else text


def _legend(edges: Sequence[float]) -> list[tuple[int, str]]:
    """Each shade and what it stands for, the darkest first."""
    shades = [(pictures.SHADES - k, f"above {edge:.0e}") for k, edge in enumerate(edges[:-1])]
    return [*shades, (1, "less"), (0, "equal")] if edges else [(0, "equal")]


def _largest(values: Iterable[float]) -> str:
    return figure(max(values, key=lambda v: (math.isnan(v), v)))


def _ulps(result: RunResult) -> dict[str, Any] | None:
    counts: Counter[int] = Counter()
    for f in result.fixtures:
        for output in f.outputs:
            counts.update(dict(enumerate(output.difference.ulp_counts if output.difference else ())))
    if not counts:
        return None
    every = [counts[k] for k in range(max(counts) + 1)]
    total = sum(every)
    rows = [(_bin_words(k), f"{n:,}", f"{n / total:.1%}") for k, n in enumerate(every) if n]
    return {"svg": pictures.ulp_bars(every), "rows": rows, "total": f"{total:,}"}


def _bin_words(k: int) -> str:
    return str(k) if k < 2 else f"{1 << (k - 1)} to {(1 << k) - 1}"


def _growth(result: RunResult) -> dict[str, Any] | None:
    steps = result.steps
    if not steps:
        return None
    lost = [s.step for s in steps if not math.isfinite(s.max_abs_diff)]
    return {
        "svg": pictures.growth(steps, max([result.threshold, *_mosts(result)])),
        "of": None if result.steps_of is None else fixture_name(result.steps_of),
        "lost": lost[0] if lost else None,
        "rows": [(s.step, figure(s.max_abs_diff), figure(s.mean_abs_diff)) for s in steps],
    }


def _mosts(result: RunResult) -> list[float]:
    """With rtol, the most that any element may be off by, of each output of floats."""
    every = [result.most_of(o) for f in result.fixtures for o in f.outputs if "float" in o.dtype]
    return [most for most in every if math.isfinite(most)] if result.asked.rtol else []


def _facts(facts: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Facts as rows, what is nested under ``outer.inner``; without those that there are none of."""
    rows: list[tuple[str, str]] = []
    for key, value in plain(facts).items():
        if isinstance(value, Mapping):
            rows += _facts(value, f"{before}{key}.")
        elif value is not None:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((f"{before}{key}", text))
    return rows
