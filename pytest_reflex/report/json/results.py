"""One result as JSON and back, at full precision; ``parity.schema.json`` beside this explains each key.

A record's keys are the fields of its dataclass, whose annotations say how each is read again. Where JSON
has another order or name, or says what follows from the fields, :func:`_held` and :func:`_fields` say so.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

from pytest_reflex.errors import ReflexError
from pytest_reflex.report.json.values import NON_FINITE, number, plain
from pytest_reflex.verdict.claim import Asked, Claim
from pytest_reflex.verdict.coverage import Coverage, Decision, ModuleCoverage
from pytest_reflex.verdict.divergence import Divergence, Location
from pytest_reflex.verdict.precision import Precision
from pytest_reflex.verdict.quantised import QuantisedDistances
from pytest_reflex.verdict.results import Answer, FixtureResult, OutputResult, RunResult
from pytest_reflex.verdict.rounding import Floor
from pytest_reflex.verdict.tolerances import Amount, Tolerances

Result = TypeVar("Result", bound=RunResult)
# What a run document adds to a result: which test made it, and which of its calls.
ENTRY_KEYS: Final = ("nodeid", "call")


def result_to_json(result: RunResult) -> dict[str, Any]:
    """One result in builtins, ready for ``json.dumps(..., allow_nan=False)``."""
    made: dict[str, Any] = _written(result)
    return made


def divergence_to_json(divergence: Divergence) -> dict[str, Any]:
    """Where two sides part, in builtins."""
    made: dict[str, Any] = _written(divergence)
    return made


def _written(value: object) -> Any:
    if isinstance(value, tuple):
        return [_written(item) for item in value]
    if isinstance(value, Mapping):
        return {str(plain(str(key))): _written(held) for key, held in value.items()}
    if is_dataclass(value):
        return {key: _written(held) for key, held in _held(value).items()}
    return plain(value)


def _held(record: object) -> Mapping[str, object]:
    """What JSON says of a record, by key: its fields, and what follows from them."""
    fields = vars(record)
    if isinstance(record, Location):
        # Of one operator there is nothing to say of several.
        return {k: v for k, v in fields.items() if v or k not in ("together", "span", "unpaired")}
    if isinstance(record, Answer):
        return {"gate": record.gate, "passed": record.passed, "reason": record.refusal}
    if isinstance(record, Floor):
        said = {"word": record.word, "reason": record.reason or None, "unknown": record.unknown or None}
        return {**said, **fields, **said}
    if isinstance(record, Amount):
        in_unit = {"unit": record.unit, "also": record.also} if record.unit else {}
        return {"number": record.number, "in_floors": record.in_floors, **in_unit}
    if isinstance(record, OutputResult):  # most robots' units are not known
        return {key: held for key, held in fields.items() if key != "elements" or record.elements}
    if isinstance(record, QuantisedDistances):
        return {"word": record.word, **fields}
    if isinstance(record, FixtureResult):
        refusal = record.refusal
        first = _picked(record, "fixture_idx", "max_abs_diff", "mean_abs_diff", "cos", "passed")
        why = {"gate": refusal and refusal.gate, "reason": refusal and refusal.said}
        return {**first, **why, **fields}
    if isinstance(record, Claim):
        said = {key: held for key, held in fields.items() if key != "needs"}
        return {**_picked(record, "text", "bound", "confidence"), **said}
    if isinstance(record, Coverage):
        return {**_picked(record, "text", "share", "both", "reachable", "constant", "guards"), **fields}
    if isinstance(record, RunResult):
        return {
            **_picked(record, "name", "passed", "against", "max_abs_diff_across_all", "threshold", "asked"),
            **_picked(record, "by_default", "precision", "word", "least", "strict", "seed", "fixtures"),
            "gates": record.answers,
            **_picked(record, "reference", "candidate", "located", "notes"),
            "doubts": [{"gate": doubt.gate, "said": doubt.said} for doubt in record.doubts],
            **_picked(record, "steps", "steps_of"),
            "unseen": record.unseen or None,
            **_picked(record, "swings", "effects", "claim", "coverage"),
            **({"units": record.units} if record.units else {}),
        }
    if "unequal" in fields:  # a Difference, whose own module imports numpy
        names = [name for name in fields if name != "unequal"]
        names.insert(names.index("worst_index"), "unequal")
        return _picked(record, *names)
    return fields


def _picked(record: object, *names: str) -> dict[str, object]:
    return {name: getattr(record, name) for name in names}


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
        miscounted = _miscounted(result)
        again = {} if miscounted else result_to_json(result)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ReflexError(f"not a parity result: {what}; expected what pytest-reflex wrote") from error
    if miscounted:
        raise ReflexError(
            f"parity result {result.name!r} contradicts itself: {miscounted}; it was changed after it was "
            "written"
        )
    for key in {**again, **data}:
        if key not in ENTRY_KEYS and (key not in again or again[key] != data.get(key)):
            raise ReflexError(
                f"parity result {result.name!r} contradicts itself at {key!r}: "
                "its answers and figures give another value; it was changed after it was written"
            )
    return result


def tolerances_from_json(data: object) -> Tolerances:
    """What was asked of a run's outputs, from a result's ``asked``.

    Raises:
        ReflexError: it is no such thing.
    """
    try:
        if not isinstance(data, Mapping):
            raise ValueError(f"asked is {reprlib.repr(data)}")
        made: Tolerances = _record(Tolerances, data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReflexError(f"no tolerances can be read: {error}") from error
    return made


def _miscounted(result: RunResult) -> str:
    """Where a claim does not count what the result holds; empty where it does.

    Passing fixtures alone are left out, and only where draws were made for a claim.
    """
    claim = result.claim
    if claim is None:
        return ""
    refused = [f.fixture_idx for f in result.drawn if not f.passed]
    more = result.left_out
    answered = all(answer.passed for answer in result.answers if answer.gate == "claim")
    sound = (
        claim.refused == len(refused),
        more == 0 or (more > 0 and claim.sequential),
        (claim.source == "drawn") == (result.seed is not None),
        not claim.sequential or claim.clean == (min(refused) if refused else claim.judged),
    )
    # Last, for what it takes hangs on numbers that are sound.
    good = all(sound) and (claim.reached or not answered)
    return "" if good else "its claim is not what its fixtures establish"


def derived(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """What keys of a result have to be that follow from all else that it holds."""
    result = _record(RunResult, data)
    return {name: _written(getattr(result, name)) for name in names}


def _read_result(data: Mapping[str, Any], kind: type[Result]) -> Result:
    result: Result = _record(kind, data)
    return result


def _record(kind: Any, data: Mapping[str, Any]) -> Any:
    if kind is Answer:
        # `is True`: nothing but a plain yes is one.
        passed = data["passed"] is True
        return Answer.yes(data["gate"]) if passed else Answer.no(data["gate"], data["reason"])
    fields = _fields(kind, data)
    return kind(**{name: _read(hint, fields[name], name) for name, hint in _hints(kind).items()})


def _fields(kind: type, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """What :func:`_held` said of a record of this kind, under its fields' names."""
    if kind is Floor:
        return {**data, "unknown": data["unknown"] or ""}
    if kind is Location:
        return {"together": [], "span": "", "unpaired": "", **data}
    if kind is Amount:
        return {"unit": "", "also": [], **data}
    if kind is Claim:
        return {"needs": None, **data}
    if kind is OutputResult:
        return {"elements": [], **data}
    if issubclass(kind, RunResult):
        doubts = [{"gate": d["gate"], "passed": False, "reason": d["said"]} for d in data["doubts"]]
        said = {"answers": data["gates"], "doubts": doubts, "unseen": data["unseen"] or ""}
        return {"units": {}, **data, **said}
    return data


