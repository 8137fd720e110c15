"""A result as plain ASCII text: the verdict in the first line, then what a reader needs to act on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pytest_reflex.report.text import advice
from pytest_reflex.report.text.divergence import growth_lines, place_lines, where_line
from pytest_reflex.report.text.in_units import in_units_lines, nearest_in_units
from pytest_reflex.report.text.layout import NARROW, Form, named_facts, table
from pytest_reflex.report.text.layout import wrapped as _wrap
from pytest_reflex.report.text.rounding import floor_table, word_line
from pytest_reflex.verdict.results import (
    FIRST_MADE,
    FIXTURE_GATE_NAMES,
    Answer,
    FixtureResult,
    OutputResult,
    RunResult,
    fixture_counts,
    fixture_name,
    named_fixture,
)
from pytest_reflex.verdict.tolerances import Tolerances

WIDTH: Final = 80
# pytest puts "E" and an indent of seven before each line of a failure.
PREFIX: Final = 8
MESSAGE_WIDTH: Final = WIDTH - PREFIX
TABLE_ROWS: Final = 20

_COLUMNS: Final = ("fixture_idx", "max_abs_diff", "mean_abs_diff", "      cos", "passed", "gate")
# What fits into 60 columns, and into 40.
_SHORT_COLUMNS: Final = ("fixture", "max_abs", "mean_abs", "cos", "passed", "gate")
_SHORTEST_COLUMNS: Final = ("idx", "max_abs", "mean_abs", "cos", "passed", "gate")
# Shorter words first, then fewer columns; the verdict and the figure that it rests on stay.
_FORMS: Final = (
    Form(_COLUMNS, (0, 1, 2, 3, 4, 5)),
    Form(_SHORT_COLUMNS, (0, 1, 2, 3, 4, 5)),
    Form(_SHORT_COLUMNS, (0, 1, 3, 4, 5)),
    Form(_SHORT_COLUMNS, (0, 1, 4, 5)),
    Form(_SHORTEST_COLUMNS, (0, 1, 4, 5), gap=1),
    Form(_SHORTEST_COLUMNS, (0, 1, 4), gap=1),
)


def figure(value: float | None, threshold: float | None = None) -> str:
    """A figure for people, ``9.461e-03``; exact where rounding would move it across ``threshold``."""
    if value is None:
        return "-"
    text = f"{value:.3e}" if math.isfinite(value) else str(float(value))
    if threshold is not None and (float(text) < threshold) != (value < threshold):
        return repr(float(value))
    return text


def bound(threshold: float) -> str:
    """A threshold for people, ``1.0e-05``; four digits when two do not hold it."""
    text = f"{threshold:.1e}"
    return text if float(text) == threshold or not math.isfinite(threshold) else f"{threshold:.3e}"


def told_apart(value: float, threshold: float) -> tuple[str, str]:
    """A figure beside its threshold, with as many digits as show which of them is larger, and no more."""
    if not (math.isfinite(value) and math.isfinite(threshold)):
        return figure(value), bound(threshold)
    limit = bound(threshold)
    for digits in range(3, 9):
        seen = f"{value:.{digits}e}"
        limit = limit if float(limit) == threshold else f"{threshold:.{digits}e}"
        if (float(seen) < float(limit)) == (value < threshold):
            return seen, limit
    # They are one to nine digits.
    return f"{value:.3e}", f"{threshold:.3e}"


def cosine(value: float | None) -> str:
    return "-" if value is None else f"{value:+.6f}"


def yes(passed: bool) -> str:
    return "yes" if passed else "NO"


def element(name: str, index: Iterable[int]) -> str:
    """``actions[0, 17, 3]``; a scalar output has no brackets."""
    at = ", ".join(str(int(i)) for i in index)
    return f"{name}[{at}]" if at else name


def headline(result: RunResult) -> str:
    """The whole verdict in one line; where PyTorch was not asked it is no verdict on parity, and says so."""
    said = _headline(result)
    if result.against == "policy":
        return said
    return said.replace("parity ", "agreement ", 1).replace(": ", ": PyTorch was not asked; ", 1)


def _headline(result: RunResult) -> str:
    count = fixture_counts(result)
    worst = _worst_of(result, result.fixtures)
    held = _held_to(result)
    if result.passed and worst is not None:
        seen, shown = told_apart(worst[2], result.limit_of(worst[1]))
        below = f"{shown}{_relative(result)}"
        # With thresholds of their own it is not the one with the largest figure.
        own = not _asked(result).is_plain and sum("float" in o.dtype for o in worst[0].outputs) > 1
        # Bounds in floors are those of a fixture, and the table shows a larger figure elsewhere.
        largest = max((f.max_abs_diff or 0.0 for f in result.fixtures), default=0.0)
        places = [named_fixture(worst[0].fixture_idx)] if worst[2] < largest and not own else []
        places += [worst[1].name] if own else []
        nearest = f"; nearest: {', '.join(places)}" if places else ""
        if (physical := nearest_in_units(result, worst[1])) is not None:
            seen, below = _told_in_units(physical)
        held = _held_to(result, result.limit_of(worst[1]))
        # What strict would refuse is said where nobody reads on.
        doubts = f", {len(result.doubts)} doubt{'s' * (len(result.doubts) > 1)}" if result.doubts else ""
        return _line(f"parity PASS: max_abs_diff {seen} is below {below} ({count}{doubts}{nearest}{held})")
    failing = [f for f in result.fixtures if not f.passed]
    idx, answer = first_refusal(result)
    if idx is None:
        return _line(f"parity FAIL: {answer.gate}: {answer.said}{held and f' ({held[2:]})'}")
    how_many = f"{len(failing)} of {count} {'fails' if len(failing) == 1 else 'fail'}"
    worst = _worst_of(result, failing)
    if answer.gate != "threshold" or worst is None:
        return _line(f"parity FAIL: {named_fixture(idx)}, {answer.gate}: {answer.said} ({how_many}{held})")
    fixture, output, diff = worst
    where = element(output.name, output.difference.worst_index) if output.difference else output.name
    limit = result.limit_of(output)
    seen, shown = told_apart(diff, limit)
    why = f"max_abs_diff {seen} is not below {shown}{_relative(result)}"
    if (physical := nearest_in_units(result, output)) is not None:
        why = "max_abs_diff {} is not below {}".format(*_told_in_units(physical))
    held = _held_to(result, limit)
    if limit == 0 and output.floor is not None and output.floor.unknown:
        why = answer.said  # it says why there is no floor
    return _line(
        f"parity FAIL: {why} ({how_many}; worst: {named_fixture(fixture.fixture_idx)}, {where}{held})"
    )


def _told_in_units(found: tuple[str, float, float, str]) -> tuple[str, str]:
    """An element's error and its threshold, with their unit."""
    name, apart, limit, unit = found
    if name.isdigit():  # nobody named it
        name = f"element {name}"
    seen, shown = told_apart(apart, limit)
    return f"{seen} {unit} of {name}", f"{shown} {unit}"


