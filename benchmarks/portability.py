"""Other processors, on one machine: the parity tests again as older and newer ones would compute them.

    python benchmarks/portability.py                     the settings that this machine can take
    python benchmarks/portability.py --settings oldest   one of them
    python benchmarks/portability.py --slice             two settings over a few tests, for CI

PyTorch and the two libraries below it choose their kernels by the processor, and let the environment tell
them to choose those of an older one. Each setting runs the tests in a process of its own, in both of this
project's environments, and gets a row: what passed, and the worst figures that the tests measured (the
tests write these to the file that REFLEX_FLOORS_LOG names). Exit 1 when any setting failed. What this
machine cannot take is named, with what it lacks.

ONNX Runtime has no such switch: MLAS asks the processor itself, so the candidate always runs the newest
kernels of the machine. What varies here is the reference; `emulated.py` varies the candidate.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

# ruff: noqa: E402
from side_by_side import table, write

from pytest_reflex.verdict import machine

LOG = "REFLEX_FLOORS_LOG"
AVX512 = ("avx512f", "avx512dq", "avx512bw", "avx512vl")


@dataclass(frozen=True)
class Setting:
    """One way for PyTorch to compute.

    Attributes:
        environment: what makes it so.
        needs: the instruction sets that it takes, as Linux names them.
        capability: what PyTorch then says of itself; None when anything will do.
        intel: whether only an Intel processor makes MKL obey.
    """

    environment: Mapping[str, str]
    needs: tuple[str, ...] = ()
    capability: str | None = None
    intel: bool = False


def setting(aten: str, onednn: str, mkl: str, cbwr: str, threads: int, needs: Sequence[str]) -> Setting:
    """All three libraries at one instruction set."""
    environment = {
        "ATEN_CPU_CAPABILITY": aten,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "MKL_ENABLE_INSTRUCTIONS": mkl,
        "MKL_CBWR": cbwr,
        "OMP_NUM_THREADS": str(threads),
    }
    return Setting(environment, tuple(needs), aten.upper())


SETTINGS = {
    "as-it-is": Setting({"OMP_NUM_THREADS": "1"}),
    "as-it-is-2-threads": Setting({"OMP_NUM_THREADS": "2"}),
    "oldest": setting("default", "SSE41", "SSE4_2", "COMPATIBLE", 1, ["sse4_2"]),
    "oldest-2-threads": setting("default", "SSE41", "SSE4_2", "COMPATIBLE", 2, ["sse4_2"]),
    "avx2": setting("avx2", "AVX2", "AVX2", "AVX2", 1, ["avx2", "fma"]),
    "avx2-2-threads": setting("avx2", "AVX2", "AVX2", "AVX2", 2, ["avx2", "fma"]),
    "avx512": setting("avx512", "AVX512_CORE", "AVX512", "AVX512", 1, AVX512),
    "avx512-2-threads": setting("avx512", "AVX512_CORE", "AVX512", "AVX512", 2, AVX512),
    "aten-default": Setting(
        {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}, ("sse4_2",), "DEFAULT"
    ),
    "onednn-sse41": Setting({"ONEDNN_MAX_CPU_ISA": "SSE41", "OMP_NUM_THREADS": "1"}, ("sse4_1",)),
    "mkl-compatible": Setting({"MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "1"}, ("sse4_2",)),
    "mkl-avx2": Setting({"MKL_ENABLE_INSTRUCTIONS": "AVX2", "OMP_NUM_THREADS": "1"}, ("avx2",), intel=True),
    "amx": Setting(
        {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX", "OMP_NUM_THREADS": "1"}, ("amx_tile", "amx_bf16")
    ),
    "sve256": Setting({"ATEN_CPU_CAPABILITY": "sve256", "OMP_NUM_THREADS": "1"}, ("sve",), "SVE256"),
    "asimd": Setting({"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}, ("asimd",), "DEFAULT"),
}


# For whoever looks for the library that an error comes from; by default all of them are set together.
ONE_LIBRARY = ("aten-default", "onednn-sse41", "mkl-compatible", "mkl-avx2")


class Kernels(NamedTuple):
    """What ran: PyTorch's capability and threads, MKL's mode (OFF where none was asked for), oneDNN's."""

    capability: str
    threads: int
    mkl: str
    onednn: str


# Set by some settings, so taken from the environment of all others; and what else the libraries obey, under
# older names too, what changes which tests run, and a process that computes as it was started long before.
VARIED = {name for one in SETTINGS.values() for name in one.environment}
OBEYED = re.compile(r"(ATEN|ONEDNN|DNNL|MKL|MKLDNN|OMP|KMP|GOMP|PYTEST)_\w+|REFLEX_WARM")
# What oneDNN says of itself where it obeys; a word that it does not know it passes over in silence.
ONEDNN_SAYS = {
    "SSE41": r"SSE4\.1",
    "AVX2": r"AVX2",
    "AVX512_CORE": r"AVX-512 with AVX512BW\b.*",
    "AVX512_CORE_AMX": r".*\bAMX\b.*",
}

