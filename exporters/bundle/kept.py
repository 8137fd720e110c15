"""What a robot saw, kept in a bundle beside the fixtures of its check: judged there without torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exporters.bundle.manifest import write_manifest
from exporters.bundle.store import EPISODES, StoredBundle, file_facts, staged
from pytest_reflex.errors import BundleError
from pytest_reflex.runners import save_recording

# Inputs and outputs of a fixture, by name.
Seen = tuple[Mapping[str, np.ndarray[Any, Any]], Mapping[str, np.ndarray[Any, Any]]]


def keep_episodes(bundle: StoredBundle, seen: Sequence[Seen], live_inputs: Sequence[str]) -> Path:
    """Keep recorded fixtures in a bundle, whose other files stay as they are; one rename puts it in place.

    Args:
        bundle: the bundle, every digest of which holds.
        seen: inputs and the reference's outputs, by fixture.
        live_inputs: the inputs that change the outputs.

    Returns:
        The recording.

    Raises:
        BundleError: a file of the bundle was changed since its check, or it cannot be written.
        RunnerError: there is nothing to keep.
    """
    if bundle.changed:
        raise BundleError(f"{bundle.changed}; nothing is kept in it: export the bundle again")
    with staged(bundle.path) as stage:
        for name in bundle.stated.files:
            if name != EPISODES:
                linked(bundle.path / name, stage / name)
        save_recording(stage / EPISODES, seen, live_inputs)
        files = {**bundle.stated.files, **file_facts(stage, [EPISODES])}
        write_manifest(stage, replace(bundle.stated, files=files))
    return bundle.path / EPISODES


def linked(file: Path, to: Path) -> None:
    """The same file under another name, or a copy where the file system has no second names."""
    try:
        os.link(file.resolve(), to)
    except OSError:
        shutil.copy2(file, to)
