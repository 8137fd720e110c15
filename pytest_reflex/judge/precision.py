"""In which precision a candidate computes, and what rounding to that must cost.

It is read from the candidate's graphs, which nobody has to be believed for. A graph of which a part is
narrower is held to float32 unless the caller says otherwise: one cast must not buy a wider bound.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import ReflexError, SettingsError
from pytest_reflex.runners import Runner
from pytest_reflex.runners.base import HasFloat64, HasGraphs, HasNarrower, copied, said_by
from pytest_reflex.settings import PROVIDERS
from pytest_reflex.verdict.precision import FLOATS, GraphPrecision, Precision, merged
from pytest_reflex.verdict.quantised import QuantisedDistances, same_scales
from pytest_reflex.verdict.results import DRAWS

__all__ = ["Held", "Outputs", "distances_of", "exact_outputs", "held_to", "predicted"]

Array = np.ndarray[Any, Any]
# Outputs by name, or why there are none.
Outputs = Mapping[str, Array] | str

_EIGHT_BITS: Final = ("int8", "uint8")
_UNSURE: Final = (
    "scales that were taken from other data, or operators beside the products that are quantised too, would "
    "explain it, and so would a fault; give a threshold that your arm allows"
)


@dataclass(frozen=True)
class Held:
    """What a candidate is held to.

    Attributes:
        precision: the precision, as reports say it.
        graph: what was read of its graphs; None where nothing could be.
        digests: SHA-256, in hex, of each graph as it was read.
        provider: the execution provider that was asked for, by its full name.
        refused: why the graphs are not what is said of them; empty where they are.
        seen: the scales that activations have over this check's own fixtures, once a prediction has run.
    """

    precision: Precision
    graph: GraphPrecision | None
    digests: tuple[str, ...]
    provider: str
    refused: str
    seen: list[float] = field(default_factory=list)

    @property
    def unsure(self) -> str:
        """What the prediction does not know of; see :class:`~pytest_reflex.verdict.rounding.Floor`."""
        fixed = self.graph is None or self.graph.quantized == "static"
        if self.precision.name not in _EIGHT_BITS or not fixed:
            return ""
        return "" if self.graph is not None and same_scales(self.graph.scales, self.seen) else _UNSURE

    @property
    def doubts(self) -> list[str]:
        """That a graph draws, as it was read: runs may repeat, and those of other processes differ."""
        drawing = {} if self.graph is None else self.graph.draws
        if not drawing:
            return []
        return [
            f"the candidate's graph {DRAWS} ({', '.join(drawing)}), so inputs alone "
            "do not determine its output; export it in evaluation mode, with noise as an input"
        ]

    def reasons(self, facts: Mapping[str, Any]) -> list[str]:
        """Why what ran is not what was read, by the runner's facts, or not what it is said to be."""
        refused = [self.refused] if self.refused else []
        said = facts.get("sha256")
        ran = set(said.values() if isinstance(said, dict) else [said])
        if not self.digests or said is None or ran.issuperset(self.digests):
            return refused
        return ["a graph was written to between being read and being opened; export it again", *refused]


def held_to(runner: Runner, told: str, provider: str) -> Held:
    """What a candidate is held to.

    Args:
        runner: the candidate.
        told: what the caller says of its precision; ``graph`` to read it.
        provider: the execution provider that was asked for, by its full name.

    Raises:
        SettingsError: ``told`` is no precision that anything of the graphs is in.
    """
    found, digests, why = _read(runner)
    stated = said_by(runner, "precision_stated", None)
    name = found.name if found is not None else "float32"
    graph = found.text if found is not None else why
    if found is None and stated not in (None, "float32"):
        graph = f"said to be {stated} ({why or 'not read'})"
    refused = ""
    if stated is not None and found is not None and stated != name and stated not in found.contains:
        refused = f"its manifest says {stated}, and its graph is {graph}; export it again"
    if told != "graph":
        if found is not None and told not in ("float32", *found.contains):
            raise SettingsError(f"rounding: {told} is asked for, and {runner.name} is in {graph}; give graph")
        name = told
    precision = Precision(name, graph, None if stated is None else str(stated), told != "graph")
    return Held(precision, found, digests, provider, refused)


def _read(runner: Runner) -> tuple[GraphPrecision | None, tuple[str, ...], str]:
    """What a runner's graphs are in, their digests; or why that is not known."""
    graphs = list(runner.graphs) if isinstance(runner, HasGraphs) else []
    if not graphs:
        return None, (), ""
    try:
        import onnx  # noqa: F401

        from pytest_reflex.runners.graph_precision import precision_of

        every = [graph if isinstance(graph, bytes) else Path(graph).read_bytes() for graph in graphs]
        found = merged([precision_of(one) for one in every])
        return found, tuple(hashlib.sha256(one).hexdigest() for one in every), ""
    except ImportError:
        return None, (), "not read, for want of onnx"
    except (ReflexError, OSError):
        return None, (), "not read"  # opening it says why