# Parity of every family and layout, the golden cases, the corpus of what must not pass.
NEWEST = (
    *(
        "tests/exporters/families/test_pi0.py",
        "tests/exporters/graph/test_layouts.py",
        "tests/exporters/flow/test_loop_states.py",
    ),
    *("tests/exporters/test_floor_exports.py", "tests/known_bad", "tests/parity"),
)
LEROBOT = (
    *("tests/exporters/families/test_golden.py", "tests/exporters/families/test_lerobot_parity.py"),
    *("tests/exporters/families/test_groot.py", "tests/exporters/families/test_groot_whole.py"),
    *(
        "tests/exporters/families/test_real_time.py",
        "tests/exporters/flow/test_loop_states.py",
        "tests/parity",
    ),
)
SLICE = ("oldest", "avx2-2-threads")
NEWEST_SLICE = (
    "tests/exporters/families/test_pi0.py::test_parity[sdpa-10]",
    "tests/parity/test_pi0.py",
    "tests/exporters/graph/test_layouts.py::test_layouts_give_the_same_bits",
    "tests/exporters/flow/test_loop_states.py::test_pi0_of_transformers_from_end_to_end",
)
LEROBOT_SLICE = ("tests/exporters/families/test_golden.py",)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, metavar="NAME", help=", ".join(SETTINGS))
    parser.add_argument("--slice", action="store_true", help=f"{' and '.join(SLICE)}, over a few tests")
    parser.add_argument("--tests", nargs="+", metavar="TEST", help="these, in this environment alone")
    parser.add_argument("--lerobot", type=Path, default=ROOT / ".venv-lerobot/bin/python", metavar="PYTHON")
    parser.add_argument("--workers", type=int, default=0, help="of pytest-xdist; by default none")
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()

    together = tuple(name for name in SETTINGS if name not in ONE_LIBRARY)
    names = options.settings or (SLICE if options.slice else together)
    runs = _runs(options)
    rows: list[dict[str, Any]] = []
    failed = False
    there = machine.here()
    print(f"{there['processor']}, {there['cores']} cores: {', '.join(there['instructions'])}")
    for name in names:
        if missing := lacking(SETTINGS[name], there):
            print(f"NOT RUN: {name}: this machine lacks {', '.join(missing)}")
            continue
        # Side by side: each of the two environments is at work on one core most of the time.
        with ThreadPoolExecutor(len(runs)) as pool:
            waiting = [pool.submit(run, name, *given, options.workers, there["processor"]) for given in runs]
            done = [row.result() for row in waiting]
        for (environment, _, _), (row, problems) in zip(runs, done, strict=True):
            rows.append(row)
            failed |= bool(problems)
            # At once: the next setting may take half an hour.
            print(f"{name}, {environment}: {row['passed']} passed, {row['failed']} failed", flush=True)
            for problem in problems:
                print(f"FAILED: {name}, {environment}: {problem}", flush=True)
    if rows:
        table("Other processors, on one machine", rows)
    write(options.json, "portability", rows, processor=there)
    if not rows:
        print("FAILED: this machine can take none of these settings; name others with --settings")
    sys.exit(1 if failed or not rows else 0)


def _runs(options: argparse.Namespace) -> list[tuple[str, Path, Sequence[str]]]:
    if options.tests:
        return [("this", Path(sys.executable), options.tests)]
    runs = [("newest", Path(sys.executable), NEWEST_SLICE if options.slice else NEWEST)]
    if options.lerobot.is_file():
        runs.append(("lerobot", options.lerobot, LEROBOT_SLICE if options.slice else LEROBOT))
    else:
        print(f"NOT RUN: the policies of lerobot: {options.lerobot} is not there; run `make lerobot`")
    return runs


def lacking(one: Setting, there: Mapping[str, Any]) -> list[str]:
    """What a setting needs and a machine, as :func:`.machine.here` says it, does not have."""
    missing = [name for name in one.needs if name not in there["instructions"]]
    if one.intel and "GenuineIntel" not in there["processor"]:
        missing.append("a processor of Intel's, on which alone MKL obeys this")
    return missing


def disobeyed(one: Setting, seen: Kernels, processor: str) -> list[str]:
    """What a setting asked for and did not get, a line each, by the libraries' own words."""
    asked = one.environment
    problems = []
    if one.capability not in (None, seen.capability):
        problems.append(f"PyTorch runs as {seen.capability}, not as {one.capability}")
    if seen.threads != int(asked["OMP_NUM_THREADS"]):
        problems.append(f"PyTorch has {seen.threads} threads, not {asked['OMP_NUM_THREADS']}")
    onednn = asked.get("ONEDNN_MAX_CPU_ISA")
    if onednn and not re.fullmatch(ONEDNN_SAYS[onednn], seen.onednn):
        problems.append(f"oneDNN runs as {seen.onednn}, not as {onednn}")
    mkl = asked.get("MKL_CBWR")
    # Other makers' processors get COMPATIBLE or what MKL likes; the row says which.
    if mkl and (mkl == "COMPATIBLE" or "GenuineIntel" in processor) and seen.mkl in ("-", "OFF", "AUTO"):
        problems.append(f"MKL runs as {seen.mkl}, not as {mkl}")
    return problems


