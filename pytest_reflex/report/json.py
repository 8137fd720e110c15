"""Results as JSON and back, at full precision; ``parity.schema.json`` beside this file explains each key.

JSON has no NaN and no infinity: those are the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.
Everything else is written as it is, nothing rounded.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pytest_reflex.errors import ReflexError
from pytest_reflex.verdict import YES, Answer, FixtureResult, OutputResult, ParityResult

if TYPE_CHECKING:
    from pytest_reflex.metrics import Difference

SCHEMA_VERSION: Final = 1
TOOL: Final = "pytest-reflex"

_NON_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_DIFFERENCE_FLOATS: Final = ("max_abs_diff", "mean_abs_diff", "cos", "max_rel_diff", "rmse", "sqnr_db")
_DIFFERENCE_INTS: Final = ("elements", "ulp_p50", "ulp_p99", "ulp_max", "unequal")
# What a run document adds to a result: which test made it, and which of its calls.
_ENTRY_KEYS: Final = ("nodeid", "call")


def plain(value: object) -> Any:
    """``value`` in builtins that JSON and xdist can carry; what is no builtin becomes its text.

    A numpy number becomes Python's. Keys become text.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        number = float(value)
        if math.isfinite(number):
            return number
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    if isinstance(value, str):
        # A lone surrogate (an undecodable file name) cannot be written as UTF-8.
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {str(plain(str(key))): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray):
        return [plain(item) for item in value]
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:
        return plain(item())
    return plain(str(value))


def number(value: object) -> float | None:
    """A JSON figure back as a float; None stays None.

    Raises:
        ReflexError: it is no figure.
    """
    if value is None:
        return None
    if isinstance(value, str) and value in _NON_FINITE:
        return _NON_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ReflexError(f"{value!r} is no figure; expected a number, 'NaN', 'Infinity' or '-Infinity'")
    return float(value)


def _answer(answer: Answer) -> dict[str, Any]:
    return {"gate": answer.gate, "passed": answer.yes, "reason": None if answer.yes else plain(answer.said)}


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
    }


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
            }
            for output in fixture.outputs
        ],
    }


def result_to_json(result: ParityResult) -> dict[str, Any]:
    """One result in builtins, ready for ``json.dumps(..., allow_nan=False)``."""
    return {
        "name": plain(result.name),
        "passed": result.passed,
        "max_abs_diff_across_all": plain(result.max_abs_diff_across_all),
        "threshold": plain(float(result.threshold)),
        "strict": bool(result.strict),
        "seed": None if result.seed is None else int(result.seed),
        "fixtures": [_fixture(f) for f in result.fixtures],
        "gates": [_answer(a) for a in result.answers],
        "reference": plain(result.reference),
        "candidate": plain(result.candidate),
        "notes": [plain(note) for note in result.notes],
    }


