"""All figures on one page: what the benchmarks wrote with ``--json``, as tables.

    python benchmarks/figures.py parity_reports/figures

Reads every ``*.json`` there and writes ``README.md`` beside them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
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


def page(files: Iterable[Path]) -> str:
    """The page, the benchmarks in the order of :data:`SAID`."""
    told = [(file.name, json.loads(file.read_text())) for file in files]
    lines = [
        "# Figures",
        "",
        "What the scripts in `benchmarks/` wrote; `python benchmarks/figures.py DIR` made the page.",
        "Times are compared within one table; another day's, or another machine's, are others.",
    ]
    for name, said in SAID.items():
        for file, whole in told:
            if whole["benchmark"] == name:
                lines += ["", f"## {file.removesuffix('.json')}", "", said, "", *_rows(whole["rows"])]
                lines += ["", f"{_seen(whole)} ([{file}]({file}))"]
    return "\n".join(lines) + "\n"


def _rows(rows: list[Mapping[str, Any]]) -> list[str]:
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return lines + ["| " + " | ".join(_cell(row[name]) for name in columns) + " |" for row in rows]


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _seen(whole: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in whole["versions"].items())
    machine = whole["machine"]
    return f"{packages}; Python {machine['python']}, {machine['arch']}, {machine['cores']} cores."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    (folder / "README.md").write_text(page(sorted(folder.glob("*.json"))))


if __name__ == "__main__":
    main()
