"""Bundles made wrong on purpose, and what the command makes of them, in a process that may die of it.

``damaged`` is what disks and transfers do: the manifest is as it was written. ``resealed`` is what somebody
does: every digest fits again.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

TIMEOUT_S: Final = 30.0
MANIFEST: Final = "reflex.json"

Damage = Callable[[Path, random.Random], str]


class Pickled:
    """What makes a directory when it is loaded from a pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@dataclass(frozen=True)
class Ended:
    """How one judgement ended.

    Attributes:
        code: the exit code; minus a signal's number where the process died; None where it had to be ended.
        said: what stood on stderr.
        passed: whether stdout was a document that says so.
    """

    code: int | None
    said: str
    passed: bool

    @property
    def good(self) -> bool:
        """Exit 1 with a verdict that names its reason, or exit 2 with one line on stderr."""
        lines = self.said.splitlines()
        if self.code == 2:
            return len(lines) == 1 and lines[0].startswith("reflex: error: ")
        return self.code == 1 and not lines and not self.passed


# --- what is done to a bundle ----------------------------------------------------------------------------


def _some_file(bundle: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(p for p in bundle.iterdir() if p.is_file()))


def bits_flipped(bundle: Path, rng: random.Random) -> str:
    file = _some_file(bundle, rng)
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 3, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(bytes(data))
    return file.name


def truncated(bundle: Path, rng: random.Random) -> str:
    file = _some_file(bundle, rng)
    os.truncate(file, rng.randrange(file.stat().st_size))
    return file.name


def lengthened(bundle: Path, rng: random.Random) -> str:
    file = _some_file(bundle, rng)
    with file.open("ab") as stream:
        stream.write(rng.randbytes(rng.randint(1, 5000)))
    return file.name


def block_zeroed(bundle: Path, rng: random.Random) -> str:
    file = _some_file(bundle, rng)
    data = bytearray(file.read_bytes())
    size = min(rng.choice((16, 512, 4096)), len(data))
    start = rng.randrange(len(data) - size + 1)
    block = bytes(size) if any(data[start : start + size]) else b"\xff" * size
    data[start : start + size] = block
    file.write_bytes(bytes(data))
    return file.name


