"""From the camera to the joint over 200 frames of a recording, and every planted fault of the processors.

A LeRobotDataset is written by lerobot's own writer, video included; the tiny policies take its statistics.

    .venv-lerobot/bin/python benchmarks/processor_faults.py --evidence parity_reports/processors.md
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/support")]

import floors  # noqa: E402
import processor_faults as planted_faults  # noqa: E402
import tiny_pipelines  # noqa: E402

import pytest_reflex as reflex  # noqa: E402
from exporters.families.end_to_end import STAGES, add_processors, check_pipeline  # noqa: E402


def write_recording(root: Path, episodes: int = 4, frames: int = 50) -> None:
    """Four episodes of an arm of seven joints, in degrees, and a camera of 48x64 pixels."""
    from lerobot.datasets import LeRobotDataset

    joints = [f"joint_{i}.pos" for i in range(6)] + ["gripper.pos"]
    numbers = {"dtype": "float32", "shape": (7,), "names": joints}
    camera = {"dtype": "video", "shape": (48, 64, 3), "names": ["height", "width", "channels"]}
    features = {"observation.images.top": camera, "observation.state": numbers, "action": numbers}
    made = LeRobotDataset.create("me/reach", fps=30, features=features, root=root, video_backend="pyav")
    rng = np.random.default_rng(0)
    high, wide = np.mgrid[:48, :64]
    for episode in range(episodes):
        scene = rng.integers(0, 60, (48, 64, 3))
        for moment in range(frames):
            state = (60 * np.sin(moment / frames * 3 + np.arange(7) + episode * 0.3)).astype(np.float32)
            far = np.hypot(high - 24 - 10 * np.sin(moment / 9), wide - 32 - 20 * np.cos(moment / 7))
            arm = np.isin(far // 9, [0])
            image = np.where(arm[..., None], [200, 120, 40], 60 + scene).astype(np.uint8)
            task = ["reach the cube", "go home"][episode % 2]
            seen = {"observation.images.top": image, "observation.state": state, "action": state + 1}
            made.add_frame({**seen, "task": task})
        made.save_episode()
    made.finalize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evidence", type=Path)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--families", nargs="*", default=list(tiny_pipelines.FAMILIES))
    parser.add_argument("--fault-frames", type=int, default=4)
    told = parser.parse_args()
    lines = ["# From the camera to the joint", ""]

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)
        if told.evidence is not None:
            told.evidence.write_text("\n".join(lines) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_recording(work / "recording")
        say(f"{told.frames} frames of a LeRobotDataset v3 of lerobot's own writer, against its own")
        say("pipelines and policies, tiny, with seeded weights and the recording's statistics: max_abs_diff")
        say(
            "by stage, the last two in the robot's degrees, and in brackets how many floors the stage is from"
        )
        say("float64, one floor being what lerobot's own is. From `benchmarks/processor_faults.py`.")
        say("")
        say(f"| family | {' | '.join(STAGES)} | verdict | seconds |")
        say(f"| --- | {'--- | ' * (len(STAGES) + 2)}".rstrip())
        made = {family: _made(family, work, told.frames, say) for family in told.families}
        faults = [fault for fault in planted_faults.FAULTS if fault.family in made]
        say("")
        say("## Planted faults")
        say("")
        say("| fault | policy | stage | stage named first | verdict |")
        say("| --- | --- | --- | --- | --- |")
        caught = [_caught(fault, made[fault.family], work, told.fault_frames, say) for fault in faults]
        say("")
        say(f"{sum(caught)} of {len(caught)} refused, with their stage named first.")
    return 0 if all(caught) else 1


def _made(family: str, work: Path, frames: int, say: Any) -> tuple[Any, Any, Any, Path]:
    place = work / family
    place.mkdir()
    recording = work / "recording"
    policy = tiny_pipelines.policy_of(family, place, recording)
    both = tiny_pipelines.pipelines_of(family, policy, place, recording)
    bundle = tiny_pipelines.exported(family, policy, place / "bundle")
    began = time.monotonic()
    seen = reflex.episodes(recording, frames=frames)
    bundle, result = add_processors(policy, bundle, both, inputs=seen, floor=True)
    spent = time.monotonic() - began
    stages = [result.stages[stage] for stage in STAGES]
    for stage in stages:
        floors.require_rounding(stage)
    figures = [
        f"{stage.max_abs_diff_across_all:.2e} ({max(floors.multiples(stage).values()):.2f})"
        for stage in stages
    ]
    say(f"| {family} | {' | '.join(figures)} | {'pass' if result.passed else 'FAIL'} | {spent:.0f} |")
    return policy, both, bundle, recording


def _caught(fault: Any, made: tuple[Any, Any, Any, Path], work: Path, frames: int, say: Any) -> bool:
    policy, both, bundle, recording = made
    place = work / f"fault {fault.name}"
    wrong = planted_faults.planted(fault, bundle, policy, both, place)
    seen = reflex.episodes(recording, frames=frames)
    result = check_pipeline(policy, wrong, both, inputs=seen, stages=("preprocess", "postprocess"))
    named = str(result).splitlines()[0].partition(" in ")[2].partition(":")[0]
    good = result.failing == fault.stage == named
    said = "refused" if good else "LET PASS"
    say(f"| {fault.name} | {fault.family} | {fault.stage} | {named or '-'} | {said} |")
    return good


if __name__ == "__main__":
    sys.exit(main())
