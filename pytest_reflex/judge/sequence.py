"""A policy with hidden state, judged over a sequence: free-running, and forced along the reference's states.

Free-running, each side hands its own state on, so that what one step gets wrong the next builds upon. Forced,
every step of both begins from the reference's state, so that each is judged by itself. What fails forced is
a wrong step. What fails free-running alone is a wrong hand-over of the state, or rounding that the policy
itself makes grow; the reference in float64, free-running too, tells one from the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np

from pytest_reflex import settings
from pytest_reflex.errors import InputError, ParityError, ReflexError, a_type
from pytest_reflex.inputs import InputSpec, make_fixture
from pytest_reflex.inputs.spec import listed
from pytest_reflex.judge.check import check
from pytest_reflex.judge.sides import candidate_runner, inputs_for, reference_runner
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import Runner
from pytest_reflex.runners.base import asked, copied
from pytest_reflex.runners.recurrent import HandOver, Recurrent, as_given

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SequenceResult:
    """The verdict on a sequence.

    Attributes:
        forced: every step from the reference's state.
        free: every step from the side's own state.
        steps: how many steps a sequence has.
        begins: the first step that is not within the threshold, of any fixture; None where there is none.
        cause: in words, what is wrong; empty where it passed.
    """

    forced: ParityResult
    free: ParityResult
    steps: int
    begins: int | None
    cause: str

    @property
    def passed(self) -> bool:
        return self.forced.passed and self.free.passed

    def __bool__(self) -> bool:
        """The verdict."""
        return self.passed

    def require(self) -> SequenceResult:
        """Itself, where it passed.

        Raises:
            ParityError: it did not; with the cause first, and the whole report of the run that failed.
        """
        if self.passed:
            return self
        wrong = self.free if self.forced.passed else self.forced
        raise ParityError(f"parity {self._headline}\n\n{wrong}", wrong)

    def __str__(self) -> str:
        return f"{self._headline}\n\n{self.forced}\n\n{self.free}"

    @property
    def _headline(self) -> str:
        return f"{'PASS' if self.passed else 'FAIL'} over {self.steps} steps" + (
            "" if self.passed else f": {self.cause}"
        )


def check_sequence(
    reference: Any,
    candidate: Any,
    *,
    states: Mapping[str, str],
    steps: int = 500,
    inputs: Sequence[InputSpec] | Sequence[Mapping[str, Array]] | None = None,
    loop: Runner | None = None,
    hand_over: HandOver = as_given,
    check: Callable[..., ParityResult] = check,
    **options: Unpack[settings.CheckOptions],
) -> SequenceResult:
    """Judge a policy with hidden state over sequences of steps.

    Args:
        reference: one step in PyTorch, as for :func:`~pytest_reflex.check`.
        candidate: one step of what is judged, as there.
        states: for each state the input that it is and the output that becomes it in the next step, such as
            ``{"hidden": "hidden_out"}``.
        steps: how many steps a drawn sequence has.
        inputs: what one step reads, the states among it, drawn anew for every step; or recorded sequences,
            arrays ``[steps, ...]`` and each state as it is before the first. By default the candidate's own.
        loop: what hands the candidate's state on, where the robot has code of its own for that: a runner of
            whole sequences, inputs and outputs as the recorded ones. By default the state is handed on here.
        hand_over: what becomes of the states between two steps, where they are not handed on as they are:
            called with the number of the step that reads them and the states by the names of their inputs,
            such as a chunk whose first rows were carried out meanwhile. What it gives is read by that step.
        check: what judges each of the two runs, such as the ``parity`` fixture's ``check``.
        **options: ``threshold``, ``fixtures`` (the number of sequences) and so on.

    Returns:
        The result; ``result.require()`` raises where it did not pass.

    Raises:
        InputError: there are no inputs or no states, or too few steps for a state to be handed on.
        ReflexError: as for :func:`~pytest_reflex.check`.
    """
    if not states:
        raise InputError("states is empty; give the input and the output of each, {'hidden': 'hidden_out'}")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 2:
        raise InputError(f"steps is {steps!r}; give a whole number of at least 2, or no state is handed on")
    told = settings.of_call(options, "check")
    tested = candidate_runner(candidate, told.provider)
    truth = reference_runner(reference, candidate, apart=True)
    if truth is tested:  # each of its runs has a runner of its own around it
        raise ReflexError(f"{truth.name} is given as both reference and candidate; give two runners")
    read = listed(inputs_for(inputs, truth, candidate), ", or of recorded sequences")
    sequences = _sequences(read, states, steps, told)
    # What the caller says is meant; what the candidate alone says may be doubted.
    stated = read if inputs is None and all(isinstance(spec, InputSpec) for spec in read) else ()

    free_truth = Recurrent(truth, states, stated=stated, hand_over=hand_over)
    alone = Recurrent(tested, states, candidate, hand_over=hand_over)
    free_tested = alone if loop is None else Whole(loop)
    floored: settings.CheckOptions = {**options, "floor": told.floor or True}
    name = f"{tested.name}, free-running"
    free = _told(check, free_truth, free_tested, inputs=sequences, name=name, **floored)
    recorded = free_truth.seen[: len(sequences)]

    forced_truth, forced_tested = Recurrent(truth, {}), Recurrent(tested, {}, candidate)
    led = [_led(given, gave, states, hand_over) for given, gave in zip(sequences, recorded, strict=True)]
    name = f"{tested.name}, forced"
    forced = _told(check, forced_truth, forced_tested, inputs=led, name=name, **options)

    left = _left_out(sequences[0], recorded[0], states)
    free = replace(free, notes=(*free.notes, *left))
    count = len(next(iter(recorded[0].values())))
    if forced.passed and free.passed:
        return SequenceResult(forced, free, count, None, "")
    wrong, seen = (free, free_tested.seen) if forced.passed else (forced, forced_tested.seen)
    begins, output = _begins(recorded, seen, wrong)
    return SequenceResult(forced, free, count, begins, _cause(wrong, forced.passed, begins, output))


def _left_out(given: Mapping[str, Array], gave: Mapping[str, Array], states: Mapping[str, str]) -> list[str]:
    """A note where an output that nobody takes on has the shape of an input that is no state.

    Args:
        given: a sequence, step by step but for the states.
        gave: what the reference gave for it, step by step.
        states: as for :func:`check_sequence`.
    """
    floats = {name: made for name, made in gave.items() if made.ndim > 1 and made.dtype.kind == "f"}
    outputs = {name: made for name, made in floats.items() if name not in states.values()}
    return [
        f"output {output!r} is taken on by no step, and input {name!r} of its shape is another in each; "
        f"where it is that one's state, say so: states={{..., {name!r}: {output!r}}}"
        for output, made in outputs.items()
        for name, array in given.items()
        if name not in states and (array.shape, array.dtype) == (made.shape, made.dtype)
    ]


def _told(check: Callable[..., ParityResult], *sides: Runner, **options: Any) -> ParityResult:
    """The result, also of a ``check`` that raises it: the cause needs both."""
    try:
        return check(*sides, **options)
    except ParityError as error:
        result: ParityResult = error.result
        return result


class Whole(Recurrent):
    """A runner of whole sequences, which hands its state on itself, and what it gave."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner, {})

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.seen.append(copied(asked(self._runner, inputs)))
        return copied(self.seen[-1])


