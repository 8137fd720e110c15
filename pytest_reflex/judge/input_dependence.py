"""Does each input reach the outputs? Fixtures are run again with one input's value swapped for another.

An export can drop a mask or a camera and still agree wherever the two values happen to agree. So each
input is swapped alone, for a value that no fixture was judged with and in more than one fixture; and what
changes no bit of the candidate's outputs is asked of the reference too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners import RecordedRunner, Runner
from pytest_reflex.runners.base import asked, copied
from pytest_reflex.verdict.metrics import largest_difference, pieces
from pytest_reflex.verdict.results import DEAD, IDLE

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Effect:
    """What another value of one input does to a side.

    Attributes:
        words: what it does, as the rest of a sentence about that side; empty when nothing changes.
        refused: the side would not run with it. It looked at the value, so this is an effect too.
        changes: how far it moves each output; empty where the outputs cannot be laid side by side.
    """

    words: str = ""
    refused: bool = False
    changes: Mapping[str, float] = field(default_factory=dict)


# What was found in each fixture that inputs were swapped in: its number, and each input's effect there.
Effects = Mapping[int, Mapping[str, Effect]]


@dataclass(frozen=True)
class InputDependence:
    """What the swaps showed.

    Attributes:
        live: the inputs that reach the candidate's outputs.
        dead: a reason for each input that reaches the reference's outputs and not the candidate's.
        unproven: a note for each input of which neither could be shown.
        notes: what else is worth knowing.
        effects: for each live input, how far it moved each output at most.
    """

    live: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    effects: dict[str, dict[str, float]] = field(default_factory=dict)


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
        plain: the inputs of one fixture.
        outputs: what the runner gave for them.
        others: the inputs to swap, each with its other value.
        report_progress: called after each swap.
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


def questions(
    candidate: Effects, others: Mapping[int, Arrays], *, of_refused: bool = True
) -> dict[int, dict[str, Array]]:
    """The swaps to be asked of the reference, by fixture.

    They are those that changed nothing in the candidate, and with ``of_refused`` those that it would not run.
    """
    found = {
        idx: {
            name: value
            for name, value in swaps.items()
            if not candidate[idx][name].words or (of_refused and candidate[idx][name].refused)
        }
        for idx, swaps in others.items()
    }
    return {idx: swaps for idx, swaps in found.items() if swaps}


def judge_input_dependence(plain: Arrays, candidate: Effects, reference: Effects) -> InputDependence:
    """Put both sides' effects together.

    Args:
        plain: the inputs of fixture 0; one without elements holds nothing that could be another.
        candidate: its effects, of every input that varies.
        reference: its effects, of what :func:`questions` has given.
    """
    found = InputDependence()
    every = [effect for swaps in candidate.values() for effect in swaps.values()]
    if every and all(effect.refused for effect in every):
        # What computes has some input that can be another: this one may only know the answers.
        first, effect = next((n, e) for swaps in candidate.values() for n, e in swaps.items())
        words = f"with another {first!r} it {effect.words}"
        found.dead.append(f"the candidate runs on the judged inputs and on no others: {words}")
        return found
    for name, array in plain.items():
        if array.size:
            _judge_input(name, candidate, reference, found)
    return found


def _judge_input(name: str, candidate: Effects, reference: Effects, found: InputDependence) -> None:
    swaps = {idx: effects[name] for idx, effects in candidate.items() if name in effects}
    missed = {idx: reference[idx][name] for idx, effect in swaps.items() if not effect.words}
    dead = [(idx, effect) for idx, effect in missed.items() if effect.words]
    if not swaps:
        found.unproven.append(f"input {name!r} never varies, so it is not known whether it is used")
    elif dead:
        idx, effect = dead[0]
        where = "" if idx == 0 else f" in fixture {idx}"
        does = f"with another value the reference {effect.words}"
        found.dead.append(f"input {name!r} {DEAD}{where}: {does}, and the candidate gives the same bits")
    elif len(missed) == len(swaps):
        found.unproven.append(_idle(name, list(swaps)))
    else:
        found.live.append(name)
        refused = {idx: effect for idx, effect in swaps.items() if effect.refused}
        if refused:
            said = f"input {name!r} was not varied alone: the candidate {next(iter(refused.values())).words}"
            told = [reference[idx][name] for idx in refused if name in reference.get(idx, ())]
            if len(refused) == len(swaps) and any(not effect.refused for effect in told):
                found.unproven.append(f"{said}, and the reference takes it")
            else:
                found.notes.append(said)
        seen = [effect.changes for effect in swaps.values() if effect.words]
        if all(seen):  # one without figures may have moved anything
            outputs = dict.fromkeys(output for changes in seen for output in changes)
            found.effects[name] = {o: _largest(c[o] for c in seen if o in c) for o in outputs}


def _idle(name: str, swapped_in: list[int]) -> str:
    """An input of which another value changed neither side, and in how much of the run that was seen."""
    where = f"fixture{'s' if len(swapped_in) > 1 else ''} {' and '.join(map(str, swapped_in))}"
    return f"input {name!r} {IDLE} where it was swapped, in {where}"


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
        place, wrong = _unequal(a, b)
        if wrong:
            at = tuple(int(i) for i in np.unravel_index(place, a.shape))
            return f"{name}{list(at)} was {a[at]} and then {b[at]} ({wrong} of {a.size} elements differ)"
    return ""


def _effect(runner: Runner, inputs: Arrays, before: Arrays) -> Effect:
    try:
        after = asked(runner, inputs)
    except RunnerError as error:
        return Effect(f"refuses it ({error})", refused=True)
    if not unequal_bits(before, after):
        return Effect()
    if list(before) != list(after) or not all(_same_form(before[name], after[name]) for name in before):
        return Effect("gives outputs of another form")
    try:
        changes = {n: largest_difference(a, after[n]) for n, a in before.items() if a.size}
    except ValueError:  # no numbers; the structure gate says so
        return Effect("gives other outputs")
    return Effect(f"changes by {_largest(changes.values()):.3e}", changes=changes)


def _largest(figures: Iterable[float]) -> float:
    return float(np.max(list(figures)))  # NaN stays NaN


def _unequal(a: Array, b: Array) -> tuple[int, int]:
    """The first element whose bits differ, and how many there are; a piece at a time, for memory."""
    first, wrong = 0, 0
    for at, one, other in pieces(a, b):
        size = one.dtype.itemsize
        raw = (np.ascontiguousarray(x).view(np.uint8).reshape(-1, size) for x in (one, other))
        unequal = np.flatnonzero(np.not_equal(*raw).any(axis=1))
        first = at + int(unequal[0]) if unequal.size and not wrong else first
        wrong += unequal.size
    return first, wrong


def _same_form(a: Array, b: Array) -> bool:
    return bool(a.dtype == b.dtype and a.shape == b.shape)
