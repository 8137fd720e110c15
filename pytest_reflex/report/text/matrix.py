"""A matrix of runtimes as text: the verdict on each, how far all are apart, and who is the odd one out."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_reflex.report.text.layout import UNBROKEN, Form, table, wrapped
from pytest_reflex.report.text.terminal import figure, headline
from pytest_reflex.verdict.matrix import REFERENCE, Column, Matrix

__all__ = ["beside_line", "matrix_failure", "matrix_text", "no_verdict", "odd_line", "worst_from_float64"]

_HEADER = ("runtime", "verdict", "max_abs_diff", "from float64", "ms a run", "s to open", "MB", "ran on")


def matrix_text(made: Matrix, width: int = UNBROKEN) -> str:
    """Everything, the verdict and the odd one in the first lines."""
    shown = [_row(column) for column in made.columns]
    forms = [Form(_HEADER, range(8)), Form(_HEADER, range(7)), Form(_HEADER, (0, 1, 2, 3), 1)]
    lines = [
        *wrapped(_first(made), width),
        *wrapped(odd_line(made), width),
        "",
        "Runtimes",
        *table(shown, forms, width),
    ]
    for column in made.columns:
        if not column.passed:
            said = column.error if column.result is None else headline(column.result)
            lines += wrapped(f"{column.runtime}: {said}", width, rest="  ")
    if len(made.members) > 1:
        lines += ["", "Largest difference between two", *_pairs(made, width)]
    return "\n".join(lines) + "\n"


def matrix_failure(made: Matrix, evidence: str, width: int) -> str:
    """What a failing test says: the runtime that decides and its verdict, all of them, then its evidence."""
    runtime, (said, _, rest) = made.worst.runtime, evidence.partition("\n")
    verdict, _, why = said.partition(": ")
    return f"{verdict}: on {runtime}: {why}\n\n{matrix_text(made, width)}\n{rest.lstrip()}"


def no_verdict(made: Matrix) -> str:
    """Which runtimes reached no verdict, and why, in one line."""
    absent = [column for column in made.columns if column.result is None]
    return f"no verdict on {', '.join(column.runtime for column in absent)}: {absent[0].error}"


def _first(made: Matrix) -> str:
    count = len(made.columns)
    if made.passed:
        return f"matrix PASS: {made.name} passes on {count} of {count} runtimes"
    failed = [column.runtime for column in made.columns if column.result is not None and not column.passed]
    absent = [column.runtime for column in made.columns if column.result is None]
    parts = [f"fails on {', '.join(failed)}"] if failed else []
    parts += [f"reached no verdict on {', '.join(absent)}"] if absent else []
    return f"matrix {'FAIL' if failed else 'ERROR'}: {made.name} {' and '.join(parts)}, of {count} runtimes"


def odd_line(made: Matrix) -> str:
    """Who does not agree with the others, in words."""
    members, odd = made.members, made.odd
    if len(members) < 3:
        return "Odd one out: not known; that takes the reference and two runtimes that ran"
    if odd == (REFERENCE,):
        return (
            "Odd one out: the reference; the runtimes agree with each other, so that the graph which they "
            "run is not the policy"
        )
    if odd:
        near = max(
            (made.distance(a, b) or 0.0 for a in members for b in members if a != b and not {a, b} & {*odd}),
            default=0.0,
        )
        return f"Odd one out: {', '.join(odd)}; all others are within {near:.1e} of each other"
    agree = all((made.distance(a, b) or 0.0) < made.bound for a in members for b in members if a != b)
    return "Odd one out: none" if agree else "Odd one out: not known; no most of them agree"


def beside_line(made: Matrix, runtime: str) -> str:
    """How far one runtime is from each other one, and who is odd; empty where it is alone."""
    others = [member for member in made.members if member not in (REFERENCE, runtime)]
    if runtime not in made.members or not others:
        return ""
    told = ", ".join(f"{figure(made.distance(runtime, other))} from {other}" for other in others)
    return f"on {runtime} it is {told}. {odd_line(made)}"


def _row(column: Column) -> tuple[str, ...]:
    result = column.result
    if result is None:
        return (column.runtime, "none", *"------")
    ran = result.candidate.get("providers_used")
    return (
        column.runtime,
        "PASS" if result.passed else "FAIL",
        figure(result.max_abs_diff_across_all),
        figure(worst_from_float64(column)),
        "-" if column.run_s is None else f"{column.run_s * 1e3:.1f}",
        "-" if column.opened_s is None else f"{column.opened_s:.2f}",
        "-" if column.taken_bytes is None else f"{column.taken_bytes / 1e6:.1f}",
        ", ".join(map(str, ran)) if isinstance(ran, list | tuple) else "-",
    )


def worst_from_float64(column: Column) -> float | None:
    """The runtime's largest distance from the reference in float64; None where that is not known."""
    if column.result is None:
        return None
    floors = (output.floor for fixture in column.result.fixtures for output in fixture.outputs)
    found = [floor.candidate_max for floor in floors if floor is not None and floor.candidate_max is not None]
    return max(found, default=None)


def _pairs(made: Matrix, width: int) -> Iterable[str]:
    members = made.members
    rows = [
        (one, *("0" if one == other else figure(made.distance(one, other)) for other in members))
        for one in members
    ]
    rows = [(*row[1:], row[0]) for row in rows]  # the last column is the one that is left-aligned
    header = (*members, "")
    return table(rows, [Form(header, range(len(header))), Form(header, range(len(header)), 1)], width)
