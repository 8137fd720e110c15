"""Clean exports of 200 seeded modules: how many are refused, by which gate, and whether rightly.

    python benchmarks/seeded_modules.py --evidence parity_reports

Each of the kinds below is made in random sizes with random weights, exported, and judged as it is and under
strict. A refusal is right where the check could not have told a wrong export, for the reason that its kind
gives; any other is wrong, and the script ends with 1.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from side_by_side import table, write

import exporters
from pytest_reflex import InputSpec, check
from pytest_reflex.errors import ReflexError
from pytest_reflex.inputs import (
    Bernoulli,
    CameraMask,
    Gaussian,
    Image,
    Integers,
    PromptMask,
    State,
    Tokens,
    Uniform,
)


class Net(nn.Module):
    """Parts, and a function that calls them with the inputs by keyword."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleDict(parts)

    def forward(self, **inputs: Tensor) -> Any:
        return self.function(self.parts, **inputs)


class Made(NamedTuple):
    """One module, what it reads, and how it is exported and checked."""

    net: nn.Module
    inputs: list[InputSpec]
    outputs: list[str] | None = None
    fixtures: int = 5
    dynamic_batch: bool = False


Rng = np.random.Generator


def mlp(rng: Rng) -> Made:
    """Two to five linear layers."""
    sizes = [int(n) for n in rng.integers(4, 64, int(rng.integers(3, 7)))]
    layers: list[nn.Module] = []
    for one, other in itertools.pairwise(sizes):
        layers += [nn.Linear(one, other), (nn.Tanh, nn.SiLU, nn.GELU)[int(rng.integers(3))]()]
    return Made(Net(lambda p, x: p["net"](x), net=nn.Sequential(*layers[:-1])), [_x(rng, sizes[0])])


def conv(rng: Rng) -> Made:
    """An image through convolutions, normed by groups."""
    wide, size = 4 * int(rng.integers(1, 5)), int(rng.integers(12, 24))
    net = nn.Sequential(
        nn.Conv2d(3, wide, 3, stride=2), nn.GroupNorm(2, wide), nn.SiLU(), nn.Conv2d(wide, 8, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7),
    )  # fmt: skip
    return Made(
        Net(lambda p, image: p["net"](image), net=net),
        [InputSpec("image", (1, 3, size, size), meaning=Image())],
    )


def upsampled(rng: Rng) -> Made:
    """A sequence down and up again by convolutions, with a way past them."""
    wide, length = 2 * int(rng.integers(2, 9)), 4 * int(rng.integers(2, 6))
    down, up = nn.Conv1d(5, wide, 4, 2, 1), nn.ConvTranspose1d(wide, 5, 4, 2, 1)
    return Made(
        Net(lambda p, x: x + p["up"](F.silu(p["down"](x))), down=down, up=up),
        [InputSpec("x", (2, 5, length))],
    )


def attention(rng: Rng) -> Made:
    """Attention of a sequence to itself."""
    heads, size = int(rng.choice([1, 2, 4])), 8 * int(rng.integers(1, 5))
    return Made(
        Net(lambda p, x: _attend(p, x, x, heads), **_projections(size)),
        [InputSpec("x", (1, int(rng.integers(2, 12)), size))],
    )


def masked_attention(rng: Rng) -> Made:
    """Attention to a prompt whose padding is masked."""
    heads, size, length = 2, 8 * int(rng.integers(1, 5)), int(rng.integers(3, 12))
    return Made(
        Net(lambda p, x, prompt, mask: _attend(p, x, prompt, heads, mask), **_projections(size)),
        [
            InputSpec("mask", (1, length), "bool", PromptMask()),
            InputSpec("prompt", (1, length, size)),
            InputSpec("x", (1, 5, size)),
        ],
    )


def gru(rng: Rng) -> Made:
    """A GRU, with its last state as a second output."""
    size, length = int(rng.integers(3, 20)), int(rng.integers(2, 9))
    return Made(
        Net(lambda p, x: p["gru"](x), gru=nn.GRU(size, int(rng.integers(3, 20)), batch_first=True)),
        [InputSpec("x", (1, length, size))],
        ["sequence", "last"],
    )


def lstm(rng: Rng) -> Made:
    """An LSTM whose first state is an input."""
    size, held = int(rng.integers(3, 20)), int(rng.integers(3, 20))
    return Made(
        Net(
            lambda p, x, h, c: p["lstm"](x, (h, c))[0],
            lstm=nn.LSTM(size, held, batch_first=True),
        ),
        [InputSpec("x", (1, 5, size)), InputSpec("h", (1, 1, held)), InputSpec("c", (1, 1, held))],
    )


def normed(rng: Rng) -> Made:
    """Layer norm before and after."""
    size = int(rng.integers(3, 50))
    net = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, size), nn.GELU(), nn.LayerNorm(size))
    return Made(Net(lambda p, x: p["net"](x), net=net), [_x(rng, size)])