def limit_text(result: RunResult, limit: float) -> str:
    """A threshold of a result for people; what rtol adds to it is in it already, or said beside it."""
    # What was counted in floors, or added to, has digits that nobody gave.
    return figure(limit) if result.asked.needs_floors or result.asked.rtol else bound(limit)


def _relative(result: RunResult) -> str:
    return f" + {result.asked.rtol:g} of the value" if result.asked.rtol else ""


def _held_to(result: RunResult, bound: float | None = None) -> str:
    """What else the first line has to say: another precision than float32, another bound than a number.

    Where it says the ``bound`` itself, with what rtol adds, a number for all outputs says nothing more.
    """
    short, said, asked = result.precision.short, asked_text(result), _asked(result)
    if asked.rest.plain and not asked.outputs and asked.rest.number == bound:
        said = ""
    return (f"; candidate: {short}" if short else "") + (f"; asked: {said}" if said else "")


def asked_text(result: RunResult) -> str:
    """What was asked of the outputs that there are; empty where it is one number for all."""
    if _asked(result).is_plain:
        return ""
    return result.asked.said(by_default=result.by_default, names=_of_floats(result))


def _asked(result: RunResult) -> Tolerances:
    return result.asked.among(_of_floats(result))


def _of_floats(result: RunResult) -> list[str]:
    found = (o.name for f in result.fixtures for o in f.outputs if "float" in o.dtype)
    return list(dict.fromkeys(found))


def verdict_lines(result: RunResult) -> str:
    """The verdict; below it what the floor says, and where the two sides part."""
    where = where_line(result.located) if result.located is not None else ""
    return "\n".join(_line(line) for line in (headline(result), word_line(result), where) if line)


