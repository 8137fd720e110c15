"""A short run of the benchmark that fuzzes and loads ``reflex serve``; the long one is run by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from serve_cases import ROOT, around

pytestmark = pytest.mark.once


def test_hostile_messages_and_eight_clients_leave_it_as_it_was(
    small: Callable[..., Path], tmp_path: Path
) -> None:
    report = tmp_path / "serve.json"
    command = [sys.executable, ROOT / "benchmarks" / "serve_load.py", "--bundle", small(), "--json", report]
    short = ["--messages", "500", "--warm-up", "300", "--seconds", "3"]
    done = subprocess.run(
        [*map(str, command), *short],
        env=around(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(report.read_text())
    assert seen["passed"] is True
    fuzzed, loaded = seen["fuzz"], seen["load"]
    assert sum(fuzzed["kinds"].values()) == 500
    assert len(fuzzed["kinds"]) == 14
    assert fuzzed["outcomes"]["an error of one line"] > 300
    assert fuzzed["good_answers"] == fuzzed["good_requests"] == 8
    assert (loaded["answers"], loaded["expected"], loaded["errors"]) == (720, 720, {})
