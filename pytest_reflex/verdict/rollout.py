"""The frozen verdict on a policy that drives an arm: its drift in units, beside that of rounding alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pytest_reflex.verdict.drift import Drift, Quantity
from pytest_reflex.verdict.paired import Paired, paired
from pytest_reflex.verdict.rounding import CHANCE, FACTOR

__all__ = [
    "CANDIDATE",
    "FLOAT64",
    "FLOORS",
    "JITTER",
    "NOT_DRIVEN",
    "REFERENCE",
    "OpenLoop",
    "Rollout",
    "Seen",
    "Start",
]

REFERENCE: Final = "reference"
CANDIDATE: Final = "candidate"
# The sides whose drift is rounding alone: the reference in float64, and with its inputs one last place off.
FLOAT64: Final = "float64"
JITTER: Final = "jitter"
FLOORS: Final = (FLOAT64, JITTER)

# What is said of a candidate with processors, which get nothing to do here.
NOT_DRIVEN: Final = "the bundle's processors are not driven: what they do is judged by `reflex validate`"

# Where rounding alone parts the ways visibly, chance makes one drift several times another.
Word = Literal["rounding", "undecided", "further"]


@dataclass(frozen=True)
class Start:
    """One start, driven by every side.

    Attributes:
        start: its number, which every draw hangs on.
        drifts: by side, how far it went from the reference in each quantity, in their order; the reference
            itself has none.
        least: by quantity, what no float32 observation would show: one last place of its largest value.
        succeeded: by side, whether it did the job; None where the environment has none.
        curves: by side, the drift of the first quantity over time, at :attr:`Rollout.instants`.
    """

    start: int
    drifts: Mapping[str, tuple[Drift, ...]]
    least: Mapping[str, float]
    succeeded: Mapping[str, bool | None]
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def drift(self, side: str, quantity: str) -> Drift:
        """How far a side went in a quantity.

        Raises:
            KeyError: there is no such side or quantity.
        """
        found = {drift.quantity: drift for drift in self.drifts[side]}
        return found[quantity]

    def floor(self, quantity: str) -> float:
        """How far rounding alone went, in the quantity's unit."""
        sides = [side for side in FLOORS if side in self.drifts]
        return max(
            [self.drift(side, quantity).largest for side in sides] + [self.least[quantity]],
        )

    def parted(self, quantity: str) -> float | None:
        """When rounding alone was first visible, in seconds; None where it never was."""
        sides = [side for side in FLOORS if side in self.drifts]
        times = [self.drift(side, quantity).diverged_s for side in sides]
        return min((time for time in times if time is not None), default=None)


@dataclass(frozen=True)
class Seen:
    """One start as it is drawn: the way of every side.

    Attributes:
        start: its number.
        places: by side, where its first tip was, in the first quantity's unit, [instants][axes].
        parts: the drift of the candidate in each part of each quantity, by quantity, [parts][instants].
        floors: the drift of rounding alone in each quantity, [instants].
    """

    start: int
    places: Mapping[str, tuple[tuple[float, ...], ...]]
    parts: Mapping[str, tuple[tuple[float, ...], ...]]
    floors: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class OpenLoop:
    """What a check without a robot says of the same policies: largest differences of actions on one way.

    Attributes:
        plans: how many observations of the reference's own way they are of.
        candidate: ``max_abs_diff`` of the candidate's actions, against the reference.
        float64: the same of the reference in float64; None where it was not run.
    """

    plans: int
    candidate: float
    float64: float | None