def run(
    name: str, environment: str, python: Path, tests: Sequence[str], workers: int, processor: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """One setting's tests in one environment: its row, and what failed, a line each."""
    one = SETTINGS[name]
    kept = {key: value for key, value in os.environ.items() if not OBEYED.fullmatch(key)}
    with tempfile.TemporaryDirectory() as folder:
        junit, log = Path(folder, "junit.xml"), Path(folder, "floors.jsonl")
        # Under CI whatever could have run and did not fails the run (conftest.py).
        # Two environments share the cores: a thread that waits gives its own up instead of spinning.
        passive = {"OMP_WAIT_POLICY": "PASSIVE"}
        around = {**kept, **passive, **one.environment, "PYTHONPATH": str(ROOT), LOG: str(log), "CI": "true"}
        began = time.perf_counter()
        seen = kernels(python, around)
        problems = disobeyed(one, seen, processor)
        command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={junit}", *tests]
        spread = ["-n", str(workers), "--dist", "loadscope"] if workers else []
        done = subprocess.run([*command, *spread], cwd=ROOT, env=around, capture_output=True, text=True)
        counts, failures = outcomes(junit)
        if done.returncode and not failures:
            last = (done.stdout + done.stderr).strip().splitlines()[-1:]
            problems.append(f"pytest exits with {done.returncode}: {' '.join(last)}")
        elif not counts["passed"]:
            problems.append("no test passed")
        worst = figures(log)
        if worst[0] is None and environment != "this":
            problems.append("no test measured how far it is from float64")
    row = {
        "setting": name,
        "environment": environment,
        "threads": seen.threads,
        "PyTorch": seen.capability,
        "MKL": seen.mkl,
        "oneDNN": seen.onednn.partition(" with ")[0],
        **counts,
        "worst ratio to floor": "-" if worst[0] is None else f"{worst[0]:.2f}",
        "worst max_abs_diff": "-" if worst[1] is None else f"{worst[1]:.1e}",
        "seconds": round(time.perf_counter() - began),
    }
    return row, [*problems, *failures]


PROBE = """
import torch
torch.ones(64, 64) @ torch.ones(64, 64)
torch.nn.functional.conv2d(torch.ones(1, 3, 28, 28), torch.ones(8, 3, 14, 14))
print("reflex", torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())
"""


def kernels(python: Path, around: Mapping[str, str]) -> Kernels:
    """What PyTorch and the libraries below it make of an environment, by their own words."""
    told = {**around, "MKL_VERBOSE": "1", "ONEDNN_VERBOSE": "1"}
    done = subprocess.run([str(python), "-c", PROBE], env=told, capture_output=True, text=True)
    own = re.search(r"^reflex (\S+) (\d+)$", done.stdout, re.MULTILINE)
    if done.returncode or own is None:
        raise SystemExit(f"{python}: PyTorch cannot be asked what it runs as: {done.stderr.strip()[-300:]}")
    mkl = re.search(r"^MKL_VERBOSE .*\bCNR:(\w+)", done.stdout, re.MULTILINE)
    onednn = re.search(r"^onednn_verbose.*\bcpu,isa:(.+)$", done.stdout, re.MULTILINE)
    return Kernels(
        own[1], int(own[2]), mkl[1] if mkl else "-", onednn[1].removeprefix("Intel ") if onednn else "-"
    )


def outcomes(junit: Path) -> tuple[dict[str, int], list[str]]:
    """How many tests passed, failed and were skipped, and each that failed with its first line."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failures: list[str] = []
    if not junit.is_file():
        return counts, failures
    try:
        cases = list(ElementTree.parse(junit).iter("testcase"))
    except ElementTree.ParseError as error:
        return counts, [f"pytest left a report that cannot be read: {error}"]
    for case in cases:
        problem = next(
            (found for kind in ("failure", "error") if (found := case.find(kind)) is not None), None
        )
        if problem is not None:
            counts["failed"] += 1
            said = " ".join((problem.get("message") or "no message").split())
            failures.append(f"{case.get('classname')}::{case.get('name')}: {said[:300]}")
        else:
            counts["skipped" if case.find("skipped") is not None else "passed"] += 1
    return counts, failures


def figures(log: Path) -> tuple[float | None, float | None]:
    """The worst ratio to the floor and the worst absolute difference that the tests wrote down."""
    if not log.is_file():
        return None, None
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    found = [[float(e[key]) for e in entries if e.get(key) is not None] for key in ("ratio", "max_abs_diff")]
    worst = [max(each, key=lambda v: (math.isnan(v), v), default=None) for each in found]
    return worst[0], worst[1]


if __name__ == "__main__":
    main()
