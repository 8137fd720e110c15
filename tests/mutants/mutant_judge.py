"""Makes mutants of a bundle's graphs, judges each with the default fixtures, and sorts them by their end."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from floors import ROUNDING, multiples
from mutant_operators import OPERATORS, STEP

from exporters import Policy
from exporters.bundle.manifest import OPTIMIZATION
from exporters.bundles import Bundle
from exporters.flow.schedule import Loop
from exporters.flow.update import MODEL, X_NEXT
from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs import InputSpec, make_fixture
from pytest_reflex.judge.check import check
from pytest_reflex.judge.input_dependence import unequal_bits
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import OnnxRunner
from pytest_reflex.runners.base import copied
from pytest_reflex.runners.remembered import RememberedRunner
from pytest_reflex.verdict.metrics import difference
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]

# A mutant that the default fixtures let pass is run on so many others before it is called equivalent.
RANDOM_FIXTURES: Final = 200
RANDOM: Final = [(1, fixture_idx) for fixture_idx in range(RANDOM_FIXTURES)]
HOST: Final = "host"
# Not a gate: more floors than an honest export can be off, as the tests of parity have it.
BEYOND: Final = "floors"


@dataclass(frozen=True)
class WrongLoop(Loop):
    """A loop that takes one step wrong.

    Attributes:
        fault: ``skipped``, ``stale input`` or ``stale time``.
        at: the step.
    """

    fault: str = ""
    at: int = -1

    def states(self, x: Any, velocity: Callable[[int, Any], Any], noises: Any = None) -> Iterator[Any]:
        start = earlier = before = x
        for index in range(self.steps):
            wrong = self.fault if index == self.at else ""
            if wrong == "skipped":
                yield x
                continue
            seen = before if wrong == "stale input" else x
            found = velocity(index - 1 if wrong == "stale time" else index, seen)
            made = {MODEL: found, **dict(self.advanced(index, x, found, earlier, start, noises))}
            before, x, earlier = x, made[X_NEXT], made[self.schedule.earlier or X_NEXT]
            yield x


class HostLoop(Policy):
    """A stepwise bundle whose host takes one step wrong; see :class:`WrongLoop`."""

    def __init__(self, bundle: Bundle, fault: str, at: int) -> None:
        super().__init__(bundle)
        honest = bundle.stated.loop
        assert honest is not None
        said = {one.name: getattr(honest, one.name) for one in dataclasses.fields(honest)}
        self._loop = WrongLoop(**said, fault=fault, at=at)


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
    reference: RememberedRunner
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
        gates: which gates refused a killed one, or ``floors``; see :func:`refused`.
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
            for number in chosen(
                len(places), per_operator, f"{subject.family}/{subject.layout}/{stem}/{operator}"
            ):
                yield Mutant(
                    stem,
                    operator,
                    places[number],
                    lambda d=data, o=operator, n=number, s=stem: with_graph(
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


def chosen(count: int, wanted: int, key: str) -> list[int]:
    """Up to ``wanted`` numbers below ``count``, spread by a generator that ``key`` seeds."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    return sorted(int(n) for n in rng.permutation(count)[:wanted])


def with_graph(bundle: Bundle, stem: str, data: bytes) -> Policy:
    """The bundle with another graph in one's place."""
    policy = Policy(bundle)
    policy.sessions[stem] = OnnxRunner(data, optimization=OPTIMIZATION, threads=1, name=stem)
    return policy


def judged(subject: Subject, candidate: Policy, **more: Any) -> ParityResult:
    """The verdict on a candidate with the default fixtures, as strict as this repository's parity tests."""
    return check(subject.reference, candidate, inputs=subject.inputs, strict=True, floor=True, **more)


def refused(result: ParityResult) -> tuple[str, ...]:
    """What refuses a candidate: gates, or that it is further from float64 than rounding takes it."""
    gates = tuple(dict.fromkeys(answer.gate for _, answer in result.refusals))
    if result.passed and any(times >= ROUNDING for times in multiples(result).values()):
        return (BEYOND,)
    return gates


def judge(subject: Subject, mutant: Mutant) -> End:
    """Judge one mutant, and where it passes find out whether any fixture could tell it."""
    about = (subject.family, subject.layout, mutant.graph, mutant.operator, mutant.where)
    subject.reference.remember()
    try:
        result = judged(subject, mutant.runner())
    except RunnerError:
        return End(*about, "stillborn")
    if gates := refused(result):
        return End(*about, "killed", gates, result.max_abs_diff_across_all)
    largest, same_bits = on_fixtures(subject, mutant.runner(), RANDOM)
    end = "equivalent" if same_bits or largest < STRICT_THRESHOLD else "survived"
    return End(*about, end, (), largest, same_bits)


def on_fixtures(
    subject: Subject, candidate: Policy, numbers: Sequence[tuple[int, int]]
) -> tuple[float, bool]:
    """Its largest difference from the reference, and whether it gives the honest export's bits throughout.

    Args:
        subject: what the candidate was made of.
        candidate: the mutant.
        numbers: ``(seed, fixture_idx)`` of each fixture.
    """
    largest, same_bits = 0.0, True
    with candidate, subject.bundle.runner() as honest:
        for seed, fixture_idx in numbers:
            inputs = make_fixture(subject.inputs, seed, fixture_idx)
            got, expected = candidate.run(copied(inputs)), subject.reference.run(inputs)
            same_bits = same_bits and not unequal_bits(got, honest.run(copied(inputs)))
            found = max(difference(expected[name], got[name]).max_abs_diff for name in expected)
            # A NaN is larger than anything.
            largest = max(largest, float("inf") if np.isnan(found) else found)
    subject.reference.close()
    return largest, same_bits
