"""How long an export takes: composed from one trace of each half, against one trace of the whole loop.

    python benchmarks/export_time.py --depth 27 18 18 --steps 1 10 50 --monolith 10

Seeded pi0 policies of transformers' classes at the given depth and small widths. ``composed`` is
``exporters.pi0.export(..., verify=False)``, written to disk; ``monolith`` is one plain
``torch.onnx.export(dynamo=True)`` of ``sample_actions``, saved likewise. Times are wall seconds of
one run each, in one process, one after the other; peak memory is the process's so far.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from side_by_side import write

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--depth", type=int, nargs=3, default=(27, 18, 18), metavar="LAYERS")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--layouts", nargs="+", default=["unrolled"])
    parser.add_argument("--monolith", type=int, nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

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
    write(options.json, "export_time", rows, depth=list(options.depth))


if __name__ == "__main__":
    main()
