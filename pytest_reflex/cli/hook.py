"""A pre-commit hook: ``python -m pytest_reflex.cli.hook FILES`` judges the bundles that files belong to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

MANIFEST = "reflex.json"
RECORDING = "fixtures.safetensors"


def bundles(files: Sequence[str]) -> list[Path]:
    """The bundles that the files lie in, each once; what lies in none is no bundle's."""
    places = dict.fromkeys(Path(file).parent for file in files)
    return [place for place in places if (place / MANIFEST).is_file()]


def main(files: Sequence[str]) -> int:
    """Judge each against its own recording: 0 where all pass, else the largest exit code."""
    codes = [0]
    for place in bundles(files):
        command = [sys.executable, "-m", "pytest_reflex", "validate", "export", str(place)]
        codes.append(subprocess.run([*command, "--model", str(place / RECORDING)], check=False).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