def fixture_table(result: RunResult, width: int = WIDTH, rows: int = TABLE_ROWS) -> str:
    """``Per-fixture results``, a row per fixture; beyond ``rows`` the failing ones first, others counted."""
    shown: Sequence[FixtureResult] = result.fixtures
    if len(shown) > rows:
        shown = sorted(shown, key=lambda f: f.passed)[:rows]
    lines = ["Per-fixture results", *table([_cells(f, result.threshold) for f in shown], _FORMS, width)]
    left_out = [f for f in result.fixtures if f not in shown] if len(shown) < len(result.fixtures) else []
    if left_out:
        failing = sum(not f.passed for f in left_out)
        worst = _worst(left_out)
        largest = f", max_abs_diff at most {figure(worst[2])}" if worst else ""
        passing = len(left_out) - failing
        text = f"... {len(left_out)} more not shown: {failing} failing, {passing} passing{largest}"
        lines += _wrap(text, width)
    if not result.fixtures:
        lines.append("(none)")
    if result.left_out:
        said = f"... {result.left_out:,} more were drawn and pass; those with the worst figures are kept"
        lines += _wrap(said, width)
    return printable("\n".join(lines))


def _cells(fixture: FixtureResult, threshold: float) -> tuple[str, ...]:
    refusal = fixture.refusal
    return (
        fixture_name(fixture.fixture_idx),
        figure(fixture.max_abs_diff, threshold),
        figure(fixture.mean_abs_diff),
        cosine(fixture.cos),
        yes(fixture.passed),
        refusal.gate if refusal else "",
    )


def summary(result: RunResult, width: int = WIDTH) -> str:
    """The ``Summary`` block."""
    lines = [
        "Summary",
        f"  max_abs_diff_across_all  {figure(result.max_abs_diff_across_all, result.threshold)}",
        f"  threshold                {_threshold(result)}",
        f"  passed                   {yes(result.passed)}",
    ]
    return "\n".join(named_facts(lines, width))


def _located(result: RunResult, width: int) -> str:
    if result.located is None:
        return ""
    lines = [*named_facts(place_lines(result.located), width), *growth_lines(result.located, width=width)]
    return printable("\n".join(lines))


def _threshold(result: RunResult) -> str:
    asked, said = _asked(result), ""
    if not asked.rest.plain or asked.outputs:
        said = asked_text(result)
        if asked.is_in_full(result.threshold):
            return f"{said}{' (strict)' if result.strict else ''}"
        said += ", at most "
    limit = figure(result.threshold) if asked.needs_floors else bound(result.threshold)
    return f"{said}{limit}{_relative(result)}{' (strict)' if result.strict else ''}"


def least_lines(result: RunResult, width: int = WIDTH) -> str:
    """``Would pass with``, for each output the least of each kind of tolerance.

    Empty without figures, and where a gate of the run refuses, which no tolerance mends.
    """
    if any(not answer.passed for answer in result.answers):
        return ""
    lines: list[str] = []
    beside = " beside its rtol" if result.asked.rtol else ""
    for least in result.least:
        ways = [f"threshold {figure(least.atol)}"]
        if least.atol == 0:
            lines += _wrap(f"{least.name}: with any threshold{beside}", width, first="  ", rest="    ")
            continue
        ways += [f"{least.floors:.3g}x floor"] if least.floors is not None else []
        ways += [f"rtol {figure(least.rtol)} beside its threshold"] if least.rtol else []
        lines += _wrap(f"{least.name}: above {', or '.join(ways)}", width, first="  ", rest="    ")
    outputs = [o for f in result.fixtures for o in f.outputs if "float" not in o.dtype]
    for name in dict.fromkeys(o.name for o in outputs if o.difference and o.difference.max_abs_diff):
        lines += _wrap(f"{name}: no threshold, for it must be equal", width, first="  ", rest="    ")
    return printable("\n".join(["Would pass with", *lines])) if lines else ""


def claim_lines(result: RunResult, width: int = WIDTH) -> str:
    """``Claim``: what the fixtures establish of other inputs; empty where nobody counted."""
    if result.claim is None:
        return ""
    return printable("\n".join(_wrap(f"Claim: {result.claim.text}", width, rest="  ")))


