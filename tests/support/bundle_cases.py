"""What tests of the command do with bundles: run it, damage one, and look at what is left."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What Git LFS leaves in place of a file that it has not fetched.
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@dataclass(frozen=True)
class Ran:
    """How one command ended."""

    code: int
    out: str
    err: str


Reflex = Callable[..., Ran]


@dataclass(frozen=True)
class Exported:
    """A bundle that the command made, and how making it ended."""

    path: Path
    ran: Ran


def linted(place: Path) -> None:
    """A linter and a formatter have nothing to say of what was written there."""
    for check in (["check", "--select", "E,F,W,I,B,UP,RUF"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--isolated", "--line-length", "120", str(place)]
        said = subprocess.run(command, capture_output=True, text=True)
        assert said.returncode == 0, said.stdout + said.stderr


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below a directory, by relative path."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def weight_place(directory: Path, name: str) -> tuple[Path, int]:
    """The file and the offset at which a bundle keeps a weight outside its graph."""
    import onnx

    graph = onnx.load(directory / "model.onnx", load_external_data=False).graph
    weight = next(w for w in graph.initializer if w.name == name)
    facts = {entry.key: entry.value for entry in weight.external_data}
    return directory / facts["location"], int(facts["offset"])


def add_to_weight(directory: Path, name: str, amount: float) -> tuple[float, float]:
    """Add to the first float32 of a weight of a bundle, in place; the value before and after."""
    import numpy as np

    file, offset = weight_place(directory, name)
    held = np.memmap(file, dtype="<f4", mode="r+", offset=offset, shape=(1,))
    before = float(held[0])
    held[0] += np.float32(amount)
    held.flush()
    return before, float(held[0])


def parsed(ran: Ran) -> dict[str, Any]:
    """The JSON that is all of stdout, checked against its schema."""
    import jsonschema

    from pytest_reflex.report.json import schema

    document: dict[str, Any] = json.loads(ran.out)
    jsonschema.validate(document, schema())
    return document
