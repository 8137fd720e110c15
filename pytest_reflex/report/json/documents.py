"""A whole run as JSON and back, at full precision; ``parity.schema.json`` beside this file explains each key.

JSON has no NaN and no infinity: those are the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.
Everything else is written as it is, nothing rounded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pytest_reflex._version import __version__
from pytest_reflex.errors import ReflexError
from pytest_reflex.report.json.results import ENTRY_KEYS, derived, result_from_json, result_to_json
from pytest_reflex.report.json.values import plain, shallow
from pytest_reflex.report.session import Session
from pytest_reflex.verdict.naming import near_path
from pytest_reflex.verdict.precision import Precision
from pytest_reflex.verdict.results import RunResult

SCHEMA_VERSION: Final = 6
TOOL: Final = "pytest-reflex"
_HEAD: Final = {"schema_version": SCHEMA_VERSION, "tool": TOOL, "version": __version__}


@dataclass(frozen=True)
class Entry:
    """A result in a run, and which call of which test made it where one did.

    Attributes:
        result: the result.
        nodeid: the test's node id; None where no test made it.
        call: the number of the call, from 0; None where it is not known.
    """

    result: RunResult
    nodeid: str | None = None
    call: int | None = None

    @classmethod
    def of(cls, made: RunResult | Mapping[str, Any]) -> Entry:
        """An entry of a result, or of what stands for it in a run document.

        Raises:
            ReflexError: it is no result, or contradicts itself.
        """
        if isinstance(made, RunResult):
            return cls(made)
        return cls(result_from_json(made), made.get("nodeid"), made.get("call"))

    @cached_property
    def json(self) -> dict[str, Any]:
        """What stands for it in a run document."""
        test = {key: value for key in ENTRY_KEYS if (value := getattr(self, key)) is not None}
        return {**test, **result_to_json(self.result)}


@dataclass(frozen=True)
class Run:
    """A whole run: what every face of the report takes.

    Attributes:
        results: what was compared.
        not_compared: parity tests without a result that proves anything: ``nodeid``, ``outcome``, ``reason``.
        problems: what went wrong with the run itself, one line each.
        error: ``type`` and ``message`` of what kept it from a verdict; None where it reached one.
        version: of the pytest-reflex that found this.
        sessions: when it was made and of which source, of every process that had a part in it and said so.
    """

    results: tuple[Entry, ...] = ()
    not_compared: tuple[Mapping[str, Any], ...] = ()
    problems: tuple[str, ...] = ()
    error: Mapping[str, Any] | None = None
    version: str = __version__
    sessions: tuple[Session, ...] = ()

    @property
    def called(self) -> str:
        """What its verdict is on: ``parity``; ``agreement`` where PyTorch was asked of none; or both."""
        asked = {entry.result.against for entry in self.results}
        if asked == {"onnx"}:
            return "agreement"
        return "parity and agreement" if len(asked) > 1 else "parity"

    @property
    def passed(self) -> bool:
        passed = [entry.result.passed for entry in self.results]
        return self.error is None and _passed(passed, self.not_compared, self.problems)

    def to_json(self) -> dict[str, Any]:
        """Its document, where it reached a verdict."""
        entries = [entry.json for entry in self.results]
        return document(
            entries, not_compared=self.not_compared, problems=self.problems, sessions=self.sessions
        )


def run_of(made: Run | Mapping[str, Any]) -> Run:
    """The run that a document, or an error document, holds; a run is itself.

    Raises:
        ReflexError: a result in it is none, or contradicts itself.
    """
    if isinstance(made, Run):
        return made
    if "error" in made:
        return Run(error=made["error"], version=made["version"])
    results = tuple(map(Entry.of, made["results"]))
    sessions = tuple(map(Session.from_json, made["sessions"]))
    return Run(
        results,
        tuple(made["not_compared"]),
        tuple(made["problems"]),
        version=made["version"],
        sessions=sessions,
    )


def _passed(
    passed: Sequence[bool], not_compared: Iterable[Mapping[str, Any]], problems: Sequence[str]
) -> bool:
    failed = any(test["outcome"] == "failed" for test in not_compared)
    return bool(passed) and all(passed) and not failed and not problems


def document(
    results: Iterable[RunResult | Mapping[str, Any]],
    *,
    not_compared: Sequence[Mapping[str, Any]] = (),
    problems: Sequence[str] = (),
    exit_code: int | None = None,
    sessions: Sequence[Session] = (),
) -> dict[str, Any]:
    """The document of a whole run.

    Args:
        results: results, or what :func:`result_to_json` made of them (with ``nodeid`` and ``call`` when a
            test made them).
        not_compared: parity tests without a result that proves anything: ``nodeid``, ``outcome`` (passed,
            skipped, failed, or expected of a fail that was) and ``reason``.
        problems: what went wrong with the run itself, one line each.
        exit_code: what the process exits with, when it is known.
        sessions: when it was made and of which source, as far as that is known.

    Returns:
        Builtins. ``passed`` is true when there is at least one result, every result passed, no parity
        test failed without one, and the run had no problem.
    """
    entries = [result_to_json(r) if isinstance(r, RunResult) else dict(r) for r in results]
    passed = _passed([entry["passed"] is True for entry in entries], not_compared, problems)
    found = {
        "passed": passed,
        "results": entries,
        "not_compared": [plain(test) for test in not_compared],
        "problems": [plain(problem) for problem in problems],
        "sessions": [plain(one.to_json()) for one in sessions],
    }
    return {**_HEAD, **found, **({} if exit_code is None else {"exit_code": int(exit_code)})}


def error_document(error: BaseException, *, message: str | None = None, exit_code: int = 2) -> dict[str, Any]:
    """The document of a run that reached no verdict.

    Args:
        error: what kept it from one.
        message: what to say of it; None takes the error's own message.
        exit_code: what the process exits with.
    """
    said = plain(str(error) if message is None else message)
    return {**_HEAD, "error": {"type": type(error).__name__, "message": said}, "exit_code": int(exit_code)}


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The run document in a file, checked as :func:`read_run` checks it."""
    return _read(path)[0]


