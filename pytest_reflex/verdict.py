"""The verdict: gates in order, each of which must say yes; the results they leave; nothing else decides.

A fixture passes when every gate in :data:`FIXTURE_GATES` has answered :data:`YES`, and a run passes
when it holds at least one fixture, all of them pass, and every gate in :data:`RUN_GATES` has
answered :data:`YES` too. There is no flag to set: ``passed`` is derived from the answers, so what
was never asked is a fail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from pytest_reflex.errors import ParityError

if TYPE_CHECKING:
    import numpy as np

    from pytest_reflex.details import ErrorGrid, InputSummary, StepDifference
    from pytest_reflex.floor import Floor, Word
    from pytest_reflex.located import Located
    from pytest_reflex.metrics import Difference

THRESHOLD: Final = 1e-4
STRICT_THRESHOLD: Final = 1e-5

# What a gate answers when it is satisfied. A sentinel, so that None, "" or a forgotten return is no yes.
YES: Final = "yes"

Arrays = Mapping[str, "np.ndarray"]


@dataclass(frozen=True)
class Answer:
    """What one gate said: its name and :data:`YES`, or its name and the reason it refused."""

    gate: str
    said: str

    @property
    def yes(self) -> bool:
        return self.said == YES


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
        bound: its own threshold, where that was asked for in units of the floor.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    difference: Difference | None
    grid: ErrorGrid | None = None
    floor: Floor | None = None
    bound: float | None = None


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

    @property
    def passed(self) -> bool:
        return tuple(a.gate for a in self.answers) == FIXTURE_GATE_NAMES and all(a.yes for a in self.answers)

    @property
    def refusal(self) -> Answer | None:
        """The first gate that refused, or None. A fixture without answers is refused by the first gate."""
        for answer in self.answers:
            if not answer.yes:
                return answer
        if self.passed:
            return None
        asked = {answer.gate for answer in self.answers}
        missing = next((g for g in FIXTURE_GATE_NAMES if g not in asked), FIXTURE_GATE_NAMES[0])
        return Answer(missing, f"the {missing} gate was never asked")

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
        from pytest_reflex.floor import worst_word

        return worst_word(o.floor.word for o in self.outputs if o.floor is not None)


@dataclass(frozen=True)
class ParityResult:
    """The verdict on a run, with everything a report needs to say why.

    Attributes:
        name: what was judged, for people: a test's node id or a bundle's path.
        threshold: the bound on max_abs_diff; pass is strictly below. The largest of any output, where it
            was asked for in units of the floor.
        strict: whether notes were turned into failures.
        seed: what the fixtures were drawn with, or None when they were recorded.
        fixtures: one result per fixture.
        answers: what each run gate said, all of them (they are independent of each other).
        reference: facts about the reference, builtins only.
        candidate: facts about the candidate, builtins only.
        notes: what a careful reader should know though it failed nothing.
        doubts: what strict refuses and a plain run only notes, each with the gate that it is put to.
        steps: how far the sides were apart after each denoising step, in one fixture.
        steps_of: that fixture: the one whose outputs differ most. None when there are no steps.
        unseen: why there are no steps, in words.
        floors: the threshold as a multiple of the floor, where it was asked for so.
        located: where the two sides part, when that was looked for.
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
    floors: float | None = None
    located: Located | None = None

    @property
    def passed(self) -> bool:
        return (
            len(self.fixtures) > 0
            and all(f.passed for f in self.fixtures)
            and tuple(a.gate for a in self.answers) == RUN_GATE_NAMES
            and all(a.yes for a in self.answers)
        )

    @property
    def refusals(self) -> tuple[tuple[int | None, Answer], ...]:
        """Every refusal, ``(fixture_idx or None, answer)``: fixtures first, then the run's own gates."""
        found: list[tuple[int | None, Answer]] = []
        for fixture in self.fixtures:
            refusal = fixture.refusal
            if refusal is not None:
                found.append((fixture.fixture_idx, refusal))
        found += [(None, answer) for answer in self.answers if not answer.yes]
        if not found and not self.passed:
            asked = {answer.gate for answer in self.answers}
            missing = next((g for g in RUN_GATE_NAMES if g not in asked), RUN_GATE_NAMES[0])
            found.append((None, Answer(missing, f"the {missing} gate was never asked")))
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
    def word(self) -> Word | None:
        """``rounding``, ``undecided`` or ``bug``, the worst of any fixture; None when nobody asked."""
        from pytest_reflex.floor import worst_word

        return worst_word(fixture.word for fixture in self.fixtures if fixture.word is not None)

    def require(self) -> ParityResult:
        """Return the result itself when it passed.

        Raises:
            ParityError: it did not; the message is the whole report, its first line the verdict.
        """
        if self.passed:
            return self
        from pytest_reflex.report.terminal import failure_message

        raise ParityError(failure_message(self), self)

    def to_json(self) -> dict[str, object]:
        """The result as builtins, strict JSON once dumped; ``report/parity.schema.json`` describes it."""
        from pytest_reflex.report.json import result_to_json

        return result_to_json(self)

    def _repr_html_(self) -> str:
        from pytest_reflex.report.html import result_html

        return result_html(self)

    def __str__(self) -> str:
        from pytest_reflex.report.terminal import result_text

        return result_text(self)


def _badness(figure: float | None) -> tuple[bool, float]:
    """Orders figures, NaN and none above every number; ``max`` by itself sees a NaN only in first place."""
    unknown = figure is None or math.isnan(figure)
    return unknown, 0.0 if figure is None or unknown else figure


