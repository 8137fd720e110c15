"""ONNX Runtime as it computes on older processors, by an emulator: the bundles' recorded fixtures again.

    apt-get install qemu-user
    python benchmarks/emulated.py

MLAS asks the processor which instructions it has, and no setting makes it take older ones. QEMU's user mode
answers in the processor's place, and computes what an older one would. So small bundles, of every layout, are
made here and then judged in an emulated process by the fixtures of their own check, strictly: the reference
is this machine's, the candidate's kernels are the older processor's. Exit 1 where one does not pass, where
the process ends otherwise, or where the layouts do not give the same bits. Where there is no emulator, or one
that does not offer a processor, that is said.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

# ruff: noqa: E402
import numpy as np
from side_by_side import table, write

# By QEMU's names: what numpy sees there, and what it must not see.
PROCESSORS: Mapping[str, tuple[str, str]] = {
    "Nehalem": ("SSE42", "AVX"),
    "SandyBridge": ("AVX", "AVX2"),
    "Haswell": ("AVX2", "AVX512F"),
}
BUNDLES = ("pi0", "module")
LAYOUTS = ("unrolled", "loop", "stepwise")


def main() -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument(
        "--processors", nargs="+", choices=PROCESSORS, default=list(PROCESSORS), metavar="CPU"
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--emulator", help="by default qemu-x86_64 or qemu-x86_64-static, where it is found")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--judge", nargs=2, metavar=("DIR", "THREADS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.judge:
        print(json.dumps(judged(Path(options.judge[0]), int(options.judge[1]))))
        return

    emulator = options.emulator or shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if platform.machine() != "x86_64" or emulator is None:
        why = "QEMU's qemu-x86_64 is not installed (apt-get install qemu-user)"
        print(f"NOT RUN: ONNX Runtime as on older processors: {why if emulator is None else 'not an x86-64'}")
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        sys.exit(run(emulator, Path(folder), options))


def make(place: Path) -> None:
    """The bundles, with the floor of each in its manifest."""
    from examples.own_policy import INPUTS, policy
    from examples.tiny_pi0 import tiny_pi0
    from exporters import export, pi0

    small: dict[str, Any] = {"cameras": 2, "prompt_tokens": 6, "floor": True}
    for layout in LAYOUTS:
        pi0.export(tiny_pi0(), place / "pi0" / layout, layout=layout, **small)
        export(policy(), place / "module" / layout, inputs=INPUTS, layout=layout, floor=True)


def run(emulator: str, place: Path, options: argparse.Namespace) -> int:
    """Every processor and number of threads: a row for each bundle; 1 when any failed."""
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for name in ("this one", *options.processors):
        for threads in options.threads:
            seen = emulated(emulator, name, place, threads)
            wants, lacks = PROCESSORS.get(name, ("", ""))
            if isinstance(seen, str):
                # An instruction that an older processor has not ends so too: it is what is looked for.
                problems.append(f"{name}, {threads} threads: {seen}")
                continue
            if wants and not seen["features"].get(wants):
                print(f"NOT RUN: {name}: the emulator does not offer {wants}")
                break
            if lacks and seen["features"].get(lacks):
                problems.append(f"{name}: {lacks} is seen there, so it is no {name}")
            for row in seen["rows"]:
                said = {"processor": name, "threads": threads, **row}
                rows.append(said)
                if not (row["passed"] and row["same bits"]):
                    problems.append(f"{name}, {threads} threads, {row['bundle']}: {row}")
    table("ONNX Runtime on older processors, against the reference of this one", rows)
    write(options.json, "emulated", rows)
    for problem in problems:
        print(f"FAILED: {problem}")
    # The machine's own rows prove nothing of another.
    return 1 if problems or all(row["processor"] == "this one" for row in rows) else 0


def emulated(emulator: str, name: str, place: Path, threads: int) -> dict[str, Any] | str:
    """What :func:`judged` gives on a processor, or how its process ended."""
    python = str(Path(sys.executable).resolve())
    command = [python, str(Path(__file__).resolve()), "--judge", str(place), str(threads)]
    if name in PROCESSORS:
        command = [emulator, "-cpu", name, *command]
    around = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
    paths = [str(ROOT), *site.getsitepackages()]
    done = subprocess.run(
        command, env={**around, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True
    )
    if done.returncode:
        return f"exit {done.returncode}: {' '.join(done.stderr.strip().splitlines()[-1:])}"
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def judged(place: Path, threads: int) -> dict[str, Any]:
    """The bundles judged in this process by their recorded fixtures."""
    from numpy._core._multiarray_umath import __cpu_features__ as features

    from exporters import Policy, open_bundle
    from pytest_reflex import check

    rows = []
    for name in BUNDLES:
        actions: dict[str, list[np.ndarray]] = {}
        passed, largest, floor = True, 0.0, 0.0
        for layout in LAYOUTS:
            bundle = open_bundle(place / name / layout)
            recording = bundle.recording()
            recorded = recording.recorded()
            result = check(recording, Policy(bundle, threads=threads), inputs=recorded, strict=True)
            passed &= result.passed
            largest = max(largest, result.max_abs_diff_across_all or 0.0)
            proof = bundle.manifest["check"]["fixtures"]
            floor = max(floor, *(o["floor"]["reference_max"] for f in proof for o in f["outputs"]))
            with Policy(bundle, threads=threads) as policy:
                actions[layout] = [policy.run(inputs)["actions"] for inputs in recorded]
        first, *others = actions.values()
        rows.append(
            {
                "bundle": name,
                "passed": passed,
                "same bits": all(
                    np.array_equal(a, b) for other in others for a, b in zip(first, other, strict=True)
                ),
                "max_abs_diff": f"{largest:.2e}",
                "floors": f"{largest / floor:.2f}",
                "actions": hashlib.sha256(b"".join(a.tobytes() for a in first)).hexdigest()[:8],
            }
        )
    return {"rows": rows, "features": {key: bool(value) for key, value in features.items()}}


if __name__ == "__main__":
    main()
