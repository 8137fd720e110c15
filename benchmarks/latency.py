"""How long one chunk of actions takes: ONNX Runtime in each layout beside eager PyTorch.

    python benchmarks/latency.py --json latency.json
    python benchmarks/latency.py --family smolvla --checkpoint DIR --work DIR --rounds 5

The policy's own ``sample_actions`` and each bundle take the same fixture in turn, on the same threads.
``ratio`` is the layout's time to PyTorch's: below 1 is faster. Sessions pack their weights, as a server's do.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from side_by_side import in_turn, ratio, table, write

import exporters
from examples.tiny_pi0 import tiny_pi0
from exporters import Policy
from pytest_reflex.inputs import make_fixture


def measure(
    title: str, family: Any, policy: Any, work: Path, rounds: int, sizes: Any
) -> list[dict[str, Any]]:
    rows = []
    runner = family.reference(policy)
    for layout in ("loop", "stepwise", "unrolled"):
        made = family.export(policy, work / layout, layout=layout, verify=False, **sizes)
        fixture = make_fixture(made.inputs, 0, 0)
        tensors = {name: torch.from_numpy(array) for name, array in fixture.items()}

        def eager(tensors: Any = tensors) -> None:
            with torch.no_grad():
                runner.forward(**tensors)

        prepack = layout != "unrolled"  # which would hold a copy for each step
        with runner, Policy(made, prepack=prepack) as session:
            run = functools.partial(session.run, fixture)
            seconds = in_turn({"torch": eager, "onnx": run}, rounds)
        rows.append(
            {
                "what": f"{title}, {layout}",
                "torch_ms": 1e3 * statistics.median(seconds["torch"]),
                "onnx_ms": 1e3 * statistics.median(seconds["onnx"]),
                "ratio": ratio(seconds, "onnx", "torch"),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--family", help="with --checkpoint: a policy of your own")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--work", type=Path, help="where bundles go while they are timed")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        if options.family:
            family = getattr(exporters, options.family)
            policy = family.load(options.checkpoint)
            rows = measure(options.family, family, policy, Path(folder), options.rounds, {})
        else:
            rows = measure(
                "tiny pi0", exporters.pi0, tiny_pi0(), Path(folder), options.rounds, {"cameras": 2}
            )
    table("one chunk of actions (milliseconds, median)", rows)
    write(options.json, "latency", rows)


if __name__ == "__main__":
    main()
