"""One result as JSON and back, at full precision; ``parity.schema.json`` beside this explains each key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pytest_reflex.errors import ReflexError
from pytest_reflex.report.json.values import NON_FINITE, number, plain
from pytest_reflex.verdict.results import Answer, FixtureResult, OutputResult, RunResult

if TYPE_CHECKING:
    from pytest_reflex.verdict.divergence import Divergence
    from pytest_reflex.verdict.metrics import Difference
    from pytest_reflex.verdict.rounding import Floor
    from pytest_reflex.verdict.summaries import ErrorGrid

_DIFFERENCE_FLOATS: Final = ("max_abs_diff", "mean_abs_diff", "cos", "max_rel_diff", "rmse", "sqnr_db")
_DIFFERENCE_INTS: Final = ("elements", "ulp_p50", "ulp_p99", "ulp_max", "unequal")
_FLOOR_FIGURES: Final = (
    "scale",
    "reference_max",
    "reference_rms",
    "run_max",
    "run_rms",
    "candidate_max",
    "candidate_rms",
)
Result = TypeVar("Result", bound=RunResult)
# What a run document adds to a result: which test made it, and which of its calls.
ENTRY_KEYS: Final = ("nodeid", "call")


def _answer(answer: Answer) -> dict[str, Any]:
    return {"gate": answer.gate, "passed": answer.passed, "reason": plain(answer.refusal)}


def _difference(d: Difference | None) -> dict[str, Any] | None:
    if d is None:
        return None
    return {
        "elements": int(d.elements),
        **{name: plain(getattr(d, name)) for name in _DIFFERENCE_FLOATS},
        **{name: int(getattr(d, name)) for name in _DIFFERENCE_INTS[1:]},
        "worst_index": [int(i) for i in d.worst_index],
        "worst_reference": plain(d.worst_reference),
        "worst_candidate": plain(d.worst_candidate),
        "scale": plain(d.scale),
        "ulp_counts": [int(count) for count in d.ulp_counts],
    }


def _grid(grid: ErrorGrid | None) -> dict[str, Any] | None:
    if grid is None:
        return None
    return {
        "rows": int(grid.rows),
        "columns": int(grid.columns),
        "block": [int(n) for n in grid.block],
        "cells": plain(grid.cells),
    }


def _floor(floor: Floor | None) -> dict[str, Any] | None:
    if floor is None:
        return None
    return {
        "word": floor.word,
        "reason": plain(floor.reason) or None,
        "unknown": plain(floor.unknown) or None,
        "factor": plain(float(floor.factor)),
        "values": int(floor.values),
        **{name: plain(getattr(floor, name)) for name in _FLOOR_FIGURES},
    }


def divergence_to_json(divergence: Divergence) -> dict[str, Any]:
    """Where two sides part, in builtins."""
    from dataclasses import asdict

    made: dict[str, Any] = plain(asdict(divergence))
    return made


def _fixture(fixture: FixtureResult) -> dict[str, Any]:
    refusal = fixture.refusal
    return {
        "fixture_idx": int(fixture.fixture_idx),
        "max_abs_diff": plain(fixture.max_abs_diff),
        "mean_abs_diff": plain(fixture.mean_abs_diff),
        "cos": plain(fixture.cos),
        "passed": fixture.passed,
        "gate": refusal.gate if refusal else None,
        "reason": plain(refusal.said) if refusal else None,
        "answers": [_answer(a) for a in fixture.answers],
        "outputs": [
            {
                "name": plain(output.name),
                "dtype": str(output.dtype),
                "shape": [int(n) for n in output.shape],
                "difference": _difference(output.difference),
                "grid": _grid(output.grid),
                "floor": _floor(output.floor),
                "bound": plain(output.bound),
            }
            for output in fixture.outputs
        ],
        "inputs": [
            {
                "name": plain(given.name),
                "dtype": str(given.dtype),
                "shape": [int(n) for n in given.shape],
                "low": plain(given.low),
                "high": plain(given.high),
                "nonzero": int(given.nonzero),
                "digest": str(given.digest),
            }
            for given in fixture.inputs
        ],
    }


def result_to_json(result: RunResult) -> dict[str, Any]:
    """One result in builtins, ready for ``json.dumps(..., allow_nan=False)``."""
    return {
        "name": plain(result.name),
        "passed": result.passed,
        "max_abs_diff_across_all": plain(result.max_abs_diff_across_all),
        "threshold": plain(float(result.threshold)),
        "floors": plain(result.floors),
        "word": result.word,
        "strict": bool(result.strict),
        "seed": None if result.seed is None else int(result.seed),
        "fixtures": [_fixture(f) for f in result.fixtures],
        "gates": [_answer(a) for a in result.answers],
        "reference": plain(result.reference),
        "candidate": plain(result.candidate),
        "located": None if result.located is None else divergence_to_json(result.located),
        "notes": [plain(note) for note in result.notes],
        "doubts": [{"gate": doubt.gate, "said": plain(doubt.said)} for doubt in result.doubts],
        "steps": [
            {
                "step": int(step.step),
                "max_abs_diff": plain(step.max_abs_diff),
                "mean_abs_diff": plain(step.mean_abs_diff),
            }
            for step in result.steps
        ],
        "steps_of": None if result.steps_of is None else int(result.steps_of),
        "unseen": plain(result.unseen) or None,
        "swings": {plain(name): plain(float(swing)) for name, swing in result.swings.items()},
        "effects": {
            plain(name): {plain(output): plain(float(change)) for output, change in changes.items()}
            for name, changes in result.effects.items()
        },
    }


def result_from_json(data: Mapping[str, Any]) -> RunResult:
    """The result that :func:`result_to_json` wrote. The keys a run document adds are ignored.

    Raises:
        ReflexError: ``data`` is no such result, or contradicts itself: its verdict, or any figure that
            follows from others, is not what the rest of it gives.
    """
    return read_result(data, RunResult)


def read_result(data: Mapping[str, Any], kind: type[Result]) -> Result:
    """The same as a ``kind`` of result."""
    try:
        result = _read_result(data, kind)
        again = result_to_json(result)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ReflexError(f"not a parity result: {what}; expected what pytest-reflex wrote") from error
    if not isinstance(result.name, str):
        raise ReflexError(f"not a parity result: its name is {result.name!r}; expected text")
    for key in {**again, **data}:
        if key not in ENTRY_KEYS and (key not in again or again[key] != data.get(key)):
            raise ReflexError(
                f"parity result {result.name!r} contradicts itself at {key!r}: "
                "its answers and figures give another value; it was changed after it was written"
            )
    return result


def _read_result(data: Mapping[str, Any], kind: type[Result]) -> Result:
    from pytest_reflex.verdict.summaries import InputSummary, StepDifference

    return kind(
        name=data["name"],
        threshold=_figure(data["threshold"]),
        strict=data["strict"],
        seed=data["seed"],
        fixtures=tuple(
            FixtureResult(
                f["fixture_idx"],
                _read_answers(f["answers"]),
                tuple(map(_read_output, f["outputs"])),
                tuple(
                    InputSummary(
                        **{key: given[key] for key in ("name", "dtype", "nonzero", "digest")},
                        shape=tuple(given["shape"]),
                        low=_value(given["low"]),
                        high=_value(given["high"]),
                    )
                    for given in f["inputs"]
                ),
            )
            for f in data["fixtures"]
        ),
        answers=_read_answers(data["gates"]),
        reference=dict(data["reference"]),
        candidate=dict(data["candidate"]),
        notes=tuple(data["notes"]),
        doubts=tuple(Answer.no(doubt["gate"], doubt["said"]) for doubt in data["doubts"]),
        steps=tuple(
            StepDifference(s["step"], _figure(s["max_abs_diff"]), _figure(s["mean_abs_diff"]))
            for s in data["steps"]
        ),
        steps_of=data["steps_of"],
        unseen=data["unseen"] or "",
        floors=number(data["floors"]),
        located=_read_divergence(data["located"]),
        swings={name: _figure(swing) for name, swing in data["swings"].items()},
        effects={
            name: {output: _figure(change) for output, change in changes.items()}
            for name, changes in data["effects"].items()
        },
    )


def _read_divergence(data: Mapping[str, Any] | None) -> Divergence | None:
    from pytest_reflex.verdict.divergence import Divergence, Growth, Location

    if data is None:
        return None
    place = data["place"]
    figures = ("propagated", "local", "scale")
    return Divergence(
        **{
            **data,
            "seconds": _figure(data["seconds"]),
            "growth": tuple(
                Growth(**{**g, **{name: _figure(g[name]) for name in figures}}) for g in data["growth"]
            ),
            "place": place
            and Location(
                **{
                    **place,
                    "index": tuple(place["index"]),
                    **{side: _value(place[side]) for side in ("reference", "candidate")},
                    **{name: _figure(place[name]) for name in ("error", "scale")},
                    "rounding": number(place["rounding"]),
                }
            ),
        }
    )


def _figure(value: object) -> float:
    """A figure that has to be there."""
    read = number(value)
    if read is None:
        raise ValueError("a figure is null")
    return read


def _value(value: Any) -> Any:
    """An element's value as it was: a number, a bool, or one of the three that JSON cannot write."""
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def _read_answers(data: Iterable[Mapping[str, Any]]) -> tuple[Answer, ...]:
    # `is True`: nothing but a plain yes is one.
    return tuple(
        Answer.yes(a["gate"]) if a["passed"] is True else Answer.no(a["gate"], a["reason"]) for a in data
    )


