"""The precision of a graph: in which types it stores its weights and computes, as counts and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["FLOATS", "GraphPrecision", "Quantized"]

# Float types from the finest to the coarsest.
FLOATS: Final = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")

Quantized = Literal["", "weights", "dynamic", "static"]
_SAID: Final[Mapping[Quantized, str]] = {
    "weights": "weights alone",
    "dynamic": "scales taken at each run",
    "static": "scales fixed beforehand",
}


@dataclass(frozen=True)
class GraphPrecision:
    """What types a graph is in.

    Attributes:
        weights: elements of its weights by type; shapes and indices are no weights.
        nodes: operators that compute with floats, by the type of what they give; one on quantised values
            by their integer type. Casts, quantise and dequantise nodes are none.
        casts: casts between float types, by ``"float32 to float16"``.
        quantizing: how many nodes quantise or dequantise, or do it on their way.
        quantized: ``weights`` where only weights are, ``dynamic`` where a run takes its own scales of
            activations, ``static`` where they are fixed; empty where nothing is quantised.
        unread: operators whose types nobody knows, by name.
    """

    weights: Mapping[str, int] = field(default_factory=dict)
    nodes: Mapping[str, int] = field(default_factory=dict)
    casts: Mapping[str, int] = field(default_factory=dict)
    quantizing: int = 0
    quantized: Quantized = ""
    unread: Mapping[str, int] = field(default_factory=dict)

    @property
    def stored(self) -> str:
        """The float type of most weights; float32 where there are none."""
        return _most({name: count for name, count in self.weights.items() if name in FLOATS})

    @property
    def computed(self) -> str:
        """The float type of most results, casts to narrower ones among them; float32 where there are none."""
        counts = {name: count for name, count in self.nodes.items() if name in FLOATS}
        for pair, count in self.casts.items():
            wide, _, narrow = pair.partition(" to ")
            if FLOATS.index(narrow) > FLOATS.index(wide):
                counts[narrow] = counts.get(narrow, 0) + count
                counts[wide] = counts.get(wide, 0) - count
        return _most(counts)

    @property
    def narrow(self) -> str | None:
        """The type below float32 whose rounding the graph has: the coarser of stored and computed."""
        coarser = max(self.stored, self.computed, key=FLOATS.index)
        return coarser if FLOATS.index(coarser) > FLOATS.index("float32") else None

    @property
    def mixed(self) -> bool:
        """Whether its operators are of several types."""
        return len(self.nodes) > 1

    @property
    def text(self) -> str:
        """For reports, in one line."""
        if self.quantized:
            kinds = [name for name in self.nodes if name not in FLOATS]
            kinds = kinds or [name for name in self.weights if name not in FLOATS]
            name = f"{' and '.join(sorted(kinds)) or 'quantised'} ({_SAID[self.quantized]})"
        elif self.narrow and self.stored != self.computed:
            name = f"weights in {self.stored}, results in {self.computed}"
        else:
            name = self.narrow or "float32"
        parts = [_shares(self.nodes, "operators")] if self.mixed else []
        parts += [_shares(self.weights, "weights")] if len(self.weights) > 1 else []
        parts += [f"{self.quantizing} quantise and dequantise nodes"] if self.quantizing else []
        if self.unread:
            parts.append("not read: " + ", ".join(f"{n} {op}" for op, n in sorted(self.unread.items())))
        return "; ".join([name, *parts])


def _most(counts: Mapping[str, int]) -> str:
    """The type that is there most often; of two the coarser."""
    return max(counts, key=lambda name: (counts[name], FLOATS.index(name)), default="float32")


def _shares(counts: Mapping[str, int], of: str) -> str:
    """``90 of 100 operators in float16, 10 in float32``."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    (first, most), *rest = [(name, f"{count:,}") for name, count in ordered]
    return ", ".join(
        [
            f"{most} of {sum(counts.values()):,} {of} in {first}",
            *(f"{count} in {name}" for name, count in rest),
        ]
    )
