"""Fixture -> traced program -> walk -> the first wrong module, or who else it is."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.bundle import registry
from exporters.divergence.alignment import alignments
from exporters.divergence.blame import explain
from exporters.divergence.interpreter import Interpreter, Program
from exporters.divergence.parts import Graphs, Names, open_graphs
from exporters.divergence.split import FlowOf, first_differing_module
from exporters.divergence.walk import Walk, Walked
from exporters.flow.schedule import Loop
from exporters.graph.traced_halves import example_of, require_float32, trace_halves
from exporters.graph.tracing import trace_program
from pytest_reflex.errors import ReflexError
from pytest_reflex.progress import Progress
from pytest_reflex.result import Located
from pytest_reflex.runners import Runner, TorchRunner
from pytest_reflex.verdict.results import fixture_name

if TYPE_CHECKING:
    import onnx_ir as ir

    from exporters.bundle.store import StoredBundle

Array = np.ndarray[Any, Any]
# What the values of one chunk may take; it holds them three times.
BUDGET_BYTES = 512 << 20


class Deadline:
    """A limit that is looked at between chunks; a policy too large to be traced in time is not begun with.

    Args:
        seconds: how long it may take from now.
        bundle: what is looked into.
        fixture_idx: in which fixture.
        seed: what it is drawn with; None where it was given.
    """

    # Tracing cannot be stopped; some 100 MB of weights are traced in a second.
    BYTES_PER_SECOND = 100e6

    def __init__(
        self, seconds: float, bundle: StoredBundle, fixture_idx: int = 0, seed: int | None = 0
    ) -> None:
        self._seconds, self._end = seconds, time.monotonic() + seconds
        fixture = f" --fixture {shlex.quote(fixture_name(fixture_idx))}" if fixture_idx else ""
        which = fixture + (f" --seed {seed}" if seed else "")
        self._again = f"run reflex locate {bundle.called} --model MODEL{which}"
        if seed is None:
            self._again = f"call locate with the same inputs, fixture_idx={fixture_idx} and no seconds"
        weights = sum(facts["size"] for facts in bundle.stated.files.values())
        if weights > self.BYTES_PER_SECOND * seconds:
            raise ReflexError(f"{weights / 1e9:.1f} GB are too much for {seconds:g} s; {self._again}")

    def __call__(self) -> None:
        if time.monotonic() > self._end:
            raise ReflexError(f"{self._seconds:g} s were not enough; {self._again}")


class Search:
    """A bundle and its reference, traced once, to be walked through with several fixtures.

    Args:
        bundle: the bundle.
        reference: a runner of the policy that it was made from.
        flow_of: gives the policy's two halves, as they were traced for the bundle.
        seed: what fixtures are drawn with.
        inputs: recorded inputs, to take fixtures from instead of drawing them.
        progress: called with (stage, done, total).

    Raises:
        ReflexError: the reference is no PyTorch policy that can be traced, or the bundle is not in float32.
    """

    def __init__(
        self,
        bundle: StoredBundle,
        reference: Runner,
        flow_of: FlowOf,
        *,
        seed: int = 0,
        inputs: Sequence[Mapping[str, Array]] | None = None,
        progress: Progress | None = None,
    ) -> None:
        if not isinstance(reference, TorchRunner):
            raise ReflexError(
                f"{reference.name} is no PyTorch policy, so there is nothing to walk through; give the policy"
            )
        if (said := bundle.stated.origin.get("precision")) is not None:
            narrow = said.get("name") if isinstance(said, dict) else said
            raise ReflexError(
                f"{bundle.called} is in {narrow}, where every value differs; look into a float32 export of "
                "the same policy"
            )
        self._bundle, self._runner, self._flow_of = bundle, reference, flow_of
        self._seed, self._inputs = seed, inputs
        self._report_progress = progress or (lambda stage, done, total: None)
        self._traced: tuple[dict[str, Program], Loop | None] | None = None
        self._read: Graphs | None = None
        # Of the last walk, for whoever wants to show what it found.
        self.walked: Walked | None = None
        self.graphs: Graphs | None = None

    def walk(
        self,
        fixture_idx: int = 0,
        *,
        budget_bytes: int = BUDGET_BYTES,
        models: Mapping[str, ir.Model] | None = None,
        deadline: Callable[[], None] | None = None,
    ) -> Located:
        """Walk through one fixture. ``deadline`` is called between chunks.

        Args:
            fixture_idx: which.
            budget_bytes: how much memory the values of one chunk may take.
            models: graphs to look into in place of those on disk, by role.
            deadline: raises a ReflexError when the time is over.
        """
        fixture = self.fixture(fixture_idx)
        with self._runner as runner:
            require_float32(runner)
            if self._traced is None:
                self._report_progress("trace", 0, 1)
                self._traced = programs_of(self._bundle, runner, self._flow_of, self._seed)
                self._report_progress("trace", 1, 1)
            if deadline is not None:
                deadline()
            programs, loop = self._traced
            expected = next(iter(runner.run(fixture).values()))
            started = time.perf_counter()
            interpreter = Interpreter(programs, fixture, loop)
            graphs = self._opened(models)
            aligned = alignments(graphs, interpreter)
            known = {half: aligned[half].named(interpreter.names(half)) for half in programs}
            names = Names(known, interpreter.keys(), graphs)
            self._report_progress("walk", 0, 1)
            folder = self._bundle.path
            walk = Walk(graphs, interpreter, names, fixture, loop, folder, budget_bytes, aligned)
            walked = walk.run(deadline)
            self.walked, self.graphs = walked, graphs
            self._report_progress("walk", 1, 1)
            seconds = time.perf_counter() - started
            cause, said = explain(
                self._bundle,
                walked,
                fixture,
                expected,
                truth=lambda: next(iter(runner.exact(fixture).values())),
                search_split=lambda: first_differing_module(self._bundle, runner, self._flow_of, fixture),
            )
        return Located(
            fixture_idx=fixture_idx,
            cause=cause,
            said=said,
            place=walked.place,
            growth=tuple(walked.growth.values()),
            values=walked.values,
            unmatched=walked.unmatched,
            seconds=seconds,
        )

    def _opened(self, models: Mapping[str, ir.Model] | None) -> Graphs:
        """The bundle's graphs, read once; others each time."""
        if models is not None:
            return open_graphs(self._bundle, models)
        if self._read is None:
            self._read = open_graphs(self._bundle)
        return self._read

    def fixture(self, fixture_idx: int) -> dict[str, Array]:
        """The inputs of one fixture, by name."""
        return fixture_of(self._bundle, fixture_idx, self._seed, self._inputs)