def block_moved(bundle: Path, rng: random.Random) -> str:
    file = _some_file(bundle, rng)
    data = bytearray(file.read_bytes())
    size = min(rng.choice((16, 512)), len(data) // 2)
    first, second = rng.randrange(len(data) - size + 1), rng.randrange(len(data) - size + 1)
    if data[first : first + size] == data[second : second + size]:
        return bits_flipped(bundle, rng)
    data[first : first + size] = data[second : second + size]
    file.write_bytes(bytes(data))
    return file.name


def random_bytes(bundle: Path, rng: random.Random) -> str:
    file = _some_file(bundle, rng)
    file.write_bytes(rng.randbytes(file.stat().st_size))
    return file.name


def removed(bundle: Path, rng: random.Random) -> str:
    file = _some_file(bundle, rng)
    file.unlink()
    return file.name


def files_exchanged(bundle: Path, rng: random.Random) -> str:
    first, second = rng.sample(sorted(p for p in bundle.iterdir() if p.is_file()), 2)
    aside = bundle / ".aside"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    return f"{first.name}, {second.name}"


def manifest_value_changed(bundle: Path, rng: random.Random) -> str:
    """A value of the manifest becomes another that JSON has; its digest does not follow."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    where, holder, key = _some_place(manifest, rng)
    old = holder[key]
    new = old
    while new == old and type(new) is type(old):
        new = rng.choice(STRANGE)(rng)
    holder[key] = new
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    return where


def manifest_key_lost(bundle: Path, rng: random.Random) -> str:
    manifest = json.loads((bundle / MANIFEST).read_text())
    where, holder, key = _some_place(manifest, rng)
    del holder[key]
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    return where


STRANGE: Final[list[Callable[[random.Random], Any]]] = [
    lambda rng: None,
    lambda rng: True,
    lambda rng: rng.choice((0, -1, 1, 2**31, 2**63, 10**30, rng.randrange(10**6))),
    lambda rng: rng.choice((0.5, -1e308, 1e-320)),
    lambda rng: rng.choice(
        ("", "x", "..", "../x", "/etc/passwd", "a\0b", "\ud800", "model.onnx", "\x1b[2J", "x" * 9999)
    ),
    lambda rng: [],
    lambda rng: {},
    lambda rng: [[[[]]]],
    lambda rng: {"kind": "gaussian"},
]


def _some_place(value: Any, rng: random.Random) -> tuple[str, Any, Any]:
    return rng.choice(_places(value))


def _places(value: Any) -> list[tuple[str, Any, Any]]:
    """The places of a JSON document: path, what holds it, and under which key."""
    places: list[tuple[str, Any, Any]] = []

    def walk(node: Any, path: str) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, inner in items:
            places.append((f"{path}/{key}", node, key))
            walk(inner, f"{path}/{key}")

    walk(value, "")
    return places


DAMAGED: Final[dict[str, Damage]] = {
    damage.__name__: damage
    for damage in (
        bits_flipped,
        truncated,
        lengthened,
        block_zeroed,
        block_moved,
        random_bytes,
        removed,
        files_exchanged,
        manifest_value_changed,
        manifest_key_lost,
    )
}


def reseal(bundle: Path) -> None:
    """Write sizes and digests anew, as somebody does who wants a bundle to be taken for whole."""
    from exporters.bundle.manifest import seal
    from exporters.bundle.store import file_facts

    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"] = file_facts(bundle, [n for n in manifest["files"] if (bundle / n).is_file()])
    manifest["sha256"] = seal(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def graph_fuzzed(bundle: Path, rng: random.Random) -> str:
    """Bits of the graph flipped, and every digest made to fit: ONNX Runtime opens what is left."""
    file = rng.choice(sorted(bundle.glob("*.onnx")))
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(bytes(data))
    reseal(bundle)
    return file.name


def weights_fuzzed(bundle: Path, rng: random.Random) -> str:
    file = rng.choice(sorted(bundle.glob("*.data")))
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice((8, 64, 512))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    file.write_bytes(bytes(data))
    reseal(bundle)
    return file.name


def manifest_key_renamed(bundle: Path, rng: random.Random) -> str:
    """A key of the manifest becomes another: a file that lies elsewhere, an entry that nobody knows."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    places = [(path, holder, key) for path, holder, key in _places(manifest) if isinstance(holder, dict)]
    where, holder, key = rng.choice(places)
    holder[rng.choice(("", "..", ".", "a/b", "/etc/passwd", "a\0b", "\ud800", MANIFEST))] = holder.pop(key)
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    return where


def manifest_fuzzed(bundle: Path, rng: random.Random) -> str:
    ways = (manifest_value_changed, manifest_key_lost, manifest_key_renamed)
    where = rng.choices(ways, (6, 2, 2))[0](bundle, rng)
    with contextlib.suppress(Exception):  # what is left may be no manifest
        from exporters.bundle.manifest import seal

        manifest = json.loads((bundle / MANIFEST).read_text())
        manifest["sha256"] = seal(manifest)
        (bundle / MANIFEST).write_text(json.dumps(manifest))
    return where


RESEALED: Final[dict[str, Damage]] = {
    damage.__name__: damage for damage in (graph_fuzzed, weights_fuzzed, manifest_fuzzed)
}


# --- who judges it ---------------------------------------------------------------------------------------


def judged_here(bundle: Path, recording: Path) -> tuple[int, str, bool]:
    """The command on a bundle, in this process: exit code, stderr, and whether it says that it passed."""
    from pytest_reflex.cli import main

    out, err = io.StringIO(), io.StringIO()
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(["validate", "export", str(bundle), "--model", str(recording), "--output-json"])
    except SystemExit as left:
        code = int(str(left.code))
    passed = False
    with contextlib.suppress(ValueError):
        passed = json.loads(out.getvalue()).get("passed", False)
    return code, err.getvalue(), passed


def _serve(pipe: Connection, recording: str) -> None:
    while True:
        pipe.send(judged_here(Path(pipe.recv()), Path(recording)))


class Judge:
    """Judges bundles in a process of its own, which is made anew when it died or had to be ended."""

    def __init__(self, recording: Path) -> None:
        self._recording = recording
        self._process: Any = None
        self._pipe: Any = None
        self.deaths = 0

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def judge(self, bundle: Path) -> Ended:
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, str(self._recording)), daemon=True)
            self._process.start()
            theirs.close()
        try:
            self._pipe.send(str(bundle))
            if not self._pipe.poll(TIMEOUT_S):
                self._end()
                return Ended(None, "", False)
            return Ended(*self._pipe.recv())
        except (EOFError, ConnectionError):
            self._process.join(10)
            code = self._process.exitcode
            self._end()
            self.deaths += 1
            return Ended(code, "", False)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join(10)
            self._pipe.close()
            self._process = None


def corrupted(whole: Path, place: Path, damage: Damage, seed: int) -> str:
    """A copy of a bundle at ``place``, damaged; what was damaged."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place)
    return damage(place, random.Random(seed))


def small_bundles(work: Path) -> dict[str, Path]:
    """A bundle of each layout, small enough to be copied ten thousand times."""
    import torch
    from torch import nn

    from exporters import FlowPolicy, export
    from pytest_reflex.inputs import CameraMask, InputSpec, State

    class Small(FlowPolicy):
        """A state and a camera's mask in, a chunk of 4 out."""

        def __init__(self) -> None:
            super().__init__()
            self.steps = 2
            # Above what is kept inside of the graph.
            self.feel, self.move = nn.Linear(6, 96), nn.Linear(3, 96)
            self.norm, self.out = nn.LayerNorm(96), nn.Linear(96, 3)

        def prefix(self, state: torch.Tensor, cameras: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"seen": torch.where(cameras[:, :1], self.feel(state), torch.zeros(1))}

        def velocity(self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
            hidden = self.move(x_t) + seen[:, None] + time[:, None, None]
            return self.out(torch.nn.functional.gelu(self.norm(hidden)))

    torch.manual_seed(0)
    inputs = [
        InputSpec("state", (1, 6), meaning=State()),
        InputSpec("cameras", (1, 2), "bool", CameraMask()),
        InputSpec("noise", (1, 4, 3)),
    ]
    policy = Small().eval()
    made: dict[str, Path] = {}
    for layout in ("unrolled", "loop", "stepwise"):
        export(policy, work / layout, inputs=inputs, layout=layout, fixtures=2, steps=2)
        made[layout] = work / layout
    return made
