"""``reflex.json``: read with suspicion, written with a digest of itself.

A manifest says what is opened and how long it runs, so nothing in it is believed before it was looked at:
a bundle may come from anywhere, and a damaged one must end in one line, not in a traceback or a hang.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from exporters.flow.schedule import LAYOUTS, schedule_from_json
from pytest_reflex.errors import BundleError, ReflexError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.report.json.values import shallow
from pytest_reflex.runners.onnx import OPTIMIZATIONS

FORMAT: Final = "reflex-bundle"
FORMAT_VERSION: Final = 1
MANIFEST: Final = "reflex.json"
SEAL: Final = "sha256"

# A real manifest has some tens of kilobytes, mostly the figures of its check.
_LARGEST_BYTES: Final = 64 << 20
# Far beyond any policy: what asks for more would not end, or not fit.
_MOST_STEPS: Final = 10_000
_MOST_INPUT_BYTES: Final = 4 << 30
_GRAPHS: Final = {"stepwise": {"encoder", "step"}}


def seal(manifest: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of everything that a manifest says but this digest."""
    rest = {key: value for key, value in manifest.items() if key != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_manifest(
    path: Path, manifest: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Write ``reflex.json``; ``files`` gives size and SHA-256 of every other file of the bundle."""
    whole = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **manifest,
        "files": {name: dict(files[name]) for name in sorted(files)},
    }
    whole[SEAL] = seal(whole)
    text = json.dumps(whole, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    (path / MANIFEST).write_text(text, encoding="utf-8")
    return whole


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the bundle at ``path``, complete and unchanged, but with its files unchecked.

    Raises:
        BundleError: it is missing, unreadable, of another format, or not as it was written.
    """
    file = path / MANIFEST
    manifest = _parsed(path, file)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(f"{file} is no bundle manifest: its format is not {FORMAT!r}")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise BundleError(
            f"{file} has format version {manifest.get('format_version')!r}, this pytest-reflex reads "
            f"{FORMAT_VERSION}; export the bundle again or install the version that made it"
        )
    _require_complete(file, manifest)
    if manifest.get(SEAL) != seal(manifest):
        raise BundleError(f"{file} was changed after it was written; export the bundle again")
    return manifest


def _parsed(path: Path, file: Path) -> Any:
    try:
        size = file.stat().st_size
        if size > _LARGEST_BYTES:
            raise BundleError(f"{file} has {size} bytes, more than any manifest; export the bundle again")
        parsed = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_number)
        if not shallow(parsed):
            raise ValueError("it is nested deeper than any manifest")
        return parsed
    except FileNotFoundError:
        raise BundleError(
            f"no {MANIFEST} in {path}: it is not a bundle; make one with `reflex export`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file} cannot be read: {error}; export the bundle again") from error


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _require_complete(file: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a manifest in which anything that a bundle is opened with is not what it has to be."""
    wanted = {
        "family": str, "layout": str, "graphs": dict, "call": dict,
        "inputs": list, "outputs": list, "files": dict,
    }  # fmt: skip
    for key, kind in wanted.items():
        if not isinstance(manifest.get(key), kind):
            raise BundleError(f"{file} lacks {key!r}, or it is no {kind.__name__}; export the bundle again")
    for name, facts in manifest["files"].items():
        if Path(name).name != name or "\0" in name:
            raise BundleError(f"{file} names a file outside of the bundle: {name!r}")
        if not isinstance(facts, dict) or not isinstance(facts.get("sha256"), str):
            raise BundleError(f"{file} gives no digest for {name!r}; export the bundle again")
    layout, graphs = manifest["layout"], manifest["graphs"]
    unlisted = [
        name for name in graphs.values() if not isinstance(name, str) or name not in manifest["files"]
    ]
    if unlisted:
        raise BundleError(f"{file} gives no digest for {unlisted[0]!r}; export the bundle again")
    if layout not in (*LAYOUTS, "single"):
        raise BundleError(f"{file}: its layout {layout!r} is none of single, {', '.join(LAYOUTS)}")
    if (roles := _GRAPHS.get(layout, {"model"})) != set(graphs):
        expected, found = ", ".join(sorted(roles)), ", ".join(map(repr, sorted(graphs))) or "none"
        raise BundleError(f"{file}: a {layout} bundle has the graphs {expected}, it names {found}")
    _require_loop(file, manifest)
    session = manifest.get("session", {})
    if not isinstance(session, dict) or session.get("optimization", OPTIMIZATIONS[0]) not in OPTIMIZATIONS:
        raise BundleError(f"{file}: its session is {session!r}, which is no way to open one")
    if not all(isinstance(out, dict) and isinstance(out.get("name"), str) for out in manifest["outputs"]):
        raise BundleError(f"{file}: its outputs have no names; export the bundle again")
    _require_inputs(file, manifest["inputs"])


def _require_loop(file: Path, manifest: Mapping[str, Any]) -> None:
    loop, steps = manifest.get("loop"), manifest.get("steps")
    if manifest["layout"] == "single":
        if loop is not None or steps is not None:
            raise BundleError(f"{file}: a single graph has no loop, and it gives one")
        return
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= _MOST_STEPS:
        raise BundleError(f"{file}: its steps are {steps!r}, expected a number from 1 to {_MOST_STEPS}")
    if not isinstance(loop, dict) or not all(isinstance(loop.get(key), str) for key in ("noise", "output")):
        raise BundleError(f"{file}: its loop names no noise and output; export the bundle again")
    try:
        schedule = schedule_from_json(loop["schedule"])
        numbers = (schedule.dt(steps), schedule.time(0, steps), schedule.time(steps, steps))
        good = all(math.isfinite(number) for number in numbers)
    except BundleError:
        raise
    except Exception as error:  # whatever numbers that are none lead to
        raise BundleError(
            f"{file}: its schedule {loop.get('schedule')!r} gives no times ({error})"
        ) from error
    if not good:
        raise BundleError(f"{file}: its schedule {loop['schedule']!r} gives no finite times")


def _require_inputs(file: Path, inputs: list[Any]) -> None:
    try:
        specs = [InputSpec.from_json(spec) for spec in inputs]
    except ReflexError as error:
        raise BundleError(f"{file}: {error}") from error
    except Exception as error:  # whatever values of a wrong type lead to
        raise BundleError(f"{file}: its inputs cannot be read ({error})") from error
    if sum(math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in specs) > _MOST_INPUT_BYTES:
        raise BundleError(f"{file}: its inputs take more than {_MOST_INPUT_BYTES >> 30} GiB; export it again")