@dataclass(frozen=True)
class Evidence:
    """What the fixture gates look at: both sides' outputs for one fixture, and how the candidate ran.

    ``bounds`` holds the outputs that have a threshold of their own.
    """

    reference: Arrays
    candidate: Arrays
    threshold: float
    provider_asked: str
    providers_used: Sequence[str]
    floors: Mapping[str, Floor] = field(default_factory=dict)
    bounds: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """How each output differs, by name; to be asked only of outputs of the same structure."""
        from pytest_reflex.metrics import difference

        return {name: difference(r, self.candidate[name]) for name, r in self.reference.items()}


def _structure(e: Evidence) -> str:
    if not e.reference:
        return "the reference gave no output, so there is nothing to compare"
    want, got = list(e.reference), list(e.candidate)
    missing = [n for n in want if n not in e.candidate]
    extra = [n for n in got if n not in e.reference]
    if missing or extra:
        parts = [f"missing {', '.join(map(repr, missing))}"] if missing else []
        parts += [f"unexpected {', '.join(map(repr, extra))}"] if extra else []
        return f"outputs differ: {'; '.join(parts)} (reference gives {', '.join(map(repr, want))})"
    if want != got:
        return f"outputs are reordered: reference gives {', '.join(want)}, candidate {', '.join(got)}"
    for name in want:
        r, c = e.reference[name], e.candidate[name]
        if r.dtype != c.dtype:
            return f"{name}: dtype is {c.dtype}, reference has {r.dtype}"
        if r.shape != c.shape:
            return f"{name}: shape is {list(c.shape)}, reference has {list(r.shape)}"
        if r.size == 0:
            return f"{name}: shape {list(r.shape)} holds no element, so there is nothing to compare"
        if r.dtype.kind not in "fiub" and r.dtype.name not in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
            return f"{name}: dtype {r.dtype} cannot be compared as numbers"
    return YES


def _provider(e: Evidence) -> str:
    if not e.provider_asked:
        return YES  # the candidate is no ONNX Runtime session: it has no provider to fall back from
    used = e.providers_used[0] if e.providers_used else None
    if used == e.provider_asked:
        return YES
    return f"ran on {used or 'no provider'}, not on {e.provider_asked} as asked"


def _finite(e: Evidence) -> str:
    import numpy as np

    for name, r in e.reference.items():
        if r.dtype.kind in "iub":
            continue
        for side, array in (("candidate", e.candidate[name]), ("reference", r)):
            bad = ~np.isfinite(array.astype(np.float64))
            if bad.any():
                at = [int(i) for i in np.argwhere(bad)[0]]
                value = float(array[tuple(at)])
                return (
                    f"{side} {name}{at} is {value} ({int(bad.sum())} of {bad.size} elements are not finite)"
                )
    return YES


def _exact(e: Evidence) -> str:
    import numpy as np

    for name, r in e.reference.items():
        c = e.candidate[name]
        if r.dtype.kind in "iub" and not np.array_equal(r, c):
            wrong = r != c
            at = [int(i) for i in np.argwhere(wrong)[0]]
            return (
                f"{name}{at} is {c[tuple(at)]}, reference has {r[tuple(at)]} "
                f"({int(wrong.sum())} of {wrong.size} elements differ; {r.dtype} must be equal)"
            )
    return YES


def _threshold(e: Evidence) -> str:
    return below_threshold(e.differences, e.threshold, e.bounds)


def below_threshold(
    differences: Mapping[str, Difference], threshold: float, bounds: Mapping[str, float] | None = None
) -> str:
    """What the threshold gate says of each output's figures: :data:`YES`, or why not."""
    for name, d in differences.items():
        bound = (bounds or {}).get(name, threshold)
        # Asked this way round, a NaN is a refusal.
        if not (d.max_abs_diff < bound):
            return f"{name}: max_abs_diff {d.max_abs_diff:.3e} is not below {bound:.1e}"
    return YES


FIXTURE_GATES: Final[tuple[tuple[str, Callable[[Evidence], str]], ...]] = (
    ("structure", _structure),
    ("provider", _provider),
    ("finite", _finite),
    ("exact", _exact),
    ("threshold", _threshold),
)
FIXTURE_GATE_NAMES: Final = tuple(name for name, _ in FIXTURE_GATES)
# intact: the files are those of the manifest; compared: something was; repeat: a repeated fixture gave
# the same bits; inputs: none is dead.
RUN_GATE_NAMES: Final = ("intact", "compared", "repeat", "inputs")


def same_structure(evidence: Evidence) -> bool:
    """Whether both sides' outputs can be laid side by side."""
    return _structure(evidence) == YES


def judge_fixture(fixture_idx: int, evidence: Evidence) -> FixtureResult:
    """Ask the fixture gates in order and stop at the first that refuses."""
    from pytest_reflex.details import error_grid

    answers: list[Answer] = []
    for name, gate in FIXTURE_GATES:
        answers.append(Answer(name, gate(evidence)))
        if not answers[-1].yes:
            break
    # Figures are taken whenever the arrays can be laid side by side, also for a fixture that was refused.
    comparable = answers[0].yes
    outputs = tuple(
        OutputResult(
            name,
            str(r.dtype),
            tuple(int(n) for n in r.shape),
            evidence.differences[name] if comparable else None,
            error_grid(r, evidence.candidate[name]) if comparable else None,
            evidence.floors.get(name),
            evidence.bounds.get(name),
        )
        for name, r in evidence.reference.items()
    )
    return FixtureResult(fixture_idx, tuple(answers), outputs)
