"""The precision of a graph: in which types it stores its weights and computes, as counts and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["FLOATS", "GraphPrecision", "Precision", "Quantized", "merged"]

# Float types from the finest to the coarsest.
FLOATS: Final = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")

Quantized = Literal["", "weights", "dynamic", "static"]
# A graph is in a narrower type where so much of it is: less is a float32 graph with casts in it, and is held
# to float32's rounding. Otherwise one cast would buy a bound a thousand times as wide.
NEARLY_ALL: Final = 0.9
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
        products: those of them that multiply matrices, by the same types.
        rounded: those whose result nobody reads but a cast, by the type that it casts to.
        waves: sines and cosines, by the same types: how exactly a graph computes its clock.
        casts: casts between float types, by ``"float32 to float16"``.
        quantizing: how many nodes quantise or dequantise, or do it on their way.
        quantized: ``weights`` where only weights are, ``dynamic`` where a run takes its own scales of
            activations, ``static`` where they are fixed; empty where nothing is quantised.
        scales: the scales that activations are quantised with for a product, or for what is none, where
            they are fixed and of a whole tensor.
        unread: operators whose types nobody knows, by name.
        draws: operators that draw random numbers, by name.
        moved: by output the inputs in float32 that a cast narrows for it, for what only moves values. A
            runtime that widens what other operators read leaves that cast out; these it rounds, for it moves
            values of any type.
    """

    weights: Mapping[str, int] = field(default_factory=dict)
    nodes: Mapping[str, int] = field(default_factory=dict)
    products: Mapping[str, int] = field(default_factory=dict)
    rounded: Mapping[str, int] = field(default_factory=dict)
    waves: Mapping[str, int] = field(default_factory=dict)
    casts: Mapping[str, int] = field(default_factory=dict)
    quantizing: int = 0
    quantized: Quantized = ""
    scales: tuple[float, ...] = ()
    unread: Mapping[str, int] = field(default_factory=dict)
    draws: Mapping[str, int] = field(default_factory=dict)
    moved: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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
    def name(self) -> str:
        """The precision whose rounding it is held to: ``float32``, unless nearly all of it is narrower.

        Of quantised ones the integer type of most products, or of nearly all weights where only they are.
        """
        whole = {name: count for name, count in self.products.items() if name not in FLOATS}
        if self.quantized and 2 * sum(whole.values()) > sum(self.products.values()):
            return max(sorted(whole), key=lambda name: whole[name])
        stored = {name: count for name, count in self.weights.items() if name not in FLOATS}
        if self.quantized == "weights" and sum(stored.values()) > NEARLY_ALL * sum(self.weights.values()):
            return max(sorted(stored), key=lambda name: stored[name])
        narrow = self.narrow
        return narrow if narrow and self._nearly_all(narrow) else "float32"

    def _nearly_all(self, narrow: str) -> bool:
        """Whether its operators are; or each result is cast to it; or the weights are, and nothing else is.

        Casts are counted by the operators whose results they round, as a graph can have any number of them.
        """
        if self.computed != narrow:
            return not any(map(_narrows, self.casts)) and _share(self.weights, narrow) > NEARLY_ALL
        floats = sum(count for name, count in self.nodes.items() if name in FLOATS)
        if self.rounded.get(narrow, 0) > NEARLY_ALL * floats:
            return True
        products = self.products or self.nodes
        return min(_share(self.nodes, narrow), _share(products, narrow)) > NEARLY_ALL

    @property
    def weights_alone(self) -> bool:
        """Whether only what is stored is narrow, and what is computed is float32."""
        return self.narrow is not None and self.computed != self.narrow

    @property
    def contains(self) -> frozenset[str]:
        """Every type below float32 that something of it is in."""
        floats = {*self.nodes, *self.weights, *(pair.partition(" to ")[2] for pair in self.casts)}
        return frozenset(floats - {"float32", "float64"})

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
            name = name if name in ("float32", self.name) else f"partly {name}"
        narrowing = {pair: count for pair, count in self.casts.items() if _narrows(pair)}
        if name == "float32" and narrowing:
            name += " with " + ", ".join(f"{n} cast{'s' * (n > 1)} {pair}" for pair, n in narrowing.items())
        parts = [_shares(self.nodes, "operators")] if self.mixed else []
        parts += [_shares(self.weights, "weights")] if len(self.weights) > 1 else []
        parts += [f"{self.quantizing} quantise and dequantise nodes"] if self.quantizing else []
        if self.unread:
            parts.append("not read: " + ", ".join(f"{n} {op}" for op, n in sorted(self.unread.items())))
        return "; ".join([name, *parts])


@dataclass(frozen=True)
class Precision:
    """The precision that a candidate was held to.

    Attributes:
        name: the type whose rounding it is allowed: ``float32``, ``float16``, ``int8``, ...
        graph: what its graph is in, in words; empty where no graph could be read.
        stated: what its manifest says, where it has one.
        told: whether a caller said so (``rounding=``); otherwise it was read from the graph.
    """

    name: str = "float32"
    graph: str = ""
    stated: str | None = None
    told: bool = False

    @property
    def short(self) -> str:
        """In a few words; empty where there is nothing to say but float32."""
        graph = self.graph.partition(";")[0]
        if not self.told and (not graph or graph in ("float32", "not read", "not read, for want of onnx")):
            return ""
        if self.told:
            held = f"judged as {self.name}, as was told"
        else:
            said = graph == self.name or (self.name != "float32" and self.name in graph)
            held = "" if said else f"judged as {self.name}"
        return ", ".join(filter(None, (graph, held)))

    @property
    def text(self) -> str:
        """The same with all that was read of the graph; ``float32`` where there is nothing to say."""
        rest = self.graph.partition("; ")[2]
        return "; ".join(filter(None, (self.short or self.graph.partition(";")[0] or self.name, rest)))


def merged(parts: Iterable[GraphPrecision]) -> GraphPrecision:
    """The precision of several graphs that are run as one."""
    every = list(parts)

    def added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
        total: Counter[str] = Counter()
        for one in counts:
            total.update(one)
        return dict(sorted(total.items()))

    kinds: tuple[Quantized, ...] = ("static", "dynamic", "weights", "")
    return GraphPrecision(
        weights=added(p.weights for p in every),
        nodes=added(p.nodes for p in every),
        products=added(p.products for p in every),
        rounded=added(p.rounded for p in every),
        waves=added(p.waves for p in every),
        casts=added(p.casts for p in every),
        quantizing=sum(p.quantizing for p in every),
        quantized=next((kind for kind in kinds if any(p.quantized == kind for p in every)), ""),
        scales=tuple(scale for p in every for scale in p.scales),
        unread=added(p.unread for p in every),
        draws=added(p.draws for p in every),
        moved={output: names for p in every for output, names in p.moved.items()},
    )


def _narrows(pair: str) -> bool:
    """Whether a cast, ``float32 to float16``, is to a type below float32 and below the one before."""
    wide, _, narrow = pair.partition(" to ")
    return FLOATS.index(narrow) > max(FLOATS.index(wide), FLOATS.index("float32"))


def _share(counts: Mapping[str, int], narrow: str) -> float:
    """How much is of that type or a coarser one, of all floats of 32 bits and fewer."""
    floats = {name: count for name, count in counts.items() if name in FLOATS and name != "float64"}
    coarse = sum(n for name, n in floats.items() if FLOATS.index(name) >= FLOATS.index(narrow))
    return coarse / sum(floats.values()) if coarse > 0 else 0.0


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
