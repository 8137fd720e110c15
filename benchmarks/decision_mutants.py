"""What coverage is worth: one decision of a graph flipped or frozen, with five fixtures and with more.

    python benchmarks/decision_mutants.py --count 200 --out parity_reports

Of each family that can be made here its tiny policy, in one layout. First how many of the decisions that
inputs can turn round go both ways in the five default fixtures, and in those that ``coverage`` chooses, 32 at
most. Then mutants (``tests/mutants/decision_operators.py``), spread over families, operators and kinds. Each
is judged by the default check and with ``coverage``. One that passes is run on further fixtures: *equivalent*
is what gives the honest export's bits there, or stays below strict's threshold; what does not has survived.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "mutants"), str(ROOT / "tests" / "support")]

# ruff: noqa: E402
from decision_operators import decision_mutants
from mutant_judge import Subject, _with_graph, graph_bytes
from mutant_subjects import families, layouts_of, subject

from pytest_reflex.errors import ReflexError
from pytest_reflex.inputs import make_fixture
from pytest_reflex.inputs.fixtures import fixtures_from
from pytest_reflex.inputs.ranges import corners, swaps
from pytest_reflex.judge.check import check
from pytest_reflex.judge.coverage import _ranges, covered
from pytest_reflex.judge.input_dependence import unequal_bits
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import Runner
from pytest_reflex.verdict.coverage import Coverage
from pytest_reflex.verdict.metrics import difference
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD

SHARE = 0.95
FURTHER = 64


def silent(stage: str, done: int, total: int) -> None:
    """Nobody is told."""


def coverage_of(made: Subject) -> tuple[Coverage, Coverage]:
    """Of the honest graph: with the five default fixtures, and with those that are chosen for all of it."""
    drawn = fixtures_from(made.inputs, 5, 0, made.inputs)
    runner = made.bundle.runner()
    return covered(runner, drawn, 0, silent, choose=False), covered(runner, drawn, 1.0, silent)


def every_mutant(made: Subject) -> Iterator[tuple[str, Any]]:
    """In words, and what makes the candidate; in an order that is the same each time."""
    ranges = _ranges(fixtures_from(made.inputs, 5, 0, made.inputs))
    for stem in made.bundle.manifest["graphs"]:
        data = graph_bytes(made.bundle, stem)
        for where, make in decision_mutants(data, ranges):

            def candidate(stem: str = stem, make: Any = make) -> Runner:
                return _with_graph(made.bundle, stem, make())

            yield f"{stem}: {where}", candidate


def judged(made: Subject, candidate: Runner, **options: Any) -> ParityResult:
    return check(made.reference, candidate, inputs=made.inputs, strict=True, **options)


def apart(made: Subject, candidate: Runner) -> tuple[float, bool]:
    """How far a mutant is from the policy on further fixtures, and whether it gives the honest bits."""
    numbers = [*corners(made.inputs, 16), *swaps(made.inputs, 4), *range(FURTHER)]
    largest, same = 0.0, True
    with candidate, made.bundle.runner() as honest:
        for number in numbers:
            inputs = functools.partial(make_fixture, made.inputs, 0, number)
            got, truth = candidate.run(inputs()), made.reference.run(inputs())
            same = same and not unequal_bits(got, honest.run(inputs()))
            found = max(difference(truth[name], got[name]).max_abs_diff for name in truth)
            largest = max(largest, float("inf") if np.isnan(found) else found)
    made.reference.close()
    return largest, same


def end_of(made: Subject, candidate: Any) -> dict[str, Any]:
    try:
        plain = judged(made, candidate())
        wide = judged(made, candidate(), coverage=SHARE)
    except ReflexError as error:
        return {"end": "stillborn", "said": str(error)[:200]}
    by = {
        name: sorted({answer.gate for _, answer in result.refusals})
        for name, result in (("five", plain), ("coverage", wide))
    }
    if not wide.passed:
        return {"end": "killed", "five_killed": not plain.passed, "gates": by}
    largest, same = apart(made, candidate())
    equivalent = same or largest < STRICT_THRESHOLD
    said = largest if np.isfinite(largest) else str(largest)
    return {
        "end": "equivalent" if equivalent else "survived",
        "five_killed": not plain.passed,
        "same_bits": same,
        "largest": said,
    }


def spread(mutants: list[tuple[Subject, str, Any]]) -> list[tuple[Subject, str, Any]]:
    """One of each family, operator and kind in turn, in an order that hangs on their names."""
    kinds: dict[tuple[str, str, str], list[tuple[Subject, str, Any]]] = {}
    for one in mutants:
        words = one[1].split()
        key = one[0].family, words[1], one[1].rpartition(": ")[2]
        kinds.setdefault(key, []).append(one)
    rows = []
    for key in sorted(kinds):
        own = sorted(kinds[key], key=lambda one: zlib.crc32(f"{one[0].family}/{one[1]}".encode()))
        rows += list(enumerate(own))
    ordered = sorted(rows, key=lambda row: (row[0], zlib.crc32(f"{row[1][0].family}/{row[1][1]}".encode())))
    return [one for _, one in ordered]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="so many that are not equivalent")
    parser.add_argument("--families", nargs="*", help="by default all that can be made here")
    parser.add_argument("--out", type=Path, help="write coverage.json and coverage.md here")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no mutant after this")
    told = parser.parse_args()
    begun = time.perf_counter()
    shares, mutants = [], []
    with tempfile.TemporaryDirectory() as work:
        for family in told.families or families():
            layout = layouts_of(family)[0]
            made = subject(family, layout, Path(work))
            five, chosen = coverage_of(made)
            if five.unknown or chosen.unknown:
                sys.exit(f"{family}: {five.unknown or chosen.unknown}")
            shares.append(
                {
                    "family": family,
                    "layout": layout or "single",
                    "reachable": chosen.reachable,
                    "constant": chosen.constant,
                    "guards": chosen.guards,
                    "both_in_five": five.both,
                    "both": chosen.both,
                    "fixtures": chosen.fixtures,
                    "share": chosen.share,
                    "never_asked": [one.text for one in chosen.missed],
                }
            )
            in_five = f"five: {five.both} of {five.reachable}"
            print(f"{family:16} {layout or 'single':9} {in_five}; {chosen.text}", flush=True)
            mutants += [(made, where, candidate) for where, candidate in every_mutant(made)]
            if told.out is not None:
                write(told.out, shares, [], len(mutants))
        ends: list[dict[str, Any]] = []
        for made, where, candidate in spread(mutants):
            counted = Counter(end["end"] for end in ends)
            enough = counted["killed"] + counted["survived"] >= told.count
            if enough or time.perf_counter() - begun > told.seconds:
                break
            ends.append({"family": made.family, "where": where, **end_of(made, candidate)})
            if ends[-1]["end"] == "survived":
                print(f"SURVIVED: {ends[-1]}", flush=True)
            if told.out is not None and len(ends) % 10 == 0:
                write(told.out, shares, ends, len(mutants))
    if told.out is not None:
        write(told.out, shares, ends, len(mutants))
    print(said(ends), f"in {time.perf_counter() - begun:.0f} s")
    return any(end["end"] == "survived" for end in ends) or any(one["share"] < SHARE for one in shares)


def said(ends: list[dict[str, Any]]) -> str:
    counted = Counter(end["end"] for end in ends)
    five = sum(end["five_killed"] for end in ends if end["end"] in ("killed", "survived"))
    return (
        f"{counted['killed']} killed with coverage, {counted['survived']} survived; the five default "
        f"fixtures alone killed {five}; {counted['equivalent']} are equivalent, "
        f"{counted['stillborn']} no graphs"
    )


HEAD = """# Coverage of decisions, and what it is worth

