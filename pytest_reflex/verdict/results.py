"""What a check found, as data that nothing changes; whether it passed follows from the answers.

A fixture passes when every gate in :data:`FIXTURE_GATE_NAMES` has answered yes, and a run passes when it
holds at least one fixture, all of them pass, and every gate in :data:`RUN_GATE_NAMES` has answered yes too.
There is no flag to set: ``passed`` is derived from the answers, so what was never asked is a fail.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, Self

from pytest_reflex.verdict.claim import Claim
from pytest_reflex.verdict.coverage import Coverage
from pytest_reflex.verdict.precision import Precision
from pytest_reflex.verdict.rounding import in_words, worst_word
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD, Least, Tolerances
from pytest_reflex.verdict.units import InUnits

if TYPE_CHECKING:
    from pytest_reflex.verdict.divergence import Divergence
    from pytest_reflex.verdict.metrics import Difference
    from pytest_reflex.verdict.quantised import QuantisedDistances
    from pytest_reflex.verdict.rounding import Floor, Word
    from pytest_reflex.verdict.summaries import ErrorGrid, InputSummary, StepDifference

# Fixtures that nobody draws have their numbers from here on: corners of the ranges, and swaps.
FIRST_MADE: Final = 10**12
# Swaps have theirs from here on.
FIRST_SWAP: Final = FIRST_MADE + 10**6
FIXTURE_GATE_NAMES: Final = ("structure", "provider", "finite", "exact", "threshold")
# intact: the files are those of the manifest; compared: something was; reference: it is one, and a function
# of its inputs; power: the bounds could tell something; variation: the fixtures varied what can vary;
# repeat: a repeated fixture gave the same bits; inputs: none is dead; coverage: as many of the graph's
# decisions went both ways as were asked for; claim: the fixtures establish what was asked for.
RUN_GATE_NAMES: Final = (
    *("intact", "compared", "reference", "power", "variation", "repeat", "inputs"),
    *("coverage", "claim"),
)
# Asked after all others, of a result that passed, where a session has figures of an earlier one: it stands
# among a result's answers only where it refuses.
BASELINE_GATE: Final = "baseline"
# What a note begins with that names two inputs which the candidate takes for each other.
SWAPPED: Final = "inputs are swapped: "
# What a note begins with that names what a processor or a library does unasked.
TRAP: Final = "the machine explains it: "
# What a note begins with where the policy is no longer the one that the candidate was made of.
ANOTHER: Final = "the policy is another: "
# What a doubt begins with where a bundle and its policy's file have other inputs.
READS: Final = "the bundle reads "
# What is said of an input of which another value changed the reference alone.
DEAD: Final = "is dead"
# What is said of one of which it changed neither side.
IDLE: Final = "changes neither side"
# What is said of an axis of any size that was judged in too few.
OPEN_AXIS: Final = "is open in the graph"
# What is said of a side that draws random numbers of its own.
DRAWS: Final = "draws random numbers by itself"
DREW: Final = "random generator while running"
# What is said of nodes that another provider ran.
ELSEWHERE: Final = "ran elsewhere than on"
# The kind of a reference that is an ONNX graph because somebody said so.
ONNX_REFERENCE: Final = "onnx reference"
Against = Literal["policy", "onnx"]


def fixture_name(fixture_idx: int) -> str:
    """A fixture in a table, for people: its number, or ``corner 0`` and ``swap 3`` of those nobody draws."""
    if fixture_idx >= FIRST_SWAP:
        return f"swap {fixture_idx - FIRST_SWAP}"
    return f"corner {fixture_idx - FIRST_MADE}" if fixture_idx >= FIRST_MADE else str(fixture_idx)


def fixture_idx_of(name: str) -> int | None:
    """Which fixture such a name means, ``corner0`` and a bare number too; None where it means none."""
    found = re.fullmatch(r"(?:(corner|swap) ?)?(\d+)", name.strip().lower())
    if found is None:
        return None
    return {None: 0, "corner": FIRST_MADE, "swap": FIRST_SWAP}[found[1]] + int(found[2])


def named_fixture(fixture_idx: int) -> str:
    """The same in a sentence: ``fixture 55``, ``corner 0``."""
    return f"fixture {fixture_idx}" if fixture_idx < FIRST_MADE else fixture_name(fixture_idx)


def fixture_counts(result: RunResult) -> str:
    """How many fixtures were judged: ``5 fixtures``, ``299 drawn + 8 corners``."""
    found = [f.fixture_idx for f in result.fixtures if f.fixture_idx >= FIRST_MADE]
    swaps = sum(idx >= FIRST_SWAP for idx in found)
    drawn, parts = result.count - len(found), []
    for count, what in ((len(found) - swaps, "corner"), (swaps, "swap")):
        parts += [f"{count} {what}{'' if count == 1 else 's'}"] * (count > 0)
    if parts:
        return " + ".join([f"{drawn:,} drawn", *parts])
    return f"{drawn:,} fixture{'' if drawn == 1 else 's'}"


@dataclass(frozen=True)
class Answer:
    """What one gate answered. :meth:`yes` and :meth:`no` make one, so that no text can be a yes.

    Attributes:
        gate: the gate's name.
        refusal: why it refused; None is a yes.

    Raises:
        ValueError: the refusal is no text, or empty.
    """

    gate: str
    refusal: str | None

    def __post_init__(self) -> None:
        if self.refusal is not None and not (isinstance(self.refusal, str) and self.refusal):
            raise ValueError(f"the {self.gate} gate's refusal is {self.refusal!r}; give the reason as text")

    @classmethod
    def yes(cls, gate: str) -> Self:
        """The gate is satisfied."""
        return cls(gate, None)

    @classmethod
    def no(cls, gate: str, reason: str) -> Self:
        """The gate refuses, for a reason that has to be given."""
        return cls(gate, reason or "")

    @property
    def passed(self) -> bool:
        return self.refusal is None

    @property
    def said(self) -> str:
        """The reason, or ``yes``, for people; whether it passed is not to be read from it."""
        return "yes" if self.refusal is None else self.refusal


@dataclass(frozen=True)
class OutputResult:
    """How one named output differs.

    Attributes:
        name: the output's name.
        dtype: numpy name of the reference's dtype.
        shape: the reference's shape.
        difference: the figures, or None when structure or finiteness made them meaningless.
        grid: where the error lies, kept for the fixture in which this output differs most.
        floor: how far both sides are from the reference in float64; None when nobody asked.
        bound: its own threshold, in its unit, where it has one, or it was asked for in floors.
        quantised: of a quantised graph, whether the runtime computes it and what quantising cost; else None.
        elements: of an output with physical units, the largest difference of each element of its last axis,
            in its own unit.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    difference: Difference | None
    grid: ErrorGrid | None = None
    floor: Floor | None = None
    bound: float | None = None
    quantised: QuantisedDistances | None = None
    elements: tuple[float, ...] = ()

    @property
    def word(self) -> Word | None:
        """``rounding``, ``undecided`` or ``bug``, the worse of its two distances; None when nobody asked."""
        asked = (self.floor, self.quantised)
        return worst_word(found.word for found in asked if found is not None)


