"""A thousand chunks in a chain, each planned upon what the side itself planned before, with every delay.

    .venv-lerobot/bin/python benchmarks/real_time.py --json parity_reports/real_time.json

lerobot's own policy with its own ``RTCProcessor`` against its bundle, in the process and served over a
socket: the tiny policies of the tests, of which each chunk takes 10 steps. The delays go from 0 to the
horizon, over and over, and after each round comes a chunk that is asked for late. Strict, in floors of
PyTorch's own rounding along the same chain; and three robots that tell a wrong delay, a stale chunk and a
shifted horizon from chunk 700 on.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

# ruff: noqa: E402
from floors import multiples
from robots import FAULTS, Robot
from serve_cases import serving
from side_by_side import table, write
from tiny_lerobot import FAMILIES, golden_policy

from exporters import Policy
from pytest_reflex import check_sequence
from pytest_reflex.inputs import chain
from pytest_reflex.runners import ServedRunner

LAYOUT = {"pi0": "unrolled", "pi05": "loop", "smolvla": "stepwise"}


def rows(family: str, chunks: int, horizon: int, breaks: int) -> list[dict[str, Any]]:
    """A row for each candidate of one family."""
    found = []
    with tempfile.TemporaryDirectory() as work:
        policy = golden_policy(family, Path(work))
        module = importlib.import_module(f"exporters.families.{family}")
        made = module.export(
            policy, Path(work) / "p", rtc=True, layout=LAYOUT[family], cameras=1, prompt_tokens=4, strict=True
        )
        drawn = chain(made.inputs, chunks, horizon=horizon, sequences=1)
        given: dict[str, Any] = {
            "inputs": drawn.sequences, "states": drawn.states, "hand_over": drawn.hand_over,
            "threshold": 1e-5,
        }  # fmt: skip

        def judge(name: str, candidate: Any, **more: Any) -> None:
            begun = time.perf_counter()
            result = check_sequence(module.reference(policy, rtc=True), candidate, **{**given, **more})
            found.append(
                {
                    "family": family,
                    "layout": LAYOUT[family],
                    "candidate": name,
                    "chunks": result.steps,
                    "delays": len(np.unique(drawn.sequences[0]["inference_delay"])),
                    "passed": result.passed,
                    "max_abs_diff": result.free.max_abs_diff_across_all,
                    "floors": multiples(result.free)["actions"] if result.passed else None,
                    "begins": result.begins,
                    "cause": result.cause,
                    "seconds": round(time.perf_counter() - begun, 1),
                }
            )

        judge("local", made)
        with serving(made.path) as running:
            judge("served", ServedRunner(running.url))
        if family == "pi0":
            for fault, tells in FAULTS.items():
                judge(fault, made, loop=Robot(Policy(made), drawn, tells(breaks)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--chunks", type=int, default=1000)
    parser.add_argument("--horizon", type=int, default=4, help="of chunks of 6 rows")
    parser.add_argument("--families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    breaks = args.chunks * 7 // 10
    every = [row for family in args.families for row in rows(family, args.chunks, args.horizon, breaks)]
    table("Chunks in a chain", [{**row, "cause": row["cause"][:48]} for row in every])
    write(args.json, "real_time", every)
    sys.exit(any(row["passed"] == (row["candidate"] in FAULTS) for row in every))


if __name__ == "__main__":
    main()
