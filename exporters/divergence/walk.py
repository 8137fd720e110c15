"""The walk: PyTorch's values and the graph's side by side, chunk by chunk, within a budget of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from exporters.divergence.alignment import Alignment
from exporters.divergence.chunks import Chunk, chunks_of
from exporters.divergence.interpreter import Interpreter, Key, Step
from exporters.divergence.lifetimes import Lifetimes
from exporters.divergence.local_error import Apart, apart, judge_local
from exporters.divergence.parts import Graphs, Names, Part
from exporters.divergence.scopes import layer_of, module_of
from exporters.divergence.spans import Spans
from exporters.divergence.subgraph import BothWays
from exporters.flow.schedule import Loop
from exporters.flow.update import MODEL, X_NEXT
from exporters.graph.layouts import LAST_X
from pytest_reflex.verdict.divergence import Growth, Location

Array = np.ndarray[Any, Any]


@dataclass
class Walked:
    """What a walk saw."""

    place: Location | None = None
    culprit: tuple[Part, ir.Value] | None = None
    # What the culprit's chunk was fed with, and what it should have given.
    feed: dict[str, Array] = field(default_factory=dict)
    expected_there: Array | None = None
    growth: dict[tuple[int | None, str], Growth] = field(default_factory=dict)
    values: int = 0
    unmatched: int = 0
    output: Array | None = None
    expected: Array | None = None


class Walk:
    """Compares every value.

    Args:
        graphs: the bundle's graphs.
        interpreter: PyTorch's values.
        names: which value of the one is which of the other.
        inputs: the fixture.
        loop: the loop, where there is one.
        folder: where the graphs' weights lie.
        budget: how many bytes a chunk's values may take, each of three times.
        aligned: which operator of the one is which of the other, by half.
    """

    def __init__(
        self,
        graphs: Graphs,
        interpreter: Interpreter,
        names: Names,
        inputs: Mapping[str, Array],
        loop: Loop | None,
        folder: Path,
        budget: int,
        aligned: Mapping[str, Alignment],
    ) -> None:
        self._graphs, self._interpreter, self._names = graphs, interpreter, names
        self._both = BothWays(graphs, folder)
        self._inputs, self._loop, self._budget = inputs, loop, budget
        self._steps: Iterator[Step] = iter(interpreter)
        self._torch: dict[Key, Step] = {}
        self._candidate: dict[ir.Value, Array] = {}
        # What the graph alone has, inside of an operator that it splits up, made of PyTorch's own values.
        self._between: dict[ir.Value, Array] = {}
        self._seen = Walked()
        self._earlier: Array | None = None
        self._lifetimes = Lifetimes(graphs, names)
        self._spans = Spans(aligned, interpreter)
        # How many nodes, and ends of parts, are done.
        self._now = 0

    def run(self, deadline: Callable[[], None] | None = None) -> Walked:
        """Walk once. ``deadline`` is called between chunks; it raises when the time is over."""
        chunks = deque(chunks_of(self._graphs.parts, self._names, self._budget))
        with self._both:
            for part in self._graphs.parts:
                self._seed(part)
                while chunks and chunks[0].part is part:
                    if deadline is not None:
                        deadline()
                    chunk = chunks.popleft()
                    self._compare(chunk)
                    self._let_go(len(chunk.nodes))
                if part.following is not None:
                    self._advance(part)
                self._let_go(1)
        for _ in self._steps:  # what the graph has no counterpart of: steps that it leaves out
            pass
        if self._loop is not None and self._graphs.output is None and self._seen.output is not None:
            self._seen.output = self._loop.finished(self._seen.output)
        if self._interpreter.output is not None:
            self._seen.expected = self._interpreter.output.detach().numpy()
        return self._seen

    def _x(self, loop: Loop) -> Array:
        """What the loop holds, as the graph has it."""
        return self._seen.output if self._seen.output is not None else self._inputs[loop.noise]

    def _seed(self, part: Part) -> None:
        """The values that the host, or a Loop, gives a part."""
        for name, value in self._graphs.inputs.items():
            if name in self._inputs:
                self._candidate[value] = self._inputs[name]
        if LAST_X in self._graphs.inputs and self._seen.output is not None:
            self._candidate[self._graphs.inputs[LAST_X]] = self._seen.output
        if part.step is None or self._loop is None:
            if self._loop is not None and "num_steps" in self._graphs.inputs:
                steps = np.asarray(self._loop.steps, np.int64)
                self._candidate[self._graphs.inputs["num_steps"]] = steps
            return
        x = self._x(self._loop)
        seeds = {
            "x_t": x,
            "time": np.full(x.shape[:1], self._loop.times[part.step], self._loop.schedule.dtype),
            "loop/x_t": x,
            "loop/earlier": x if self._earlier is None else self._earlier,
            "loop/index": np.asarray(part.step, np.int64),
            "loop/going": np.asarray(True),
        }
        for name, array in seeds.items():
            if name in self._graphs.inputs:
                self._candidate[self._graphs.inputs[name]] = array

    def _advance(self, part: Part) -> None:
        """The next ``x``: the host's arithmetic where the layout leaves it to the host."""
        if part.following is None or self._loop is None or part.step is None:
            return
        got = self._candidate[part.following]
        if part.earlier is not None:
            self._earlier = self._candidate[part.earlier]
        if str(part.following.name) == "velocity":
            x, given = self._x(self._loop), [self._inputs[name] for name in self._loop.noises]
            earlier = x if self._earlier is None else self._earlier
            made = {MODEL: got, **dict(self._loop.advanced(part.step, x, got, earlier, *given))}
            got, self._earlier = made[X_NEXT], made[self._loop.schedule.earlier or X_NEXT]
            key = Key("loop", part.step, "x_next")
            self._reach({key})
            expected = self._torch[key]
            self._grow(part.step, "x", apart(expected.tensor.numpy(), got), 0.0)
        self._seen.output = got

    def _compare(self, chunk: Chunk) -> None:
        part, nodes, made, keys = chunk.part, chunk.nodes, chunk.made, chunk.keys
        self._reach(keys.values())
        cut = [v for v in made if v in keys and self._fits(v, self._torch.get(keys[v]))]
        self._spans.note(keys, cut, self._torch)
        self._seen.unmatched += len(made) - len(cut)
        self._seen.values += len(cut)
        inside = set(nodes)
        onward = [v for v in made if self._read_later(v, inside, part)]
        # How far the graph has come on its own way is asked of what a layer hands on, not of all within it.
        last = {self._layer(v, keys[v]): v for v in cut}
        known = frozenset(cut)
        between = [v for v in onward if v not in known]
        got, local, fed = self._both.run(
            nodes,
            onward=list(dict.fromkeys([*last.values(), *onward])),
            own=self._candidate.__getitem__,
            alone=[*cut, *between],
            cut=known,
            given=lambda value: self._given(value, part),
        )
        for value in cut:
            self._look(part, value, self._torch[keys[value]], got.get(value), local[value])
        self._between |= {value: local[value].copy() for value in between}
        if self._seen.culprit is not None and not self._seen.feed:
            self._seen.feed = fed
        for value in onward:
            self._candidate[value] = got[value].copy()

    def _given(self, value: ir.Value, part: Part) -> Array:
        """PyTorch's own value for an input of a node; where it has none, the graph's."""
        key = self._lifetimes.key_of_input(value, part)
        step = self._torch.get(key) if key is not None else None
        if step is None or not self._fits(value, step):
            return self._between[value] if value in self._between else self._candidate[value]
        return step.tensor.detach().numpy()

    def _known(self, value: ir.Value, part: Part) -> Array | None:
        """The same, or None of what has been let go."""
        try:
            return self._given(value, part)
        except KeyError:
            return None

    def _reach(self, wanted: Iterable[Key]) -> None:
        """Let PyTorch compute on until it has all of ``wanted`` that it knows."""
        missing = {key for key in wanted if key not in self._torch}
        while missing:
            step = next(self._steps, None)
            if step is None:
                return
            # PyTorch may have it long before the graph: it is kept until its last reader there.
            if self._lifetimes.lasts(step.key, self._now):
                self._torch[step.key] = step
            missing.discard(step.key)

    def _fits(self, value: ir.Value, step: Step | None) -> bool:
        if step is None or value.dtype is None or value.shape is None:
            return False
        dtype = value.dtype.numpy() == _numpy_dtype(step.tensor.dtype)
        sizes = [n if isinstance(n, int) else None for n in value.shape]
        rank = len(sizes) == step.tensor.dim()
        return dtype and rank and all(n in (None, m) for n, m in zip(sizes, step.tensor.shape, strict=True))

    def _read_later(self, value: ir.Value, inside: set[ir.Node], part: Part) -> bool:
        if value is self._graphs.output or value is part.following or value is part.earlier:
            return True
        return any(node not in inside for node, _ in value.uses())

    def _let_go(self, count: int) -> None:
        """Drop what only the next ``count`` nodes, or ends of parts, were to read."""
        before, self._now = self._now, self._now + count
        for value in self._lifetimes.over(before, self._now):
            self._candidate.pop(value, None)
            self._between.pop(value, None)
        for key in [k for k in self._torch if not self._lifetimes.lasts(k, self._now)]:
            del self._torch[key]

    def _layer(self, value: ir.Value, key: Key) -> tuple[int | None, str]:
        return key.step, layer_of(module_of(value, self._torch[key], self._interpreter.code))

    def _look(self, part: Part, value: ir.Value, step: Step, got: Array | None, local: Array) -> None:
        reference = step.tensor.detach().numpy()
        alone = apart(reference, local)
        module = module_of(value, step, self._interpreter.code)
        found = None if got is None else apart(reference, got)
        self._grow(step.key.step, layer_of(module), found, alone.error)
        if value is self._graphs.output and got is not None:
            self._seen.output = got.copy()
        # Compared once, it is only read from now on: what it was made of can go.
        self._torch[step.key] = Step(step.key, step.tensor)
        if self._seen.place is not None:
            return
        judged = judge_local(step, reference, local, alone)
        if not judged.wrong:
            return
        compared = self._spans.behind(value, step, lambda given: self._known(given, part))
        self._seen.culprit = (part, value)
        self._seen.expected_there = reference.copy()
        self._seen.place = Location(
            step=step.key.step,
            module=compared.module or module,
            source=compared.source,
            value=str(value.name),
            node=compared.node,
            operator=compared.operator,
            index=alone.index,
            reference=reference[alone.index].item(),
            candidate=local[alone.index].item(),
            error=alone.error,
            rounding=judged.rounding,
            scale=alone.scale,
            together=compared.together,
            span=compared.span,
            unpaired=compared.unpaired,
        )

    def _grow(self, step: int | None, module: str, found: Apart | None, local: float) -> None:
        """Local errors are the worst of all a module's nodes, the propagated one that of its last value."""
        before = self._seen.growth.get((step, module), Growth(step, module, 0.0, 0.0, 0.0))
        far, scale = (before.propagated, before.scale) if found is None else (found.error, found.scale)
        self._seen.growth[step, module] = Growth(step, module, far, max(before.local, local), scale)


def _numpy_dtype(dtype: torch.dtype) -> np.dtype[Any] | None:
    try:
        return np.dtype(str(dtype).removeprefix("torch."))
    except TypeError:
        return None
