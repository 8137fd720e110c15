"""What all sides did, as the verdict on it: from ways to drifts, curves and what is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from pytest_reflex.judge.rollout.driving import Way
from pytest_reflex.judge.rollout.shown import RolloutResult
from pytest_reflex.judge.rollout.sides import Own, Side, Work
from pytest_reflex.verdict.drift import Quantity, apart, drift
from pytest_reflex.verdict.rollout import CANDIDATE, FLOAT64, JITTER, REFERENCE, OpenLoop, Seen, Start

__all__ = ["result_of"]

Array = np.ndarray[Any, Any]

# How many instants a curve is kept at.
INSTANTS: Final = 121


def result_of(work: Work, own: Own, other: Side) -> RolloutResult:
    """What all sides did, as the verdict on it, without a name.

    Args:
        work: what drove them.
        own: the reference and the two that drift by rounding.
        other: the candidate.
    """
    quantities = work.watched
    hz, steps = work.terms.hz, work.terms.steps
    at = np.unique(np.linspace(0, steps, min(steps + 1, INSTANTS)).round().astype(int))
    driven = {CANDIDATE: other.ways, FLOAT64: own.float64.ways, JITTER: own.jitter.ways}
    driven = {side: ways for side, ways in driven.items() if ways or side != FLOAT64}
    count = min(map(len, driven.values()))
    columns = [_columns(work.quantities, q) for q in quantities]
    made = [
        _start(
            work, start, own.plain.ways[start], {side: w[start] for side, w in driven.items()}, columns, at
        )
        for start in range(count)
    ]
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
    ways = {REFERENCE: own.plain.ways[worst], **{side: found[worst] for side, found in driven.items()}}
    seen = _seen(worst, ways, quantities, columns, at)
    filmed = None
    if work.film:
        from pytest_reflex.judge.rollout.film import filmed as film_of

        filmed = film_of(work.make, hz, ways[REFERENCE], ways[CANDIDATE])
    return replace(result, seen=seen, film=filmed)


def _start(
    work: Work,
    start: int,
    plain: Way,
    sides: Mapping[str, Way],
    columns: Sequence[Sequence[int]],
    at: Array,
) -> Start:
    """One start: every side's drift from the reference's way."""
    watched = [*zip(work.watched, columns, strict=True)]
    pairs = {
        side: [(way.path[q.name][:, c], plain.path[q.name][:, c]) for q, c in watched]
        for side, way in sides.items()
    }
    return Start(
        start=start,
        drifts={
            side: tuple(
                drift(one, other, q, work.terms.hz)
                for (one, other), q in zip(both, work.watched, strict=True)
            )
            for side, both in pairs.items()
        },
        least={
            q.name: float(np.spacing(np.float32(max(1e-30, np.abs(plain.path[q.name]).max()))))
            for q in work.watched
        },
        succeeded={REFERENCE: plain.succeeded, **{side: way.succeeded for side, way in sides.items()}},
        curves={side: tuple(apart(*both[0], work.watched[0])[at].tolist()) for side, both in pairs.items()},
    )


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


def _open_loop(own: Own, other: Side) -> OpenLoop | None:
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
