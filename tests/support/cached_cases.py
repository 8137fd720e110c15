"""One key in every process: a script run under two orders of hashing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def in_two_processes(python: list[str], code: str, *arguments: object) -> list[str]:
    """What a script prints in two processes whose sets and dicts have another order each."""
    said = []
    for start, seed in (([sys.executable], {"PYTHONHASHSEED": "1"}), (python, {})):
        env = {**os.environ, **seed, "PYTHONPATH": str(ROOT)}
        command = [*start, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    return said
