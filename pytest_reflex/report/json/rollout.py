"""The verdict on a closed loop as builtins, for machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pytest_reflex._version import __version__
from pytest_reflex.report.json.values import plain
from pytest_reflex.verdict.rollout import CANDIDATE, Rollout, Start

__all__ = ["rollout_to_json"]


def rollout_to_json(made: Rollout) -> dict[str, Any]:
    """``passed``, ``exit_code``, ``word``; of each of ``starts`` each side's drift in each quantity, in the
    unit that ``quantities`` says, its floor, its word and both sides' success; ``success``, paired;
    ``open_loop``, what the same two say without a robot; ``not_driven``, what had no part in it."""
    paired = made.success
    return {
        "tool": "pytest-reflex",
        "kind": "rollout",
        "version": __version__,
        "name": made.name,
        "passed": made.passed,
        "exit_code": made.exit_code,
        "word": made.word if made.starts else None,
        "error": made.error or None,
        "env": made.env,
        "seconds": made.seconds,
        "hz": made.hz,
        "execute": made.execute,
        "latency": made.latency,
        "seed": made.seed,
        "asked": made.asked,
        "within": made.within,
        "quantities": [plain(asdict(quantity)) for quantity in made.quantities],
        "starts": [_start(made, start) for start in made.starts],
        "instants": list(made.instants),
        "success": None
        if paired is None
        else {
            **asdict(paired),
            "p_value": paired.p_value,
            "differ": paired.differ,
            "smallest_difference": paired.smallest,
        },
        "open_loop": None if made.open_loop is None else plain(asdict(made.open_loop)),
        "notes": list(made.notes),
        "not_driven": made.not_driven or None,
        "facts": plain(made.facts),
    }


def _start(made: Rollout, start: Start) -> dict[str, Any]:
    return {
        "start": start.start,
        "succeeded": dict(start.succeeded),
        "quantities": [
            {
                "quantity": quantity.name,
                "word": made.word_of(start, quantity.name),
                "floor": made.floor(start, quantity.name),
                "floors": plain(made.ratio(start, quantity.name)),
                "drifts": {
                    side: plain(asdict(start.drift(side, quantity.name)))
                    for side in (CANDIDATE, *_floors(start))
                },
            }
            for quantity in made.quantities
        ],
        "curves": {side: plain(list(curve)) for side, curve in start.curves.items()},
    }


def _floors(start: Start) -> list[str]:
    return [side for side in start.drifts if side != CANDIDATE]
