"""Makes mutants of a bundle's graphs, judges each with the default fixtures, and sorts them by their end."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from mutant_operators import OPERATORS, STEP

from exporters import Policy
from exporters.bundle.manifest import OPTIMIZATION
from exporters.bundles import Bundle
from exporters.flow.schedule import schedule_from_json
from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs import InputSpec, array_digest, make_fixture
from pytest_reflex.judge.check import check
from pytest_reflex.judge.input_dependence import unequal_bits
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import OnnxRunner, Runner
from pytest_reflex.runners.base import RunnerBase, copied
from pytest_reflex.verdict.metrics import difference
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]

# A mutant that the default fixtures let pass is run on so many others before it is called equivalent.
RANDOM_FIXTURES: Final = 200
RANDOM_SEED: Final = 1
HOST: Final = "host"


class Remembered(RunnerBase):
    """A reference that is run once for each set of inputs, however many mutants are judged against it."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.name = runner.name
        self._known: dict[str, dict[str, Array]] = {}
        self._facts: dict[str, Any] | None = None
        self._is_open = False

    def open(self) -> None:
        """Opened by the first inputs that it does not know."""

    def close(self) -> None:
        if self._is_open:
            self._runner.close()
        self._is_open = False

    def run(self, inputs: Arrays) -> dict[str, Array]:
        key = array_digest(inputs)
        if key not in self._known:
            if not self._is_open:
                self._runner.open()
                self._is_open = True
                self._facts = self._runner.facts()
            self._known[key] = copied(self._runner.run(inputs))
        return copied(self._known[key])

    def facts(self) -> dict[str, Any]:
        return dict(self._facts or {})


class HostLoop(Policy):
    """A stepwise bundle whose host takes one step wrong.

    Args:
        bundle: what is run.
        fault: ``skipped``, ``stale input`` or ``stale time``.
        at: the step.
    """

    def __init__(self, bundle: Bundle, fault: str, at: int) -> None:
        super().__init__(bundle)
        self._fault, self._at = fault, at

    def run(self, inputs: Arrays) -> dict[str, Array]:
        loop = self._bundle.manifest["loop"]
        schedule = schedule_from_json(loop["schedule"])
        context = self.sessions["encoder"].run({n: a for n, a in inputs.items() if n != loop["noise"]})
        x = before = inputs[loop["noise"]]
        dt = np.float32(schedule.dt(self._steps))
        for index in range(self._steps):
            wrong = index == self._at
            if wrong and self._fault == "skipped":
                continue
            told = index - 1 if wrong and self._fault == "stale time" else index
            seen = before if wrong and self._fault == "stale input" else x
            time = np.full(x.shape[:1], schedule.time(told, self._steps), np.float32)
            velocity = self.sessions["step"].run({"x_t": seen, "time": time, **context})["velocity"]
            before, x = x, x + dt * velocity
        return {loop["output"]: x}


@dataclass(frozen=True)
class Subject:
    """What mutants are made of.

    Attributes:
        family: the policy's family.
        layout: how the bundle carries the loop.
        bundle: the honest export.
        reference: the policy, remembering its answers.
        inputs: what fixtures are drawn from.
    """

    family: str
    layout: str
    bundle: Bundle
    reference: Remembered
    inputs: Sequence[InputSpec]


@dataclass(frozen=True)
class Mutant:
    """One wrong graph, or one wrong host.

    Attributes:
        graph: the stem of the graph that is changed, or ``host``.
        operator: what is done.
        where: to what.
        runner: makes the candidate.
    """

    graph: str
    operator: str
    where: str
    runner: Callable[[], Policy] = field(repr=False)


@dataclass(frozen=True)
class End:
    """How a mutant ended.

    Attributes:
        end: ``killed``, ``equivalent``, ``survived`` or ``stillborn`` (ONNX Runtime takes no such graph).
        gates: which gates refused a killed one.
        largest: its largest difference from the reference on the default fixtures, and on the random ones
            where it was run on them; None where nothing could be measured.
        same_bits: whether an equivalent one gave the honest export's bits on every random fixture.
    """

    family: str
    layout: str
    graph: str
    operator: str
    where: str
    end: str
    gates: tuple[str, ...] = ()
    largest: float | None = None
    same_bits: bool | None = None

    def to_json(self) -> dict[str, Any]:
        # JSON has no NaN.
        largest = self.largest if self.largest is None or np.isfinite(self.largest) else str(self.largest)
        return {**asdict(self), "largest": largest}