@dataclass(frozen=True)
class FixtureResult:
    """The verdict on one fixture.

    Attributes:
        fixture_idx: the fixture's number.
        answers: what each gate said, in order, up to and including the first refusal.
        outputs: the figures of each output, in the reference's order.
        inputs: what each input held; empty when nobody looked.
    """

    fixture_idx: int
    answers: tuple[Answer, ...]
    outputs: tuple[OutputResult, ...] = ()
    inputs: tuple[InputSummary, ...] = ()

    def __repr__(self) -> str:
        gate = f" ({self.refusal.gate})" if self.refusal is not None else ""
        return f"<fixture {self.fixture_idx}: {_word(self.passed)}{gate}, {_figure(self.max_abs_diff)}>"

    @property
    def passed(self) -> bool:
        return _all_yes(self.answers, FIXTURE_GATE_NAMES)

    def __bool__(self) -> bool:
        """The verdict."""
        return self.passed

    @property
    def refusal(self) -> Answer | None:
        """The first gate that refused, or None. A fixture without answers is refused by the first gate."""
        for answer in self.answers:
            if not answer.passed:
                return answer
        if self.passed:
            return None
        asked = {answer.gate for answer in self.answers}
        missing = next((g for g in FIXTURE_GATE_NAMES if g not in asked), FIXTURE_GATE_NAMES[0])
        return Answer.no(missing, f"the {missing} gate was never asked")

    @property
    def worst(self) -> OutputResult | None:
        """The output with the largest max_abs_diff, or None when no figures could be taken."""
        measured = [o for o in self.outputs if o.difference is not None]
        return max(
            measured,
            key=lambda o: _badness(o.difference.max_abs_diff if o.difference else None),
            default=None,
        )

    @property
    def max_abs_diff(self) -> float | None:
        worst = self.worst
        return worst.difference.max_abs_diff if worst and worst.difference else None

    @property
    def mean_abs_diff(self) -> float | None:
        """The mean over all elements of all outputs, each element counted once."""
        measured = [o.difference for o in self.outputs if o.difference is not None]
        elements = sum(d.elements for d in measured)
        return sum(d.mean_abs_diff * d.elements for d in measured) / elements if elements else None

    @property
    def cos(self) -> float | None:
        """The least cosine of any output."""
        cosines = [o.difference.cos for o in self.outputs if o.difference is not None]
        return max(cosines, key=lambda cos: _badness(-cos), default=None)

    @property
    def word(self) -> Word | None:
        """``rounding``, ``undecided`` or ``bug``, the worst of any output; None when nobody asked."""
        return worst_word(word for output in self.outputs if (word := output.word) is not None)


