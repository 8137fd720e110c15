"""``closed_loop``: a candidate drives an arm beside its reference, and its drift is held against rounding.

Four sides drive one copy of the environment each, from the same starts, with the same noise and cameras: the
reference, the candidate, and two whose drift is rounding alone, the reference in float64 and the reference
with its inputs one unit in the last place off. What those two do in this plant is the floor.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np

from pytest_reflex.errors import InputError, ReflexError, SettingsError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.judge.runs import opened
from pytest_reflex.judge.sides import Sides, sides_of
from pytest_reflex.progress import Progress, progress_callback
from pytest_reflex.rollout.driving import Plan, Terms, Way, drive
from pytest_reflex.rollout.environments import Environment, Made, environment_named
from pytest_reflex.rollout.observing import Observe, Observing, jittered
from pytest_reflex.rollout.shown import RolloutResult
from pytest_reflex.runners import Runner
from pytest_reflex.runners.base import HasFloat64, asked
from pytest_reflex.settings import PROVIDERS
from pytest_reflex.verdict.drift import Quantity, apart, drift
from pytest_reflex.verdict.naming import did_you_mean
from pytest_reflex.verdict.rollout import CANDIDATE, REFERENCE, OpenLoop, Seen, Start

__all__ = ["closed_loop"]

Array = np.ndarray[Any, Any]
Ask = Callable[[Mapping[str, Array]], Mapping[str, Array]]

# How many plans of the first start are asked again without a robot.
OPEN_LOOP_PLANS: Final = 16
# How many instants a curve is kept at.
INSTANTS: Final = 121
JITTER: Final = "jitter"
MEASURED: Final = "measured"
# Of so many runs the median is taken, after one that warms up.
TIMED_RUNS: Final = 5
FLOAT64: Final = "float64"


def closed_loop(
    reference: Any,
    candidate: Any,
    env: str | Made = "panda-reach",
    *,
    seconds: float = 30.0,
    hz: float = 30.0,
    starts: int = 20,
    execute: int = 8,
    latency: int | str = 0,
    seed: int = 0,
    within: float | None = None,
    joints: Sequence[str] | None = None,
    inputs: Sequence[InputSpec] | None = None,
    observe: Observe | None = None,
    film: bool = False,
    name: str = "rollout",
    provider: str = PROVIDERS["cpu"],
    progress: Progress | None = None,
) -> RolloutResult:
    """Have both drive the same arm, and say how far they come apart beside what rounding alone does.

    Args:
        reference: as of :func:`~pytest_reflex.judge.check.check`.
        candidate: as there: a bundle, a served policy, a path, a runner.
        env: the name of an environment, ``gym:ID``, or what makes one for a rate in Hz.
        seconds: how long each start is driven.
        hz: control instants a second.
        starts: how many starts; each is decided by its number.
        execute: how many actions of a chunk are carried out before the next one is planned.
        latency: how many control periods the candidate's chunks are late, in simulated time, 0 to
            ``execute - 1``, or ``measured``: as many as its runs take here; the reference's are in time.
        seed: what noise is drawn with.
        within: how far the first quantity may drift, in its unit (mm for an arm); by default no further
            than rounding.
        joints: the names of the joints that are judged; by default all.
        inputs: what the policy reads; by default what the candidate says.
        observe: gives inputs by name, of the environment, where they are not to be taken as they mean.
        film: keep a film of both, of the start in which they come apart most.
        name: what the result is called.
        provider: ONNX Runtime's full name of the provider.
        progress: called with (stage, done, total).

    Returns:
        The verdict. Where a start could not be driven to its end, those before it and why.

    Raises:
        SettingsError: a setting is not good, or the environment or a joint is unknown.
        ReflexError: the first start could not be driven, or a side is nothing that can be asked.
    """
    _require(seconds, hz, starts, execute, latency, within)
    make = environment_named(env) if isinstance(env, str) else env
    sides = sides_of(reference, candidate, inputs, provider)
    specs = _specs(sides.inputs)
    terms = Terms(float(seconds), float(hz), execute, seed)
    work = _Work(
        make, Observing(specs, seed, observe), terms, starts, latency, film, progress_callback(progress)
    )
    own = work.reference(sides)
    other = work.candidate(sides, own)
    quantities = _watched(work.quantities, joints)
    made = _result(work, own, other, quantities)
    return replace(made, name=name, within=within)


def _require(
    seconds: float, hz: float, starts: int, execute: int, latency: int | str, within: float | None
) -> None:
    """Refuse what is no setting, with what it should be."""
    if isinstance(latency, str) and latency != MEASURED:
        raise SettingsError(f"latency is {latency!r}; give a number of control periods, or {MEASURED!r}")
    late = 0 if isinstance(latency, str) else latency
    whole = {"starts": (starts, 1, None), "execute": (execute, 1, None), "latency": (late, 0, execute)}
    for what, (value, least, end) in whole.items():
        good = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if not good or (end is not None and value >= end):
            upto = "" if end is None else f" and below execute, which is {end}"
            raise SettingsError(f"{what} is {value!r}, expected a whole number of at least {least}{upto}")
    for what, given in {"seconds": seconds, "hz": hz, "within": within}.items():
        if given is None:
            continue
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < float("inf"):
            raise SettingsError(f"{what} is {given!r}, expected a finite number above 0")
    if round(seconds * hz) < execute:
        raise SettingsError(
            f"seconds is {seconds:g}, which is {round(seconds * hz)} actions at {hz:g} Hz; give at least "
            f"{execute / hz:g}, one chunk of {execute}"
        )


def _specs(inputs: object) -> list[InputSpec]:
    found = list(inputs) if isinstance(inputs, Sequence) else []
    if not found or not all(isinstance(spec, InputSpec) for spec in found):
        raise InputError(
            "a closed loop reads what the arm shows, and its inputs are recorded; give a list of InputSpec"
        )
    return found


def _watched(quantities: Sequence[Quantity], joints: Sequence[str] | None) -> tuple[Quantity, ...]:
    """The quantities, of the joints only those that were named.

    Raises:
        SettingsError: there is no such joint.
    """
    if joints is None:
        return tuple(quantities)
    known = next((q.parts for q in quantities if q.name == "joints"), ())
    for joint in joints:
        if joint not in known:
            has = f"give some of {', '.join(known)}" if known else "this environment has none"
            raise SettingsError(f"joint {joint!r} is unknown{did_you_mean(joint, known)}; {has}")
    return tuple(replace(q, parts=tuple(joints)) if q.name == "joints" else q for q in quantities)


@dataclass
class _Side:
    """What one side did: its ways, one a start, and its answers without a robot."""

    ways: list[Way]
    answers: list[Array]
    facts: Mapping[str, Any]
    error: str = ""
    note: str = ""


@dataclass
class _Own:
    """What is left of the reference when it is closed."""

    plain: _Side
    float64: _Side
    jitter: _Side


class _Work:
    """Drives one side after the other, so that no two models are in memory together."""

    def __init__(
        self,
        make: Made,
        observing: Observing,
        terms: Terms,
        starts: int,
        latency: int | str,
        film: bool,
        report_progress: Progress,
    ) -> None:
        self.make, self.observing, self.terms = make, observing, terms
        self.starts, self.film, self._report = starts, film, report_progress
        self.latency, self._measure = (0, True) if isinstance(latency, str) else (latency, False)
        self.quantities: tuple[Quantity, ...] = ()
        self.env_name = ""
        self._done = 0

    def reference(self, sides: Sides) -> _Own:
        """The reference, plain, in float64 and jittered, over all starts."""
        runner, seed = sides.reference, self.terms.seed
        plain, wide, shaken = (_Side([], [], {}) for _ in range(3))
        if not isinstance(runner, HasFloat64):
            wide.note = f"{runner.name} does not run in float64, so that the floor is the jitter's alone"
        copies = {side: self._made(side) for side in (REFERENCE, FLOAT64, JITTER)}
        try:
            with opened(runner):
                plain.facts = dict(runner.facts())
                for start in range(self.starts):
                    keep = 0 if start else OPEN_LOOP_PLANS
                    way = self._driven(REFERENCE, runner, copies[REFERENCE], start, plain, keep_plans=keep)
                    if way is None:
                        break
                    if not wide.note:
                        self._in_float64(cast(HasFloat64, runner), copies[FLOAT64], start, wide, way.plans)
                    self._driven(
                        JITTER,
                        runner,
                        copies[JITTER],
                        start,
                        shaken,
                        change=lambda given, plan, start=start: jittered(given, seed, start, plan),
                    )
                    if shaken.error:
                        plain.error = plain.error or shaken.error
                        break
        finally:
            for copy in copies.values():
                copy.close()
        return _Own(plain, wide, shaken)

    def _in_float64(
        self, runner: HasFloat64, env: Environment, start: int, side: _Side, plans: Sequence[Plan]
    ) -> None:
        try:
            self._driven(FLOAT64, runner.exact, env, start, side)
            side.answers += [_answer(runner.exact(plan.inputs)) for plan in plans]
        except ReflexError as error:
            if side.ways:
                raise
            side.note = f"the floor is the jitter's alone: {' '.join(str(error).split())}"

    def candidate(self, sides: Sides, own: _Own) -> _Side:
        """The candidate, over the starts that the reference drove."""
        runner, side = sides.candidate, _Side([], [], {})
        copy = self._made(CANDIDATE)
        try:
            with opened(runner):
                if self._measure:
                    self.latency = _periods(runner, own.plain.ways[0].plans[0], self.terms)
                for start in range(len(own.jitter.ways)):
                    way = self._driven(CANDIDATE, runner, copy, start, side, latency=self.latency)
                    if way is None:
                        break
                side.answers = [_answer(asked(runner, plan.inputs)) for plan in own.plain.ways[0].plans]
                side.facts = dict(runner.facts())
        finally:
            copy.close()
        return side

    def _made(self, side: str) -> Environment:
        made = self.make(self.terms.hz)
        self.quantities, self.env_name = tuple(made.quantities), made.name
        return made

    def _driven(
        self, name: str, runner: Any, env: Environment, start: int, side: _Side, **how: Any
    ) -> Way | None:
        """One start of one side, noted; None where it could not be driven, which the first start's raises."""
        ask: Ask = runner if callable(runner) else lambda given: asked(runner, given)
        filmed = self.film and name in (REFERENCE, CANDIDATE) and hasattr(env, "configuration")
        try:
            way = drive(name, ask, env, self.observing, self.terms, start, filmed=filmed, **how)
        except ReflexError as error:
            if start == 0:
                raise
            side.error = " ".join(str(error).split())
            return None
        side.ways.append(way)
        self._done += 1
        self._report("drive", self._done, 4 * self.starts)
        return way