@cache
def _hints(kind: type) -> dict[str, Any]:
    from pytest_reflex.verdict.metrics import Difference
    from pytest_reflex.verdict.summaries import ErrorGrid, InputSummary, StepDifference

    named = (
        Amount, Asked, Claim, Coverage, Decision, Difference, Divergence, ErrorGrid, Floor, InputSummary,
        ModuleCoverage, Precision, QuantisedDistances, StepDifference, Tolerances,
    )  # fmt: skip
    return get_type_hints(kind, localns={record.__name__: record for record in named})


def _read(kind: Any, value: Any, name: str) -> Any:
    """A field's value of the annotated ``kind``, from what :func:`_written` made of it."""
    if kind is float:
        if (figure := number(value)) is not None:
            return figure
    elif kind in (int, str, bool):
        if type(value) is kind:
            return value
    elif is_dataclass(kind):
        return _record(kind, value)
    else:
        return _read_any(get_origin(kind), get_args(kind), value, name)
    raise _wrong(name, value)


def _read_any(form: Any, kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    """The same of several kinds, or of a container."""
    if form is tuple and isinstance(value, list):
        every = [kinds[0]] * len(value) if kinds[-1] is Ellipsis else kinds
        return tuple(_read(kind, item, name) for kind, item in zip(every, value, strict=True))
    if form is Mapping and isinstance(value, dict) and kinds[-1] not in (Any, object):
        return {key: _read(kinds[-1], held, f"{name}[{key!r}]") for key, held in value.items()}
    if value is None and NoneType in kinds:
        return None
    some = [kind for kind in kinds if kind is not NoneType]
    if form is UnionType and len(some) == 1:
        return _read(some[0], value, name)
    if form is UnionType:
        # An element's value as it was: a number, a bool, or one of the three that JSON cannot write.
        value = NON_FINITE.get(value) if isinstance(value, str) else value
        fits = type(value) in some
    else:
        fits = value in kinds if form is Literal else form is Mapping and isinstance(value, dict)
    if not fits:
        raise _wrong(name, value)
    return value


def _wrong(name: str, value: object) -> ValueError:
    return ValueError(f"{name} is {reprlib.repr(value)}")