def embedded(rng: Rng) -> Made:
    """The mean of embedded tokens."""
    vocab, size = int(rng.integers(65, 900)), int(rng.integers(4, 40))
    return Made(
        Net(
            lambda p, ids: p["head"](p["table"](ids).mean(1)),
            table=nn.Embedding(vocab, size),
            head=nn.Linear(size, 6),
        ),
        [InputSpec("ids", (2, int(rng.integers(2, 9))), "int64", Tokens(vocab))],
    )


def padded(rng: Rng) -> Made:
    """The mean of those tokens that a mask does not hide."""
    vocab, size, length = int(rng.integers(65, 900)), int(rng.integers(4, 40)), int(rng.integers(3, 12))

    def function(p: nn.ModuleDict, mask: Tensor, ids: Tensor) -> Tensor:
        seen = mask[..., None].float()
        mean: Tensor = (p["table"](ids) * seen).sum(1) / seen.sum(1)
        return mean

    return Made(
        Net(function, table=nn.Embedding(vocab, size)),
        [
            InputSpec("mask", (1, length), "bool", PromptMask()),
            InputSpec("ids", (1, length), "int64", Tokens(vocab, "mask")),
        ],
    )


def scales(rng: Rng) -> Made:
    """Three outputs, a hundredth, once and ten times as large."""
    size = int(rng.integers(4, 20))

    def function(p: nn.ModuleDict, x: Tensor) -> dict[str, Tensor]:
        made = torch.tanh(p["net"](x))
        return {"small": 0.01 * made, "actions": made, "large": 10 * made.sum(-1)}

    return Made(Net(function, net=nn.Linear(size, 6)), [_x(rng, size)])


def chosen(rng: Rng) -> Made:
    """Logits, and the largest one's place, an integer."""
    size, classes = int(rng.integers(4, 20)), int(rng.integers(3, 40))

    def function(p: nn.ModuleDict, x: Tensor) -> dict[str, Tensor]:
        logits = p["net"](x)
        return {"logits": logits, "choice": logits.argmax(-1)}

    return Made(Net(function, net=nn.Linear(size, classes)), [_x(rng, size)])


def choice_alone(rng: Rng) -> Made:
    """The place of the largest logit, and nothing else."""
    size, classes = int(rng.integers(4, 20)), int(rng.integers(3, 40))
    return Made(
        Net(lambda p, x: p["net"](x).argmax(-1), net=nn.Linear(size, classes)),
        [InputSpec("x", (int(rng.integers(4, 12)), size))],
        ["choice"],
    )


def softmax(rng: Rng) -> Made:
    """Probabilities of a few classes."""
    size, classes = int(rng.integers(4, 20)), int(rng.integers(2, 20))
    return Made(Net(lambda p, x: p["net"](x).softmax(-1), net=nn.Linear(size, classes)), [_x(rng, size)])


def wide_softmax(rng: Rng) -> Made:
    """Probabilities of thousands of classes."""
    size, classes = int(rng.integers(4, 20)), int(rng.integers(2000, 6000))
    return Made(Net(lambda p, x: p["net"](x).softmax(-1), net=nn.Linear(size, classes)), [_x(rng, size)])


def clipped(rng: Rng) -> Made:
    """Actions clipped to [-1, 1], many of them at the ends."""
    size, gain = int(rng.integers(4, 20)), float(rng.choice([1, 3, 8]))
    return Made(Net(lambda p, x: (gain * p["net"](x)).clamp(-1, 1), net=nn.Linear(size, 7)), [_x(rng, size)])


def sparse(rng: Rng) -> Made:
    """What a relu leaves, most of it 0."""
    size, less = int(rng.integers(4, 20)), float(rng.uniform(0.2, 0.6))
    return Made(Net(lambda p, x: F.relu(p["net"](x) - less), net=nn.Linear(size, 60)), [_x(rng, size)])


def flags(rng: Rng) -> Made:
    """Actions, and a boolean for each of them."""
    size = int(rng.integers(4, 20))

    def function(p: nn.ModuleDict, x: Tensor) -> dict[str, Tensor]:
        actions = p["net"](x)
        return {"actions": actions, "done": actions > 0.1}

    return Made(Net(function, net=nn.Linear(size, 9)), [_x(rng, size)])


def gated(rng: Rng) -> Made:
    """Two branches, of which a boolean input takes one."""
    size = int(rng.integers(4, 20))
    return Made(
        Net(
            lambda p, x, flag: torch.where(flag[:, None], p["one"](x), p["other"](x)),
            one=nn.Linear(size, 5),
            other=nn.Linear(size, 5),
        ),
        [InputSpec("flag", (4,), "bool", Bernoulli()), InputSpec("x", (4, size))],
    )


