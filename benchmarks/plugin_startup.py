"""What a plugin adds to a pytest run that does not use it, beside others'.

    python benchmarks/plugin_startup.py --json plugin_startup.json

Each run is a fresh ``python -m pytest`` on one test that passes, with no plugin but the one named; a
plugin that is not installed is left out, by name.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from side_by_side import in_turn, table, write

PLUGINS = {
    "none": None,
    "pytest-reflex": "pytest_reflex.plugin",
    "pytest-benchmark": "pytest_benchmark.plugin",
    "syrupy": "syrupy",
    "hypothesis": "_hypothesis_pytestplugin",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    missing = [
        name for name, module in PLUGINS.items() if module and find_spec(module.partition(".")[0]) is None
    ]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_one.py").write_text("def test_one():\n    pass\n")

        def run(module: str | None) -> None:
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
            command += ["-p", module] if module else []
            subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)

        runs = {n: lambda m=m: run(m) for n, m in PLUGINS.items() if n not in missing}
        seconds = in_turn(runs, options.rounds, warm=2)
    rows = [
        {
            "plugin": name,
            "run_ms": 1e3 * statistics.median(taken),
            "added_ms": 1e3 * statistics.median(a - b for a, b in zip(taken, seconds["none"], strict=True)),
        }
        for name, taken in seconds.items()
    ]
    table("a pytest run of one test (milliseconds, median)", rows)
    for name in missing:
        print(f"{name}: not installed, not measured")
    write(options.json, "plugin_startup", rows)


if __name__ == "__main__":
    main()
