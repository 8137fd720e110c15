"""A checkpoint and its bundle from the camera to the joint, for several files."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def act_checkpoint(shared: Path) -> Path:
    """ACT that reads the golden recording, as lerobot stores it with its pipelines; not to be changed."""
    from tiny_pipelines import pipelines_of, policy_of

    place = shared / "act_from_camera"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            policy = policy_of("act", shared)
            for part in (policy, *pipelines_of("act", policy, shared)):
                part.save_pretrained(place)
    return place


@pytest.fixture(scope="session")
def act_arm(shared: Path, act_checkpoint: Path) -> tuple[Path, int, str]:
    """Its bundle, made on the recording by the command, once for all workers; and what that said."""
    from tiny_pipelines import GOLDEN, UNITS

    from pytest_reflex.cli.main import main

    place, said = shared / "act_made" / "arm", shared / "act_made.txt"
    command = ["export", act_checkpoint, place, "--episodes", GOLDEN, "--fixtures", 4, "--units", UNITS]
    command += ["--threshold", "0.001 deg and 0.001 %", "--save-fixtures"]
    with FileLock(f"{said}.lock"):
        if not said.exists():
            with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as end:
                main([str(argument) for argument in command])
            said.write_text(f"{end.value.code or 0}\n{out.getvalue()}")
    code, _, text = said.read_text().partition("\n")
    return place, int(code), text
