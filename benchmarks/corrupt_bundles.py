"""Ten thousand corrupted bundles: each ends in exit 1 or 2 with its reason in one line.

    python benchmarks/corrupt_bundles.py --damaged 10000 --resealed 3000

``damaged`` bundles are what disks and transfers make of one: bits flipped, files cut, lengthened, exchanged,
lost, a manifest with a value changed. None may pass. ``resealed`` ones are damaged by somebody who then makes
every digest fit, so that ONNX Runtime really opens them; what computes the same still may pass, and nothing
may end in a traceback, a signal or a hang of 30 seconds. A bundle that ends the process that judges it is
given to the real command, ``python -m pytest_reflex``, which must survive it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "hostile")]
# The process that judges is spawned, and finds its modules as this one does.
os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], sys.path[1], os.environ.get("PYTHONPATH", "")])

# ruff: noqa: E402
from corruption import DAMAGED, RESEALED, TIMEOUT_S, Damage, Ended, Judge, corrupted, small_bundles


def real_command(bundle: Path, recording: Path) -> Ended:
    """The bundle before the command itself, in whatever processes that takes."""
    command = [
        sys.executable,
        "-m",
        "pytest_reflex",
        "validate",
        "export",
        str(bundle),
        "--model",
        str(recording),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return Ended(None, "", False)
    return Ended(done.returncode, done.stderr, done.stdout.startswith("parity PASS"))


def run(kind: str, damages: dict[str, Damage], count: int, seed: int, work: Path) -> bool:
    wholes = small_bundles(work / "whole")
    layouts, names = list(wholes), list(damages)
    codes: Counter[str] = Counter()
    bad, deaths, slowest = 0, 0, 0.0
    begin = time.perf_counter()
    recording = wholes["unrolled"] / "fixtures.safetensors"
    with Judge(recording) as judge:
        for number in range(count):
            layout, name = layouts[number % len(layouts)], names[number // len(layouts) % len(names)]
            place = work / "bundle"
            what = corrupted(wholes[layout], place, damages[name], seed + number)
            at = time.perf_counter()
            ended = judge.judge(place)
            if ended.code is None or ended.code < 0:
                deaths += 1
                ended = real_command(place, recording)
                print(
                    f"{kind} {seed + number} {layout} {name} {what}: ended the process; the command: {ended}"
                )
            slowest = max(slowest, time.perf_counter() - at)
            codes[str(ended.code)] += 1
            fine = ended.good or (kind == "resealed" and ended.code == 0 and ended.passed)
            if not fine:
                bad += 1
                print(f"BAD {kind} {seed + number} {layout} {name} {what}: {ended}", flush=True)
    seconds = time.perf_counter() - begin
    ends = ", ".join(f"exit {code}: {n}" for code, n in sorted(codes.items()))
    print(
        f"{count} {kind} bundles in {seconds:.0f} s: {ends}; {bad} bad, {deaths} ended the process that "
        f"judged them, the slowest took {slowest:.1f} s",
        flush=True,
    )
    return bad == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--damaged", type=int, default=10_000)
    parser.add_argument("--resealed", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        good = [
            run("damaged", DAMAGED, options.damaged, options.seed, Path(folder) / "d"),
            run("resealed", RESEALED, options.resealed, options.seed, Path(folder) / "r"),
        ]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
