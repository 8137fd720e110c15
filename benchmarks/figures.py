"""All figures on one page: what the benchmarks wrote with ``--json``, as tables.

    python benchmarks/figures.py parity_reports

Reads ``figures/*.json`` and ``fullsize/*.json`` there, and writes ``figures/README.md``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What each benchmark measures, in the order of the page.
SAID = {
    "known_bad_peers": "Candidates that must not pass, before each comparator; and what a good one costs.",
    "export_time": "Seconds of an export: one trace of each half, composed; or one trace of the whole loop.",
    "check_floor": "`check` beside the runs that it cannot do without.",
    "latency": "One chunk of actions under ONNX Runtime beside eager PyTorch; a ratio below 1 is faster.",
    "locate": "Every value of a graph beside PyTorch's.",
    "plugin_startup": "What a plugin adds to a pytest run that does not use it.",
}


def full_size(folder: Path) -> list[str]:
    """The table of the policies at their published sizes; ``folder`` has their evidence."""
    runs = [
        run for file in sorted(folder.glob("*.json")) if "phases" in (run := json.loads(file.read_text()))
    ]
    rows = []
    for run in sorted(runs, key=lambda run: run["checkpoint_bytes"]):
        seconds = {phase["phase"]: phase["seconds"] for phase in run["phases"]}
        rows.append(
            {
                "policy": run["name"],
                "layout": f"{run['layout']}, {run['steps']} steps" if run["steps"] else run["layout"],
                "checkpoint": f"{run['checkpoint_bytes'] / 1e9:.1f} GB",
                "max_abs_diff": f"{max(f['max_abs_diff'] for f in run['fixtures']):.1e}",
                "verdict": ("pass" if run["passed"] else "fail") + (" (strict)" if run["strict"] else ""),
                "export and check": f"{seconds['export and check']:.0f} s",
                "validate": f"{seconds['validate']:.0f} s",
                "peak memory": f"{run['peak_resident_bytes'] / 1e9:.1f} GB",
            }
        )
    return _rows(rows)


def let_pass(file: Path) -> list[str]:
    """The table of who lets how many of the candidates pass that must not."""
    shown = ("comparator", "bad_candidates", "let_pass")
    return _rows([{name: row[name] for name in shown} for row in json.loads(file.read_text())["rows"]])


def page(figures: Path, evidence: Path) -> str:
    """The page, the benchmarks in the order of :data:`SAID`."""
    told = [(file.name, json.loads(file.read_text())) for file in sorted(figures.glob("*.json"))]
    lines = [
        "# Figures",
        "",
        "What the scripts in `benchmarks/` wrote; `python benchmarks/figures.py parity_reports` put it here.",
        "Times are compared within one table; another day's, or another machine's, are others.",
    ]
    lines += [
        "",
        "## full size",
        "",
        "The worst of three fixtures; seeded weights. More in `../fullsize/`.",
        "",
    ]
    lines += full_size(evidence)
    for name, said in SAID.items():
        for file, whole in told:
            if whole["benchmark"] == name:
                lines += ["", f"## {file.removesuffix('.json')}", "", said, "", *_rows(whole["rows"])]
                depth = f"Layers: {' and '.join(map(str, whole['depth']))}. " if "depth" in whole else ""
                lines += ["", f"{depth}{_seen(whole)} ([{file}]({file}))"]
    return "\n".join(lines) + "\n"


def _rows(rows: list[Mapping[str, Any]]) -> list[str]:
    columns = list(rows[0])
    titles = [name.replace("bytes", "MB") for name in columns]
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(columns)]
    return lines + ["| " + " | ".join(_cell(name, row[name]) for name in columns) + " |" for row in rows]


def _cell(column: str, value: object) -> str:
    if column.endswith("bytes") and isinstance(value, int):
        return f"{value / 1e6:.0f}"
    if not isinstance(value, float):
        return str(value)
    whole = f"{value:.0f}"
    return whole if len(whole.lstrip("-")) > 3 else f"{value:.3g}"


def _seen(whole: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in whole["versions"].items())
    machine = whole["machine"]
    return f"{packages}; Python {machine['python']}, {machine['arch']}, {machine['cores']} cores."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    (folder / "figures" / "README.md").write_text(page(folder / "figures", folder / "fullsize"))


if __name__ == "__main__":
    main()