def category(rng: Rng) -> Made:
    """One head for each of a few embodiments."""
    size, many = int(rng.integers(4, 20)), int(rng.integers(2, 9))

    def function(p: nn.ModuleDict, x: Tensor, embodiment: Tensor) -> Tensor:
        made: Tensor = p["net"](x) + p["table"](embodiment)
        return made

    return Made(
        Net(function, net=nn.Linear(size, 6), table=nn.Embedding(many, 6)),
        [
            InputSpec("embodiment", (1,), "int64", Integers(0, many)),
            InputSpec("x", (1, size), meaning=State()),
        ],
        fixtures=max(5, many + 1),
    )


def cameras(rng: Rng) -> Made:
    """Two cameras, either of which may be masked, and a state."""
    size = int(rng.integers(8, 16))

    def function(p: nn.ModuleDict, images: Tensor, seen: Tensor, state: Tensor) -> Tensor:
        each = p["eye"](images.flatten(0, 1)).unflatten(0, (1, 2))
        made: Tensor = p["head"](torch.cat([(each * seen[..., None]).sum(1), state], -1))
        return made

    eye = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Made(
        Net(function, eye=eye, head=nn.Linear(6 + 5, 7)),
        [
            InputSpec("images", (1, 2, 3, size, size), meaning=Image()),
            InputSpec("seen", (1, 2), "bool", CameraMask()),
            InputSpec("state", (1, 5), meaning=State()),
        ],
    )


def free_batch(rng: Rng) -> Made:
    """A batch of any size."""
    size = int(rng.integers(4, 20))
    net = nn.Sequential(nn.Linear(size, 16), nn.SiLU(), nn.Linear(16, 3))
    return Made(
        Net(lambda p, x: p["net"](x), net=net),
        [InputSpec("x", (int(rng.integers(2, 5)), size))],
        dynamic_batch=True,
    )


