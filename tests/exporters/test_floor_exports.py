"""Clean exports are never called a bug: a slice of what the benchmark runs two hundred of."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "clean_floors.py"


def test_no_clean_export_is_called_a_bug(python: list[str]) -> None:
    ran = subprocess.run(
        [*python, str(SCRIPT), "--exports", "12", "--first", "1000"], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len([line for line in ran.stdout.splitlines() if line.split()[:2][1:] == ["2"]]) == 6, ran.stdout
