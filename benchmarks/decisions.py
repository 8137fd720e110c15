"""Decisions of every family's graph: who takes them both ways, and whether a wrong one is seen.

    python benchmarks/decisions.py --evidence parity_reports

Of each family's tiny policy, exported as it is by default: how many of the decisions that inputs can turn
round (conditions, limits, choices, rows; see ``docs/howto/claim.md``) the five plain fixtures take both ways,
and how many `coverage="95%"` does, in how many fixtures. Then mutants of the graph
(``tests/mutants/decision_operators.py``), each with one of those decisions flipped or frozen, judged as this
repository's parity tests judge, with the five and with `coverage="100%"`, which goes on until all that
inputs can turn round was asked, or 32 fixtures. One that both let pass is run on 200 random fixtures and on
all corners: it is *equivalent* where it gives the honest export's bits on all of them, or stays below the
strict threshold, else it *survived*. Exit 1 when one did, or a family is below 95 %.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(ROOT / "tests" / "mutants")]

# ruff: noqa: E402
from decision_operators import decision_mutants
from mutant_judge import (
    RANDOM,
    RANDOM_FIXTURES,
    Subject,
    chosen,
    graph_bytes,
    judged,
    on_fixtures,
    refused,
    with_graph,
)
from mutant_subjects import families, layouts_of, subject
from side_by_side import write

from exporters import Policy
from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs.fixtures import fixtures_from
from pytest_reflex.inputs.ranges import corners
from pytest_reflex.judge import coverage
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD

ASKED: Final = 0.95
ENDS: Final = ("by five", "by coverage", "equivalent", "survived", "stillborn")


@dataclass(frozen=True)
class Mutant:
    """A graph with one decision changed, and how it ended: one of :data:`ENDS`."""

    family: str
    where: str
    end: str
    gates: tuple[str, ...] = ()
    largest: float = 0.0


def within_reach(policy: Any) -> None:
    """Give a Gaussian actor's random weights a deviation that observations drive to both of its limits.

    As they are drawn it is near 1 whatever is seen, and its limits are 1e-5 and 10.
    """
    import torch

    with torch.no_grad():
        layer = policy.actor.std_layer
        layer.weight *= 200 / layer.weight.abs().sum(1).max()
        layer.bias.zero_()


def looked(made: Subject) -> dict[str, Any]:
    """What the five fixtures ask of the honest export's graph, and what is asked for 95 %."""
    made.reference.remember()
    rows = {}
    for name, share in (("five", 0.0), ("chosen", ASKED), ("all", 1.0)):
        result = judged(made, Policy(made.bundle), coverage=share)
        if result.coverage is None or result.coverage.unknown:
            sys.exit(f"{made.family}: {result.coverage and result.coverage.text}")
        # What was never asked is in the row.
        if [gate for gate in refused(result) if gate != "coverage"]:
            sys.exit(f"{made.family}: the honest export does not pass: {result}")
        rows[name] = result.coverage
    five, more, all_asked = rows["five"], rows["chosen"], rows["all"]
    return {
        "family": made.family,
        "layout": made.layout,
        "reachable": more.reachable,
        "constant": more.constant,
        "guards": more.guards,
        "both ways in five": five.both,
        "both ways": more.both,
        "share": more.share,
        "fixtures": more.fixtures,
        "fixtures for all": all_asked.fixtures,
        "never asked": [one.text for one in all_asked.missed],
    }


def mutants(made: Subject, wanted: int) -> Iterator[tuple[str, Callable[[], Policy]]]:
    """So many, spread over all by a generator that the family's name seeds."""
    ranges = coverage.input_ranges(fixtures_from(made.inputs, 5, 0))
    found = []
    for stem in made.bundle.manifest["graphs"]:
        data = graph_bytes(made.bundle, stem)
        for where, make in decision_mutants(data, ranges):
            found.append((f"{stem}: {where}", lambda s=stem, m=make: with_graph(made.bundle, s, m())))
    yield from (found[number] for number in chosen(len(found), wanted, made.family))


def judge(made: Subject, where: str, candidate: Callable[[], Policy], complete: bool) -> Mutant:
    """How it ends; what coverage alone refuses counts where it asks the honest export for all, `complete`."""
    made.reference.remember()
    try:
        if gates := refused(judged(made, candidate())):
            return Mutant(made.family, where, "by five", gates)
    except RunnerError:
        return Mutant(made.family, where, "stillborn")
    try:
        gates = refused(judged(made, candidate(), coverage=1.0))
    except RunnerError:
        gates = ("refused to run",)
    # That a decision is asked no more is no look at what is wrong.
    if seen := tuple(gate for gate in gates if gate != "coverage"):
        return Mutant(made.family, where, "by coverage", seen)
    corner = [(0, fixture_idx) for fixture_idx in corners(made.inputs)]
    try:
        largest, same = on_fixtures(made, candidate(), [*RANDOM, *corner])
    except RunnerError:
        largest, same = float("inf"), False
    end = (
        "equivalent"
        if same or largest < STRICT_THRESHOLD
        else "by coverage"
        if gates and complete
        else "survived"
    )
    return Mutant(made.family, where, end, gates, largest)


