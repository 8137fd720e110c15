"""A Chromium that a system cannot start is named, with what it lacks; one that fails otherwise is no skip."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

HERE = Path(__file__).resolve().parent
LOADER = "error while loading shared libraries: libnss3.so: cannot open shared object file"


@pytest.mark.parametrize(
    ("said", "code", "expected"),
    [
        (f"{LOADER}: No such file or directory", 0, f"this system cannot start {{}}: {LOADER}"),
        ("Segmentation fault", 1, "1 error"),
    ],
    ids=["lacks a library", "crashes"],
)
def test_a_chromium_that_does_not_start(tmp_path: Path, said: str, code: int, expected: str) -> None:
    program = tmp_path / "chromium"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 127\n")
    program.chmod(0o755)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"{HERE / 'test_page.py'}::test_filter",
        ],
        cwd=HERE.parent.parent,
        env={**os.environ, "REFLEX_CHROMIUM": str(program), "CI": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert (done.returncode, expected.format(program) in done.stdout) == (code, True), done.stdout
