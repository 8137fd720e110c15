"""What ``check`` costs beside the runs that it cannot do without.

    python benchmarks/check_floor.py --json check_floor.json
    python benchmarks/check_floor.py --family smolvla --checkpoint DIR --bundle DIR --rounds 1
    python benchmarks/check_floor.py --family smolvla --checkpoint DIR --bundle DIR --narrow DIR --rounds 1

The floor is the same reference forwards in bare PyTorch, one start of the same session, and the same ONNX
Runtime runs, on the same fixtures. Both are timed in turn; the ratio is the median over the rounds. A check
of the same policy in float16 (``--narrow``) is set beside one in float32 with ``--floor``, for both ask the
reference in float64 too.
"""

from __future__ import annotations

import argparse
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
from pytest_reflex import check
from pytest_reflex.inputs import make_fixture


def measure(title: str, policy: Any, bundle: Any, fixtures: int, rounds: int) -> dict[str, Any]:
    runner = bundle.reference_runner(policy)
    drawn = [make_fixture(bundle.inputs, 0, i) for i in range(fixtures)]
    # fixture 0 again on both sides, and two runs for each input that is swapped
    again = [drawn[0]] * (1 + 2 * len(bundle.inputs))

    def floor() -> None:
        with torch.no_grad():
            for fixture in [*drawn, drawn[0]]:
                runner.forward(**{name: torch.from_numpy(array) for name, array in fixture.items()})
        with bundle.runner() as session:
            for fixture in [*drawn, *again]:
                session.run(fixture)

    def judged() -> None:
        check(policy, bundle, fixtures=fixtures).require()

    # The runner has to hold the policy before it can be called bare.
    with runner:
        seconds = in_turn({"floor": floor, "check": judged}, rounds)
    return {
        "what": title,
        "fixtures": fixtures,
        "floor_s": statistics.median(seconds["floor"]),
        "check_s": statistics.median(seconds["check"]),
        "ratio": ratio(seconds, "check", "floor"),
    }


def narrow(title: str, policy: Any, bundle: Any, narrower: Any, fixtures: int, rounds: int) -> dict[str, Any]:
    """What a check costs that predicts the rounding of a narrower precision."""
    seconds = in_turn(
        {
            "with floor": lambda: check(policy, bundle, fixtures=fixtures, floor=True),
            "narrow": lambda: check(policy, narrower, fixtures=fixtures),
        },
        rounds,
    )
    return {
        "what": f"{title}, {narrower.runner().precision_stated}",
        "fixtures": fixtures,
        "with_floor_s": statistics.median(seconds["with floor"]),
        "narrow_s": statistics.median(seconds["narrow"]),
        "ratio": ratio(seconds, "narrow", "with floor"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--family", help="with --checkpoint and --bundle: a policy of your own")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--narrow", type=Path, help="the same policy in float16 or the like")
    parser.add_argument("--fixtures", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows, precisions = [], []
    if options.family:
        policy = getattr(exporters, options.family).load(options.checkpoint)
        bundle = exporters.open_bundle(options.bundle)
        title = f"{options.family}, {bundle.layout}"
        rows.append(measure(title, policy, bundle, options.fixtures, options.rounds))
        if options.narrow:
            other = exporters.open_bundle(options.narrow)
            precisions.append(narrow(title, policy, bundle, other, options.fixtures, options.rounds))
    else:
        policy = tiny_pi0()
        for layout in ("unrolled", "loop", "stepwise"):
            with tempfile.TemporaryDirectory() as folder:
                how: dict[str, Any] = {"layout": layout, "cameras": 2, "verify": False}
                made, other = (
                    exporters.pi0.export(policy, Path(folder) / precision, precision=precision, **how)
                    # No tool makes a valid float16 of a graph with a loop in it.
                    for precision in ("float32", "bfloat16" if layout == "loop" else "float16")
                )
                title = f"tiny pi0, {layout}"
                rows.append(measure(title, policy, made, options.fixtures, options.rounds))
                precisions.append(narrow(title, policy, made, other, options.fixtures, options.rounds))
    table("check beside its floor (seconds, median)", rows)
    if precisions:
        table("a narrower precision beside float32 with a floor (seconds, median)", precisions)
    write(options.json, "check_floor", [*rows, *precisions])


if __name__ == "__main__":
    main()
