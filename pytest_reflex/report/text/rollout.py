"""A closed loop as text: how far the candidate drifted, in units, beside what rounding did."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pytest_reflex.report.text.layout import UNBROKEN, Form, table, wrapped
from pytest_reflex.report.text.terminal import figure
from pytest_reflex.verdict.drift import Quantity
from pytest_reflex.verdict.rollout import CANDIDATE, FLOORS, Rollout, Start

__all__ = ["HEADER", "drift_rows", "rollout_text", "sentence", "start_rows", "success_lines", "told_lines"]

HEADER: Final = ("quantity", "side", "largest", "median", "at end", "growth 1/s", "visible", "floors", "word")
# A reader looks at the worst of many starts first, and at no more than these.
ROWS: Final = 20


def rollout_text(made: Rollout, width: int = UNBROKEN) -> str:
    """Everything, the verdict in the first line."""
    lines = [*wrapped(sentence(made), width)]
    if made.not_driven:
        lines += wrapped(f"Note: {made.not_driven}", width, rest="  ")
    if made.error:
        lines += wrapped(f"Not driven to the end: {made.error}", width, rest="  ")
    if not made.starts:
        return "\n".join(lines) + "\n"
    forms = [
        Form(HEADER, range(9)),
        Form(HEADER, (0, 1, 2, 3, 4, 7, 8)),
        Form(HEADER, (0, 1, 2, 7, 8)),
        Form(HEADER, (0, 2, 8), gap=1),
    ]
    lines += ["", f"Drift from the reference over {len(made.starts)} starts"]
    lines += table(drift_rows(made), forms, width)
    lines += wrapped(_parts_line(made), width, rest="  ")
    lines += ["", "Starts", *_start_table(made, width)]
    lines += [""]
    for line in [*success_lines(made), *told_lines(made)]:
        lines += wrapped(line, width, rest="  ")
    return "\n".join(lines) + "\n"


def sentence(made: Rollout) -> str:
    """The verdict in one line."""
    word = "PASS" if made.passed else "ERROR" if made.exit_code == 2 else "FAIL"
    head = f"rollout {word}: {made.name} on {made.env}, {made.seconds:g} s at {made.hz:g} Hz"
    if not made.starts:
        return f"{head}: no start was driven"
    tip = made.quantities[0]
    far = _figure(made.largest(CANDIDATE, tip.name), tip)
    most = max(made.ratio(start, tip.name) for start in made.starts)
    if made.word == "rounding":
        said = f"rounding in {len(made.starts)} starts; {tip.name} {far} at most, {_times(most)} its floor"
    elif made.word == "undecided":
        said = (
            f"undecided, for rounding alone parts the ways visibly; {tip.name} {far} at most, {_times(most)} "
            "its floor"
        )
    else:
        kinds = ", ".join(made.further)
        said = f"further than rounding ({kinds}); {tip.name} {far} at most, {_times(most)} its floor"
    if made.within is not None:
        said += f"; {_figure(made.within, tip)} was allowed"
    if made.success is not None and made.success.differ:
        said += "; it does the job differently often"
    return f"{head}: {said}"


def _figure(value: float, quantity: Quantity) -> str:
    """A figure for people with its unit, three digits."""
    return f"{value:.3g} {quantity.unit}".rstrip()


def _times(ratio: float) -> str:
    return f"{ratio:.2f} times" if ratio < 10 else f"{ratio:.3g} times"


def drift_rows(made: Rollout) -> list[tuple[str, ...]]:
    """A row for each quantity and side: over all starts."""
    rows: list[tuple[str, ...]] = []
    for quantity in made.quantities:
        for side in made.sides:
            own = side == CANDIDATE
            rate = made.growth(side, quantity.name)
            count, first = made.diverged(side, quantity.name)
            ratios = [made.ratio(start, quantity.name) for start in made.starts]
            rows.append(
                (
                    quantity.name if own else "",
                    side,
                    _figure(made.largest(side, quantity.name), quantity),
                    _figure(made.typical(side, quantity.name), quantity),
                    _figure(max(d.end for d in made.of(side, quantity.name)), quantity),
                    "-" if rate is None else f"{rate:+.2f}",
                    "never" if first is None else f"{count} of {len(made.starts)}, from {first:.2f} s",
                    f"{max(ratios):.3g}" if own else "",
                    made.word_of_quantity(quantity.name) if own else "",
                )
            )
    return rows


def _parts_line(made: Rollout) -> str:
    """The most of each joint, where there are joints."""
    shown = [q for q in made.quantities if q.whole == 1 and len(q.parts) > 1]
    said = []
    for quantity in shown:
        drifts = made.of(CANDIDATE, quantity.name)
        most = [max(drift.parts[i] for drift in drifts) for i in range(len(quantity.parts))]
        parts = ", ".join(f"{part} {value:.3g}" for part, value in zip(quantity.parts, most, strict=True))
        said.append(f"{quantity.name}, largest of each in {quantity.unit or 'plain numbers'}: {parts}")
    return "; ".join(said) or "No quantity has parts"


def _start_table(made: Rollout, width: int) -> Iterable[str]:
    header, rows = start_rows(made)
    forms = [Form(header, range(7)), Form(header, (0, 1, 4, 6)), Form(header, (0, 1, 6), gap=1)]
    yield from table(rows, forms, width)
    if len(made.starts) > len(rows):
        yield f"and {len(made.starts) - len(rows)} more, which drifted less"


def start_rows(made: Rollout) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A header, and a row for each start, the one that drifted most first; of many the first ones."""
    tip = made.quantities[0]
    ordered = sorted(made.starts, key=lambda start: -start.drift(CANDIDATE, tip.name).largest)[:ROWS]
    header = ("start", f"{tip.name} {tip.unit}".strip(), *FLOORS, "floors", "visible", "word")
    return header, [_start_row(made, start, tip) for start in ordered]


