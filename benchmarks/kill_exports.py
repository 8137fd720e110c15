"""Exports killed at 200 points and on full disks: the old bundle whole or the new one whole, nothing stray.

    python benchmarks/kill_exports.py --kills 200
    python benchmarks/kill_exports.py --kills 40 --seed 7      # at points that are drawn, not spaced evenly

Half of the kills fall before a file operation, over all of them; half at an instant, over the whole export.
After each the destination is looked at, byte for byte, and another export is run, after which nothing but the
bundle may lie there. Full disks are a limit on the size of a file, over all sizes, and where this process may
mount one, a tmpfs that is too small. Last, two processes export to one directory at once, again and again.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "hostile")]

# ruff: noqa: E402
from killing import Exporter, contents

OLD, NEW = 1.0, 2.0


class Look:
    """What lies at the destination, against what may."""

    def __init__(self, place: Path, exporter: Exporter) -> None:
        self.place, self.exporter = place, exporter
        self.whole: dict[float, dict[str, str]] = {}
        for weight in (NEW, OLD):
            ended = exporter.attempt(weight)
            if ended.code or ended.signal:
                sys.exit(f"the export that everything starts from ended so: {ended}")
            self.whole[weight] = contents(place)
        self.clean = ended
        if self.whole[OLD] == self.whole[NEW]:
            sys.exit("the two bundles are the same")

    def found(self) -> str:
        lies = contents(self.place) if self.place.is_dir() else None
        if lies == self.whole[OLD]:
            return "old"
        return "new" if lies == self.whole[NEW] else f"BROKEN: {sorted(lies or [])}"

    def strays(self) -> list[str]:
        return sorted(
            p.name for p in self.place.parent.iterdir() if p.name not in (self.place.name, "warm-up")
        )

    def again(self) -> bool:
        """Another export: the old bundle lies there whole, and nothing else."""
        ended = self.exporter.attempt(OLD)
        return not ended.code and not ended.signal and self.found() == "old" and not self.strays()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--full-disks", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seed", type=int, help="draw the points; by default they are spaced evenly")
    options = parser.parse_args()
    rng = None if options.seed is None else random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "b"
        with Exporter(place) as exporter:
            look = Look(place, exporter)
            good = kills(look, options.kills, rng)
            good = full_disks(look, options.full_disks, rng) and good
            good = together(look, options.pairs) and good
        good = small_tmpfs() and good
    sys.exit(not good)


def shares(count: int, rng: random.Random | None) -> list[float]:
    """So many places between 0 and 1."""
    return [(n + 0.5) / count if rng is None else rng.random() for n in range(count)]


def kills(look: Look, count: int, rng: random.Random | None) -> bool:
    events, seconds = look.clean.events, look.clean.seconds
    print(f"an export takes {seconds:.2f} s and {events} file operations")
    half = count // 2
    points: list[dict[str, float]] = [{"at_event": 1 + int(share * events)} for share in shares(half, rng)]
    points += [{"after_s": seconds * share} for share in shares(count - half, rng)]
    seen: Counter[str] = Counter()
    bad = missed = 0
    begin = time.perf_counter()
    for point in points:
        ended = look.exporter.attempt(NEW, **point)  # type: ignore[arg-type]
        while not ended.signal and not ended.code and "after_s" in point and look.again():
            # It was faster than the one that was timed: what came after the end killed nobody.
            missed += 1
            point["after_s"] *= 0.9
            ended = look.exporter.attempt(NEW, **point)  # type: ignore[arg-type]
        found = look.found()
        seen[found] += 1
        left = len(look.strays())
        # An export that hangs is ended by another signal, and one that raises has a code.
        as_meant = (ended.signal, ended.code) == (signal.SIGKILL, 0)
        if not as_meant or found.startswith("BROKEN") or not look.again():
            bad += 1
            print(f"BAD {point}: {ended}, found {found}, left {left}; after another export {look.strays()}")
    print(
        f"{len(points) - bad} of {len(points)} kills left a whole bundle ({dict(seen)}; {missed} more came "
        f"after the end) and the next export left nothing stray, in {time.perf_counter() - begin:.0f} s"
    )
    return bad == 0


def full_disks(look: Look, count: int, rng: random.Random | None) -> bool:
    """A limit on the size of any file, from almost nothing to almost enough."""
    largest = max(f.stat().st_size for f in look.place.iterdir())
    bad = 0
    for share in shares(count, rng):
        limit = 1 + int(share * (largest - 1))
        ended = look.exporter.attempt(NEW, limit_bytes=limit)
        if ended.code != 2 or look.found() != "old" or look.strays() or not look.again():
            bad += 1
            print(f"BAD limit of {limit} bytes: {ended}, {look.found()}, {look.strays()}")
    print(f"{count - bad} of {count} full disks ended in one line and left the old bundle")
    return bad == 0


def together(look: Look, rounds: int) -> bool:
    """Another process exports another bundle to the same place at the same time."""
    bad = 0
    seen: Counter[str] = Counter()
    with Exporter(look.place) as other, ThreadPoolExecutor() as pool:
        other.attempt(NEW)
        # safetensors orders its metadata by chance, anew in each process, so these have bytes of their own.
        whole = {"this one's": look.whole[OLD], "the other's": contents(look.place)}
        for _ in range(rounds):
            ended = [
                future.result()
                for future in [
                    pool.submit(exporter.attempt, weight)
                    for exporter, weight in ((look.exporter, OLD), (other, NEW))
                ]
            ]
            lies = contents(look.place)
            found = next((name for name, files in whole.items() if files == lies), "BROKEN")
            seen[found] += 1
            if found == "BROKEN" or look.strays() or any(e.code or e.signal for e in ended):
                bad += 1
                print(f"BAD two at once: {ended}, {found}, {look.strays()}")
    print(f"{rounds - bad} of {rounds} pairs of exports at once left one whole bundle ({dict(seen)})")
    return bad == 0


def small_tmpfs() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            print("no tmpfs can be mounted here")
            return True
        try:
            place = Path(folder) / "b"
            with Exporter(place) as exporter:
                look = Look(place, exporter)
                # What is left is less than a second bundle takes.
                disk = os.statvfs(folder)
                filler = disk.f_bavail * disk.f_frsize - (8 << 10)
                (Path(folder) / "warm-up" / "filler").write_bytes(bytes(filler))
                ended = exporter.attempt(NEW)
                good = ended.code == 2 and look.found() == "old" and not look.strays()
                print(f"a full tmpfs: {ended}, found {look.found()}: {'good' if good else 'BAD'}")
                return good
        finally:
            subprocess.run(["umount", folder], check=False)


if __name__ == "__main__":
    main()