def read_run(path: str | os.PathLike[str]) -> Run:
    """The run in a file, its results checked to be consistent.

    Raises:
        ReflexError: the file cannot be read, or holds no run document of this version, or one that
            contradicts itself.
    """
    return _read(path)[1]


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Run]:
    shown = os.fspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            made = json.load(file)
        if not shallow(made):
            raise ValueError("it is nested deeper than any document")
    except OSError as error:
        raise ReflexError(
            f"{shown}: cannot be read ({error.strerror}){near_path(Path(path))}; give a parity.json"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ReflexError(
            f"{shown}: is not JSON ({error}); give a parity.json that pytest-reflex wrote"
        ) from error
    if not isinstance(made, dict) or made.get("tool") != TOOL:
        raise ReflexError(f"{shown}: is no parity document; give a parity.json that pytest-reflex wrote")
    if made.get("schema_version") == 3:
        made = _from_earlier(made, _entry_from_version_3, 4)
    if made.get("schema_version") == 4:
        made = _from_version_4(made)
    if made.get("schema_version") == 5:  # from before physical units, which nobody said
        made = {**made, "schema_version": 6}
    if made.get("schema_version") != SCHEMA_VERSION:
        raise ReflexError(
            f"{shown}: has schema_version {made.get('schema_version')!r}, expected {SCHEMA_VERSION}; "
            "read it with the pytest-reflex that wrote it"
        )
    try:
        if "error" in made:
            _require_text(made["error"], "type", "message")
            return made, run_of({"version": "", **made})
        run = run_of({"version": "", **made})
        _require_labels(made)
        passed = run.passed
    except ReflexError as error:
        raise ReflexError(f"{shown}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ReflexError(
            f"{shown}: is no parity document ({error!r}); give one pytest-reflex wrote"
        ) from error
    if made.get("passed") is not passed:
        raise ReflexError(f"{shown}: says passed {made.get('passed')!r}, but its results give {passed!r}")
    return made, run


def _from_earlier(
    made: dict[str, Any], entry_of: Callable[[Mapping[str, Any]], dict[str, Any]], version: int
) -> dict[str, Any]:
    """A document of an earlier version as one of the next.

    What is wrong with it is said by whoever reads it as one of today's.
    """
    results = {}
    with suppress(KeyError, TypeError, AttributeError, ValueError):
        results = {"results": [entry_of(entry) for entry in made["results"]]}
    return {**made, **results, "schema_version": version}


def _from_version_4(made: dict[str, Any]) -> dict[str, Any]:
    """A document from before claims, when nobody said either when a run was made."""
    found = _from_earlier(made, _entry_from_version_4, 5)
    return found if "error" in found else {**found, "sessions": []}


def _entry_from_version_4(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A result from before claims and coverage: neither was asked for, and nobody counted."""
    unasked = [{"gate": gate, "passed": True, "reason": None} for gate in ("coverage", "claim")]
    gates = [*entry["gates"], *unasked] if entry["gates"] else []
    return {**entry, "gates": gates, "claim": None, "coverage": None}


def _entry_from_version_3(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A result from before precisions and rtol, whose candidate was held to float32.

    What follows from the rest was not all there: it is added, and held against the rest like everything.
    """
    floors = entry["floors"]
    rest = {"number": entry["threshold"] if floors is None else floors, "in_floors": floors is not None}
    fixtures = [
        {**fixture, "outputs": [_output_from_version_3(output) for output in fixture["outputs"]]}
        for fixture in entry["fixtures"]
    ]
    added = {
        "asked": {"rest": rest, "outputs": {}, "rtol": 0.0},
        "by_default": False,
        "precision": plain(vars(Precision())),
        "fixtures": fixtures,
    }
    kept = {key: value for key, value in entry.items() if key != "floors"}
    known = {**kept, **added, "claim": None, "coverage": None}
    return {**derived(known, "against", "least"), **kept, **added}


def _output_from_version_3(output: Mapping[str, Any]) -> dict[str, Any]:
    floor, difference = output["floor"], output["difference"]
    return {
        **output,
        "floor": floor and {**floor, "precision": "float32", "unsure": ""},
        "difference": difference and {**difference, "frontier": []},
        "quantised": None,
    }


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
