"""Mutants of every family's and layout's export: which the default fixtures kill, and whether any survives.

    python benchmarks/mutants.py --per-operator 4 --out parity_reports

A mutant is an honest export with one small wrong change (``tests/mutants/mutant_operators.py``), judged
with the default five fixtures, ``strict=True`` and at most two floors from float64, as this repository's
parity tests are. One that passes is run on 200 random fixtures: it is *equivalent* if it gives the honest
export's bits on all of them, or never comes as far as the threshold from the reference; else it *survived*,
and the fixtures are at fault. *Stillborn* ones, which ONNX Runtime refuses to open or to run, are not
counted among the mutants.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(ROOT / "tests" / "mutants")]

# ruff: noqa: E402
from floors import ROUNDING
from mutant_judge import RANDOM_FIXTURES, End, judge, judged, mutants, refused
from mutant_operators import OPERATORS
from mutant_subjects import STEPS, families, layouts_of, subject
from side_by_side import mutants_by_operator

from exporters.flow.schedule import LAYOUTS
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD

ENDS = ("killed", "equivalent", "survived", "stillborn")
PACKAGES = ("lerobot", "transformers", "torch", "onnx-ir", "onnxruntime", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(families()))
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS))
    parser.add_argument("--per-operator", type=int, default=4)
    parser.add_argument("--out", type=Path, help="write mutants.json and mutants.md into this directory")
    options = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    ends: list[End] = []
    honest: list[dict[str, Any]] = []
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for family in options.families:
            for layout in (one for one in layouts_of(family) if one is None or one in options.layouts):
                made = subject(family, layout, Path(folder))
                clean = judged(made, made.bundle.runner())
                if refused(clean):
                    sys.exit(f"{family}, {layout}: the honest export does not pass: {clean}")
                honest.append(
                    {
                        "family": family,
                        "layout": layout or "single",
                        "max_abs_diff": clean.max_abs_diff_across_all,
                    }
                )
                found = [_told(judge(made, mutant)) for mutant in mutants(made, options.per_operator)]
                ends += found
                print(f"{family:14} {layout or 'single':9} {_counts(found)}", flush=True)
    seconds = time.perf_counter() - begin
    print(f"{'all':18} {_counts(ends)}, {seconds:.0f} s")
    if options.out is not None:
        about = _about(options.per_operator, seconds)
        _write(options.out, about, honest, ends)
    sys.exit(any(end.end == "survived" for end in ends))


def _told(end: End) -> End:
    if end.end == "survived":
        print(f"SURVIVED: {end}", flush=True)
    return end


def _counts(ends: Iterable[End]) -> str:
    counted = Counter(end.end for end in ends)
    return ", ".join(f"{counted[name]} {name}" for name in ENDS)


def _about(per_operator: int, seconds: float) -> dict[str, Any]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "threshold": STRICT_THRESHOLD,
        "fixtures": 5,
        "random_fixtures": RANDOM_FIXTURES,
        "steps": STEPS,
        "per_operator": per_operator,
        "seconds": round(seconds),
        "versions": versions,
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
    }


def _write(
    directory: Path, about: dict[str, Any], honest: Sequence[dict[str, Any]], ends: Sequence[End]
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    # One line for each, so that what changes from one table to the next can be read.
    head = json.dumps({**about, "honest": honest}, indent=1, allow_nan=False).removesuffix("\n}")
    rows = ",\n".join("  " + json.dumps(end.to_json(), allow_nan=False) for end in ends)
    text = f'{head},\n "mutants": [\n{rows}\n ]\n}}\n'
    (directory / "mutants.json").write_text(text, encoding="utf-8")
    (directory / "mutants.md").write_text(_page(about, honest, ends), encoding="utf-8")


def _page(about: dict[str, Any], honest: Sequence[dict[str, Any]], ends: Sequence[End]) -> str:
    counted = Counter(end.end for end in ends)
    born = len(ends) - counted["stillborn"]
    lines = [
        "# Mutants",
        "",
        f"{born} mutants of every family's exports, in three layouts where there is a loop: "
        f"{counted['killed']} killed, "
        f"{counted['equivalent']} equivalent, {counted['survived']} survived.",
        "",
        "Each is an honest export with one small wrong change, judged with the five default fixtures, "
        f"`strict=True` (threshold {about['threshold']:.0e}) and at most {ROUNDING:g} floors from float64, "
        "as the tests of parity are. One that passes is run on "
        f"{about['random_fixtures']} random fixtures: *equivalent* gave the honest export's bits on all of "
        "them or stayed below the threshold on all of them. "
        f"{counted['stillborn']} more changes gave graphs that ONNX Runtime refuses; they are not counted.",
        "",
        "Made by `python benchmarks/mutants.py --per-operator "
        f"{about['per_operator']} --out parity_reports` in {about['seconds']} s ({about['machine']}; "
        + ", ".join(f"{name} {found}" for name, found in about["versions"].items())
        + "). Every mutant is in [mutants.json](mutants.json).",
        "",
        "## By family and layout",
        "",
        "| family | layout | honest max_abs_diff | killed | equivalent | survived |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for clean in honest:
        own = [e for e in ends if (e.family, e.layout) == (clean["family"], clean["layout"])]
        lines.append(
            f"| {clean['family']} | {clean['layout']} | {clean['max_abs_diff']:.1e} | {_cells(own)} |"
        )
    lines += mutants_by_operator(OPERATORS, lambda name: _cells(e for e in ends if e.operator == name))
    gates = Counter(gate for end in ends if end.end == "killed" for gate in end.gates)
    lines += [
        "",
        "## By gate",
        "",
        "A mutant may be refused by several. *floors* is no gate: it passed them all, and was "
        "further from float64 than rounding takes an honest export.",
        "",
        "| gate | refused |",
        "| --- | --- |",
    ]
    lines += [f"| {gate} | {count} |" for gate, count in gates.most_common()]
    equal = [end for end in ends if end.end == "equivalent"]
    if equal:
        lines += [
            "", "## The equivalent ones", "",
            "| family | layout | graph | operator | where | same bits | largest difference |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]  # fmt: skip
    for end in equal:
        same = "yes" if end.same_bits else "no"
        lines.append(
            f"| {end.family} | {end.layout} | {end.graph} | {end.operator} | `{end.where}` | {same} "
            f"| {end.largest:.1e} |"
        )
    return "\n".join(lines) + "\n"


def _cells(ends: Iterable[End]) -> str:
    counted = Counter(end.end for end in ends)
    return " | ".join(str(counted[name]) for name in ENDS[:3])


if __name__ == "__main__":
    main()
