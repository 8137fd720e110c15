"""A whole run as JSON and back, at full precision; ``parity.schema.json`` beside this file explains each key.

JSON has no NaN and no infinity: those are the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.
Everything else is written as it is, nothing rounded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pytest_reflex.errors import ReflexError
from pytest_reflex.report.json.results import result_from_json, result_to_json
from pytest_reflex.report.json.values import dumps, number, plain, shallow
from pytest_reflex.verdict.results import RunResult

__all__ = [
    "SCHEMA_VERSION",
    "TOOL",
    "document",
    "dumps",
    "error_document",
    "number",
    "plain",
    "read",
    "result_from_json",
    "result_to_json",
    "schema",
]

SCHEMA_VERSION: Final = 2
TOOL: Final = "pytest-reflex"


def document(
    results: Iterable[RunResult | Mapping[str, Any]],
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
    from pytest_reflex._version import __version__

    entries = [result_to_json(r) if isinstance(r, RunResult) else dict(r) for r in results]
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
    from pytest_reflex._version import __version__

    return {
        "schema_version": SCHEMA_VERSION,
        "tool": TOOL,
        "version": __version__,
        "error": {"type": type(error).__name__, "message": plain(str(error) if message is None else message)},
        "exit_code": int(exit_code),
    }


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
        if not shallow(made):
            raise ValueError("it is nested deeper than any document")
    except OSError as error:
        raise ReflexError(f"{shown}: cannot be read ({error.strerror}); give a parity.json") from error
    except (ValueError, RecursionError) as error:
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
    try:
        if "error" in made:
            _require_text(made["error"], "type", "message")
            return made
        for entry in made["results"]:
            result_from_json(entry)
        _require_labels(made)
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


def _require_labels(made: Mapping[str, Any]) -> None:
    """Refuse a document in which what tells tests and problems apart is not what it has to be."""
    for test in made["not_compared"]:
        _require_text(test, "nodeid", "outcome", "reason")
    for entry in made["results"]:
        _require_text(entry, *({"nodeid"} & entry.keys()))
        if not isinstance(entry.get("call", 0), int):
            raise TypeError(f"call is {entry['call']!r}")
    for problem in made["problems"]:
        _require_text({"problem": problem}, "problem")


def _require_text(holder: Mapping[str, Any], *keys: str) -> None:
    for key in keys:
        if not isinstance(holder[key], str):
            raise TypeError(f"{key} is {holder[key]!r}")


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) that every document keeps to."""
    from importlib.resources import files

    text = files("pytest_reflex.report.json").joinpath("parity.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