def page(rows: Sequence[dict[str, Any]], ends: Sequence[Mutant], seconds: float) -> str:
    counted = Counter(end.end for end in ends)
    killed = counted["by five"] + counted["by coverage"]
    lines = [
        "# Decisions",
        "",
        "Which decisions of every family's graph the fixtures take both ways, and whether a wrong one is "
        "seen. Made by `python benchmarks/decisions.py --evidence parity_reports`, which says how, in "
        f"{seconds:.0f} s; every mutant is in [decisions.json](decisions.json).",
        "",
        f"{killed} of {killed + counted['survived']} mutants with one decision flipped or frozen are "
        f"refused: {counted['by five']} by the five plain fixtures, {counted['by coverage']} more with "
        f'`coverage="100%"`. {counted["equivalent"]} others are equivalent on {RANDOM_FIXTURES} random '
        f"fixtures and all corners; {counted['stillborn']} gave graphs that ONNX Runtime refuses.",
        "",
        "| family | decisions | both ways in five | both ways | share | fixtures | for all | by constants "
        "| guards | refused by five | by coverage | equivalent | survived |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        own = Counter(end.end for end in ends if end.family == row["family"])
        lines.append(
            f"| {row['family']} | {row['reachable']} | {row['both ways in five']} | {row['both ways']} "
            f"| {100 * row['share']:.1f} % | {row['fixtures']} "
            f"| {row['fixtures for all'] if not row['never asked'] else '-'} "
            f"| {row['constant']} | {row['guards']} "
            f"| {own['by five']} | {own['by coverage']} | {own['equivalent']} | {own['survived']} |"
        )
    never = [f"- {row['family']}: `{text}`" for row in rows for text in row["never asked"]]
    if never:
        lines += ["", "## Never asked", "", "What inputs might turn round, and none of the fixtures did:", ""]
        lines += never
    late = [end for end in ends if end.end in ("by coverage", "equivalent", "survived")]
    lines += [
        "",
        "## What five fixtures let pass",
        "",
        "| family | where | end | gates |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {end.family} | `{end.where}` | {end.end} | {', '.join(end.gates)} |" for end in late]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(families()))
    parser.add_argument("--per-family", type=int, default=24, help="mutants of each at most")
    parser.add_argument(
        "--evidence", type=Path, help="write decisions.json and decisions.md into this directory"
    )
    options = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    ends: list[Mutant] = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for family in options.families:
            change = within_reach if family == "gaussian_actor" else None
            made = subject(family, layouts_of(family)[0], Path(folder), change)
            rows.append(row := looked(made))
            complete = not row["never asked"]
            own = [
                judge(made, where, candidate, complete)
                for where, candidate in mutants(made, options.per_family)
            ]
            ends += own
            counts = Counter(end.end for end in own)
            print(
                f"{family:14} {row['both ways in five']:4} then {row['both ways']:4} of {row['reachable']:4} "
                f"both ways ({100 * row['share']:.1f} %, {row['fixtures']} fixtures); mutants: "
                + ", ".join(f"{counts[name]} {name}" for name in ENDS),
                flush=True,
            )
            for end in own:
                if end.end in ("survived", "equivalent"):
                    print(f"  {end.end}: {end.where}, {end.largest:.1e}", flush=True)
    seconds = time.perf_counter() - began
    if options.evidence is not None:
        # JSON has no infinity.
        shown = [end.largest if np.isfinite(end.largest) else str(end.largest) for end in ends]
        kept = [{**asdict(end), "largest": largest} for end, largest in zip(ends, shown, strict=True)]
        write(options.evidence / "decisions.json", "decisions", rows, mutants=kept, seconds=round(seconds))
        (options.evidence / "decisions.md").write_text(page(rows, ends, seconds), encoding="utf-8")
    low = [row["family"] for row in rows if row["share"] < ASKED or row["fixtures"] > coverage.MOST]
    lost = [end for end in ends if end.end == "survived"]
    print(f"below 95 %: {', '.join(low) or 'none'}; survived: {len(lost)}")
    sys.exit(bool(low or lost))


if __name__ == "__main__":
    main()