What `python benchmarks/decision_mutants.py` wrote. Decisions are places of a graph where the values decide
what is computed; those that constants take, or what the inputs can be, and guards against NaN are left out.
*chosen* are the fixtures that `coverage="100%"` takes, 32 at most.

| family | layout | decisions | both ways in five fixtures | in the chosen | share | fixtures |
| --- | --- | --- | --- | --- | --- | --- |
"""

MUTANTS = """
## Mutants

Of {possible:,} that flip or freeze one decision of these graphs: {said}.
*Killed with coverage*: refused by `check(..., strict=True, coverage="95%")`; *equivalent*: not to be told
from the honest export by more than strict's threshold on corners, swaps and 64 further draws.

| family | killed | of them by five fixtures | survived | equivalent |
| --- | --- | --- | --- | --- |
"""


def write(out: Path, shares: list[dict[str, Any]], ends: list[dict[str, Any]], possible: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    made = {"families": shares, "possible_mutants": possible, "mutants": ends}
    rows = ",\n".join("  " + json.dumps(end, allow_nan=False) for end in ends)
    head = json.dumps({**made, "mutants": 0}, indent=1, allow_nan=False).replace(
        '"mutants": 0\n}', f'"mutants": [\n{rows}\n ]\n}}'
    )
    (out / "coverage.json").write_text(head + "\n", encoding="utf-8")
    lines = [
        f"| {s['family']} | {s['layout']} | {s['reachable']} | {s['both_in_five']} | {s['both']} "
        f"| {s['share']:.1%} | {s['fixtures']} |"
        for s in shares
    ]
    text = HEAD + "\n".join(lines) + "\n"
    missed = [f"- {s['family']}: {one}" for s in shares for one in s["never_asked"]]
    if missed:
        text += "\nNever asked:\n\n" + "\n".join(missed) + "\n"
    if ends:
        text += MUTANTS.format(possible=possible, said=said(ends))
        for share in shares:
            own = [end for end in ends if end["family"] == share["family"]]
            count = Counter(end["end"] for end in own)
            five = sum(end["five_killed"] for end in own if end["end"] == "killed")
            counts = f"{count['killed']} | {five} | {count['survived']} | {count['equivalent']}"
            text += f"| {share['family']} | {counts} |\n"
    (out / "coverage.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