def _read_output(data: Mapping[str, Any]) -> OutputResult:
    from pytest_reflex.verdict.metrics import Difference
    from pytest_reflex.verdict.rounding import Floor
    from pytest_reflex.verdict.summaries import ErrorGrid

    d, g, f = data["difference"], data["grid"], data["floor"]
    difference = grid = floor = None
    if d is not None:
        difference = Difference(
            **{name: _figure(d[name]) for name in _DIFFERENCE_FLOATS},  # type: ignore[arg-type]
            **{name: int(d[name]) for name in _DIFFERENCE_INTS},
            worst_index=tuple(d["worst_index"]),
            **{side: _value(d[side]) for side in ("worst_reference", "worst_candidate")},
            scale=number(d["scale"]),
            ulp_counts=tuple(d["ulp_counts"]),
        )
    if g is not None:
        cells = tuple(tuple(_figure(cell) for cell in row) for row in g["cells"])
        grid = ErrorGrid(g["rows"], g["columns"], (g["block"][0], g["block"][1]), cells)
    if f is not None:
        figures = {name: number(f[name]) for name in _FLOOR_FIGURES}
        floor = Floor(_figure(f["factor"]), f["values"], **figures, unknown=f["unknown"] or "")
    shape = tuple(data["shape"])
    return OutputResult(data["name"], data["dtype"], shape, difference, grid, floor, number(data["bound"]))
