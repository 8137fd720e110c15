"""How long an export takes: composed from one trace of each half, against one trace of the whole loop.

    python benchmarks/export_time.py --depth 27 18 18 --steps 1 10 50 --monolith 10
    python benchmarks/export_time.py --ddpm --steps 10 100 --rounds 3

Seeded pi0 policies of transformers' classes at the given depth and small widths. ``composed`` is
``exporters.pi0.export(..., verify=False)``, written to disk; ``monolith`` is one plain
``torch.onnx.export(dynamo=True)`` of ``sample_actions``, saved likewise. Times are wall seconds of
one run each, in one process, one after the other; peak memory is the process's so far.

``--ddpm`` exports lerobot's Diffusion Policy of the tests instead, in as many DDPM steps, with its proof and
without. There a row is the median over the rounds, in each of which every number of steps has its turn.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

# ruff: noqa: E402
from side_by_side import table, write

from examples.tiny_pi0 import tiny_pi0
from exporters import pi0
from pytest_reflex.inputs import make_fixture


def composed(policy: Any, steps: int, layout: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        pi0.export(policy, Path(folder) / "p", steps=steps, layout=layout, cameras=2, verify=False)
        seconds = time.perf_counter() - begin
        size = sum(f.stat().st_size for f in (Path(folder) / "p").iterdir())
    return {"way": f"composed {layout}", "steps": steps, "seconds": seconds, "bytes": size}


def monolith(policy: Any, steps: int) -> dict[str, Any]:
    specs = pi0.inputs(policy, cameras=2)
    example = {name: torch.from_numpy(array) for name, array in make_fixture(specs, 0, 0).items()}

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = policy

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            return self.policy.sample_actions(**dict(zip(example, tensors, strict=True)), num_steps=steps)

    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        program = torch.onnx.export(Whole().eval(), tuple(example.values()), dynamo=True, verbose=False)
        program.save(Path(folder) / "model.onnx", external_data=True)
        seconds = time.perf_counter() - begin
        size = sum(f.stat().st_size for f in Path(folder).iterdir())
    return {"way": "monolith", "steps": steps, "seconds": seconds, "bytes": size}


def ddpm(steps: list[int], rounds: int) -> list[dict[str, Any]]:
    """Each number of steps in turn, over and over; the processor's time, which other work disturbs less."""
    from tiny_features import tiny_policy

    from exporters import diffusion

    took: dict[tuple[bool, int], list[float]] = {}
    for turn in range(rounds + 1):  # the first loads what only a first export loads
        for verify, count in ((verify, count) for verify in (False, True) for count in steps):
            policy = tiny_policy("diffusion", num_train_timesteps=100, num_inference_steps=count)
            with tempfile.TemporaryDirectory() as folder:
                begin = time.process_time()
                diffusion.export(policy, Path(folder) / "p", verify=verify)
                if turn:
                    took.setdefault((verify, count), []).append(time.process_time() - begin)
    return [
        {"way": "proven" if verify else "not proven", "steps": count, "seconds": statistics.median(each)}
        for (verify, count), each in took.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--depth", type=int, nargs=3, default=(27, 18, 18), metavar="LAYERS")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--layouts", nargs="+", default=["unrolled"])
    parser.add_argument("--monolith", type=int, nargs="*", default=[])
    parser.add_argument("--ddpm", action="store_true", help="Diffusion Policy in place of pi0; needs lerobot")
    parser.add_argument("--rounds", type=int, default=3, help="of --ddpm")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.ddpm:
        rows = ddpm(options.steps, options.rounds)
        table("Exports of Diffusion Policy under DDPM", rows)
        return write(options.json, "export_time", rows)

    policy = tiny_pi0(depth=tuple(options.depth))
    # The first trace in a process loads torch's operator tables; nobody's time should hold that.
    composed(tiny_pi0(), 1, "unrolled")
    rows = []
    print(f"{'way':<20}{'steps':>6}{'seconds':>10}{'MB':>8}{'peak MB':>9}")
    for run, arguments in [
        *((composed, (steps, layout)) for layout in options.layouts for steps in options.steps),
        *((monolith, (steps,)) for steps in options.monolith),
    ]:
        row = run(policy, *arguments)
        row["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        rows.append(row)
        print(
            f"{row['way']:<20}{row['steps']:>6}{row['seconds']:>10.1f}"
            f"{row['bytes'] / 1e6:>8.1f}{row['peak_bytes'] / 1e6:>9.0f}",
            flush=True,
        )
    return write(options.json, "export_time", rows, depth=list(options.depth))


if __name__ == "__main__":
    main()
