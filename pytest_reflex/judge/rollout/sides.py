"""The four sides of a closed loop, one after the other: what each did, and what it says without a robot."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np

from pytest_reflex.errors import ReflexError, SettingsError
from pytest_reflex.judge.rollout.driving import Plan, Terms, Way, drive
from pytest_reflex.judge.rollout.environments import Environment, Made
from pytest_reflex.judge.rollout.observing import Observing, jittered
from pytest_reflex.judge.runs import opened
from pytest_reflex.progress import Progress
from pytest_reflex.runners import Runner
from pytest_reflex.runners.base import HasFloat64, asked
from pytest_reflex.verdict.drift import Quantity
from pytest_reflex.verdict.naming import did_you_mean
from pytest_reflex.verdict.rollout import CANDIDATE, FLOAT64, FLOORS, JITTER, REFERENCE

__all__ = ["MEASURED", "Own", "Side", "Work"]

Array = np.ndarray[Any, Any]
Ask = Callable[[Mapping[str, Array]], Mapping[str, Array]]

# How many plans of the first start are asked again without a robot.
OPEN_LOOP_PLANS: Final = 16
MEASURED: Final = "measured"
# Of so many runs the median is taken, after one that warms up.
TIMED_RUNS: Final = 5


@dataclass
class Side:
    """What one side did: its ways, one a start, and its answers without a robot."""

    ways: list[Way]
    answers: list[Array]
    facts: Mapping[str, Any]
    error: str = ""
    note: str = ""


@dataclass
class Own:
    """What is left of the reference when it is closed."""

    plain: Side
    float64: Side
    jitter: Side


class Work:
    """Drives one side after the other, so that no two models are in memory together.

    Args:
        make: makes a copy of the environment.
        observing: how it becomes inputs.
        terms: how a start is driven.
        starts: how many.
        latency: how many control periods a candidate is late, or ``measured``.
        film: whether what a film needs is kept.
        joints: the names of the joints that are judged; None for all.
        candidates: how many there will be.
        report_progress: told of every start of every side.

    Attributes:
        quantities: what the environment watches, once the reference has driven.
        watched: those, with the joints that are judged alone.
        env_name: the environment's name.
        latency: how many control periods the candidate that drove last was late.
    """

    def __init__(
        self,
        make: Made,
        observing: Observing,
        terms: Terms,
        *,
        starts: int,
        latency: int | str,
        film: bool,
        joints: Sequence[str] | None,
        candidates: int,
        report_progress: Progress,
    ) -> None:
        self.make, self.observing, self.terms, self.starts = make, observing, terms, starts
        self.film, self._joints, self._report = film, joints, report_progress
        self.latency, self._measure = (0, True) if isinstance(latency, str) else (latency, False)
        self.quantities: tuple[Quantity, ...] = ()
        self.watched: tuple[Quantity, ...] = ()
        self.env_name = ""
        self._done, self._all = 0, (3 + candidates) * starts

    def reference(self, runner: Runner) -> Own:
        """The reference, plain, in float64 and jittered, over all starts.

        Raises:
            SettingsError: a joint that is to be judged is unknown.
            ReflexError: the first start could not be driven.
        """
        own = Own(Side([], [], {}), Side([], [], {}), Side([], [], {}))
        if not isinstance(runner, HasFloat64):
            own.float64.note = (
                f"{runner.name} does not run in float64, so that the floor is the jitter's alone"
            )
        copies = {side: self.make(self.terms.hz) for side in (REFERENCE, *FLOORS)}
        try:
            self.quantities = tuple(copies[REFERENCE].quantities)
            self.watched = _watched(self.quantities, self._joints)
            self.env_name = copies[REFERENCE].name
            with opened(runner):
                own.plain.facts = dict(runner.facts())
                for start in range(self.starts):
                    if not self._own_start(runner, copies, start, own):
                        break
        finally:
            for copy in copies.values():
                copy.close()
        return own

    def _own_start(self, runner: Runner, copies: Mapping[str, Environment], start: int, own: Own) -> bool:
        """One start of the reference's three sides; whether all of them drove it to the end."""
        ask, seed, specs = functools.partial(asked, runner), self.terms.seed, self.observing.specs
        keep = 0 if start else OPEN_LOOP_PLANS
        way = self._driven(REFERENCE, ask, copies[REFERENCE], start, own.plain, keep_plans=keep)
        if way is None:
            return False
        if not own.float64.note:
            try:
                exact = cast(HasFloat64, runner).exact
                self._driven(FLOAT64, exact, copies[FLOAT64], start, own.float64)
                own.float64.answers += [_answer(exact(plan.inputs)) for plan in way.plans]
            except ReflexError as error:  # of the first start: none after it was driven either
                own.float64.note = f"the floor is the jitter's alone: {' '.join(str(error).split())}"
        self._driven(
            JITTER, ask, copies[JITTER], start, own.jitter,
            change=lambda given, plan: jittered(given, specs, seed, start, plan),
        )  # fmt: skip
        own.plain.error = own.float64.error or own.jitter.error
        return not own.plain.error

    def candidate(self, runner: Runner, own: Own) -> Side:
        """A candidate, over the starts that the reference drove.

        Raises:
            ReflexError: the first start could not be driven.
        """
        side, ask = Side([], [], {}), functools.partial(asked, runner)
        copy = self.make(self.terms.hz)
        plans = own.plain.ways[0].plans
        try:
            with opened(runner):
                if self._measure:
                    self.latency = _periods(runner, plans[0], self.terms)
                side.answers = [_answer(ask(plan.inputs)) for plan in plans]
                for start in range(len(own.jitter.ways)):
                    if self._driven(CANDIDATE, ask, copy, start, side, latency=self.latency) is None:
                        break
                side.facts = dict(runner.facts())
        finally:
            copy.close()
        return side

    def _driven(
        self, name: str, ask: Ask, env: Environment, start: int, side: Side, **how: Any
    ) -> Way | None:
        """One start of one side, noted; None where it could not be driven, which the first start's raises."""
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
        self._report("drive", self._done, self._all)
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