def _periods(runner: Runner, plan: Plan, terms: Terms) -> int:
    """How many control periods a run takes here, rounded up.

    Raises:
        SettingsError: it takes longer than what is carried out of a chunk.
    """
    took = []
    for _ in range(TIMED_RUNS + 1):
        began = time.perf_counter()
        asked(runner, plan.inputs)
        took.append(time.perf_counter() - began)
    typical = statistics.median(took[1:])
    periods = math.ceil(typical * terms.hz)
    if periods >= terms.execute:
        raise SettingsError(
            f"latency: a run takes {typical:.3g} s, which is {periods} control periods, and {terms.execute} "
            "actions are carried out of a chunk; carry out more"
        )
    return periods


def _answer(outputs: Mapping[str, Array]) -> Array:
    found = outputs["actions"] if "actions" in outputs else next(iter(outputs.values()))
    return np.asarray(found, np.float64)


def _result(work: _Work, own: _Own, other: _Side, quantities: Sequence[Quantity]) -> RolloutResult:
    """What all sides did, as the verdict on it."""
    hz, steps = work.terms.hz, work.terms.steps
    at = np.unique(np.linspace(0, steps, min(steps + 1, INSTANTS)).round().astype(int))
    floors = {FLOAT64: own.float64.ways, JITTER: own.jitter.ways}
    count = min(len(other.ways), len(own.jitter.ways))
    count = min(count, len(own.float64.ways)) if own.float64.ways else count
    columns = [_columns(work.quantities, q) for q in quantities]
    made = []
    for start in range(count):
        plain = own.plain.ways[start]
        sides = {CANDIDATE: other.ways[start], **{n: ways[start] for n, ways in floors.items() if ways}}
        pairs = {
            side: [
                (way.path[q.name][:, c], plain.path[q.name][:, c])
                for q, c in zip(quantities, columns, strict=True)
            ]
            for side, way in sides.items()
        }
        made.append(
            Start(
                start=start,
                drifts={
                    side: tuple(drift(a, b, q, hz) for (a, b), q in zip(both, quantities, strict=True))
                    for side, both in pairs.items()
                },
                least={
                    q.name: float(np.spacing(np.float32(max(1e-30, np.abs(plain.path[q.name]).max()))))
                    for q in quantities
                },
                succeeded={
                    REFERENCE: plain.succeeded,
                    **{side: way.succeeded for side, way in sides.items()},
                },
                curves={
                    side: tuple(apart(*both[0], quantities[0])[at].tolist()) for side, both in pairs.items()
                },
            )
        )
    errors = [said for said in (own.plain.error, other.error) if said]
    result = RolloutResult(
        name="",
        env=work.env_name,
        seconds=work.terms.seconds,
        hz=hz,
        execute=work.terms.execute,
        latency=work.latency,
        seed=work.terms.seed,
        asked=work.starts,
        quantities=tuple(quantities),
        starts=tuple(made),
        instants=tuple((at / hz).tolist()),
        open_loop=_open_loop(own, other),
        error=errors[0] if errors else "",
        notes=tuple(note for note in (own.float64.note,) if note),
        facts={REFERENCE: own.plain.facts, CANDIDATE: other.facts},
    )
    if not made:
        return result
    tip = quantities[0].name
    worst = max(range(count), key=lambda i: made[i].drift(CANDIDATE, tip).largest)
    ways = {REFERENCE: own.plain.ways[worst], CANDIDATE: other.ways[worst]}
    ways |= {side: found[worst] for side, found in floors.items() if found}
    seen = _seen(worst, ways, quantities, columns, at)
    filmed = None
    if work.film:
        from pytest_reflex.rollout.film import filmed as film_of

        filmed = film_of(work.make, hz, ways[REFERENCE], ways[CANDIDATE])
    return replace(result, seen=seen, film=filmed)


