"""An export function that counts, and one key in every process: a script run under two orders of hashing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exporters
from exporters.bundles import Bundle, Export
from pytest_reflex import InputSpec

ROOT = Path(__file__).resolve().parents[2]

INPUTS = [InputSpec("x", (1, 4))]


class Counter:
    """An export function that counts; no key hears of the count, as what pickle keeps of it is a name."""

    def __init__(self, export: Callable[..., Export] = exporters.export) -> None:
        self.export, self.calls = export, 0

    def __reduce__(self) -> str:
        return "Counter"

    def __call__(self, *arguments: Any, **options: Any) -> Export:
        self.calls += 1
        return self.export(*arguments, **options)


def made(export: Counter, model: Any, cache: Path, **options: Any) -> Bundle:
    """The bundle that the cache has, or has made."""
    return exporters.cached(export, model, cache=cache, **{"inputs": INPUTS, "fixtures": 2, **options})


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
