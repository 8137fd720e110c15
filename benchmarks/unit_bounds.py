"""Is the tests' bound in floors neither loose nor lucky? Seeded exports of the tiny pi0, right and wrong.

    python benchmarks/unit_bounds.py --exports 200 --json unit_bounds.json

Each export has weights, steps and layout of its own, and is judged over eight fixtures as the tests judge
it (``tests/support/floors.py``): none may be beyond the bound. Then one value of one fixture of its actions
is moved by four floors, at a place and to a side drawn by the seed: every one must be beyond it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

# ruff: noqa: E402
from floors import ROUNDING, multiples
from side_by_side import table, write

from examples.tiny_pi0 import tiny_pi0
from exporters import pi0
from exporters.flow.schedule import LAYOUTS
from pytest_reflex import check
from pytest_reflex.runners import RunnerBase

FIXTURES = 8
FAULT = 4.0
STEPS = (1, 2, 4, 10)


class Faulty(RunnerBase):
    """A runner that moves one value of one of its runs."""

    def __init__(self, runner: Any, run: int, place: tuple[int, ...], by: float) -> None:
        self.name, self._runner, self._left, self._place, self._by = runner.name, runner, run, place, by
        self.provider_asked = runner.provider_asked

    def open(self) -> None:
        self._runner.open()
        self.providers_used = self._runner.providers_used

    def close(self) -> None:
        self._runner.close()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = {name: array.copy() for name, array in self._runner.run(inputs).items()}
        if self._left == 0:
            outputs["actions"][self._place] += np.float32(self._by)
        self._left -= 1
        return outputs

    def facts(self) -> dict[str, Any]:
        return dict(self._runner.facts())


def measured(seed: int, work: Path) -> dict[str, Any]:
    """One export: how many floors it is away, and how many with the fault."""
    rng = np.random.default_rng(seed)
    steps, layout = int(rng.choice(STEPS)), LAYOUTS[seed % len(LAYOUTS)]
    policy = tiny_pi0(seed=seed, attention=("sdpa", "eager")[seed // 3 % 2])
    made = pi0.export(
        policy, work / str(seed), steps=steps, layout=layout, cameras=2, prompt_tokens=6, verify=False
    )
    reference = made.reference_runner(policy)
    right = check(reference, made, fixtures=FIXTURES, seed=seed, floor=True)
    found = [(o.floor, o.shape) for f in right.fixtures for o in f.outputs if o.floor is not None]
    floor = max(f.reference_max or 0.0 for f, _ in found)
    place = tuple(int(rng.integers(n)) for n in found[0][1])
    by = float(rng.choice([-1, 1])) * FAULT * floor
    faulty = Faulty(made.runner(), int(rng.integers(FIXTURES)), place, by)
    wrong = check(reference, faulty, inputs=made.inputs, fixtures=FIXTURES, seed=seed, floor=True)
    return {
        "seed": seed,
        "steps": steps,
        "layout": layout,
        "floor": floor,
        "max_abs_diff": right.max_abs_diff_across_all,
        "floors": max(multiples(right).values()),
        "floors_with_fault": max(multiples(wrong).values()),
        "word": right.word,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--exports", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measured(seed, Path(folder)) for seed in range(args.first, args.first + args.exports)]
    refused = [row["seed"] for row in rows if not row["floors"] < ROUNDING]
    missed = [row["seed"] for row in rows if row["floors_with_fault"] < ROUNDING]
    right, wrong = ([row[key] for row in rows] for key in ("floors", "floors_with_fault"))
    table(
        f"Tiny pi0 against a bound of {ROUNDING} floors, the fault of {FAULT}",
        [
            {"exports": "right", "count": len(rows), "least": min(right), "median": statistics.median(right),
             "most": max(right), "beyond": len(refused)},
            {"exports": "faulty", "count": len(rows), "least": min(wrong), "median": statistics.median(wrong),
             "most": max(wrong), "beyond": len(rows) - len(missed)},
        ],
    )  # fmt: skip
    floors = [row["floor"] for row in rows]
    print(f"one floor: {min(floors):.1e} to {max(floors):.1e}, median {statistics.median(floors):.1e}")
    for said, seeds in (("right and refused", refused), ("faulty and let pass", missed)):
        if seeds:
            print(f"{said}: seeds {seeds}")
    write(args.json, "unit_bounds", rows)
    sys.exit(bool(refused or missed))


if __name__ == "__main__":
    main()
