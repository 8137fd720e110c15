"""``reflex.json``: read with suspicion, written with a digest of itself.

A manifest says what is opened and how long it runs, so nothing in it is believed before it was looked at:
a bundle may come from anywhere, and a damaged one must end in one line, not in a traceback or a hang.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from exporters.bundle.processors import Processors, require_fits
from exporters.bundle.said import Said
from exporters.flow.schedule import (
    BACKBONE,
    LAYOUTS,
    SCHEDULES,
    Loop,
    Schedule,
    TableSchedule,
    loop_from_json,
)
from pytest_reflex.errors import BundleError, ReflexError, lfs_pointer
from pytest_reflex.inputs import InputSpec
from pytest_reflex.inputs.spec import DTYPES
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
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
# What float32, in which a policy is told its time, counts in ones.
_MOST_BUCKETS: Final = 1 << 24
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
        processors: what stands around the policy, from the camera to the joint; None where nothing does.
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
    processors: Processors | None = None
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
        whole = Said(said, file)
        layout = whole.at("layout").one_of(("single", *LAYOUTS))
        files = _files(whole.at("files"))
        inputs, outputs = _inputs(whole.at("inputs")), _outputs(whole.at("outputs"))
        loop = _loop(whole, layout, inputs, outputs)
        optimization, config = _session(whole.at("session", {}))
        options = whole.at("options", {}).fields()
        around, check = whole.at("processors", None), said.get("check")
        return cls(
            family=whole.at("family").text(),
            layout=layout,
            inputs=inputs,
            outputs=outputs,
            call=whole.at("call").mapping(),
            options={name: _whole_or_none(n) for name, n in options.items()},
            steps=loop.steps if loop is not None else None,
            loop=loop,
            graphs=_graphs(whole.at("graphs"), layout, files),
            files=files,
            optimization=optimization,
            config=config,
            processors=None
            if around.value is None
            else require_fits(
                around, Processors.from_json(around, files), inputs, [str(out["name"]) for out in outputs]
            ),
            check=check if isinstance(check, dict) else None,
            origin=_origin(whole),
        )

    def to_json(self) -> dict[str, Any]:
        """What :func:`write_manifest` writes."""
        config = {"config": dict(self.config)} if self.config else {}
        around = {} if self.processors is None else {"processors": self.processors.to_json()}
        return {
            **self.origin,
            **around,
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
    if type(said.get("format_version")) is not int or said["format_version"] != FORMAT_VERSION:
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
        if said := lfs_pointer(file):
            raise BundleError(f"{file} is {said}")
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


def _whole_or_none(said: Said) -> int | None:
    said.such(said.value is None or type(said.value) is int, "a whole number, or null")
    return cast(int | None, said.value)


def _session(said: Said) -> tuple[Optimization, dict[str, str]]:
    optimization = said.at("optimization", OPTIMIZATION).one_of(OPTIMIZATIONS)
    config = said.at("config", {}).fields()
    for key, value in config.items():
        if key not in _HARMLESS:
            raise value.error(
                f"and is none that a bundle may ask for ({', '.join(sorted(_HARMLESS))}); "
                "give it to the runner itself, with config="
            )
        value.such(bool(_HARMLESS_VALUE.fullmatch(value.text())), "a number such as '1'")
    return cast(Optimization, optimization), {key: value.text() for key, value in config.items()}


def _files(said: Said) -> dict[str, FileFacts]:
    found: dict[str, FileFacts] = {}
    for name, facts in said.fields().items():
        # None is a folder, or the manifest, which holds no digest of itself.
        own = Path(name).name == name and name not in ("", "..", MANIFEST) and not {*"\\\0"} & {*name}
        facts.such(own, "no such name: one of a file in the bundle itself")
        digest = facts.at("sha256")
        digest.such(bool(_DIGEST.fullmatch(digest.text())), "a SHA-256 in hex")
        found[name] = {"size": facts.at("size").whole(0), "sha256": digest.text()}
    return found


def _graphs(said: Said, layout: str, files: Mapping[str, FileFacts]) -> dict[str, str]:
    found = said.fields()
    roles = _GRAPHS.get(layout, {"model"})
    # One whose policy has a loop may begin with a backbone.
    more = found.keys() - roles
    good = roles <= found.keys() and more <= (set() if layout == "single" else {BACKBONE})
    said.such(good, f"the graphs of the layout {layout}: {', '.join(sorted(roles))}")
    for name in found.values():
        name.such(name.text() in files, "a name that files has a digest for")
    return {role: name.text() for role, name in found.items()}


def _outputs(said: Said) -> list[Mapping[str, Any]]:
    for output in said.each():
        output.at("dtype").one_of(DTYPES)
        for n in output.at("shape").each():
            n.whole(0)
    _require_unlike(said, [output.at("name").text() for output in said.each()])
    return [output.mapping() for output in said.each()]


def _require_unlike(said: Said, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    said.such(twice is None, f"names that differ, and {twice!r} stands there twice")


def _loop(
    whole: Said, layout: str, inputs: Sequence[InputSpec], outputs: Sequence[Mapping[str, Any]]
) -> Loop | None:
    said, steps = whole.at("loop", None), whole.at("steps", None)
    if layout == "single":
        for none in (said, steps):
            none.such(none.value is None, "none, for a single graph has no loop")
        return None
    schedule = said.at("schedule")
    kinds = {kind.kind: kind for kind in SCHEDULES}
    kind = kinds[schedule.at("kind").one_of(kinds)]
    for number in fields(kind) if kind is not TableSchedule else ():
        if number.name == "dtype":
            schedule.at(number.name, Schedule.dtype).one_of(("float32", "float64"))
        elif number.name == "buckets":
            schedule.at(number.name).whole(1, _MOST_BUCKETS)
        else:
            schedule.at(number.name).finite()
    noise, output = said.at("noise"), said.at("output")
    noise.such(noise.text() in [spec.name for spec in inputs], "one of its inputs")
    # There are none yet while it is exported.
    output.such(output.text() in [one["name"] for one in outputs] or not outputs, "one of its outputs")
    count = steps.whole(1, MOST_STEPS)
    try:
        loop = loop_from_json(said.mapping(), count)
    except Exception as error:  # whatever a table of a wrong form leads to
        raise schedule.error(f"which is none ({error})") from error
    for name in loop.noises[1:]:
        said.such(name in [spec.name for spec in inputs], f"a loop whose {name!r} is one of the inputs")
    return loop


def _inputs(said: Said) -> list[InputSpec]:
    specs = []
    for one in said.each():
        try:
            specs.append(InputSpec.from_json(one.mapping()))
        except ReflexError as error:
            raise one.error(f"which is no input ({error})") from error
        except Exception as error:  # whatever values of a wrong type lead to
            raise one.error(f"which cannot be read ({type(error).__name__}: {error})") from error
    _require_unlike(said, [spec.name for spec in specs])
    size = sum(math.prod(max(n, 1) for n in spec.shape) * np.dtype(spec.dtype).itemsize for spec in specs)
    said.such(size <= _MOST_INPUT_BYTES, f"inputs that take no more than {_MOST_INPUT_BYTES >> 30} GiB")
    return specs


def _origin(whole: Said) -> dict[str, Any]:
    """Who made it, of what and where; any of it may be missing."""
    found = {key: said for key, said in whole.fields().items() if key in _ORIGIN}
    for key, said in found.items():
        for name, value in (said.fields() if key != "dtype" else {key: said}).items():
            if name == "cores":
                value.whole(1)
            elif name == "instructions":
                _require_texts(value.each())
            elif name == "environment":
                _require_texts(value.fields().values())
            elif (key, name) == ("precision", "kept"):  # nodes by graph
                for nodes in value.fields().values():
                    _require_texts(nodes.each())
            elif key != "source":  # what a family remembers of it is its own
                _require_texts([value])
    return {key: said.value for key, said in found.items()}


def _require_texts(several: Iterable[Said]) -> None:
    for one in several:
        one.such(one.value is None or isinstance(one.value, str), "text")