def graph_bytes(bundle: Bundle, stem: str) -> bytes:
    """A graph with its weights inside, and of its metadata the step that a node belongs to."""
    model = ir.load(bundle.path / bundle.manifest["graphs"][stem])
    ir.external_data.load_to_model(model)
    for node in model.graph.all_nodes():
        step = node.metadata_props.get(STEP)
        node.metadata_props.clear()
        if step is not None:
            node.metadata_props[STEP] = step
    return bytes(ir.to_proto(model).SerializeToString())


def mutated(data: bytes, operator: str, number: int) -> bytes:
    """The graph with one of an operator's sites changed."""
    model = ir.from_proto(onnx.ModelProto.FromString(data))
    OPERATORS[operator](model)[number][1]()
    return bytes(ir.to_proto(model).SerializeToString())


def mutants(subject: Subject, per_operator: int) -> Iterator[Mutant]:
    """Mutants of a bundle, the same ones each time: up to ``per_operator`` of each operator and graph."""
    for stem in subject.bundle.manifest["graphs"]:
        data = graph_bytes(subject.bundle, stem)
        model = ir.from_proto(onnx.ModelProto.FromString(data))
        for operator, sites in OPERATORS.items():
            places = [where for where, _ in sites(model)]
            for number in _chosen(
                len(places), per_operator, f"{subject.family}/{subject.layout}/{stem}/{operator}"
            ):
                yield Mutant(
                    stem,
                    operator,
                    places[number],
                    lambda d=data, o=operator, n=number, s=stem: _with_graph(
                        subject.bundle, s, mutated(d, o, n)
                    ),
                )
    if subject.layout == "stepwise":
        yield from _host_faults(subject.bundle)


def _host_faults(bundle: Bundle) -> Iterator[Mutant]:
    steps = int(bundle.manifest["steps"])
    for fault, operator, first in (
        ("skipped", "step_skipped", 0),
        ("stale input", "stale_step_input", 1),
        ("stale time", "stale_step_input", 1),
    ):
        for at in range(first, steps):
            yield Mutant(HOST, operator, f"{fault}, step {at}", lambda f=fault, a=at: HostLoop(bundle, f, a))


def _chosen(count: int, wanted: int, key: str) -> list[int]:
    """Up to ``wanted`` numbers below ``count``, spread by a generator that ``key`` seeds."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    return sorted(int(n) for n in rng.permutation(count)[:wanted])


def _with_graph(bundle: Bundle, stem: str, data: bytes) -> Policy:
    policy = Policy(bundle)
    policy.sessions[stem] = OnnxRunner(data, optimization=OPTIMIZATION, threads=1, name=stem)
    return policy


def judged(subject: Subject, candidate: Policy) -> ParityResult:
    """The verdict on a candidate with the default fixtures, as strict as this repository's parity tests."""
    return check(subject.reference, candidate, inputs=subject.inputs, strict=True)


def judge(subject: Subject, mutant: Mutant) -> End:
    """Judge one mutant, and where it passes find out whether any fixture could tell it."""
    about = (subject.family, subject.layout, mutant.graph, mutant.operator, mutant.where)
    try:
        result = judged(subject, mutant.runner())
    except RunnerError:
        return End(*about, "stillborn")
    if not result.passed:
        gates = tuple(dict.fromkeys(answer.gate for _, answer in result.refusals))
        return End(*about, "killed", gates, result.max_abs_diff_across_all)
    largest, same_bits = _on_random_fixtures(subject, mutant.runner())
    end = "equivalent" if same_bits or largest < STRICT_THRESHOLD else "survived"
    return End(*about, end, (), largest, same_bits)


def _on_random_fixtures(subject: Subject, candidate: Policy) -> tuple[float, bool]:
    """Its largest difference from the reference, and whether it gives the honest export's bits throughout."""
    largest, same_bits = 0.0, True
    with candidate, subject.bundle.runner() as honest:
        for fixture_idx in range(RANDOM_FIXTURES):
            inputs = make_fixture(subject.inputs, RANDOM_SEED, fixture_idx)
            got, expected = candidate.run(copied(inputs)), subject.reference.run(inputs)
            same_bits = same_bits and not unequal_bits(got, honest.run(copied(inputs)))
            found = max(difference(expected[name], got[name]).max_abs_diff for name in expected)
            # A NaN is larger than anything.
            largest = max(largest, float("inf") if np.isnan(found) else found)
    subject.reference.close()
    return largest, same_bits