@dataclass(frozen=True, eq=False)
class RunResult:
    """The verdict on a run, with everything a report needs to say why.

    Attributes:
        name: what was judged, for people: a test's node id or a bundle's path.
        threshold: the bound on max_abs_diff; pass is strictly below. The largest of any output, where they
            have their own.
        strict: whether notes were turned into failures.
        seed: what the fixtures were drawn with, or None when they were recorded.
        fixtures: one result per fixture; of a claim's further draws those alone that were refused, or in
            which some figure is the worst of all.
        answers: what each run gate said, all of them (they are independent of each other).
        reference: facts about the reference, builtins only.
        candidate: facts about the candidate, builtins only.
        notes: what a careful reader should know though it failed nothing.
        doubts: what strict refuses and a plain run only notes, each with the gate that it is put to.
        steps: how far the sides were apart after each denoising step, in one fixture.
        steps_of: that fixture: the one whose outputs differ most. None when there are no steps.
        unseen: why there are no steps, in words.
        asked: what was asked of each output.
        by_default: whether nobody gave a threshold.
        precision: the precision that the candidate was held to.
        located: where the two sides part, when that was looked for.
        swings: how far most of what each output of floats gives lies from its middle, over the run.
        effects: for each live input, how far another value of it moved each of the candidate's outputs.
        claim: what the fixtures establish of inputs that were not judged; None where nobody said.
        coverage: which decisions of the candidate's graph went both ways; None where nobody asked.
        units: what the elements of outputs are in the robot's units, where somebody says it.
    """

    name: str
    threshold: float
    strict: bool
    seed: int | None
    fixtures: tuple[FixtureResult, ...]
    answers: tuple[Answer, ...]
    reference: Mapping[str, object] = field(default_factory=dict)
    candidate: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    doubts: tuple[Answer, ...] = ()
    steps: tuple[StepDifference, ...] = ()
    steps_of: int | None = None
    unseen: str = ""
    asked: Tolerances = field(default_factory=Tolerances)
    by_default: bool = False
    precision: Precision = field(default_factory=Precision)
    located: Divergence | None = None
    swings: Mapping[str, float] = field(default_factory=dict)
    effects: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    claim: Claim | None = None
    coverage: Coverage | None = None
    units: Mapping[str, InUnits] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line; printed it is the whole text."""
        name = " ".join(self.name.split())
        count = f"{self.count} fixture{'' if self.count == 1 else 's'}"
        figure = _figure(self.max_abs_diff_across_all)
        return (
            f"<{type(self).__name__} {_word(self.passed)}: {name}, {figure}, threshold "
            f"{self.threshold:.3g}, {count}>"
        )

    def __eq__(self, other: object) -> bool:
        """Whether it says the same; how a result shows itself makes no difference."""
        return isinstance(other, RunResult) and vars(self) == vars(other)

    @property
    def count(self) -> int:
        """How many fixtures were judged."""
        return len(self.fixtures) + self.left_out

    @property
    def left_out(self) -> int:
        """How many of them passed and are kept nowhere but in the claim's numbers."""
        return 0 if self.claim is None else self.claim.judged - len(self.drawn)

    @property
    def drawn(self) -> tuple[FixtureResult, ...]:
        """The fixtures that the claim is made from: no corners, and none chosen for what they ask."""
        chosen = self.coverage.chosen if self.coverage is not None else ()
        return tuple(
            fixture
            for fixture in self.fixtures
            if fixture.fixture_idx < FIRST_MADE and fixture.fixture_idx not in chosen
        )

    @property
    def passed(self) -> bool:
        return (
            len(self.fixtures) > 0
            and all(f.passed for f in self.fixtures)
            and _all_yes(self.answers, RUN_GATE_NAMES)
        )

    def __bool__(self) -> bool:
        """The verdict, so that ``assert check(...)`` asks for it."""
        return self.passed

    @property
    def refusals(self) -> tuple[tuple[int | None, Answer], ...]:
        """Every refusal, ``(fixture_idx or None, answer)``: fixtures first, then the run's own gates."""
        found: list[tuple[int | None, Answer]] = []
        for fixture in self.fixtures:
            refusal = fixture.refusal
            if refusal is not None:
                found.append((fixture.fixture_idx, refusal))
        found += [(None, answer) for answer in self.answers if not answer.passed]
        if not found and not self.passed:
            asked = {answer.gate for answer in self.answers}
            missing = next((g for g in RUN_GATE_NAMES if g not in asked), RUN_GATE_NAMES[0])
            found.append((None, Answer.no(missing, f"the {missing} gate was never asked")))
        return tuple(found)

    @property
    def max_abs_diff_across_all(self) -> float | None:
        measured = [f.max_abs_diff for f in self.fixtures if f.max_abs_diff is not None]
        return max(measured, key=_badness, default=None)

    @property
    def worst_fixture(self) -> FixtureResult | None:
        """The fixture a reader should look at first: refused before passed, then the largest max_abs_diff."""
        return max(
            self.fixtures,
            key=lambda f: (not f.passed, _badness(f.max_abs_diff)),
            default=None,
        )

    @property
    def worst_refused_for_figures(self) -> FixtureResult | None:
        """The worst fixture, where its figures are why it was refused, and no shape, name or provider."""
        worst = self.worst_fixture
        refusal = None if worst is None else worst.refusal
        return worst if refusal is not None and refusal.gate in ("finite", "exact", "threshold") else None

    @property
    def against(self) -> Against:
        """What the candidate was held against: ``policy``, or ``onnx``, and then PyTorch was not asked."""
        return "onnx" if self.reference.get("kind") == ONNX_REFERENCE else "policy"

    @property
    def word(self) -> str | None:
        """``rounding``, ``rounding in float16``, ``undecided`` or ``bug``, the worst of any fixture.

        None when nobody asked.
        """
        word = worst_word(fixture.word for fixture in self.fixtures if fixture.word is not None)
        return None if word is None else in_words(word, self.precision.name)

    def limit_of(self, output: OutputResult) -> float:
        """The threshold that an output was held to, in its own unit."""
        return self.asked.plain(strict=self.strict) if output.bound is None else output.bound

    def most_of(self, output: OutputResult) -> float:
        """The most that any element of an output may be off by: with rtol, that of its largest value."""
        scale = output.difference.scale if output.difference is not None else None
        return self.limit_of(output) + self.asked.rtol * (scale or 0.0)

    @property
    def nearest(self) -> tuple[FixtureResult, OutputResult] | None:
        """What is nearest to its threshold, or furthest beyond; NaN is beyond everything."""

        def beyond(difference: Difference, limit: float) -> tuple[bool, float, float]:
            apart, bound = difference.nearest(limit, self.asked.rtol)
            share = apart / bound if bound else math.inf if apart else 0.0
            return math.isnan(apart), 0.0 if math.isnan(share) else share, difference.max_abs_diff

        found = [
            (beyond(output.difference, self.limit_of(output)), fixture, output)
            for fixture in self.fixtures
            for output in fixture.outputs
            if output.difference is not None
        ]
        best = max(found, key=lambda it: it[0], default=None)
        return None if best is None else best[1:]

    @property
    def margin(self) -> tuple[float | None, float]:
        """The figure and the threshold that say how near the run came: of the output that came nearest.

        With rtol they are those of the element that came nearest, what rtol adds to its threshold included.
        """
        nearest = self.nearest
        if self.asked.is_plain or nearest is None or nearest[1].difference is None:
            return self.max_abs_diff_across_all, self.threshold
        return nearest[1].difference.nearest(self.limit_of(nearest[1]), self.asked.rtol)

    @property
    def least(self) -> tuple[Least, ...]:
        """What each output of floats would pass with."""
        return least_passing(self.fixtures, self.asked.rtol, self.asked.plain(strict=self.strict))


