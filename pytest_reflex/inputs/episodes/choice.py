"""Which frames of a recording are judged: by seed, spread over it, its ends and extremes first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import InputError
from pytest_reflex.inputs.episodes.recording import Recording, place
from pytest_reflex.inputs.near_copies import NEAR

Array = np.ndarray[Any, Any]
# An episode and the number of a frame in it.
Place = tuple[int, int]

# Sets this choice apart from whatever else a seed draws.
_TAG: Final = 0xE915


def extremes(recording: Recording, keys: Sequence[str]) -> list[Place]:
    """Where each element of these keys is smallest and where it is largest; the first such frame.

    Raises:
        InputError: a value is not finite, naming the episode and the frame.
    """
    least: dict[str, tuple[Array, Array]] = {}
    most: dict[str, tuple[Array, Array]] = {}
    for episode, columns in enumerate(recording.columns(keys) if keys else ()):
        for key, values in columns.items():
            rows = values.reshape(len(values), math.prod(values.shape[1:])).astype(np.float64)
            require_finite(recording, key, episode, rows)
            known = least[key][0].size if key in least else rows.shape[1]
            if rows.size and rows.shape[1] != known:
                raise InputError(
                    f"{place(recording.called, episode, 0)}: {key} has {rows.shape[1]} elements, and "
                    f"{known} in an episode before it; they are of different robots: leave one out"
                )
            if rows.size:
                _note(least, key, episode, rows, rows.argmin(axis=0), np.less)
                _note(most, key, episode, rows, rows.argmax(axis=0), np.greater)
    found = [where for side in (least, most) for _, where in side.values()]
    return [(int(e), int(i)) for one in found for e, i in one]


def require_finite(recording: Recording, key: str, episode: int, rows: Array) -> None:
    """Refuse a NaN or an infinity in ``[frames, elements]``.

    Raises:
        InputError: naming the episode, the frame, the key and the element.
    """
    bad = np.argwhere(~np.isfinite(rows))
    if bad.size:
        index, element = (int(n) for n in bad[0])
        raise InputError(
            f"{place(recording.called, episode, index)}: {key}[{element}] is {rows[index, element]}; every "
            "value must be finite: leave the episode out, or record it again"
        )


def _note(
    found: dict[str, tuple[Array, Array]], key: str, episode: int, rows: Array, at: Array, better: np.ufunc
) -> None:
    values = np.take_along_axis(rows, at[None], axis=0)[0]
    where = np.stack([np.full_like(at, episode), at], axis=1)
    if key not in found:
        found[key] = values, where
        return
    known, places = found[key]
    new = better(values, known)
    found[key] = np.where(new, values, known), np.where(new[:, None], where, places)


def chosen(lengths: Sequence[int], count: int, seed: int, ends_of: Sequence[Place] = ()) -> list[Place]:
    """So many frames, in the order of the recording.

    Half of them at most are the first and the last frames of episodes and ``ends_of``, by turns; the others
    are drawn, one from each of as many equal stretches of what is left.

    Args:
        lengths: how many frames each episode has.
        count: how many are wanted; all where there are no more.
        seed: what they are drawn with.
        ends_of: frames at which something is extreme.
    """
    every = [(episode, index) for episode, length in enumerate(lengths) for index in range(length)]
    if count >= len(every):
        return every
    rng = np.random.default_rng([seed, _TAG])
    ends = [(e, i) for e, length in enumerate(lengths) if length for i in sorted({0, length - 1})]
    first = _by_turns(rng, ends, list(dict.fromkeys(ends_of)))[: (count + 1) // 2]
    taken = set(first)
    left = [one for one in every if one not in taken]
    wanted = count - len(taken)
    begin = np.arange(wanted + 1) * len(left) // max(wanted, 1)
    at = begin[:-1] + np.floor(rng.random(wanted) * np.diff(begin)).astype(int)
    return sorted(taken | {left[i] for i in at.tolist()})


def _by_turns(rng: np.random.Generator, *groups: Sequence[Place]) -> list[Place]:
    shuffled = [[group[i] for i in rng.permutation(len(group))] for group in groups]
    longest = max(map(len, shuffled), default=0)
    return list(dict.fromkeys(g[i] for i in range(longest) for g in shuffled if i < len(g)))


def distinct(recording: Recording, keys: Sequence[str], places: Sequence[Place]) -> int:
    """How many of these frames are no near copy of the one before in their episode, by their numbers alone.

    An arm at rest is one frame, however long it rests, also where its cameras see something move.
    """
    if not keys:
        return len(places)
    wanted: dict[int, list[int]] = {}
    for episode, index in places:
        wanted.setdefault(episode, []).append(index)
    count = 0
    for episode, columns in enumerate(recording.columns(keys)):
        if episode in wanted:
            count += _distinct(columns, wanted[episode])
    return count


def _distinct(columns: Mapping[str, Array], indices: Sequence[int]) -> int:
    flat = [a.reshape(len(a), math.prod(a.shape[1:])) for a in columns.values()]
    rows = np.concatenate([one[indices] for one in flat], axis=1)
    rows = rows.astype(np.float64)
    size = float(np.median(np.abs(rows))) if rows.size else 0.0
    count, kept = 0, None
    for row in rows:
        near = kept is not None and np.abs(row - kept) <= NEAR * np.maximum(np.abs(row), size)
        if not np.all(near):
            count, kept = count + 1, row
    return count