def coverage_lines(result: RunResult, width: int = WIDTH) -> str:
    """``Coverage``: which decisions of the graph went both ways, by module where not all did."""
    coverage = result.coverage
    if coverage is None:
        return ""
    lines = _wrap(f"Coverage: {coverage.text}", width, rest="  ")
    for module in [module for module in coverage.modules if module.one_way][:TABLE_ROWS]:
        reachable = module.both + module.one_way
        said = f"{module.module or '(no module)'}: {module.both} of {reachable}"
        lines += _wrap(said, width, first="  ", rest="    ")
    for decision in coverage.missed[:5]:
        lines += _wrap(f"never asked: {decision.text}", width, first="  ", rest="    ")
    return printable("\n".join(lines))


def worst_element(result: RunResult, width: int = WIDTH) -> str:
    """Where the two sides differ most: index, both values exactly, the difference; empty without figures."""
    failing = [f for f in result.fixtures if not f.passed]
    worst = _worst_of(result, failing) or _worst_of(result, result.fixtures)
    if worst is None or worst[1].difference is None:
        return ""
    fixture, output, _ = worst
    d = worst[1].difference
    where = element(output.name, d.worst_index)
    shape = "x".join(map(str, output.shape)) or "scalar"
    lines = [
        *_wrap(
            f"Worst element: {named_fixture(fixture.fixture_idx)}, {where} ({output.dtype}, {shape})",
            width,
            rest="  ",
        ),
        *named_facts(
            [
                f"  reference     {d.worst_reference!r}",
                f"  candidate     {d.worst_candidate!r}",
                f"  difference    {float(d.max_abs_diff)!r}",
                f"  differing     {d.unequal} of {d.elements} elements",
                f"  ULP           p50 {d.ulp_p50}, p99 {d.ulp_p99}, max {d.ulp_max}",
            ],
            width,
        ),
        *_wrap(
            f"rmse          {figure(d.rmse)}, max relative {figure(d.max_rel_diff)}, SQNR {d.sqnr_db:.1f} dB",
            width,
            first="  ",
            rest=" " * (16 if width >= NARROW else 4),
            as_it_is=True,
        ),
    ]
    return printable("\n".join(lines))


def refusals(result: RunResult, width: int = WIDTH) -> str:
    """Why, gate by gate; fixtures that were refused with the same words share a line; empty when none was.

    The threshold's own refusals stand in the table and are left out when they are all there is.
    """
    grouped: dict[Answer, list[int]] = {}
    for idx, answer in result.refusals:
        grouped.setdefault(answer, []).extend([] if idx is None else [idx])
    if all(answer.gate == "threshold" for answer in grouped):
        return ""
    lines = ["Refused by"]
    for answer, idxs in grouped.items():
        where = f" ({_indices(idxs)})" if idxs else ""
        lines += _wrap(f"{answer.gate}{where}: {answer.said}", width, first="  ", rest="    ")
    return printable("\n".join(lines))


def sides(result: RunResult, width: int = WIDTH) -> str:
    """One line for each side: what it is; empty when nothing is known."""
    lines: list[str] = []
    for label, facts in (("Reference", result.reference), ("Candidate", result.candidate)):
        words = side(facts)
        if words:
            lines += _wrap(f"{label}: {words}", width, rest="  ")
    return printable("\n".join(lines))


def precision_lines(result: RunResult, width: int = WIDTH) -> str:
    """``Precision``: what the candidate is in, as far as that was read."""
    if not (result.precision.graph or result.precision.told):
        return ""
    lines = _wrap(f"Precision: {result.precision.text}", width, rest="  ")
    for output in (o for f in result.fixtures for o in f.outputs):
        if output.quantised is not None:
            lines += _wrap(f"Quantised, {output.name}: {output.quantised.text}", width, rest="  ")
    return printable("\n".join(lines))


def notes(result: RunResult, width: int = WIDTH) -> str:
    """Notes, and what is doubted: a strict check refuses for it."""
    doubted = {doubt.said for doubt in result.doubts}
    lines: list[str] = []
    for note in result.notes:
        lines += _wrap(f"{'Doubt' if note in doubted else 'Note'}: {note}", width, rest="  ")
    return printable("\n".join(lines))


