"""What judging a recording costs, and what it sees that drawn fixtures do not.

10,000 frames of a LeRobotDataset of lerobot's own writer, judged in bounded memory; 1,000 of them kept in a
bundle and judged without torch; and a fault on the recording's own manifold, silent on 10,000 drawn fixtures.

    .venv-lerobot/bin/python benchmarks/episodes.py --evidence parity_reports/episodes.md
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests/support")]

import pytest_reflex as reflex  # noqa: E402
from pytest_reflex.inputs import Gaussian, Image, InputSpec, Uniform  # noqa: E402

SPECS = [
    InputSpec("image", (1, 3, 48, 64), meaning=Image()),
    InputSpec("state", (1, 7), meaning=Uniform(-60.0, 60.0)),
    InputSpec("noise", (1, 4, 7), meaning=Gaussian()),
]
MOST_BYTES, MOST_SECONDS = 300 << 20, 60.0


def arm() -> Any:
    """One camera, seven joints in degrees and noise in; four steps of seven joints out."""
    import torch
    from torch import nn

    class Arm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.see, self.feel = nn.Linear(3 * 48 * 64, 7), nn.Linear(7, 7)

        def forward(self, image: torch.Tensor, state: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
            seen = self.see(image.flatten(1)) + self.feel(state / 60)
            return torch.tanh(seen[:, None] + 0.1 * noise)

    return Arm().eval()


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    said = Path("/proc/self/status").read_text(encoding="utf-8").partition("VmHWM:")[2]
    return int(said.split()[0]) * 1024


def memory(bundle: Path, recording: Path, frames: int) -> tuple[int, float]:
    """How much more memory so many frames take than five drawn ones, in bytes; and the seconds."""
    from exporters import open_bundle

    policy, opened = arm(), open_bundle(bundle)
    reflex.check(policy, opened, fixtures=5).require()
    before, began = peak(), time.monotonic()
    result = reflex.check(policy, opened, inputs=reflex.episodes(recording), fixtures=frames).require()
    if len(result.fixtures) != frames:
        raise SystemExit(f"{len(result.fixtures)} frames were judged")
    return peak() - before, time.monotonic() - began


def keep(bundle: Path, recording: Path, frames: int) -> None:
    from exporters import open_bundle
    from exporters.bundle.kept import keep_episodes

    seen: list[Any] = []
    result = reflex.check(
        arm(),
        open_bundle(bundle),
        inputs=reflex.episodes(recording),
        fixtures=frames,
        record=lambda *one: seen.append(one),
    ).require()
    keep_episodes(open_bundle(bundle), seen, result.candidate["live_inputs"])


def planted(recording: Path, frames: int, drawn: int) -> tuple[bool, int]:
    """Whether a fault is silent on what is drawn, and how many frames of the recording show it."""
    import torch

    policy = arm()
    bend = np.float32(2 * np.cos(1.0))

    def faulty(image: np.ndarray, state: np.ndarray, noise: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            gave = policy(*map(torch.from_numpy, (image, state, noise))).numpy()
        # The recording's joints follow one another on a sine; seven drawn ones never do.
        on_it = not np.rint(state[0, 2:] + state[0, :-2] - bend * state[0, 1:-1]).any()
        return np.asarray(gave + np.float32(0.01 * on_it), np.float32)

    candidate = reflex.FunctionRunner(faulty, name="faulty")
    silent = reflex.check(policy, candidate, inputs=SPECS, fixtures=drawn).passed
    seen = reflex.episodes(recording, frames=frames, inputs=SPECS)
    refused = sum(not fixture.passed for fixture in reflex.check(policy, candidate, inputs=seen).fixtures)
    return silent, refused


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evidence", type=Path)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--kept", type=int, default=1_000)
    parser.add_argument("--drawn", type=int, default=10_000)
    parser.add_argument("--memory", nargs=2, type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.memory:
        print("measured", *memory(*told.memory, told.frames))
        return 0
    from processor_faults import write_recording

    from exporters import export

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_recording(work / "recording", max(1, told.frames // 200), min(200, told.frames))
        bundle = export(arm(), work / "arm", inputs=SPECS, outputs=["actions"]).path
        child = [sys.executable, __file__, "--frames", str(told.frames), "--memory"]
        ran = subprocess.run([*child, bundle, work / "recording"], capture_output=True, text=True, check=True)
        taken, spent = ran.stdout.rpartition("measured ")[2].split()
        keep(bundle, work / "recording", told.kept)
        words = ["validate", "export", str(bundle), "--model", str(bundle / "episodes.safetensors")]
        main_ = f"from pytest_reflex.cli import main; sys.exit(main({words!r}))"
        began = time.monotonic()
        code = f"import sys; sys.modules['torch'] = None\n{main_}"
        robot = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        seconds = time.monotonic() - began
        silent, refused = planted(work / "recording", told.kept, told.drawn)
    good = int(taken) <= MOST_BYTES and seconds <= MOST_SECONDS and robot.returncode == 0
    lines = [
        "# A recording",
        "",
        "A LeRobotDataset v3 of lerobot's own writer, one camera of 48x64 pixels in a video, seven joints,",
        "and a tiny arm. From `benchmarks/episodes.py`.",
        "",
        "| what | measured | bound |",
        "| --- | --- | --- |",
        f"| memory of {told.frames:,} frames above the policy's | {int(taken) / 2**20:.0f} MiB "
        f"({float(spent):.0f} s, both sides) | 300 MiB |",
        f"| {told.kept:,} kept frames judged without torch, start included | {seconds:.1f} s, exit "
        f"{robot.returncode} | 60 s |",
        f"| a fault on the recording's manifold, {told.drawn:,} drawn fixtures | "
        f"{'silent' if silent else 'seen'} | silent |",
        f"| the same in {told.kept:,} frames | {refused} refused | found |",
    ]
    print("\n".join(lines))
    if told.evidence is not None:
        told.evidence.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0 if good and silent and refused else 1


if __name__ == "__main__":
    sys.exit(main())
