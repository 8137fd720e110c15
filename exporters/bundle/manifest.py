"""``reflex.json``: read with suspicion, written with a digest of itself.

A manifest says what is opened and how long it runs, so nothing in it is believed before it was looked at:
a bundle may come from anywhere, and a damaged one must end in one line, not in a traceback or a hang.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from exporters.flow.schedule import LAYOUTS, Loop, schedule_from_json
from pytest_reflex.errors import BundleError, ReflexError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.report.json.values import shallow
from pytest_reflex.runners.external_data import FileFacts
from pytest_reflex.runners.onnx import OPTIMIZATIONS, Optimization

FORMAT: Final = "reflex-bundle"
FORMAT_VERSION: Final = 1
MANIFEST: Final = "reflex.json"
SEAL: Final = "sha256"

# How far ONNX Runtime may rewrite a bundle's graphs. Above this it fuses operators, which costs the last
# bit of their float32: one step of SmolVLA is then 3.3e-6 from PyTorch, not 1.9e-6, for 6 % less time.
OPTIMIZATION: Final[Optimization] = "basic"

# A real manifest has some tens of kilobytes, mostly the figures of its check.
_LARGEST_BYTES: Final = 64 << 20
# Far beyond any policy: what asks for more would not end, or not fit.
MOST_STEPS: Final = 10_000
_MOST_INPUT_BYTES: Final = 4 << 30
# The session configuration entries that a manifest may have. Whatever else ONNX Runtime knows may name a
# folder, a file or a library, which no digest looks at, or a form in which to read what was hashed.
_HARMLESS: Final = {
    # Kernels that round otherwise, and are judged as they round.
    "mlas.enable_gemm_fastmath_arm64_bfloat16",
    "optimization.enable_cast_chain_elimination",
    "optimization.enable_gelu_approximation",
    "session.qdqisint8allowed",
    "session.x64quantprecision",
    # Whether a quantised graph is rewritten into operators of integers, which are judged, too.
    "session.disable_quant_qdq",
    # Memory: whether weights are packed, and from where it comes.
    "session.disable_prepacking",
    "session.use_device_allocator_for_initializers",
    # Threads: how work is cut up for them, and how they wait.
    "session.dynamic_block_base",
    "session.force_spinning_stop",
    "session.inter_op.allow_spinning",
    "session.intra_op.allow_spinning",
}
# All of them are switches or counts.
_HARMLESS_VALUE: Final = re.compile(r"[0-9]{1,4}")
_GRAPHS: Final = {"stepwise": {"encoder", "step"}}
_ORIGIN: Final = ("made_by", "source", "dtype", "precision", "versions", "machine")


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        family: the policy family that it was made from; ``module`` for any other ``nn.Module``.
        layout: ``single``, ``unrolled``, ``loop`` or ``stepwise``.
        inputs: what it reads, in order.
        outputs: what it gives, in order: name, dtype and shape of each.
        call: what the family's reference takes besides the steps.
        options: what the family's inputs were told besides the batch.
        steps: the number of denoising steps; None without a loop.
        loop: the loop that takes them, where the graphs are at hand.
        graphs: the file of each graph, by its role.
        files: size and digest of each file but the manifest, by name.
        optimization: how far ONNX Runtime may rewrite the graphs.
        config: session configuration entries of ONNX Runtime.
        check: the verdict that it was made under, as JSON; None without one.
        origin: who made it, of what, in which precision, with which versions and on which machine, as JSON.
    """

    family: str
    layout: str
    inputs: Sequence[InputSpec]
    outputs: Sequence[Mapping[str, Any]] = ()
    call: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, int | None] = field(default_factory=dict)
    steps: int | None = None
    loop: Loop | None = None
    graphs: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, FileFacts] = field(default_factory=dict)
    optimization: Optimization = OPTIMIZATION
    config: Mapping[str, str] = field(default_factory=dict)
    check: Mapping[str, Any] | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """What its graphs were brought to, such as ``float16`` or ``int8-dynamic``; else ``float32``."""
        said = self.origin.get("precision")
        name = said.get("name") if isinstance(said, Mapping) else "float32" if said is None else said
        return name if isinstance(name, str) else repr(name)

    @property
    def output_names(self) -> list[str]:
        return [output["name"] for output in self.outputs]

    @classmethod
    def from_json(cls, said: Mapping[str, Any], file: object = MANIFEST) -> Manifest:
        """The manifest that :meth:`to_json` wrote.

        Args:
            said: the contents of ``reflex.json``.
            file: what errors call it.

        Raises:
            BundleError: anything that a bundle is opened with is not what it has to be.
        """
        wanted = {
            "family": str, "layout": str, "graphs": dict, "call": dict,
            "inputs": list, "outputs": list, "files": dict,
        }  # fmt: skip
        for key, kind in wanted.items():
            if not isinstance(said.get(key), kind):
                raise BundleError(
                    f"{file} lacks {key!r}, or it is no {kind.__name__}; export the bundle again"
                )
        _require_files(file, said)
        loop = _loop(file, said)
        session = said.get("session", {})
        known = isinstance(session, dict) and session.get("optimization", OPTIMIZATION) in OPTIMIZATIONS
        if not known or not isinstance(session.get("config", {}), dict):
            raise BundleError(f"{file}: its session is {session!r}, which is no way to open one")
        _require_harmless(file, session.get("config", {}))
        options = said.get("options", {})
        if not isinstance(options, dict) or not all(n is None or type(n) is int for n in options.values()):
            raise BundleError(f"{file}: its options are {options!r}, expected whole numbers by name")
        if not all(isinstance(out, dict) and isinstance(out.get("name"), str) for out in said["outputs"]):
            raise BundleError(f"{file}: its outputs have no names; export the bundle again")
        check = said.get("check")
        inputs = _inputs(file, said["inputs"])
        if loop is not None and loop.noise not in [spec.name for spec in inputs]:
            raise BundleError(f"{file}: its loop starts from {loop.noise!r}, which is none of its inputs")
        return cls(
            **{key: said[key] for key in ("family", "layout", "graphs", "call", "files", "outputs")},
            options=options,
            inputs=inputs,
            steps=loop.steps if loop is not None else None,
            loop=loop,
            optimization=session.get("optimization", OPTIMIZATION),
            config=session.get("config", {}),
            check=check if isinstance(check, dict) else None,
            origin={key: said[key] for key in _ORIGIN if key in said},
        )

    def to_json(self) -> dict[str, Any]:
        """What :func:`write_manifest` writes."""
        config = {"config": dict(self.config)} if self.config else {}
        return {
            **self.origin,
            "family": self.family,
            "layout": self.layout,
            "steps": self.steps,
            "loop": self.loop.to_json() if self.loop is not None else None,
            "call": dict(self.call),
            "options": dict(self.options),
            "graphs": dict(self.graphs),
            "session": {"optimization": self.optimization, **config},
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": list(self.outputs),
            "check": self.check,
            "files": {name: dict(self.files[name]) for name in sorted(self.files)},
        }


