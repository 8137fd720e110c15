"""How long it takes to compare every value of a graph with PyTorch's.

    python benchmarks/locate.py                                     four layers, beside torch's own way
    python benchmarks/locate.py --bundle DIR --model CHECKPOINT     any bundle, beside one run of each side

The first compares all values of a four-layer transformer with ``torch.onnx.verification`` and
``compare_intermediates=True``, which opens a session per value, and with ``exporters.locate``, which opens
two. Tracing is left out on both sides. The second is what a search costs at full size,
beside one forward of the reference and one run of the candidate: the walk through all values, and the whole
search, which also runs each side as it is; and the process's peak memory.
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

sys.path[:0] = [
    str(Path(__file__).resolve().parents[1]),
    str(Path(__file__).resolve().parents[1] / "tests" / "support"),
]

# ruff: noqa: E402
from side_by_side import table, write
from toy_transformer import CHUNK, TOKENS, WIDTH, Layer

import exporters
from pytest_reflex import InputSpec
from pytest_reflex.inputs import Gaussian, PromptMask


class Four(torch.nn.Module):
    """Four layers of the tests' transformer, without a loop."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(4))

    def forward(self, x: torch.Tensor, seen: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        for layer in self.layers:
            x = layer(x, seen, mask)
        return {"y": x}


def beside_torch() -> list[dict[str, Any]]:
    from torch.onnx.verification import verify_onnx_program

    model = Four().eval()
    specs = [
        InputSpec("x", (1, CHUNK, WIDTH), "float32", Gaussian()),
        InputSpec("seen", (1, TOKENS, WIDTH), "float32", Gaussian()),
        InputSpec("mask", (1, TOKENS), "bool", PromptMask()),
    ]
    with tempfile.TemporaryDirectory() as folder:
        bundle = exporters.export(model, Path(folder) / "four", inputs=specs)
        search = bundle.search(model)
        search.walk()  # traced, and warm
        found = search.walk()
        example = tuple(torch.from_numpy(a) for a in search.fixture(0).values())
        program = torch.onnx.export(model, example, dynamo=True, verbose=False)
        begin = time.perf_counter()
        infos = verify_onnx_program(program, example, compare_intermediates=True)
        seconds = time.perf_counter() - begin
    rows = (("compare_intermediates", len(infos), seconds), ("locate", found.values, found.seconds))
    made = [{"way": w, "values": n, "seconds": s, "ms_per_value": 1e3 * s / n} for w, n, s in rows]
    times = {key: made[0][key] / made[1][key] for key in ("seconds", "ms_per_value")}
    return [*made, {"way": "ratio", "values": "", **times}]


def full_size(directory: Path, model: str, fixture_idx: int) -> list[dict[str, Any]]:
    bundle = exporters.open_bundle(directory)
    family = getattr(exporters, bundle.family)
    policy = family.load(model)
    runner = bundle.reference_runner(policy)
    search = bundle.search(runner)
    fixture = search.fixture(fixture_idx)
    with runner:
        runner.run(fixture)
        begin = time.perf_counter()
        runner.run(fixture)
        reference = time.perf_counter() - begin
    with bundle.runner() as candidate:
        candidate.run(fixture)
        begin = time.perf_counter()
        candidate.run(fixture)
        run = time.perf_counter() - begin
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    begin = time.perf_counter()
    search.walk(fixture_idx)
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    found = search.walk(fixture_idx)
    second = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    rows = {
        "reference, one forward, s": reference,
        "candidate, one run, s": run,
        "peak memory before the search, GB": before,
        "search, traced first, s": first,
        "search, traced already, s": second,
        "values compared": found.values,
        "walk, s": found.seconds,
        "walk over reference + candidate": found.seconds / (reference + run),
        "whole search over reference + candidate": second / (reference + run),
        "peak memory, GB": peak,
        "cause": found.cause,
        "said": found.said,
    }
    return [{"what": what, "value": value} for what, value in rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--fixture", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = full_size(args.bundle, args.model, args.fixture) if args.bundle else beside_torch()
    table("Every value of a graph beside PyTorch's", rows)
    write(args.json, "locate", rows)


if __name__ == "__main__":
    main()
