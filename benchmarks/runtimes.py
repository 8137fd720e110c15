"""Every family's tiny policy on every runtime: verdicts, the odd one out, and one run's time.

    python benchmarks/runtimes.py --evidence parity_reports

A tiny checkpoint of each family is exported in float32 and in int8 (dynamic), and judged on each runtime
that is installed here as ``reflex matrix`` judges it: the reference once, all runtimes over the same
fixtures. A time is beside ONNX Runtime's of the same run: a ratio. Needs lerobot, and a C++ compiler for
``torch.compile``; without either, what it leaves out is said.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

# ruff: noqa: E402
from side_by_side import table
from tiny_checkpoints import tiny_checkpoint

import exporters
from exporters.families.one_call import export_policy
from pytest_reflex.errors import ReflexError
from pytest_reflex.judge.matrix import matrix
from pytest_reflex.judge.on_runtimes import on_runtimes
from pytest_reflex.report.text.matrix import worst_from_float64
from pytest_reflex.verdict import machine
from pytest_reflex.verdict.matrix import Matrix

GRAPHS: Final = ("onnxruntime", "openvino", "evaluator")
PRECISIONS: Final = ("float32", "int8-dynamic")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(exporters.FAMILIES))
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument(
        "--evidence", type=Path, help="write runtimes.json and runtimes.md into this directory"
    )
    parser.add_argument(
        "--uncompiled", nargs="*", default=[], help="families that torch.compile is not asked of"
    )
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for family in options.families:
        with tempfile.TemporaryDirectory() as folder:
            for precision in options.precisions:
                compiled = precision == "float32" and family not in options.uncompiled
                rows += _judged(family, precision, Path(folder), compiled)
    table("runtimes", rows)
    if options.evidence is not None:
        _write(options.evidence, rows)


def _judged(family: str, precision: str, folder: Path, compiled: bool) -> list[dict[str, Any]]:
    """One policy in one precision on all runtimes; where it cannot be made, why."""
    place = folder / precision
    try:
        with tiny_checkpoint(family, place / "checkpoint", place / "work") as checkpoint:
            loaded = _family(checkpoint)
            # Whether it is within its floors is what the matrix says.
            bundle = export_policy(loaded, place / "bundle", precision=precision, verify=False)
            names = [name for name in GRAPHS if name != "openvino" or find_spec("openvino")]
            # A compiler is told nothing of integers: beside an int8 graph it would be another policy.
            names += ["torch.compile"] * compiled
            made = matrix(loaded, on_runtimes(bundle, names, loaded), name=f"{family} {precision}")
    except ReflexError as error:
        print(f"{family} {precision}: {error}", flush=True)
        return [{"family": family, "precision": precision, "runtime": "-", "said": str(error)}]
    print(f"{made.name}: odd {made.odd}", flush=True)
    return _rows(family, precision, made)


def _family(checkpoint: Path) -> Any:
    from exporters.bundle import registry

    return registry.family_named(registry.family_of(checkpoint)).load(checkpoint)


def _rows(family: str, precision: str, made: Matrix) -> list[dict[str, Any]]:
    base = next((column.run_s for column in made.columns if column.runtime == "onnxruntime"), None)
    found = []
    for column in made.columns:
        result, exact = column.result, worst_from_float64(column)
        row: dict[str, Any] = {"family": family, "precision": precision, "runtime": column.runtime}
        row["verdict"] = "none" if result is None else "PASS" if result.passed else "FAIL"
        row["max_abs_diff"] = None if result is None else result.max_abs_diff_across_all
        row["from_float64"] = exact
        row["odd"] = column.runtime in made.odd
        row["time_to_ort"] = column.run_s / base if column.run_s and base else None
        row["said"] = column.error or _said(result)
        found.append(row)
    return found


def _said(result: Any) -> str:
    from pytest_reflex.report.text.terminal import headline

    return "" if result.passed else headline(result)


def _write(place: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import onnxruntime
    import torch

    about = {
        "processor": machine.here()["processor"],
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    (place / "runtimes.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    lines = [
        "# Runtimes beside each other",
        "",
        "Made by `benchmarks/runtimes.py`: tiny policies of each family, each judged on every runtime over",
        "the same fixtures. The time is one run's beside ONNX Runtime's of the same policy, a ratio.",
        "",
        f"{about['processor']}; torch {about['torch']}, ONNX Runtime {about['onnxruntime']}.",
        "",
        "| family | precision | runtime | verdict | max_abs_diff | from float64 | time to ort | said |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        figures = (row.get("max_abs_diff"), row.get("from_float64"))
        shown = ["-" if figure is None else f"{figure:.1e}" for figure in figures]
        time = row.get("time_to_ort")
        odd = " (odd)" if row.get("odd") else ""
        said = str(row["said"]).replace("|", "\\|")
        cells = [
            row["family"],
            row["precision"],
            f"{row['runtime']}{odd}",
            row.get("verdict", "none"),
            *shown,
        ]
        lines.append(f"| {' | '.join(map(str, cells))} | {'-' if time is None else f'{time:.2f}'} | {said} |")
    (place / "runtimes.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