def seal(manifest: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of everything that a manifest says but this digest."""
    rest = {key: value for key, value in manifest.items() if key != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_manifest(path: Path, manifest: Manifest) -> dict[str, Any]:
    """Write ``reflex.json``, and give what it holds."""
    whole = {"format": FORMAT, "format_version": FORMAT_VERSION, **manifest.to_json()}
    whole[SEAL] = seal(whole)
    text = json.dumps(whole, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    (path / MANIFEST).write_text(text, encoding="utf-8")
    return whole


def read_manifest(path: Path) -> tuple[dict[str, Any], Manifest]:
    """The manifest of the bundle at ``path``, complete and unchanged, but with its files unchecked.

    Returns:
        What ``reflex.json`` holds, and what that means.

    Raises:
        BundleError: it is missing, unreadable, of another format, or not as it was written.
    """
    file = path / MANIFEST
    said = _parsed(path, file)
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise BundleError(f"{file} is no bundle manifest: its format is not {FORMAT!r}")
    if said.get("format_version") != FORMAT_VERSION:
        raise BundleError(
            f"{file} has format version {said.get('format_version')!r}, this pytest-reflex reads "
            f"{FORMAT_VERSION}; export the bundle again or install the version that made it"
        )
    manifest = Manifest.from_json(said, file)
    if said.get(SEAL) != seal(said):
        raise BundleError(f"{file} was changed after it was written; export the bundle again")
    return said, manifest


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


def _require_harmless(file: object, config: Mapping[str, Any]) -> None:
    for key, value in config.items():
        if key not in _HARMLESS:
            raise BundleError(
                f"{file}: its session asks for {key!r}, which is none that a bundle may ask for "
                f"({', '.join(sorted(_HARMLESS))}); give it to the runner itself, with config="
            )
        if not isinstance(value, str) or not _HARMLESS_VALUE.fullmatch(value):
            raise BundleError(f"{file}: its session says {value!r} of {key!r}, expected a number such as '1'")


def _require_files(file: object, said: Mapping[str, Any]) -> None:
    for name, facts in said["files"].items():
        if Path(name).name != name or "\0" in name:
            raise BundleError(f"{file} names a file outside of the bundle: {name!r}")
        if not isinstance(facts, dict) or not isinstance(facts.get("sha256"), str):
            raise BundleError(f"{file} gives no digest for {name!r}; export the bundle again")
    layout, graphs = said["layout"], said["graphs"]
    unlisted = [name for name in graphs.values() if not isinstance(name, str) or name not in said["files"]]
    if unlisted:
        raise BundleError(f"{file} gives no digest for {unlisted[0]!r}; export the bundle again")
    if layout not in (*LAYOUTS, "single"):
        raise BundleError(f"{file}: its layout {layout!r} is none of single, {', '.join(LAYOUTS)}")
    if (roles := _GRAPHS.get(layout, {"model"})) != set(graphs):
        expected, found = ", ".join(sorted(roles)), ", ".join(map(repr, sorted(graphs))) or "none"
        raise BundleError(f"{file}: a {layout} bundle has the graphs {expected}, it names {found}")


def _loop(file: object, said: Mapping[str, Any]) -> Loop | None:
    loop, steps = said.get("loop"), said.get("steps")
    if said["layout"] == "single":
        if loop is not None or steps is not None:
            raise BundleError(f"{file}: a single graph has no loop, and it gives one")
        return None
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise BundleError(f"{file}: its steps are {steps!r}, expected a number from 1 to {MOST_STEPS}")
    if not isinstance(loop, dict) or not all(isinstance(loop.get(key), str) for key in ("noise", "output")):
        raise BundleError(f"{file}: its loop names no noise and output; export the bundle again")
    try:
        found = Loop(schedule_from_json(loop["schedule"]), steps, loop["noise"], loop["output"])
        good = all(map(math.isfinite, (found.dt, *found.times)))
    except BundleError:
        raise
    except Exception as error:  # whatever numbers that are none lead to
        raise BundleError(
            f"{file}: its schedule {loop.get('schedule')!r} gives no times ({error})"
        ) from error
    if not good:
        raise BundleError(f"{file}: its schedule {loop['schedule']!r} gives no finite times")
    return found


def _inputs(file: object, inputs: list[Any]) -> list[InputSpec]:
    try:
        specs = [InputSpec.from_json(spec) for spec in inputs]
    except ReflexError as error:
        raise BundleError(f"{file}: {error}") from error
    except Exception as error:  # whatever values of a wrong type lead to
        raise BundleError(f"{file}: its inputs cannot be read ({error})") from error
    if (
        sum(math.prod(max(n, 1) for n in spec.shape) * np.dtype(spec.dtype).itemsize for spec in specs)
        > _MOST_INPUT_BYTES
    ):
        raise BundleError(f"{file}: its inputs take more than {_MOST_INPUT_BYTES >> 30} GiB; export it again")
    return specs