def result_from_json(data: Mapping[str, Any]) -> ParityResult:
    """The result that :func:`result_to_json` wrote. The keys a run document adds are ignored.

    Raises:
        ReflexError: ``data`` is no such result, or contradicts itself: its verdict, or any figure that
            follows from others, is not what the rest of it gives.
    """
    try:
        result = _read_result(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ReflexError(f"not a parity result: {what}; expected what pytest-reflex wrote") from error
    again = result_to_json(result)
    for key in {**again, **data}:
        if key not in _ENTRY_KEYS and (key not in again or again[key] != data.get(key)):
            raise ReflexError(
                f"parity result {result.name!r} contradicts itself at {key!r}: "
                "its answers and figures give another value; it was changed after it was written"
            )
    return result


def _read_result(data: Mapping[str, Any]) -> ParityResult:
    threshold = number(data["threshold"])
    if threshold is None:
        raise ValueError("threshold is null")
    return ParityResult(
        name=data["name"],
        threshold=threshold,
        strict=data["strict"],
        seed=data["seed"],
        fixtures=tuple(
            FixtureResult(
                f["fixture_idx"], _read_answers(f["answers"]), tuple(map(_read_output, f["outputs"]))
            )
            for f in data["fixtures"]
        ),
        answers=_read_answers(data["gates"]),
        reference=dict(data["reference"]),
        candidate=dict(data["candidate"]),
        notes=tuple(data["notes"]),
    )


def _read_answers(data: Iterable[Mapping[str, Any]]) -> tuple[Answer, ...]:
    # `is True`: nothing but a plain yes is one.
    return tuple(Answer(a["gate"], YES if a["passed"] is True else a["reason"]) for a in data)


def _read_output(data: Mapping[str, Any]) -> OutputResult:
    from pytest_reflex.metrics import Difference

    d = data["difference"]
    difference = None
    if d is not None:
        difference = Difference(
            **{name: number(d[name]) for name in _DIFFERENCE_FLOATS},  # type: ignore[arg-type]
            **{name: int(d[name]) for name in _DIFFERENCE_INTS},  # type: ignore[arg-type]
            worst_index=tuple(d["worst_index"]),
            **{side: _NON_FINITE.get(d[side], d[side]) for side in ("worst_reference", "worst_candidate")},
        )
    return OutputResult(data["name"], data["dtype"], tuple(data["shape"]), difference)


def document(
    results: Iterable[ParityResult | Mapping[str, Any]],
    *,
    not_compared: Sequence[Mapping[str, Any]] = (),
    problems: Sequence[str] = (),
    exit_code: int | None = None,
) -> dict[str, Any]:
    """The document of a whole run.

    Args:
        results: results, or what :func:`result_to_json` made of them (with ``nodeid`` and ``call`` when a
            test made them).
        not_compared: parity tests that ended without a result: ``nodeid``, ``outcome`` (passed, skipped
            or failed) and ``reason``.
        problems: what went wrong with the run itself, one line each.
        exit_code: what the process exits with, when it is known.

    Returns:
        Builtins. ``passed`` is true when there is at least one result, every result passed, no parity
        test failed without one, and the run had no problem.
    """
    from pytest_reflex import __version__

    entries = [result_to_json(r) if isinstance(r, ParityResult) else dict(r) for r in results]
    passed = (
        bool(entries)
        and all(entry["passed"] is True for entry in entries)
        and all(test["outcome"] != "failed" for test in not_compared)
        and not problems
    )
    made: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "tool": TOOL,
        "version": __version__,
        "passed": passed,
        "results": entries,
        "not_compared": [plain(test) for test in not_compared],
        "problems": [plain(problem) for problem in problems],
    }
    if exit_code is not None:
        made["exit_code"] = int(exit_code)
    return made


def error_document(error: BaseException, *, message: str | None = None, exit_code: int = 2) -> dict[str, Any]:
    """The document of a run that reached no verdict.

    Args:
        error: what kept it from one.
        message: what to say of it; None takes the error's own message.
        exit_code: what the process exits with.
    """
    from pytest_reflex import __version__

    return {
        "schema_version": SCHEMA_VERSION,
        "tool": TOOL,
        "version": __version__,
        "error": {"type": type(error).__name__, "message": plain(str(error) if message is None else message)},
        "exit_code": int(exit_code),
    }


def dumps(made: Mapping[str, Any]) -> str:
    """A document as text: the same document gives the same bytes."""
    return json.dumps(made, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The run document in a file, its results checked to be consistent.

    Raises:
        ReflexError: the file cannot be read, or holds no run document of this version, or one that
            contradicts itself.
    """
    shown = os.fspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            made = json.load(file)
    except OSError as error:
        raise ReflexError(f"{shown}: cannot be read ({error.strerror}); give a parity.json") from error
    except ValueError as error:
        raise ReflexError(
            f"{shown}: is not JSON ({error}); give a parity.json that pytest-reflex wrote"
        ) from error
    if not isinstance(made, dict) or made.get("tool") != TOOL:
        raise ReflexError(f"{shown}: is no parity document; give a parity.json that pytest-reflex wrote")
    if made.get("schema_version") != SCHEMA_VERSION:
        raise ReflexError(
            f"{shown}: has schema_version {made.get('schema_version')!r}, expected {SCHEMA_VERSION}; "
            "read it with the pytest-reflex that wrote it"
        )
    if "error" in made:
        return made
    try:
        for entry in made["results"]:
            result_from_json(entry)
        again = document(made["results"], not_compared=made["not_compared"], problems=made["problems"])
    except ReflexError as error:
        raise ReflexError(f"{shown}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ReflexError(
            f"{shown}: is no parity document ({error!r}); give one pytest-reflex wrote"
        ) from error
    if made.get("passed") is not again["passed"]:
        raise ReflexError(
            f"{shown}: says passed {made.get('passed')!r}, but its results give {again['passed']!r}"
        )
    return made


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) that every document keeps to."""
    from importlib.resources import files

    text = files("pytest_reflex.report").joinpath("parity.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