def timed(rng: Rng) -> Made:
    """A time, as sines and cosines of it."""
    size = 2 * int(rng.integers(2, 12))

    def function(p: nn.ModuleDict, x: Tensor, time: Tensor) -> Tensor:
        rates = torch.exp(torch.linspace(0, math.log(100), size // 2))
        waves = time[:, None] * rates
        made: Tensor = p["net"](torch.cat([waves.sin(), waves.cos(), x], -1))
        return made

    return Made(
        Net(function, net=nn.Linear(size + 4, 5)),
        [InputSpec("time", (3,), meaning=Uniform()), InputSpec("x", (3, 4))],
    )


def walked(rng: Rng) -> Made:
    """Ten steps of one block, as a denoising loop is."""
    size = int(rng.integers(4, 20))

    def function(p: nn.ModuleDict, x: Tensor) -> Tensor:
        for _ in range(10):
            x = x + 0.1 * p["block"](x)
        return x

    return Made(
        Net(function, block=nn.Sequential(nn.Linear(size, 24), nn.Tanh(), nn.Linear(24, size))),
        [_x(rng, size)],
    )


def ranked(rng: Rng) -> Made:
    """The largest few values, and where they are."""
    size = int(rng.integers(6, 30))
    return Made(
        Net(lambda p, x: tuple(p["net"](x).topk(3, -1)), net=nn.Linear(size, size)),
        [_x(rng, size)],
        ["values", "places"],
    )


def counted(rng: Rng) -> Made:
    """Integers in, integers out, beside one output that never changes."""
    many = int(rng.integers(2, 7))

    def function(p: nn.ModuleDict, ids: Tensor) -> dict[str, Tensor]:
        return {"sums": (3 * ids + 1).cumsum(-1), "version": (ids[:, 0] * 0 + 7).int()}

    return Made(Net(function), [InputSpec("ids", (2, many), "int64", Integers(0, 1000))])


def _x(rng: Rng, size: int) -> InputSpec:
    return InputSpec("x", (int(rng.choice([1, 2, 5])), size), meaning=Gaussian())


def _projections(size: int) -> dict[str, nn.Module]:
    return {name: nn.Linear(size, size) for name in "qkvo"}


def _attend(p: nn.ModuleDict, x: Tensor, to: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    q, k, v = (
        p[name](given).unflatten(-1, (heads, -1)).transpose(1, 2)
        for name, given in (("q", x), ("k", to), ("v", to))
    )
    seen = None if mask is None else mask[:, None, None, :]
    made: Tensor = p["o"](F.scaled_dot_product_attention(q, k, v, seen).transpose(1, 2).flatten(-2))
    return made


KINDS: Final[Sequence[Callable[[Rng], Made]]] = (
    mlp, conv, upsampled, attention, masked_attention, gru, lstm, normed, embedded, padded, scales, chosen,
    choice_alone, softmax, wide_softmax, clipped, sparse, flags, gated, category, cameras, free_batch, timed,
    walked, ranked, counted,
)  # fmt: skip
# By kind and gate: why a check under strict cannot judge it as it is asked to.
RIGHT: Final = {
    ("wide_softmax", "power"): (
        "a probability of one in thousands does less than 100 times the threshold: a wrong one could pass"
    ),
}


def judged(seed: int, folder: Path) -> dict[str, Any]:
    """One row: what a plain check and a strict one make of the seed's module."""
    kind = KINDS[seed % len(KINDS)]
    torch.manual_seed(seed)
    made = kind(np.random.default_rng(seed))
    net = made.net.eval()
    row: dict[str, Any] = {"seed": seed, "kind": kind.__name__}
    try:
        bundle = exporters.export(
            net,
            folder / str(seed),
            inputs=made.inputs,
            outputs=made.outputs,
            dynamic_batch=made.dynamic_batch,
            verify=False,
        )
        for way, strict in (("plain", False), ("strict", True)):
            result = check(net, bundle, fixtures=made.fixtures, strict=strict)
            row[way] = "pass" if result.passed else "refused"
            row[f"{way}_refusals"] = [[answer.gate, answer.said] for _, answer in result.refusals]
    except ReflexError as error:
        row |= {"plain": "error", "strict": "error", "error": str(error)}
    told = row.get("plain_refusals", []) or row.get("strict_refusals", [])
    row["right"] = [RIGHT.get((kind.__name__, gate), "") for gate, _ in told]
    return row


def by_kind(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many of each kind passed, were refused rightly, and wrongly or not at all for an error."""
    found = []
    for kind in KINDS:
        own = [row for row in rows if row["kind"] == kind.__name__]
        refused = [row for row in own if row["strict"] != "pass" or row["plain"] != "pass"]
        gates = Counter(gate for row in refused for gate in {g for g, _ in row.get("strict_refusals", [])})
        found.append(
            {
                "kind": kind.__name__,
                "modules": len(own),
                "plain": sum(row["plain"] == "pass" for row in own),
                "strict": sum(row["strict"] == "pass" for row in own),
                "refused_rightly": sum(_rightly(row) for row in refused),
                "refused_wrongly": sum(not _rightly(row) for row in refused),
                "by": ", ".join(f"{gate} {n}" for gate, n in sorted(gates.items())) or "-",
            }
        )
    return found


def _rightly(row: dict[str, Any]) -> bool:
    return row["plain"] == "pass" and bool(row["right"]) and all(row["right"])


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The table, and each module that was refused with what was said of it."""
    short = by_kind(rows)
    said = {kind.__name__: " ".join((kind.__doc__ or "").split()).rstrip(".") for kind in KINDS}
    total = {name: sum(row[name] for row in short) for name in ("modules", "plain", "strict")}
    wrongly = sum(row["refused_wrongly"] for row in short)
    lines = [
        "# Clean exports of seeded modules",
        "",
        "What `python benchmarks/seeded_modules.py --evidence parity_reports` wrote: small modules of random",
        f"sizes and weights, exported and judged. Of {total['modules']}, {total['plain']} pass, "
        f"{total['strict']} pass under strict,",
        f"and {wrongly} are refused wrongly. A refusal is right where a wrong export could have passed.",
        "",
        "| kind | what it is | modules | pass | pass strict | refused rightly | wrongly | by gate |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r['kind']} | {said[r['kind']]} | {r['modules']} | {r['plain']} | {r['strict']} | "
        f"{r['refused_rightly']} | {r['refused_wrongly']} | {r['by']} |"
        for r in short
    ]
    refused = [row for row in rows if row["plain"] != "pass" or row["strict"] != "pass"]
    if refused:
        lines += ["", "## What was refused", ""]
    for row in refused:
        told = row.get("plain_refusals") or row.get("strict_refusals") or [["error", row.get("error", "")]]
        why = "; ".join(dict.fromkeys(filter(None, row["right"]))) or "wrongly"
        lines.append(f"- seed {row['seed']}, {row['kind']}: {why}. {told[0][0]}: {told[0][1]}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--modules", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--evidence", type=Path, help="write seeded_modules.json and seeded_modules.md here")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.first, args.first + args.modules):
            row = judged(seed, Path(folder))
            rows.append(row)
            if (row["plain"], row["strict"]) != ("pass", "pass"):
                print(row, file=sys.stderr, flush=True)
    short = by_kind(rows)
    table("Clean exports, by kind", short)
    if args.evidence:
        write(args.evidence / "seeded_modules.json", "seeded_modules", rows)
        (args.evidence / "seeded_modules.md").write_text(page(rows))
    sys.exit(any(row["refused_wrongly"] for row in short))


if __name__ == "__main__":
    main()
