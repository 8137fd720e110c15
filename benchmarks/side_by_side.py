"""What the benchmarks share: times taken in turn, so that a machine that drifts drifts for all; one table."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("pytest-reflex", "torch", "transformers", "lerobot", "onnx", "onnxruntime", "numpy", "pytest")


def in_turn(runs: Mapping[str, Callable[[], object]], rounds: int, warm: int = 1) -> dict[str, list[float]]:
    """Seconds of each run in each round, the runs of a round one after the other."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warm + rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if turn >= warm:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], of: str, to: str) -> float:
    """The median over the rounds of one run's time to another's in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[of], seconds[to], strict=True))


def mutants_by_operator(
    operators: Mapping[str, Callable[..., Any]], counts: Callable[[str], str]
) -> list[str]:
    """Lines of Markdown: what each operator changes, by its docstring, and what became of its mutants."""
    lines = [
        "", "## By operator", "",
        "| operator | what is changed | killed | equivalent | survived |",
        "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, operator in operators.items():
        what = " ".join((operator.__doc__ or "").split()).rstrip(".")
        lines.append(f"| {name} | {what} | {counts(name)} |")
    return lines


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of equal keys, right-aligned."""
    columns = list(rows[0])
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(columns)]
    print(f"\n{title}")
    for line in [columns, *cells]:
        print("  ".join(text.rjust(width) if i else text.ljust(width)
                        for i, (text, width) in enumerate(zip(line, widths, strict=True))))  # fmt: skip


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def write(path: Path | None, name: str, rows: Sequence[Mapping[str, Any]], **more: Any) -> None:
    """The rows as JSON, with the versions and the machine they were seen on; ``more`` adds or overrules."""
    if path is None:
        return
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    machine = {"python": platform.python_version(), "arch": platform.machine(), "cores": os.cpu_count()}
    whole = {"benchmark": name, "rows": list(rows), "versions": versions, "machine": machine, **more}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=2) + "\n")
