"""A policy of the published size on this machine: made, exported, proven, then proven by a fresh process.

    make fullsize FAMILY=pi0            (act, diffusion, groot, pi0, pi0-lerobot, pi05, smolvla, xvla)
    python benchmarks/fullsize.py pi0 --work WORK --evidence parity_reports/fullsize

Each phase runs in a process of its own and is watched from outside: wall time, the most it had resident,
and the most of that which no file backs (*anonymous*; pages of mapped weights can be dropped and read
again). ``--evidence DIR`` writes ``DIR/NAME.json`` and ``DIR/NAME.md``; the weights are removed at the end
unless ``--keep`` is given.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from checkpoints import BAKED, MAKERS, ROOT

GIB = 1 << 30
EVERY_S = 0.05
STAGE = "stage: "


def export(name: str, work: Path, layout: str | None, fixtures: int) -> None:
    """Load, export and check strictly; says when each stage begins."""
    import exporters

    module: Any = getattr(exporters, MAKERS[name][0])
    last = ""

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal last
        if stage != last:
            print(f"{STAGE}{stage}", flush=True)
            last = stage

    tell("load", 0, 1)
    policy = module.load(work / "checkpoint")
    chosen = {**BAKED.get(name, {}), **({"layout": layout} if layout else {})}
    made = module.export(policy, work / "bundle", fixtures=fixtures, strict=True, progress=tell, **chosen)
    print(made.result)


class Watched:
    """A process, watched from outside: seconds, resident and anonymous peaks, by stage.

    The largest sample in twenty a second; what a stage has for a shorter time is not seen.
    """

    def __init__(self, name: str, *command: str) -> None:
        print(f"== {name}", flush=True)
        self.stages: list[dict[str, Any]] = []
        self._begin(name if name != "export and check" else "import")
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, errors="replace"
        )
        watcher = threading.Thread(target=self._watch, args=(process.pid,), daemon=True)
        watcher.start()
        self.printed = ""
        for line in process.stdout or ():
            if line.startswith(STAGE):
                self._begin(line.removeprefix(STAGE).strip())
            else:
                self.printed += line
                print(line, end="", flush=True)
        _, status, usage = os.wait4(process.pid, 0)
        self._running = False
        self.seconds = time.perf_counter() - began
        self.stages[-1]["seconds"] = time.perf_counter() - self._at
        self.peak = usage.ru_maxrss * 1024
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            sys.exit(f"{name} failed with {code}")
        self.name = name

    def _begin(self, stage: str) -> None:
        now = time.perf_counter()
        if self.stages:
            self.stages[-1]["seconds"] = now - self._at
        self._at = now
        self.stages.append({"stage": stage, "seconds": 0.0, "resident": 0, "anonymous": 0})

    def _watch(self, pid: int) -> None:
        self._running = True
        status = Path(f"/proc/{pid}/status")
        while self._running:
            try:
                found = dict(re.findall(r"^(VmRSS|RssAnon):\s+(\d+) kB", status.read_text(), re.MULTILINE))
            except OSError:
                return
            stage = self.stages[-1]
            stage["resident"] = max(stage["resident"], int(found.get("VmRSS", 0)) * 1024)
            stage["anonymous"] = max(stage["anonymous"], int(found.get("RssAnon", 0)) * 1024)
            time.sleep(EVERY_S)

    def to_json(self) -> dict[str, Any]:
        return {
            "phase": self.name,
            "seconds": round(self.seconds, 1),
            "peak_resident_bytes": self.peak,
            "stages": [{**stage, "seconds": round(stage["seconds"], 1)} for stage in self.stages],
        }


def evidence(name: str, work: Path, phases: list[Watched]) -> dict[str, Any]:
    """What was seen, without the weights."""
    manifest = json.loads((work / "bundle" / "reflex.json").read_text())
    proof = manifest["check"]
    checkpoint = sum(file.stat().st_size for file in (work / "checkpoint").glob("*.safetensors"))
    making = ("trace", "trace prefix", "trace step", "compose", "write")
    stages = [stage for phase in phases for stage in phase.to_json()["stages"]]
    return {
        "name": name,
        "family": manifest["family"],
        "layout": manifest["layout"],
        "steps": manifest["steps"],
        "checkpoint_bytes": checkpoint,
        "fixtures": [
            {"fixture_idx": f["fixture_idx"], "max_abs_diff": f["max_abs_diff"], "passed": f["passed"]}
            for f in proof["fixtures"]
        ],
        "threshold": proof["threshold"],
        "strict": proof["strict"],
        "passed": proof["passed"],
        "phases": [phase.to_json() for phase in phases],
        "peak_resident_bytes": max(phase.peak for phase in phases if phase.name != "make"),
        "allowed_resident_bytes": int(1.15 * checkpoint + GIB),
        "export_anonymous_bytes": max(s["anonymous"] for s in stages if s["stage"] in making),
        "allowed_anonymous_bytes": int(1.5 * GIB),
        "versions": {
            package: found
            for package in (
                "pytest-reflex",
                "lerobot",
                "transformers",
                "torch",
                "onnx",
                "onnxruntime",
                "numpy",
            )
            if (found := _version(package))
        },
        "machine": {
            "python": platform.python_version(),
            "system": platform.system(),
            "arch": platform.machine(),
            "cores": os.cpu_count(),
        },
    }


def markdown(seen: dict[str, Any]) -> str:
    """The evidence as a page."""
    lines = [
        f"# {seen['name']} at its published size",
        "",
        f"{seen['layout']}, {_steps(seen['steps'])}, checkpoint {seen['checkpoint_bytes'] / 1e9:.2f} GB in "
        f"float32; threshold {seen['threshold']:.0e} (strict): **{'pass' if seen['passed'] else 'FAIL'}**.",
        "",
        "| fixture_idx | max_abs_diff | passed |",
        "| --- | --- | --- |",
        *(
            f"| {f['fixture_idx']} | {f['max_abs_diff']:.3e} | {'yes' if f['passed'] else 'NO'} |"
            for f in seen["fixtures"]
        ),
        "",
        "| phase, stage | seconds | resident GB | of it anonymous GB |",
        "| --- | --- | --- | --- |",
    ]
    for phase in seen["phases"]:
        lines.append(
            f"| **{phase['phase']}** | {phase['seconds']:.1f} | {phase['peak_resident_bytes'] / 1e9:.2f} | |"
        )
        for stage in phase["stages"] if len(phase["stages"]) > 1 else ():
            sizes = " | ".join(f"{stage[kind] / 1e9:.2f}" for kind in ("resident", "anonymous"))
            lines.append(f"| {stage['stage']} | {stage['seconds']:.1f} | {sizes} |")
    packages = ", ".join(f"{name} {found}" for name, found in seen["versions"].items())
    machine = seen["machine"]
    lines += [
        "",
        f"Peak resident {seen['peak_resident_bytes'] / 1e9:.2f} GB (allowed: 1.15 times the checkpoint and "
        f"1 GiB, {seen['allowed_resident_bytes'] / 1e9:.2f} GB). Anonymous while tracing, composing and "
        f"writing {seen['export_anonymous_bytes'] / 1e9:.2f} GB (allowed: 1.5 GiB).",
        "",
        f"{packages}; Python {machine['python']}, {machine['system']} {machine['arch']}, "
        f"{machine['cores']} cores. Weights are seeded.",
    ]
    return "\n".join(lines) + "\n"


def _steps(steps: int | None) -> str:
    return "no loop" if steps is None else f"{steps} steps"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=sorted(MAKERS))
    parser.add_argument("--work", type=Path, required=True, help="a directory with room for two copies")
    parser.add_argument("--layout", help="default: the family's")
    parser.add_argument("--fixtures", type=int, default=3)
    parser.add_argument("--evidence", type=Path, metavar="DIR")
    parser.add_argument("--keep", action="store_true", help="leave checkpoint and bundle in --work")
    parser.add_argument("--phase", choices=("make", "export"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    work: Path = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    if options.phase == "make":
        return MAKERS[options.name][1](work)
    if options.phase == "export":
        return export(options.name, work, options.layout, options.fixtures)

    here = [__file__, options.name, "--work", str(work), "--fixtures", str(options.fixtures)]
    here += ["--layout", options.layout] if options.layout else []
    phases = []
    if not (work / "checkpoint" / "model.safetensors").exists():
        phases.append(Watched("make", *here, "--phase", "make"))
    phases.append(Watched("export and check", *here, "--phase", "export"))
    phases.append(
        Watched(
            "validate", "-m", "pytest_reflex", "validate", "export", str(work / "bundle"),
            "--model", str(work / "checkpoint"), "--strict", "--fixtures", str(options.fixtures),
        )
    )  # fmt: skip
    seen = evidence(options.name, work, phases)
    print(markdown(seen))
    if options.evidence:
        options.evidence.mkdir(parents=True, exist_ok=True)
        (options.evidence / f"{options.name}.json").write_text(json.dumps(seen, indent=2) + "\n")
        (options.evidence / f"{options.name}.md").write_text(markdown(seen))
    if not options.keep:
        for folder in ("checkpoint", "bundle", "smolvlm2-500m"):
            shutil.rmtree(work / folder, ignore_errors=True)
    return None


if __name__ == "__main__":
    main()