def _sequences(
    inputs: Sequence[Any], states: Mapping[str, str], steps: int, told: settings.Settings
) -> list[dict[str, Array]]:
    """Recorded sequences as they are; of specifications, one draw for each step, the states of the first."""
    if not inputs or not all(isinstance(spec, InputSpec) for spec in inputs):
        return [_recorded(number, one, states) for number, one in enumerate(inputs)]
    missing = [name for name in states if name not in {spec.name for spec in inputs}]
    if missing:
        raise InputError(f"no input is named {missing[0]!r}, which is a state; add its InputSpec")
    found = []
    for number in range(told.fixtures):
        # A free axis has one size throughout a sequence.
        drawn = [make_fixture(inputs, told.seed, number * steps + step, number) for step in range(steps)]
        over = {name: np.stack([one[name] for one in drawn]) for name in drawn[0] if name not in states}
        found.append({**over, **{name: drawn[0][name] for name in states}})
    return found


def _recorded(number: int, one: object, states: Mapping[str, str]) -> dict[str, Array]:
    """A recorded sequence, once it is sure to be one in which a state is handed on."""
    if not isinstance(one, Mapping):
        what = a_type(one)
        raise InputError(
            f"inputs[{number}] is {what}; give InputSpecs only, or sequences: mappings from name to array"
        )
    arrays = {name: np.asarray(value) for name, value in one.items()}
    short = [name for name, a in arrays.items() if name not in states and (not a.ndim or len(a) < 2)]
    if short:
        shape = list(arrays[short[0]].shape)
        raise InputError(
            f"inputs[{number}][{short[0]!r}] has shape {shape}, steps first; give 2 steps or more, or no "
            "state is handed on"
        )
    return arrays


def _led(
    given: Mapping[str, Array],
    gave: Mapping[str, Array],
    states: Mapping[str, str],
    hand_over: HandOver,
) -> dict[str, Array]:
    """The same sequence with the reference's states as inputs of every step."""
    read = [{name: given[name] for name in states}]
    for step in range(1, len(gave[next(iter(states.values()))])):
        read.append(dict(hand_over(step, {name: gave[output][step - 1] for name, output in states.items()})))
    before = {name: np.stack([one[name] for one in read]).astype(given[name].dtype) for name in states}
    return {**given, **before}


def _begins(
    recorded: Sequence[Mapping[str, Array]], seen: Sequence[Mapping[str, Array]], result: ParityResult
) -> tuple[int | None, str]:
    """The first step that is not within its bound, of any fixture, and the output."""
    first: tuple[int | None, str] = None, ""
    for fixture, expected, got in zip(result.fixtures, recorded, seen, strict=False):
        limits = {one.name: result.limit_of(one) for one in fixture.outputs}
        for name, array in expected.items():
            if name not in got or got[name].shape != array.shape:
                continue
            wide = array.astype(np.float64)
            beyond = np.abs(got[name].astype(np.float64) - wide) - result.asked.rtol * np.abs(wide)
            off = ~(beyond < limits.get(name, result.threshold))
            at = np.flatnonzero(off.reshape(len(off), -1).any(axis=1))
            if at.size and (first[0] is None or at[0] < first[0]):
                first = int(at[0]), name
    return first


def _cause(wrong: ParityResult, steps_are_right: bool, begins: int | None, output: str) -> str:
    since = "" if begins is None else f", from step {begins} on, in {output!r}"
    if begins is None:
        refused = next((answer.said for _, answer in wrong.refusals), "no gate")
        return f"no step is beyond its threshold, and the run is refused: {refused}"
    if not steps_are_right:
        return f"a step itself is wrong{since}: forced along the reference's states it differs too"
    if wrong.word == "rounding":
        return (
            f"rounding that grows{since}: every step by itself is right, and PyTorch in float32 drifts as "
            "far from float64; give a threshold in floors, such as '2x floor'"
        )
    return (
        f"the hand-over of the state is wrong{since}: every step by itself is right, and the distance is no "
        "rounding"
    )