def _all_yes(answers: Sequence[Answer], gates: Sequence[str]) -> bool:
    return [a.gate for a in answers] == list(gates) and all(a.passed for a in answers)


def _word(passed: bool) -> str:
    return "pass" if passed else "fail"


def _figure(largest: float | None) -> str:
    return "nothing measured" if largest is None else f"max_abs_diff {largest:.3e}"


def _badness(figure: float | None) -> tuple[bool, float]:
    """Orders figures, NaN and none above every number; ``max`` by itself sees a NaN only in first place."""
    unknown = figure is None or math.isnan(figure)
    return unknown, 0.0 if figure is None or unknown else figure


def largest_bound(fixtures: Sequence[FixtureResult], asked: Tolerances, *, strict: bool) -> float:
    """The loosest threshold that any output was held to; outputs without one are exact."""
    bounds = [o.bound for fixture in fixtures for o in fixture.outputs if o.bound]
    plain = asked.plain(strict=strict)
    held = any(o.bound is None and "float" in o.dtype for fixture in fixtures for o in fixture.outputs)
    if math.isfinite(plain) and (held or not bounds):
        bounds.append(plain)
    return max(bounds, default=STRICT_THRESHOLD)


def least_passing(fixtures: Sequence[FixtureResult], rtol: float, threshold: float) -> tuple[Least, ...]:
    """What each output of floats would pass with, over all fixtures."""
    found: dict[str, list[OutputResult]] = {}
    for fixture in fixtures:
        for output in fixture.outputs:
            if output.difference is not None and "float" in output.dtype:
                found.setdefault(output.name, []).append(output)
    return tuple(_least(name, outputs, rtol, threshold) for name, outputs in found.items())