def fixture_of(
    bundle: StoredBundle, fixture_idx: int, seed: int, inputs: Sequence[Mapping[str, Array]] | None
) -> dict[str, Array]:
    """The inputs of one fixture of a bundle, drawn or of those that were recorded.

    Raises:
        ReflexError: there is none of that number.
    """
    from pytest_reflex.inputs.fixtures import fixtures_from

    if inputs is None:
        return dict(fixtures_from(bundle.inputs, fixture_idx + 1, seed).make(fixture_idx))
    if not 0 <= fixture_idx < len(inputs):
        raise ReflexError(f"fixture {fixture_idx} is not recorded; give one from 0 to {len(inputs) - 1}")
    return dict(inputs[fixture_idx])


def programs_of(
    bundle: StoredBundle, runner: TorchRunner, flow_of: FlowOf, seed: int
) -> tuple[dict[str, Program], Loop | None]:
    """The programs that the bundle's graphs were converted from, traced again in the same way."""
    policy = runner.model
    if policy is None:
        raise ReflexError(f"{runner.name} has no model to trace")
    example, loop = example_of(bundle.inputs, seed), bundle.stated.loop
    if loop is None:
        whole = registry.whole_of(bundle.stated, policy)
        module, call = (policy, runner.forward) if whole is None else (whole, whole)
        traced = trace_program(module, call, example.tensors(), free=example.free)
        return {"model": Program(traced, "model")}, None
    halves = trace_halves(flow_of(policy), example, loop)
    return {half: Program(next(halves), half) for half in ("prefix", "step")}, loop
