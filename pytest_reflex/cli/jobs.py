"""The jobs that ``reflex init`` writes: their texts, whose they are, and what one that is there lacks."""

from __future__ import annotations

import os
import subprocess
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["JOBS", "RUN", "TESTS", "Job", "ignored", "jobs_of", "leftovers"]

TESTS: Final = "tests/parity"
# What a job judges with, and so what is to be run before it is pushed.
RUN: Final = f"python -m pytest {TESTS} --reflex-strict"
_REPORT: Final = "--reflex-report parity_reports --junitxml junit.xml"

_INSTALL: Final = "pip install 'pytest-reflex[{extra}]'"
# The repository's own package is installed where there is one: a pyproject.toml may be of a linter's alone.
_SCRIPT: Final = (
    _INSTALL,
    "if [ -f requirements.txt ]; then pip install -r requirements.txt; fi",
    r"if [ -f setup.py ] || grep -qsE '^\[(project|build-system)\]' pyproject.toml; "
    "then pip install -e .; fi",
    "reflex doctor",
    f"{RUN} {_REPORT}",
)
# Each extra with those that it brings along.
_BRINGS: Final = {"export": ("export",), "lerobot": ("lerobot", "export")}

_SAYS: Final = (
    "# Parity of the policies with their exports; `reflex doctor` says what they were computed on.\n"
)
_GITHUB: Final = """\
name: parity
on:
  push:
  pull_request:

permissions:
  contents: read

jobs:
  parity:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
        with:
          lfs: true
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
{script}
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: parity
          path: parity_reports
"""
_GITLAB: Final = """\
parity:
  image: python:3.12
  variables:
    GIT_LFS_SKIP_SMUDGE: "0"
  script:
{script}
  artifacts:
    when: always
    expose_as: parity
    paths:
      - parity_reports/
    reports:
      junit: junit.xml
"""


@dataclass(frozen=True)
class Job:
    """One host's job.

    Attributes:
        place: where its file is, from the repository's root.
        form: the file but for the lines that are run.
        step: what stands before each of these.
    """

    place: str
    form: str
    step: str

    def text(self, extra: str) -> str:
        """The file for policies that need an extra."""
        script = "\n".join(self.step + line.format(extra=extra) for line in _SCRIPT)
        return _SAYS + self.form.format(script=script)

    def again(self, there: str, extra: str) -> str | None:
        """What a file of this command's own becomes for one more policy; None where it is somebody's."""
        for installed, brought in _BRINGS.items():
            if there == self.text(installed):
                return there if extra in brought else self.text(extra)
        return None

    def advice(self, there: str, extra: str) -> str:
        """What to write into a file that is somebody's own; nothing where it lacks nothing."""
        lines = [line.strip() for line in there.splitlines() if not line.strip().startswith("#")]
        brought_by = [name for name, brought in _BRINGS.items() if extra in brought]
        installs = any(f"pytest-reflex[{name}" in line for name in brought_by for line in lines)
        judges = any("pytest" in line and TESTS in line for line in lines)
        if installs and judges:
            return ""
        if not any("pytest-reflex" in line for line in lines):
            _, _, job = self.text(extra).partition("\njobs:\n")
            job = job or self.text(extra).removeprefix(_SAYS)
            return f"runs no parity test; add to its jobs:\n\n{job.rstrip()}"
        wanted = [_INSTALL.format(extra=extra)] * (not installs) + [_SCRIPT[-1]] * (not judges)
        old = next((line for line in lines if not installs and "pytest-reflex[" in line), "")
        instead = f", in place of `{old.removeprefix('- ').removeprefix('run: ')}`" if old else ""
        return f"lacks what this policy needs; write there{instead}:\n\n{_block(wanted, self.step)}"


def _block(lines: Iterable[str], before: str) -> str:
    return textwrap.indent("\n".join(lines), before)


JOBS: Final = {
    "github": Job(".github/workflows/parity.yml", _GITHUB, "      - run: "),
    "gitlab": Job(".gitlab-ci.yml", _GITLAB, "    - "),
}


def jobs_of(host: str) -> list[Job]:
    """Those of one host, of ``both``, or of ``none``."""
    return [job for name, job in JOBS.items() if host in (name, "both")]


def ignored(root: Path, judged: Path) -> str:
    """Of what a test reads, the first that git ignores and that no job has for that; empty where none is."""
    inside = [path for path in sorted(judged.rglob("*")) if path.is_file()] if judged.is_dir() else []
    names = "\0".join(os.path.relpath(path, root) for path in (judged, *inside))
    command = ["git", "-C", str(root), "check-ignore", "--stdin", "-z"]
    try:
        found = subprocess.run(command, input=names, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""  # nothing is ignored, there is no git, or this is no repository
    return found.stdout.partition("\0")[0]


def leftovers(root: Path) -> list[str]:
    """What to say of the files that runs leave and that git does not ignore yet."""
    try:
        lines = (root / ".gitignore").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    known = {line.strip().strip("/") for line in lines}
    missing = [name for name in ("parity_reports/", "junit.xml") if name.strip("/") not in known]
    return (
        [f"The jobs write {' and '.join(missing)}; where you run them yourself, add these to .gitignore"]
        if missing
        else []
    )