def _columns(all_of_them: Sequence[Quantity], quantity: Quantity) -> list[int]:
    """Which columns of a path hold a quantity's parts."""
    whole = next(q for q in all_of_them if q.name == quantity.name)
    return [whole.parts.index(part) for part in quantity.parts]


def _seen(
    start: int,
    ways: Mapping[str, Way],
    quantities: Sequence[Quantity],
    columns: Sequence[Sequence[int]],
    at: Array,
) -> Seen:
    """One start as it is drawn."""
    tip, plain = quantities[0], ways[REFERENCE]
    axes = tip.whole if tip.whole > 1 else min(2, len(tip.parts))
    others = {side: way for side, way in ways.items() if side not in (REFERENCE, CANDIDATE)}
    parts, floors = {}, {}
    for quantity, chosen in zip(quantities, columns, strict=True):
        own = plain.path[quantity.name][:, chosen]
        difference = np.abs(ways[CANDIDATE].path[quantity.name][:, chosen] - own)[at]
        parts[quantity.name] = tuple(tuple(row) for row in difference.T.tolist())
        far = [apart(way.path[quantity.name][:, chosen], own, quantity)[at] for way in others.values()]
        floors[quantity.name] = tuple(np.max(far, axis=0).tolist())
    # Of several tips the one that moved furthest from its reference.
    first = plain.path[tip.name]
    moved = np.abs(ways[CANDIDATE].path[tip.name] - first).max(axis=0)
    from_column = int(moved.argmax()) // axes * axes
    places = {
        side: tuple(tuple(row) for row in way.path[tip.name][at, from_column : from_column + axes].tolist())
        for side, way in ways.items()
    }
    return Seen(start, places, parts, floors)


def _open_loop(own: _Own, other: _Side) -> OpenLoop | None:
    """The largest differences of actions on the reference's own way; None where none was asked."""
    plans = own.plain.ways[0].plans if own.plain.ways else ()
    if not plans or not other.answers:
        return None
    plain = [plan.actions for plan in plans]
    return OpenLoop(
        len(plans),
        _furthest(other.answers, plain),
        _furthest(own.float64.answers, plain) if own.float64.answers else None,
    )


def _furthest(answers: Sequence[Array], plain: Sequence[Array]) -> float:
    flat = [
        np.abs(a.reshape(-1, a.shape[-1])[: len(p), : p.shape[1]] - p).max()
        for a, p in zip(answers, plain, strict=True)
    ]
    return float(max(flat))