def _least(name: str, outputs: Sequence[OutputResult], rtol: float, threshold: float) -> Least:
    excesses, rtols, floors = [], [], []
    for output in outputs:
        if output.difference is None:
            continue
        bound = threshold if output.bound is None else output.bound
        excesses.append(output.difference.excess(rtol))
        rtols.append(output.difference.least_rtol(bound))
        unit = output.floor.unit if output.floor is not None else None
        floors.append(None if not unit else excesses[-1] / unit)
    return Least(name, _largest(excesses) or 0.0, _largest(rtols), _largest(floors))


def _largest(figures: Sequence[float | None]) -> float | None:
    """The largest, NaN above every number; None as soon as one is not known."""
    known = [figure for figure in figures if figure is not None]
    if len(known) < len(figures):
        return None
    return max(known, key=lambda figure: (math.isnan(figure), figure), default=None)


def keep_worst_grids(fixtures: Sequence[FixtureResult]) -> list[FixtureResult]:
    """The same results with each output's grid kept only where that output differs most.

    The first of equals is kept, and a NaN is more than anything, so the choice hangs on no threshold.
    """
    worst: dict[str, tuple[tuple[bool, float], int]] = {}
    for at, fixture in enumerate(fixtures):
        for output in fixture.outputs:
            if output.difference is not None:
                largest = output.difference.max_abs_diff
                key = (largest != largest, 0.0 if largest != largest else largest)
                if output.name not in worst or key > worst[output.name][0]:
                    worst[output.name] = (key, at)
    return [
        replace(
            fixture,
            outputs=tuple(
                output if worst.get(output.name, ((), -1))[1] == at else replace(output, grid=None)
                for output in fixture.outputs
            ),
        )
        for at, fixture in enumerate(fixtures)
    ]