def _start_row(made: Rollout, start: Start, tip: Quantity) -> tuple[str, ...]:
    drift = start.drift(CANDIDATE, tip.name)
    floors = [f"{start.drift(s, tip.name).largest:.3g}" if s in start.drifts else "-" for s in FLOORS]
    seen = "never" if drift.diverged_s is None else f"{drift.diverged_s:.2f} s"
    return (
        str(start.start),
        f"{drift.largest:.3g}",
        *floors,
        f"{made.ratio(start, tip.name):.3g}",
        seen,
        made.word_of_start(start),
    )


def success_lines(made: Rollout) -> list[str]:
    """Who does the job, paired; never without what so many starts could have shown."""
    found = made.success
    if found is None:
        return [f"Success: {made.env} has no task"]
    could = (
        f"{found.starts} starts could have shown no difference at all; give at least 6"
        if found.smallest is None
        else f"{found.starts} starts could have shown one of {found.smallest:.0%} or more"
    )
    verdict = "a difference" if found.differ else "no difference was found"
    return [
        f"Success: reference {found.both + found.reference_only} of {found.starts}, candidate "
        f"{found.both + found.candidate_only}; {found.reference_only} starts by the reference alone, "
        f"{found.candidate_only} by the candidate alone; McNemar p = {found.p_value:.3g}, {verdict}; {could}"
    ]


def told_lines(made: Rollout) -> Iterable[str]:
    """What else a reader should know, a line each."""
    tip = made.quantities[0]
    parted = [t for t in (start.parted(tip.name) for start in made.starts) if t is not None]
    if parted:
        yield (
            f"Chaos: in {len(parted)} of {len(made.starts)} starts rounding alone was visible "
            f"({_figure(tip.visible, tip)}), first after {min(parted):.2f} s; such starts tell a fault late"
        )
    if made.open_loop is not None:
        wide = made.open_loop.float64
        own = "" if wide is None else f", the reference in float64 {figure(wide)}"
        yield (
            f"Open loop, the same {made.open_loop.plans} observations: max_abs_diff "
            f"{figure(made.open_loop.candidate)}{own}"
        )
    late = f", the candidate's chunks {made.latency} control periods late" if made.latency else ""
    yield f"Driven: {made.execute} actions of a chunk{late}; seed {made.seed}"
    yield from (f"Note: {note}" for note in made.notes)
