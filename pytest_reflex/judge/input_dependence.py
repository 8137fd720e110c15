"""Does each input reach the outputs? Fixture 0 is run again with one input's value swapped for another.

An export can drop a mask or a camera and still agree wherever the two values happen to agree. So each
input is swapped alone, and what changes no bit of the candidate's outputs is asked of the reference too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners import RecordedRunner, Runner
from pytest_reflex.runners.base import copied
from pytest_reflex.verdict.metrics import difference

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Effect:
    """What another value of one input does to a side.

    Attributes:
        words: what it does, as the rest of a sentence about that side; empty when nothing changes.
        refused: the side would not run with it. It looked at the value, so this is an effect too.
    """

    words: str = ""
    refused: bool = False


@dataclass(frozen=True)
class InputDependence:
    """What the swaps showed.

    Attributes:
        live: the inputs that reach the candidate's outputs.
        dead: a reason for each input that reaches the reference's outputs and not the candidate's.
        unproven: a note for each input of which neither could be shown.
        notes: what else is worth knowing.
    """

    live: list[str]
    dead: list[str]
    unproven: list[str]
    notes: list[str]


def effects(
    runner: Runner,
    plain: Arrays,
    outputs: Arrays,
    others: Arrays,
    report_progress: Callable[[], None] = lambda: None,
) -> dict[str, Effect]:
    """The effect of each swap on an open runner.

    Args:
        runner: open.
        plain: the inputs of fixture 0.
        outputs: what the runner gave for them.
        others: the inputs to swap, each with its other value.
        tell: called after each swap.
    """
    found: dict[str, Effect] = {}
    for name, value in others.items():
        found[name] = _effect(runner, copied({**plain, name: value}), outputs)
        report_progress()
    return found


def recorded_effects(recording: RecordedRunner, names: Iterable[str]) -> dict[str, Effect]:
    """What a recording says of the model that it recorded: it cannot run what was not recorded itself."""
    live = recording.live_inputs
    return {name: Effect("depends on it, its recording says" if name in live else "") for name in names}


def judge_input_dependence(
    names: Sequence[str], candidate: Mapping[str, Effect], reference: Mapping[str, Effect]
) -> InputDependence:
    """Put both sides' effects together.

    Args:
        names: every input.
        candidate: its effects, of every input that varies.
        reference: its effects, of every input that has none on the candidate.
    """
    found = InputDependence([], [], [], [])
    if candidate and all(effect.refused for effect in candidate.values()):
        # What computes has some input that can be another: this one may only know the answers.
        first, effect = next(iter(candidate.items()))
        words = f"with another {first!r} it {effect.words}"
        found.dead.append(f"the candidate runs on the judged inputs and on no others: {words}")
        return found
    for name in names:
        if name not in candidate:
            found.unproven.append(f"input {name!r} never varies, so it is not known whether it is used")
        elif candidate[name].words:
            found.live.append(name)
            if candidate[name].refused:
                found.notes.append(
                    f"input {name!r} was not varied alone: the candidate {candidate[name].words}"
                )
        elif reference[name].words:
            does = f"with another value the reference {reference[name].words}"
            found.dead.append(f"input {name!r} is dead: {does}, and the candidate gives the same bits")
        else:
            found.unproven.append(f"input {name!r} changes neither side")
    return found


def unequal_bits(first: Arrays, again: Arrays) -> str:
    """Where two sets of outputs are not the same bits, in words; empty when they are.

    A NaN is equal to the same NaN here, and +0 is not -0.
    """
    if list(first) != list(again):
        return f"the outputs were {list(first)} and then {list(again)}"
    for name, a in first.items():
        b = again[name]
        if not _same_form(a, b):
            return f"{name} was {a.dtype} {list(a.shape)} and then {b.dtype} {list(b.shape)}"
        if a.tobytes() != b.tobytes():
            bytes_a, bytes_b = (np.frombuffer(x.tobytes(), np.uint8).reshape(x.size, -1) for x in (a, b))
            wrong = np.flatnonzero((bytes_a != bytes_b).any(axis=1))
            at = tuple(int(i) for i in np.unravel_index(int(wrong[0]), a.shape))
            return f"{name}{list(at)} was {a[at]} and then {b[at]} ({wrong.size} of {a.size} elements differ)"
    return ""


def _effect(runner: Runner, inputs: Arrays, before: Arrays) -> Effect:
    try:
        after = runner.run(inputs)
    except RunnerError as error:
        return Effect(f"refuses it ({error})", refused=True)
    if not unequal_bits(before, after):
        return Effect()
    if list(before) != list(after) or not all(_same_form(before[name], after[name]) for name in before):
        return Effect("gives outputs of another form")
    try:
        changes = [difference(a, after[name]).max_abs_diff for name, a in before.items() if a.size]
    except ValueError:  # no numbers; the structure gate says so
        return Effect("gives other outputs")
    return Effect(f"changes by {np.max(changes):.3e}")  # NaN stays NaN


def _same_form(a: Array, b: Array) -> bool:
    return bool(a.dtype == b.dtype and a.shape == b.shape)
