"""What a worker is sent, what it does, and what it gives back: both sides of a check, in another process.

A worker opens and runs. What its answers are worth is judged in the first process, which alone knows all of
them, so that a verdict is the same wherever its fixtures ran.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.judge.precision import Outputs, exact_outputs
from pytest_reflex.judge.reference import is_half
from pytest_reflex.judge.variation import categories_of, note_categories
from pytest_reflex.judge.workers.here import FAILED, Here, Seen, gave
from pytest_reflex.runners import Runner
from pytest_reflex.runners.base import asked, copied, first_line
from pytest_reflex.verdict.summaries import InputSummary, summaries

__all__ = ["Answer", "Gave", "Work", "Worker", "given"]

Array = np.ndarray[Any, Any]
# What a side gave in one fixture, or how it failed.
Gave = dict[str, Array] | Exception


@dataclass(frozen=True)
class Work:
    """What every worker holds.

    Attributes:
        reference: the reference's runner, closed.
        candidate: the candidate's, closed.
        make: fixture_idx to fresh arrays by name.
        specs: what fixtures are drawn from.
        exact: whether the reference is asked in float64 too.
        own: how many of the first fixtures are the first process's, by which a worker is compared with it.
    """

    reference: Runner
    candidate: Runner
    make: Callable[[int], dict[str, Array]]
    specs: Sequence[InputSpec]
    exact: bool
    own: int = 1


@dataclass(frozen=True)
class Answer:
    """What both sides give in one fixture.

    Attributes:
        fixture_idx: its number.
        fed: what was fed in.
        categories: of each input that has categories those that were drawn.
        reference: what the reference gave.
        exact: that in float64; empty where it was not asked.
        candidate: what the candidate gave; empty where the reference failed.
    """

    fixture_idx: int
    fed: tuple[InputSummary, ...]
    categories: dict[str, set[int]]
    reference: Gave
    exact: Outputs
    candidate: Gave


class Worker:
    """Both sides, open, for as long as a process lives."""

    def __init__(self, work: Work, here: Here) -> None:
        """Open both sides, and see what they are.

        Args:
            work: what it holds.
            here: what it took over from the first process.

        Raises:
            ReflexError: a side cannot be opened, or a library be set as it is there.
        """
        self._work, self._here, self._exact = work, here, work.exact
        here.set_libraries()
        self.sides = tuple(self._opened(side) for side in (work.reference, work.candidate))

    def _opened(self, runner: Runner) -> Seen:
        runner.open()
        if self._here.set_libraries():  # opening it loaded torch, which made it in other ways than there
            runner.close()
            runner.open()
        # Before its facts: what it was run with may be among them.
        digests = self._digests(runner)
        if self._here.set_libraries():
            digests = self._digests(runner)
        facts = runner.facts()
        self._exact = self._exact or is_half(facts)
        return Seen.of(facts, digests)

    def _digests(self, runner: Runner) -> list[str]:
        """What it gives in the first process's own fixtures. Where it fails it does so there, too."""
        found = [_asked(runner, self._work.make(idx)) for idx in range(self._work.own)]
        return [f"{FAILED}{first_line(one)}" if isinstance(one, Exception) else gave(one) for one in found]

    def judge(self, fixture_idx: int) -> Answer:
        """What both sides give; a side that fails is an answer too."""
        work = self._work
        inputs = work.make(fixture_idx)
        fed = summaries(inputs)  # before a runner, which may write to them
        drawn = categories_of(work.specs)
        note_categories(drawn, inputs)
        exact: Outputs = {}
        candidate: Gave = {}
        reference = _asked(work.reference, inputs)
        if not isinstance(reference, Exception):
            exact = exact_outputs(work.reference, work.make(fixture_idx)) if self._exact else {}
            candidate = _asked(work.candidate, work.make(fixture_idx))
        return Answer(fixture_idx, fed, drawn, reference, exact, candidate)


def given(gave: Gave) -> dict[str, Array]:
    """What a side gave, or the error that it failed with."""
    if isinstance(gave, Exception):
        raise gave
    return gave


def _asked(runner: Runner, inputs: Mapping[str, Array]) -> Gave:
    try:
        return copied(asked(runner, inputs))
    except KeyboardInterrupt:  # to Ray it is a task that somebody took back
        return RunnerError(f"{runner.name} failed: it raised KeyboardInterrupt")
    except Exception as error:
        with contextlib.suppress(Exception):
            if type(pickle.loads(pickle.dumps(error))) is type(error):
                return error
        return RunnerError(f"{runner.name} failed: {first_line(error)}")
