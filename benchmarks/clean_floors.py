"""Clean exports, seeded: none may be called a bug.

    python benchmarks/clean_floors.py --exports 200 --json clean.json

Six kinds of small networks, of random sizes and weights, among them some with one or two outputs; each is
exported, checked over five fixtures with ``floor=True``, and the words are counted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

# ruff: noqa: E402
from side_by_side import table, write
from toy_transformer import WIDTH, Layer

import exporters
from pytest_reflex import InputSpec
from pytest_reflex.inputs import Gaussian


class Attending(nn.Module):
    """Some layers of the tests' transformer over their own input, and a head of any width."""

    def __init__(self, layers: int, out: int) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(Layer() for _ in range(layers)), nn.Linear(WIDTH, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
        for layer in self.layers:
            x = layer(x, x, mask)
        head: torch.Tensor = self.head(x)
        return head


def network(seed: int) -> tuple[str, nn.Module, list[InputSpec]]:
    """The kind, the network, its inputs."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    wide, out = int(rng.integers(8, 200)), int(rng.choice([1, 2, 7, 32, 64]))
    depth = int(rng.integers(1, 5))
    rows = int(rng.choice([1, 4, 16]))
    kind = ("mlp", "norms", "gelu", "conv", "attention", "recurrent")[seed % 6]
    if kind == "attention":
        return kind, Attending(depth, out), [InputSpec("x", (1, rows + 1, WIDTH), meaning=Gaussian())]
    if kind == "conv":
        first, second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        net = nn.Sequential(
            first, nn.SiLU(), nn.GroupNorm(2, 8), second, nn.Flatten(), nn.Linear(8 * 144, out)
        )
        return kind, net, [InputSpec("input", (rows, 3, 16, 16), meaning=Gaussian())]
    act = {"mlp": nn.Tanh, "norms": nn.SiLU, "gelu": nn.GELU, "recurrent": nn.Sigmoid}[kind]
    parts: list[nn.Module] = []
    size = 24
    for _ in range(depth):
        parts += [nn.Linear(size, wide), act(), *([nn.LayerNorm(wide)] if kind != "mlp" else [])]
        size = wide
    parts.append(nn.Linear(size, out))
    if kind == "recurrent":
        block = nn.Sequential(*parts[:-1], nn.Linear(size, 24))
        return kind, Unrolled(block), [InputSpec("x", (rows, 24), meaning=Gaussian())]
    return kind, nn.Sequential(*parts), [InputSpec("input", (rows, 24), meaning=Gaussian())]


class Unrolled(nn.Module):
    """One block ten times over, as a denoising loop is."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(10):
            x = x + 0.1 * self.block(x)
        return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--exports", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    words: dict[str, Counter[str]] = {}
    ratios: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.first, args.first + args.exports):
            kind, net, inputs = network(seed)
            place = Path(folder) / str(seed)
            made = exporters.export(net.eval(), place, inputs=inputs, floor=True, threshold=1e-3)
            assert made.result is not None
            words.setdefault(kind, Counter())[str(made.result.word)] += 1
            found = [o.floor.rms_ratio for f in made.result.fixtures for o in f.outputs if o.floor]
            ratios.setdefault(kind, []).extend(r for r in found if r is not None and np.isfinite(r))
            if made.result.word != "rounding":
                print(f"seed {seed}, {kind}: {made.result.word}", file=sys.stderr)
    rows: list[dict[str, Any]] = [
        {
            "kind": kind,
            "exports": sum(counted.values()),
            **{word: counted[word] for word in ("rounding", "undecided", "bug")},
            "median_rms_ratio": float(np.median(ratios[kind])),
            "worst_rms_ratio": max(ratios[kind]),
        }
        for kind, counted in sorted(words.items())
    ]
    table("Clean exports, by word", rows)
    write(args.json, "clean_floors", rows)
    sys.exit(any(row["bug"] for row in rows))


if __name__ == "__main__":
    main()
