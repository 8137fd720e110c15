"""The simplest observation that fails as a fixture did: what does not matter rests, and few values do not.

Both sides are asked again, in rounds, so that they are never in memory together: of a round all observations
go through the reference and then through the candidate. First inputs come to rest as wholes, then halves and
smaller parts of those that are left (Zeller's ddmin), then single values become round. What still fails by
the same gate is kept. It ends with its budget, and what it has then is as true, only less simple.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import ReflexError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.inputs.fixtures import make_fixture
from pytest_reflex.inputs.ranges import far_ends, groups, rest
from pytest_reflex.judge.naming import Named
from pytest_reflex.judge.runs import opened
from pytest_reflex.judge.sides import Sides, sides_of
from pytest_reflex.judge.workers.shares import OWN
from pytest_reflex.progress import Progress
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import RecordedRunner, Runner
from pytest_reflex.runners.base import asked, copied, first_line, said_by
from pytest_reflex.runners.recorded import save_recording
from pytest_reflex.settings import PROVIDERS
from pytest_reflex.verdict.gates import Evidence, judge_fixture
from pytest_reflex.verdict.results import FIRST_MADE, FixtureResult, named_fixture

__all__ = ["Pace", "Simplest", "simplest", "simplified"]

Array = np.ndarray[Any, Any]
Observation = Mapping[str, Array]
# What is refused by these is refused for what it was given; the rest says where it is wrong by itself.
GATES: Final = ("finite", "exact", "threshold")
# An observation of so few values that are not at rest is simple: each of them is then made round.
FEW: Final = 8
# So many observations go through both sides in one round.
_ROUND: Final = 64


@dataclass(frozen=True)
class Simplest:
    """The simplest observation that was found to fail.

    Attributes:
        fixture_idx: the fixture that it was made of.
        inputs: it.
        outputs: what the reference gives for it.
        result: how the candidate was refused.
        resting: the inputs that are at rest, or as in the plain fixture where they have no rest.
        awake: of each other input how many of its values are not at rest, and how many it has.
        tries: how many observations were judged.
        seconds: how long it took.
    """

    fixture_idx: int
    inputs: Observation
    outputs: Observation
    result: FixtureResult
    resting: tuple[str, ...]
    awake: Mapping[str, tuple[int, int]]
    tries: int
    seconds: float
    _still: Observation = field(default_factory=dict, repr=False)

    @property
    def text(self) -> str:
        """``state[0, 3] = 1.0 alone; image, noise at rest``, and by how much it fails."""
        parts = []
        for name, (count, size) in self.awake.items():
            array = self.inputs[name]
            found = np.argwhere(_unlike(array, self._still[name]))
            if 0 < count <= 2:
                parts += [_value(name, array, tuple(map(int, at))) for at in found]
            else:
                parts.append(f"{count:,} of {size:,} values of {name}")
        if not parts:
            return (
                f"every input at rest ({', '.join(self.resting)})" if self.resting else "every input at rest"
            )
        others = f"; at rest: {', '.join(self.resting)}" if self.resting else ""
        return f"{', '.join(parts)}{others}"


def _value(name: str, array: Array, at: tuple[int, ...]) -> str:
    where = f"[{', '.join(map(str, at))}]" if at else ""
    return f"{name}{where} = {array[at].item()!r}"


class Pace:
    """How long a fixture takes in this process, heard from what a check tells of its progress.

    What it waits for does not count: workers that start, and fixtures that they judge.

    Args:
        tell: who is to be told as well.
    """

    def __init__(self, tell: Progress) -> None:
        self._tell, self._since = tell, time.monotonic()
        self._took = {"reference": 0.0, "candidate": 0.0}
        self._runs = Counter[str]()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage in self._took and done <= OWN:
            self._took[stage] += now - self._since
            self._runs[stage] += 1
        self._since = now
        self._tell(stage, done, total)

    @property
    def each(self) -> float:
        """Seconds for one fixture on both sides, its part of opening them with it."""
        return sum(took / max(1, self._runs[stage]) for stage, took in self._took.items())


def simplified(
    result: ParityResult,
    reference: Any,
    candidate: Any,
    *,
    inputs: object = None,
    seconds: float,
    each: float = 0.0,
    place: Path | None = None,
) -> ParityResult:
    """The result with a note of the simplest observation that fails, which is stored at ``place``.

    Whatever goes wrong in the search is said in a note, and the verdict stands.

    Args:
        result: what a check found.
        reference: as the check was given it.
        candidate: as the check was given it.
        inputs: as the check was given them.
        seconds: how long it may take; 0 looks for nothing.
        each: how many seconds a fixture took in the check, its part of opening both sides with it. Where no
            two would fit into the budget, nothing is looked for.
        place: where the recording goes; None stores nothing.
    """
    if result.passed or result.seed is None or not 2 * each < seconds:
        return result
    try:
        sides = sides_of(reference, candidate, inputs, _provider(result))
        found = simplest(result, sides, seconds=seconds)
        if found is None:
            return result
        stored = ""
        if place is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            save_recording(place, [(found.inputs, found.outputs)], live_inputs=[])
            stored = f", stored in {_from_here(place)}"
    except (Exception, SystemExit) as error:
        said = str(error) if isinstance(error, ReflexError) else first_line(error)
        return replace(result, notes=(*result.notes, f"no simpler input was looked for: {said}"))
    worst = named_fixture(found.fixture_idx)
    note = f"the simplest input found that fails as {worst} does{stored}: {found.text}"
    return replace(result, notes=(*result.notes, note))


def _from_here(place: Path) -> Path:
    """A path as one would write it here, so that a report says the same wherever the project lies."""
    return place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place


def _provider(result: ParityResult) -> str:
    """ONNX Runtime's, where it was that; another runtime knows its own."""
    made_for = result.candidate.get("provider_asked")
    return str(made_for) if made_for in PROVIDERS.values() else PROVIDERS["cpu"]