def exact_outputs(runner: Runner, inputs: Mapping[str, Array]) -> Outputs:
    """The reference in float64, where its runner can do that; it decides nothing, so failing is no error."""
    if not isinstance(runner, HasFloat64):
        return f"{runner.name} has no float64 run"
    try:
        return copied(runner.exact(inputs))
    except ReflexError as error:
        return str(error)


def predicted(
    runner: Runner, held: Held, make: Callable[[int], dict[str, Array]], count: int
) -> Iterator[Outputs]:
    """For each fixture what the open reference gives in the candidate's precision, or why nothing."""
    name = held.precision.name
    if not isinstance(runner, HasNarrower):
        yield from [f"{runner.name} has no run in {name}"] * count
    elif name in FLOATS:
        ways = {"arithmetic": _arithmetic(held), "spared": _spared(held.graph)}
        for idx in range(count):
            yield _rounded(lambda inputs: runner.rounded(inputs, name, **ways), make(idx), held)
    elif name in _EIGHT_BITS:
        yield from _quantised(runner, held, make, count)
    else:
        yield from [f"what rounding to {name} must cost is not predicted"] * count


def _quantised(
    runner: HasNarrower, held: Held, make: Callable[[int], dict[str, Array]], count: int
) -> Iterator[Outputs]:
    how = (held.graph.quantized if held.graph is not None else "") or "static"
    ranges: dict[Any, tuple[float, float]] = {}
    for idx in range(count) if how == "static" else ():
        learned = _asked(lambda idx=idx: runner.quantised(make(idx), how, ranges, learning=True))  # type: ignore[misc]
        if isinstance(learned, str):
            yield from [learned] * count
            return
    # Of the first fixtures, which a claim's further draws are judged beside.
    held.seen[:] = held.seen or [(max(high, 0.0) - min(low, 0.0)) / 255 for low, high in ranges.values()]
    for idx in range(count):
        yield _asked(lambda idx=idx: runner.quantised(make(idx), how, ranges))  # type: ignore[misc]


def _asked(run: Callable[[], dict[str, Array]]) -> Outputs:
    """It decides nothing by itself, so that failing is no error."""
    try:
        return copied(run())
    except ReflexError as error:
        return str(error)


def _arithmetic(held: Held) -> str:
    """Whether the runtime rounds every result, or only what is stored; see :mod:`..runners.rounded`."""
    graph = held.graph
    if graph is None:
        return "narrow"
    # Casts between operators of float32 are run by every runtime; operators of float16 are widened by ONNX
    # Runtime's CPU, which leaves out the roundings between two. Arm's has kernels of its own.
    by_casts = graph.nodes.get(held.precision.name, 0) < graph.nodes.get("float32", 0)
    widened = held.provider == PROVIDERS["cpu"] and platform.machine() in ("x86_64", "AMD64")
    if graph.weights_alone or (widened and not by_casts):
        return "float32"
    return "narrow"


def _rounded(
    run: Callable[[dict[str, Array]], dict[str, Array]], inputs: dict[str, Array], held: Held
) -> Outputs:
    """The prediction; of an output that an input is only moved to, with that input rounded."""
    made = _asked(lambda: run(inputs))
    moved = {} if held.graph is None or isinstance(made, str) else held.graph.moved
    for names in dict.fromkeys(moved.values()):
        again = _asked(lambda names=names: run(_as_moved(inputs, names, held.precision.name)))  # type: ignore[misc]
        if isinstance(made, str) or isinstance(again, str):
            return again
        own = {output for output, some in moved.items() if some == names}
        made = {output: again[output] if output in own else value for output, value in made.items()}
    return made


def _as_moved(inputs: Mapping[str, Array], names: tuple[str, ...], precision: str) -> dict[str, Array]:
    """Inputs, those of these names as the graph rounds them where it only moves them."""
    from pytest_reflex.runners.rounded import stored_as

    return {
        name: stored_as(array, precision) if name in names and array.dtype == np.float32 else array
        for name, array in inputs.items()
    }


def _spared(graph: GraphPrecision | None) -> str:
    """What the conversion left in float32; see :mod:`..runners.rounded`."""
    if graph is None:
        return "nothing"
    if graph.weights_alone:
        return "constants"
    # The clock is made of sines. Where a graph has none, it was folded before it was converted.
    wide = any(name in ("float32", "float64") for name in graph.waves)
    return "clock" if wide or not graph.waves else "nothing"


def distances_of(
    runner: Runner, held: Held, got: Mapping[str, Array], inputs: Mapping[str, Array], truth: Outputs
) -> dict[str, QuantisedDistances]:
    """Whether the runtime computes its own graph, and what quantising cost; nothing where nobody can say.

    It takes minutes of a large graph, so it is asked of one fixture.
    """
    graphs = list(runner.graphs) if isinstance(runner, HasGraphs) else []
    if held.precision.name in FLOATS or len(graphs) != 1:
        return {}
    from pytest_reflex.runners.graph64 import quantised_distances

    try:
        known = None if isinstance(truth, str) or not truth.keys() >= got.keys() else truth
        return quantised_distances(graphs[0], got, inputs, known)
    except ReflexError:
        return {}
