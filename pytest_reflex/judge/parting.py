"""Where a runtime parts from its graph: the first node that it computes otherwise than onnx's own evaluator.

A runtime need not show what is inside: the graph is cut at a value, what comes before runs as it would in the
whole, and the last value that agrees is found by halving. The node behind it is then run alone, fed as the
evaluator feeds it, which tells a wrong operator from one that is wrong only together with others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import RunnerError
from pytest_reflex.judge.runs import opened
from pytest_reflex.runners import Runner
from pytest_reflex.runners.base import asked
from pytest_reflex.runners.graph_cut import CutGraph, evaluated, reads
from pytest_reflex.runners.graph_origin import line_of, module_of, said_of
from pytest_reflex.verdict.divergence import Location

__all__ = ["Parting", "parting"]

Array = np.ndarray[Any, Any]
Opens = Callable[[Path], Runner]

# Fed alike a node may be this many times as far from float64 as the evaluator is in float32, or so many units
# in the last place of the largest value; on its own way, where errors add up, this many times that.
TIMES: Final = 4.0
ULPS: Final = 16.0
ON_ITS_WAY: Final = 4.0
# bfloat16's spacing, and more than float16's.
_HALF: Final = 2.0**-7
# Between two steps of a scale, float32's last bits decide.
_TIES: Final = ("QuantizeLinear", "DynamicQuantizeLinear")


@dataclass(frozen=True)
class Parting:
    """What was found in one graph.

    Attributes:
        place: the node; None where nothing is further off than rounding explains.
        alone: whether the node is wrong by itself; otherwise it is so only together with others.
        values: how many values the graph has.
    """

    place: Location | None
    alone: bool
    values: int


def parting(file: Path, feed: Mapping[str, Array], opens: Opens) -> Parting:
    """The first node of a graph that a runtime computes otherwise than onnx's evaluator.

    Args:
        file: the graph.
        feed: its inputs.
        opens: gives the runtime's runner of the path of a graph.

    Raises:
        RunnerError: the graph cannot be read or evaluated, or the runtime cannot run a part of it.
    """
    return _Search(CutGraph(file), feed, opens).found()


class _Search:
    def __init__(self, graph: CutGraph, feed: Mapping[str, Array], opens: Opens) -> None:
        self._graph, self._opens = graph, opens
        self._own = evaluated(graph.model, feed, wide=False)
        self._truth = evaluated(graph.model, feed, wide=True)
        self._given = {**feed, **self._own}
        self._feed = feed
        self._known: dict[str, bool] = {}

    def found(self) -> Parting:
        outputs = [value.name for value in self._graph.model.graph.output if value.name in self._own]
        gave = self._run(range(len(self._graph.nodes)), self._feed, outputs)
        wrong = next((name for name in outputs if self._apart_on_its_way(name, gave[name])), None)
        if wrong is None:
            return Parting(None, False, len(self._own))
        nodes = self._graph.before(wrong)
        at = self._halved(nodes, wrong)
        if (place := self._alone(at)) is not None:
            return Parting(place, True, len(self._own))
        # What was found is an effect: a node before it, or behind it, may be wrong by itself.
        for other in nodes:
            if other != at and (place := self._alone(other)) is not None:
                return Parting(place, True, len(self._own))
        name = self._shown(at)[0]
        gave = self._run(self._graph.before(name), self._feed, [name])
        return Parting(self._place(at, name, gave[name], self._truth[name]), False, len(self._own))

    def _halved(self, nodes: Sequence[int], wrong: str) -> int:
        """A node of which everything it reads agrees, and what it gives does not."""
        good, bad = -1, len(nodes) - 1
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (good, middle) if self._parted(nodes[middle]) else (middle, bad)
        at = nodes[bad]
        while True:
            makers = [self._graph.maker[n] for n in reads(self._graph.nodes[at]) if n in self._graph.maker]
            earlier = [maker for maker in makers if self._parted(maker)]
            if not earlier:
                return at
            at = min(earlier)

    def _shown(self, at: int) -> list[str]:
        return [name for name in self._graph.nodes[at].output if name in self._own and self._own[name].size]

    def _parted(self, at: int) -> bool:
        """Whether what the runtime has behind a node, on its own way, is further off than rounding."""
        for name in self._shown(at):
            if name not in self._known:
                gave = self._run(self._graph.before(name), self._feed, [name])
                self._known[name] = self._apart_on_its_way(name, gave[name])
            if self._known[name]:
                return True
        return False

    def _apart_on_its_way(self, name: str, gave: Array) -> bool:
        own, truth = self._own[name], self._truth[name]
        return _beyond(own, gave, truth, ties=1.0, slack=ON_ITS_WAY)

    def _alone(self, at: int) -> Location | None:
        """The node as a place, where it is wrong when it is fed as the evaluator feeds it."""
        names = self._shown(at)
        if not names:
            return None
        node = self._graph.nodes[at]
        gave = self._run([at], self._given, names)
        part = self._graph.part([at], self._given, {name: self._own[name] for name in names})
        needed = {name: self._given[name] for name in (value.name for value in part.graph.input)}
        truth = evaluated(part, needed, wide=True)
        for name in names:
            ties = 1.0 if node.op_type in _TIES else 0.0
            if name in truth and _beyond(self._own[name], gave[name], truth[name], ties=ties):
                return self._place(at, name, gave[name], truth[name])
        return None

    def _run(
        self, nodes: Sequence[int], given: Mapping[str, Array], names: Sequence[str]
    ) -> dict[str, Array]:
        """What the runtime gives for some nodes."""
        import onnx

        part = self._graph.part(nodes, given, {name: self._own[name] for name in names})
        needed = {name: given[name] for name in (value.name for value in part.graph.input)}
        with tempfile.TemporaryDirectory(prefix="reflex-cut-") as folder:
            file = Path(folder, "part.onnx")
            onnx.save(part, file, save_as_external_data=part.ByteSize() > 1 << 30)
            runner = self._opens(file)
            with opened(runner):
                gave = asked(runner, needed)
        if lost := [name for name in names if name not in gave or gave[name].shape != self._own[name].shape]:
            raise RunnerError(f"{runner.name} does not give {lost[0]!r} in the shape that its graph says")
        return gave

    def _place(self, at: int, name: str, gave: Array, truth: Array) -> Location:
        node, own = self._graph.nodes[at], self._own[name]
        said = said_of(node)
        error = _distance(own, gave)
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape))
        return Location(
            step=None,
            module=module_of(said) or "the graph",
            source=line_of(said),
            value=name,
            node=node.name,
            operator=node.op_type,
            index=index,
            reference=own[index].item(),
            candidate=gave[index].item(),
            error=float(error[index]),
            rounding=float(_distance(truth, own).max(initial=0.0)),
            scale=float(np.abs(own.astype(np.float64)).max(initial=0.0)),
        )


def _beyond(own: Array, gave: Array, truth: Array, *, ties: float, slack: float = 1.0) -> bool:
    """Whether what a runtime gave is further from float64 than the evaluator's own rounding explains."""
    if own.dtype.kind in "iub":
        return bool((_distance(own, gave) > ties).any())
    finite = np.abs(own[np.isfinite(own)].astype(np.float64))
    largest = float(finite.max(initial=0.0))
    unit = float(np.spacing(np.float32(largest))) if own.dtype.itemsize > 2 else largest * _HALF
    allowed = slack * max(TIMES * float(_distance(truth, own).max(initial=0.0)), ULPS * unit)
    return not bool((_distance(truth, gave) <= allowed).all())


def _distance(one: Array, other: Array) -> Array:
    """Element by element in float64; NaN beside NaN, and infinity beside itself, are none."""
    with np.errstate(all="ignore"):
        a, b = one.astype(np.float64), other.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        found = np.abs(a - b)
    return np.where(same, 0.0, np.where(np.isnan(found), np.inf, found))