def simplest(
    result: ParityResult, sides: Sides, *, seconds: float, now: Callable[[], float] = time.monotonic
) -> Simplest | None:
    """The simplest observation that fails as the worst fixture does; None where it is not to be had.

    Args:
        result: a fail, of drawn fixtures.
        sides: both of it, closed; its inputs are specifications.
        seconds: how long it may take.
        now: the clock.

    Raises:
        ReflexError: a side cannot be opened, or cannot run what it ran before.
    """
    worst = result.worst_fixture
    refusal = worst.refusal if worst is not None else None
    specs = [spec for spec in _listed(sides.inputs) if isinstance(spec, InputSpec)]
    live = not isinstance(sides.reference, RecordedRunner)
    if worst is None or refusal is None or refusal.gate not in GATES or not specs or not live:
        return None
    search = _Search(result, worst, refusal.gate, sides, specs, now() + seconds, now)
    return search.found(now())


def _listed(inputs: object) -> Sequence[object]:
    return inputs if isinstance(inputs, Sequence) else ()


def _unlike(array: Array, still: Array) -> Array:
    """Where two arrays of one form differ, NaN being like NaN."""
    return np.asarray(~((array == still) | ((array != array) & (still != still))))


@dataclass
class _Search:
    result: ParityResult
    worst: FixtureResult
    gate: str
    sides: Sides
    specs: Sequence[InputSpec]
    until: float
    now: Callable[[], float]
    tries: int = 0
    still: dict[str, Array] = field(default_factory=dict)
    alone: set[str] = field(default_factory=set)
    best: tuple[dict[str, Array], dict[str, Array], FixtureResult] | None = None

    def found(self, begun: float) -> Simplest | None:
        """Everything in order; what is best when the time is over."""
        idx, seed = self.worst.fixture_idx, self.result.seed or 0
        start = make_fixture(self.specs, seed, idx)
        plain = make_fixture(self.specs, seed, 0, sizes_of=idx if idx < FIRST_MADE else 0)
        for spec in self.specs:
            still, array = rest(spec), start[spec.name]
            self.still[spec.name] = plain[spec.name] if still is None else np.full_like(array, still)
        if not self.first_failing([start]):
            return None
        with suppress(Exception):  # whatever ends it, what is best so far is as true
            self.simpler()
        inputs, outputs, refused = self.kept()
        awake = {name: (len(found), inputs[name].size) for name, found in self.awake().items()}
        resting = tuple(name for name in inputs if name not in awake)
        took = self.now() - begun
        return Simplest(idx, inputs, outputs, refused, resting, awake, self.tries, took, self.still)

    def simpler(self) -> None:
        """Whole inputs first, then parts of them, then single values."""
        self.whole_inputs()
        # What hangs together, or has no rest, stays as some fixture has it.
        self.alone = {g[0].name for g in groups(self.specs) if len(g) == 1 and rest(g[0]) is not None}
        for name in [name for name in self.awake() if name in self.alone]:
            self.parts(name)
        if sum(map(len, self.awake().values())) <= FEW:
            self.round_values()

    def kept(self) -> tuple[dict[str, Array], dict[str, Array], FixtureResult]:
        if self.best is None:
            raise ReflexError("nothing failed yet")
        return self.best

    def awake(self) -> dict[str, Array]:
        """Of each input that is not at rest the places, in its flat order, of values that are not."""
        inputs = self.kept()[0]
        found = {
            name: np.flatnonzero(_unlike(array, self.still[name]).reshape(-1))
            for name, array in inputs.items()
        }
        return {name: places for name, places in found.items() if places.size}

    def whole_inputs(self) -> None:
        """Bring to rest all groups but one; else as many as can be, one after the other."""
        awake = self.awake()
        together = [
            [spec.name for spec in group]
            for group in groups(self.specs)
            if any(spec.name in awake for spec in group)
        ]
        inputs = self.kept()[0]

        def resting(names: Sequence[str]) -> dict[str, Array]:
            return {name: self.still[name] if name in names else array for name, array in inputs.items()}

        others = [[name for group in together if group is not own for name in group] for own in together]
        everything = [name for group in together for name in group]
        if self.first_failing([resting(everything), *(resting(n) for n in others if len(together) > 1)]):
            return
        for group in together:
            inputs = self.kept()[0]
            self.first_failing([resting(group)])

    def parts(self, name: str) -> None:
        """Leave as few values of an input as can be: halves at first, then smaller parts."""
        count = 2
        while True:
            places = self.awake().get(name)
            if places is None or places.size < 2 or self.now() >= self.until:
                return
            count = min(count, places.size)
            chunks = np.array_split(places, count)
            alone = [self.only(name, chunk) for chunk in chunks]
            if self.first_failing(alone):
                count = 2
                continue
            without = [self.only(name, np.setdiff1d(places, chunk)) for chunk in chunks] if count > 2 else []
            if self.first_failing(without):
                count = max(2, count - 1)
            elif count == places.size:
                return
            else:
                count = min(places.size, 2 * count)

    def only(self, name: str, places: Array) -> dict[str, Array]:
        """The best so far with no other values of an input than those at some places."""
        inputs = self.kept()[0]
        array = self.still[name].copy()
        array.reshape(-1)[places] = inputs[name].reshape(-1)[places]
        return {**inputs, name: array}

    def round_values(self) -> None:
        """Make the values that are left an end of their range, or as short as can be written."""
        by_name = {spec.name: spec for spec in self.specs}
        for name, places in self.awake().items():
            for place in places if name in self.alone else ():
                value = self.kept()[0][name].reshape(-1)[place]
                tried = [self.with_value(name, place, new) for new in _rounder(by_name[name], value)]
                self.first_failing(tried)

    def with_value(self, name: str, place: Any, value: Any) -> dict[str, Array]:
        inputs = self.kept()[0]
        array = inputs[name].copy()
        array.reshape(-1)[place] = value
        return {**inputs, name: array}

    def first_failing(self, tried: Sequence[dict[str, Array]]) -> bool:
        """Take the first of some observations that fails by the same gate; whether there was one."""
        for begin in range(0, len(tried), _ROUND):
            some = tried[begin : begin + _ROUND]
            truths = list(self.asked_each(self.sides.reference, some))
            # What the reference does not take is no observation that fails.
            taken = [at for at, truth in enumerate(truths) if truth is not None]
            # By the reference's names, as it was judged: of one output on each side both may be called apart.
            names = list(next((truth for truth in truths if truth is not None), ()))
            candidate = Named(self.sides.candidate, names)
            with closing(self.asked_each(candidate, [some[at] for at in taken])) as given:
                for at, got in zip(taken, given, strict=False):
                    self.tries += 1
                    truth = truths[at]
                    if truth is None or got is None:
                        continue
                    refused = self.judged(truth, got)
                    if refused.refusal is not None and refused.refusal.gate == self.gate:
                        self.best = some[at], truth, refused
                        return True
        return False

    def asked_each(
        self, runner: Runner, some: Sequence[dict[str, Array]]
    ) -> Generator[dict[str, Array] | None, None, None]:
        """What a side gives for each; None where it does not run on what was made simpler."""
        if not some or (self.best is not None and self.now() >= self.until):
            return
        with opened(runner):
            for inputs in some:
                try:
                    gave = copied(asked(runner, copied(inputs)))
                except Exception:
                    if self.best is None:
                        raise
                    gave = None
                yield gave
                if self.best is not None and self.now() >= self.until:
                    return

    def judged(self, truth: Observation, got: Observation) -> FixtureResult:
        """The verdict, with the bounds that the fixture was held to."""
        bounds = {one.name: one.bound for one in self.worst.outputs if one.bound is not None}
        evidence = Evidence(
            truth,
            got,
            self.result.asked.plain(strict=self.result.strict),
            self.sides.provider,
            tuple(said_by(self.sides.candidate, "providers_used", ())),
            bounds=bounds,
            rtol=self.result.asked.rtol,
        )
        return judge_fixture(self.worst.fixture_idx, evidence)


def _rounder(spec: InputSpec, value: Any) -> list[Any]:
    """Simpler values than one, the simplest first: whole ones and ends of the range, then with few digits."""
    if isinstance(value, np.bool_):
        return []
    found: list[float] = [float(round(float(value), digits)) for digits in (0, 1, 2)]
    own = far_ends(spec)
    if own is not None:
        near = [float(end) for end in own if (end > 0) == (value > 0)]
        found = [each for each in (*found[:1], *near, *found[1:]) if own[0] <= each <= own[1]]
    if value.dtype.kind in "iu":
        found = [round(each) for each in found]
    still = rest(spec)
    return [each for each in dict.fromkeys(found) if each != value and each != still]
