"""Ten thousand tampered certificates, bundles and keys: none is accepted, each is refused in one line.

    python benchmarks/tampered_certificates.py --count 10000 --json parity_reports/certificates.json

Each way of ``tests/hostile/tampering.py`` in turn, with a seed of its own: bytes flipped and cut, values
exchanged, names twice, other spellings, other types of payload, strangers' signatures, statements that say
less, bundles that are sealed again, other keys. What is neither a yes nor one line of no counts as a crash.
Beside that: how long one verification takes, and whether it imports torch.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "hostile"), str(ROOT / "tests" / "support")]

# ruff: noqa: E402
from serve_cases import made
from tampering import TAMPERINGS, Kept, Place, accepted
from tampering import made as certified_pair


def tampered(place: Place, count: int, seed: int) -> dict[str, Any]:
    names, kept = list(TAMPERINGS), Kept(place)
    tried, wrong = Counter[str](), []
    begun = time.perf_counter()
    for number in range(count):
        name = names[number % len(names)]
        TAMPERINGS[name](place, random.Random(seed + number))
        if not kept.changed():
            raise SystemExit(f"{name}, seed {seed + number}: nothing was changed")
        try:
            how = "accepted" if accepted(place) else ""
        except Exception as error:
            how = f"crashed: {type(error).__name__}: {error}"
        tried[name] += 1
        if how:
            wrong.append(f"{name}, seed {seed + number}: {how}")
            print(wrong[-1], flush=True)
        kept.restore()
    if not accepted(place):
        raise SystemExit("what was put back is not accepted: the figures say nothing")
    seconds = time.perf_counter() - begun
    accepted_of = sum(line.endswith("accepted") for line in wrong)
    crashed = len(wrong) - accepted_of
    print(f"{count:,} tampered with in {seconds:.0f} s: {accepted_of} accepted, {crashed} crashed")
    return {
        "tried": dict(tried),
        "accepted": accepted_of,
        "crashed": len(wrong) - accepted_of,
        "wrong": wrong,
    }


def timed(place: Place, rounds: int) -> dict[str, Any]:
    """Seconds of one verification: of the whole command, and beside it of Python alone."""
    asked = ["certify", str(place.bundle), "--verify", "--key", str(place.key)]
    command = [sys.executable, "-m", "pytest_reflex", *asked]
    around = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    took: dict[str, list[float]] = {"command": [], "python": []}
    for _ in range(rounds):
        for name, one in (("command", command), ("python", [sys.executable, "-c", "pass"])):
            begun = time.perf_counter()
            subprocess.run(one, env=around, check=True, capture_output=True)
            took[name].append(time.perf_counter() - begun)
    code = (
        "import sys; from pytest_reflex.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    )
    blocked = subprocess.run(
        [sys.executable, "-c", code, *command[3:]], env=around, capture_output=True, text=True
    )
    told = {name: statistics.median(seconds) for name, seconds in took.items()}
    print(f"one verification: {told['command']:.2f} s, of which Python alone {told['python']:.2f} s")
    return {**told, "rounds": rounds, "imports_torch": "True" in blocked.stdout.splitlines()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=7, help="how often one verification is timed")
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        bundles = [made(Path(work) / f"of{seed}", seed=seed, strict=True) for seed in (0, 1)]
        place = certified_pair(Path(work), *bundles)
        found = {
            **tampered(place, told.count, told.seed),
            "seed": told.seed,
            "seconds": timed(place, told.rounds),
        }
    if told.json is not None:
        told.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if found["wrong"] or found["seconds"]["imports_torch"] else 0


if __name__ == "__main__":
    sys.exit(main())