@dataclass(frozen=True)
class Rollout:
    """The verdict on a closed loop.

    Attributes:
        name: what was judged.
        env: the environment's name.
        seconds: how long a start was driven.
        hz: control instants a second.
        execute: how many actions of a chunk are carried out before the next is planned.
        latency: how many control periods the candidate's chunk is late.
        seed: what starts and noise are drawn with.
        asked: how many starts were asked for.
        quantities: what was watched.
        starts: those that every side drove to the end.
        instants: the times of curves, in seconds.
        open_loop: what the same two say without a robot; None where no start was driven.
        seen: the start in which the candidate went furthest, to be drawn; None where there is none.
        within: how far the first quantity may drift and still pass, in its unit; None asks for rounding.
        error: why not every start was driven to the end, in one line; else empty.
        notes: what else a reader should know.
        not_driven: what stands around the candidate's policy and had no part in it, in one line; else empty.
        facts: what ran, by side.
    """

    name: str
    env: str
    seconds: float
    hz: float
    execute: int
    latency: int
    seed: int
    asked: int
    quantities: tuple[Quantity, ...]
    starts: tuple[Start, ...]
    instants: tuple[float, ...] = ()
    open_loop: OpenLoop | None = None
    seen: Seen | None = None
    within: float | None = None
    error: str = ""
    notes: tuple[str, ...] = ()
    not_driven: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether all starts were driven, and the candidate drifted no further than it may in any."""
        if self.error or not self.quantities or len(self.starts) != self.asked or not self.asked:
            return False
        if self.success is not None and self.success.differ:
            return False
        if self.within is None:
            return self.word == "rounding"
        bound, tip = self.within, self.quantities[0].name
        return all(start.drift(CANDIDATE, tip).largest < bound for start in self.starts)

    def __bool__(self) -> bool:
        """The verdict."""
        return self.passed

    @property
    def exit_code(self) -> int:
        """2 where not every start was driven to its end, 1 where the verdict is a fail, else 0."""
        if self.error or len(self.starts) != self.asked or not self.asked:
            return 2
        return 0 if self.passed else 1

    @property
    def word(self) -> Word:
        """The worst word of any start and quantity; ``rounding`` only where each is."""
        return _worst(self.word_of(start, q.name) for start in self.starts for q in self.quantities)

    def word_of(self, start: Start, quantity: str) -> Word:
        """The word on one quantity of one start; what is NaN is no rounding.

        Where rounding alone was visible in any start the plant is chaotic, and what went further than it may
        is undecided up to :data:`~pytest_reflex.verdict.rounding.CHANCE` times the largest floor of all.
        """
        far = start.drift(CANDIDATE, quantity).largest
        if far <= self.allowed(start, quantity):
            return "rounding"
        chaotic = any(other.parted(quantity) is not None for other in self.starts)
        if chaotic and far <= CHANCE * max(other.floor(quantity) for other in self.starts):
            return "undecided"
        return "further"

    def word_of_start(self, start: Start) -> Word:
        """The worst word of a start's quantities."""
        return _worst(self.word_of(start, q.name) for q in self.quantities)

    def word_of_quantity(self, quantity: str) -> Word:
        """The worst word of a quantity in any start."""
        return _worst(self.word_of(start, quantity) for start in self.starts)

    def allowed(self, start: Start, quantity: str) -> float:
        """How far the candidate may go in a start and still be rounding, in the quantity's unit."""
        return FACTOR * self.floor(start, quantity)

    def floor(self, start: Start, quantity: str) -> float:
        """One floor: what rounding alone did in this start, or in any other that did not part visibly.

        It may be small in one start by luck. Where it grew until it was seen it says nothing of the others.
        """
        calm = [other.floor(quantity) for other in self.starts if other.parted(quantity) is None]
        return max([start.floor(quantity), *calm])

    def ratio(self, start: Start, quantity: str) -> float:
        """How many floors the candidate went in one start."""
        return start.drift(CANDIDATE, quantity).largest / self.floor(start, quantity)

    @property
    def further(self) -> tuple[str, ...]:
        """The quantities that went further than rounding in any start, in their order."""
        return tuple(q.name for q in self.quantities if self.word_of_quantity(q.name) == "further")

    @property
    def success(self) -> Paired | None:
        """Both sides' success over the starts; None where the environment has no task."""
        pairs = [(start.succeeded[REFERENCE], start.succeeded[CANDIDATE]) for start in self.starts]
        known = [(bool(one), bool(other)) for one, other in pairs if one is not None and other is not None]
        return paired([one for one, _ in known], [other for _, other in known]) if known else None

    def largest(self, side: str, quantity: str) -> float:
        """The furthest that a side went in any start."""
        return max(drift.largest for drift in self.of(side, quantity))

    def typical(self, side: str, quantity: str) -> float:
        """The median over the starts of how far it went."""
        return statistics.median(drift.largest for drift in self.of(side, quantity))

    def of(self, side: str, quantity: str) -> Sequence[Drift]:
        """Its drifts, one a start; empty where the side was not run."""
        return [start.drift(side, quantity) for start in self.starts if side in start.drifts]

    @property
    def sides(self) -> Iterator[str]:
        """The sides that have a drift, the candidate first."""
        return (side for side in (CANDIDATE, *FLOORS) if self.starts and side in self.starts[0].drifts)

    def diverged(self, side: str, quantity: str) -> tuple[int, float | None]:
        """In how many starts a side was visibly elsewhere, and when first, in seconds."""
        times = [drift.diverged_s for drift in self.of(side, quantity) if drift.diverged_s is not None]
        return len(times), min(times, default=None)

    def growth(self, side: str, quantity: str) -> float | None:
        """The median over the starts of the rate at which a side's drift grew, per second."""
        rates = [drift.growth for drift in self.of(side, quantity) if drift.growth is not None]
        return statistics.median(rates) if rates else None


def _worst(words: Iterable[Word]) -> Word:
    """The worst of them; of none, that nothing is shown to be rounding."""
    order: tuple[Word, ...] = ("rounding", "undecided", "further")
    return max(words, key=order.index, default="further")