def failure_message(
    result: RunResult, *, report: str | None = None, rerun: str | None = None, width: int = MESSAGE_WIDTH
) -> str:
    """What a :class:`~pytest_reflex.errors.ParityError` says: the verdict's line, and below it the evidence.

    Args:
        result: a result that did not pass.
        report: where the full report will lie, when it is known.
        rerun: the command that runs this check again and keeps a report, when it is known.
        width: columns; the first line alone may be longer, and so may a word that does not break.
    """
    advised = advice.next_steps(result, first_refusal(result)[1])
    last = _wrap(f"Next: {advised}", width, rest="  ")
    if rerun:
        last += ["A page with every figure:", f"  {rerun}"]
    if report:
        last += [f"Report: {report}"]
    return _evidence(result, width, "\n".join(last))


def result_text(result: RunResult, width: int = WIDTH) -> str:
    """A result for a terminal or ``print``: the same evidence for a pass as for a fail."""
    if not result.passed:
        return failure_message(result, width=width) + "\n\n" + summary(result, width)
    return _evidence(result, width, summary(result, width))


def _evidence(result: RunResult, width: int, last: str) -> str:
    blocks = [
        verdict_lines(result),
        refusals(result, width),
        fixture_table(result, width),
        claim_lines(result, width),
        coverage_lines(result, width),
        "\n".join(floor_table(result, width)),
        printable("\n".join(in_units_lines(result, width))),
        _located(result, width),
        worst_element(result, width),
        least_lines(result, width),
        precision_lines(result, width),
        sides(result, width),
        notes(result, width),
        last,
    ]
    return printable("\n\n".join(block for block in blocks if block))


def _worst(fixtures: Iterable[FixtureResult]) -> tuple[FixtureResult, OutputResult, float] | None:
    """The fixture and output with the largest max_abs_diff, where NaN is larger than anything."""
    found = [
        (f, o, o.difference.max_abs_diff) for f in fixtures for o in f.outputs if o.difference is not None
    ]
    return max(found, key=lambda it: (math.isnan(it[2]), it[2]), default=None)


def _worst_of(
    result: RunResult, fixtures: Sequence[FixtureResult]
) -> tuple[FixtureResult, OutputResult, float] | None:
    """What is nearest to its own threshold, or furthest beyond, of these fixtures."""
    found = replace(result, fixtures=tuple(fixtures)).nearest
    if found is None or found[1].difference is None:
        return None
    return *found, found[1].difference.max_abs_diff


def first_refusal(result: RunResult) -> tuple[int | None, Answer]:
    """The refusal to begin with: a fixture's before the run's, the earliest gate first.

    That the reference is none explains every figure, and is said before them.
    """
    order = {gate: i for i, gate in enumerate(FIXTURE_GATE_NAMES)}
    found = result.refusals
    if not found:
        return None, Answer.no("compared", "nothing was compared")
    of_run = [one for one in found if one[0] is None]
    if any(answer.gate == "reference" for _, answer in of_run):
        return of_run[0]
    return min(
        found, key=lambda it: (it[0] is None, order.get(it[1].gate, len(order)) if it[0] is not None else 0)
    )


def side(facts: Mapping[str, Any]) -> str:
    kind = facts.get("kind")
    what = next((facts[key] for key in ("class", "path", "name") if facts.get(key)), None)
    words = " ".join(str(word) for word in (kind, what) if word)
    dtype = facts.get("dtype")
    words += f", in {dtype}" if words and dtype not in (None, "float32") else ""
    # The runner's own keys first; a runner of someone else's may know none of them.
    asked = facts.get("provider_asked")
    used = facts.get("providers_used")
    ran = used[0] if isinstance(used, list | tuple) and used else None
    if ran and ran == asked:
        words += f", on {ran}"
    elif asked:
        words += f", asked for {asked}, ran on {ran or 'no provider'}"
    return words


def _indices(idxs: Sequence[int]) -> str:
    """``fixture 3``, ``fixtures 0-4, 7``, ``fixture 3, corner 0``."""
    runs: list[list[int]] = []
    drawn = [idx for idx in idxs if idx < FIRST_MADE]
    for idx in sorted(drawn):
        if runs and idx == runs[-1][-1] + 1:
            runs[-1].append(idx)
        else:
            runs.append([idx])
    text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    said = [f"fixture {text}" if len(drawn) == 1 else f"fixtures {text}"] if drawn else []
    return ", ".join([*said, *(fixture_name(idx) for idx in sorted(idxs) if idx >= FIRST_MADE)])


def _line(text: str) -> str:
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """What any terminal shows and none obeys: ASCII and line ends; the rest in escapes."""
    ascii_only = text.encode("ascii", "backslashreplace").decode("ascii")
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in ascii_only)
