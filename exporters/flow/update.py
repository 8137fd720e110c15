"""What a loop does to its ``x`` in one step, as data: a few operations that every runtime carries out alike.

The graph, the host of a ``stepwise`` bundle, the search for a first wrong value and PyTorch all read the same
operations, so that no layout has an arithmetic of its own. Each operation is one rounding, in the order in
which the upstream writes it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from pytest_reflex.errors import BundleError

# What an update reads besides its schedule's columns, the loop's first `x` among it, and what it ends in.
X, MODEL, NOISE, EARLIER, START, X_NEXT = "x", "velocity", "noise", "earlier", "start", "x_next"
GIVEN: Final = (X, MODEL, NOISE, EARLIER, START)


class Operation(NamedTuple):
    """One operation on arrays.

    Attributes:
        op: ``Add``, ``Sub``, ``Mul``, ``Div``; ``Clip`` (value, low, high); ``Threshold`` (value, ratio,
            most): dynamic thresholding; ``Slice`` (value, axis, start, stop); ``Squeeze`` (value, axis).
        name: what its result is called.
        reads: names of arrays and columns, or numbers.
    """

    op: str
    name: str
    reads: tuple[str | float, ...]


Update = tuple[Operation, ...]

EULER: Final[Update] = (Operation("Mul", "delta", ("dt", MODEL)), Operation("Add", X_NEXT, (X, "delta")))

_ARITHMETIC: Final = {"Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": operator.truediv}
# How many numbers follow the value that the others work on.
NUMBERS: Final = {"Clip": 2, "Threshold": 2, "Slice": 3, "Squeeze": 1}


def updated(update: Update, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Carry the operations out, in order: each result's name and value.

    Args:
        update: the operations.
        values: arrays, numpy's or torch's, and the step's columns by name.
    """
    known = dict(values)
    for op, name, reads in update:
        known[name] = _computed(op, [known[r] if isinstance(r, str) else r for r in reads])
        yield name, known[name]


def finished(epilogue: Update, x: Any) -> Any:
    """What the epilogue makes of ``x``, which is ``x`` where there is none."""
    return dict([(X, x), *updated(epilogue, {X: x})])[epilogue[-1].name if epilogue else X]


def _computed(op: str, given: Sequence[Any]) -> Any:
    if op in _ARITHMETIC:
        return _ARITHMETIC[op](*given)
    value, numbers = given[0], given[1:]
    if op == "Clip":
        return value.clip(*(float(number) for number in numbers))
    if op == "Slice":
        axis, start, stop = map(int, numbers)
        return value[(*(slice(None),) * axis, slice(start, stop))]
    if op == "Squeeze":
        return value.squeeze(int(numbers[0]))
    return _thresholded(value, *numbers)


def rank_of(ratio: float, count: int) -> tuple[int, int, np.float32]:
    """The two places in order between which a quantile lies, and how far: in float32, as torch does."""
    rank = np.float32(ratio) * np.float32(count - 1)
    return int(rank), int(np.ceil(rank)), np.float32(rank - np.floor(rank))


def _thresholded(value: Any, ratio: float, most: float) -> Any:
    """Divided by its own quantile, where that is above 1, and clipped to it: Imagen's dynamic thresholding.

    Upstream: ``_threshold_sample`` of diffusers' schedulers.
    """
    flat = value.reshape(value.shape[0], -1)
    ordered = np.sort(abs(flat), axis=1) if isinstance(value, np.ndarray) else abs(flat).sort(dim=1).values
    low, high, weight = rank_of(ratio, flat.shape[1])
    below, above = ordered[:, low : low + 1], ordered[:, high : high + 1]
    # torch.lerp's two forms.
    near, apart = weight < np.float32(0.5), above - below
    part = weight if near else np.float32(1) - weight
    moved = apart * (part if isinstance(value, np.ndarray) else float(part))
    bound = below + moved if near else above - moved
    bound = bound.clip(1.0, float(most))
    return (flat.clip(-bound, bound) / bound).reshape(value.shape)


def columns_read(update: Update) -> list[str]:
    """The names that an update reads and nobody gives it: those of its schedule's columns."""
    given = {*GIVEN, *(operation.name for operation in update)}
    return list(dict.fromkeys(r for o in update for r in o.reads if isinstance(r, str) and r not in given))


def to_json(update: Update) -> list[list[object]]:
    return [[op, name, *reads] for op, name, reads in update]


def from_json(stored: Iterable[Sequence[Any]], given: Iterable[str], what: str) -> Update:
    """The operations that ``to_json`` wrote.

    Args:
        stored: what was written.
        given: the names that the first operation may read.
        what: what they are, for messages.

    Raises:
        BundleError: one is not known, or reads what is not there.
    """
    known, found = set(given), []
    for op, name, *reads in stored:
        numbers = NUMBERS.get(op, 0)
        arrays = reads[: len(reads) - numbers]
        good = op in (*_ARITHMETIC, *NUMBERS) and isinstance(name, str) and name not in known
        good = good and len(arrays) == (1 if numbers else 2) and all(r in known for r in arrays)
        if not good or not all(isinstance(r, (int, float)) for r in reads[len(arrays) :]):
            raise BundleError(f"its {what} has the operation {[op, name, *reads]!r}, which is none")
        known.add(name)
        found.append(Operation(op, name, tuple(reads)))
    return tuple(found)
