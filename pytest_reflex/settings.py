"""What a check can be told, where each value may come from, and what is a good value.

A value is taken from the first place that gives one: command line, then the keywords of a call, then
the ``parity`` marker, then the ini file, then the default. ``None`` means *not given*; 0 is a value.
Nothing here knows pytest: a bad value is a :class:`~pytest_reflex.errors.SettingsError`.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Final

from pytest_reflex.errors import SettingsError

# Short names for ONNX Runtime's execution providers; the full names are accepted too.
PROVIDERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "cpu": "CPUExecutionProvider",
        "cuda": "CUDAExecutionProvider",
        "tensorrt": "TensorrtExecutionProvider",
        "rocm": "ROCMExecutionProvider",
        "migraphx": "MIGraphXExecutionProvider",
        "openvino": "OpenVINOExecutionProvider",
        "coreml": "CoreMLExecutionProvider",
        "dml": "DmlExecutionProvider",
        "qnn": "QNNExecutionProvider",
    }
)


def provider_name(value: object, source: str = "provider") -> str:
    """ONNX Runtime's full name of an execution provider.

    Args:
        value: a short name (``cpu``, ``cuda``, ...) in any case, or a full one (``CPUExecutionProvider``).
        source: where the value came from, for the message.

    Raises:
        SettingsError: the name is neither; the message lists the good ones.
    """
    if isinstance(value, str):
        name = value.strip()
        if name.lower() in PROVIDERS:
            return PROVIDERS[name.lower()]
        for full in PROVIDERS.values():
            if name.lower() == full.lower():
                return full
    raise SettingsError(
        f"{source}: {value!r} is not an execution provider; "
        f"give one of {', '.join(PROVIDERS)} (or ONNX Runtime's full name, such as CPUExecutionProvider)"
    )


@dataclass(frozen=True)
class FloorMultiple:
    """A threshold in units of the reference's own rounding error, taken per fixture and output."""

    times: float

    def __str__(self) -> str:
        return f"{self.times:g}x floor"


Threshold = float | FloorMultiple


def threshold(value: object, source: str = "threshold") -> Threshold:
    """A bound on max_abs_diff: a finite number above 0, in the outputs' own unit, or as ``"2x floor"``.

    Raises:
        SettingsError: it is anything else (NaN, infinity, 0, a bool, text that is no number).
    """
    if isinstance(value, FloorMultiple):
        value = str(value)
    words = value.lower().split() if isinstance(value, str) else []
    in_floors = len(words) == 2 and words[1] == "floor" and words[0].endswith("x")
    number = _number(words[0][:-1] if in_floors else value)
    if number is None or not math.isfinite(number) or number <= 0:
        raise SettingsError(
            f"{source}: {value!r} is not a threshold; give a finite number above 0, such as 1e-5"
        )
    return FloorMultiple(number) if in_floors else number


def number_threshold(value: object, source: str = "threshold") -> float:
    """A threshold for results that are stored, which cannot be run in float64 any more.

    Raises:
        SettingsError: it is no threshold, or one in units of the floor.
    """
    bound = threshold(value, source)
    if isinstance(bound, FloorMultiple):
        raise SettingsError(f"{source}: {bound} is nothing to judge stored results at; give a number")
    return bound


def floor(value: object, source: str = "floor") -> bool | float:
    """Whether to measure the float64 floor, or how many times as far as PyTorch the candidate may be.

    Raises:
        SettingsError: it is neither yes nor no, nor a finite number of at least 1.
    """
    number = None if isinstance(value, bool) or value in ("1", "0") else _number(value)
    if number is None:
        return yes_or_no(value, source)
    if not math.isfinite(number) or number < 1:
        raise SettingsError(f"{source}: {value!r} is neither yes nor no, nor a factor of at least 1")
    return number


def fixtures(value: object, source: str = "fixtures") -> int:
    """How many fixtures to draw: a whole number, 1 or more.

    Raises:
        SettingsError: it is anything else.
    """
    number = _whole(value)
    if number is None or number < 1:
        raise SettingsError(
            f"{source}: {value!r} is not a number of fixtures; give a whole number, 1 or more"
        )
    return number


def seed(value: object, source: str = "seed") -> int:
    """What fixtures are drawn with: a whole number, 0 or more (numpy takes no negative seed).

    Raises:
        SettingsError: it is anything else.
    """
    number = _whole(value)
    if number is None or number < 0:
        raise SettingsError(f"{source}: {value!r} is not a seed; give a whole number, 0 or more")
    return number


def seconds(value: object, source: str = "locate") -> float:
    """How long something may take: a finite number of seconds, 0 or more.

    Raises:
        SettingsError: it is anything else.
    """
    number = _number(value)
    if number is None or not math.isfinite(number) or number < 0:
        raise SettingsError(f"{source}: {value!r} is not a time; give seconds, 0 or more")
    return number


def yes_or_no(value: object, source: str = "strict") -> bool:
    """A switch: a bool, or one of the words an ini file writes for one.

    Raises:
        SettingsError: it is anything else.
    """
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise SettingsError(f"{source}: {value!r} is neither yes nor no; give true or false")


def path(value: object, source: str = "path") -> str:
    """Where to write: a non-empty path. Whether it can be written is found out when it is.

    Raises:
        SettingsError: it is empty or no path.
    """
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str) and text.strip() and "\0" not in text:
            return text
    raise SettingsError(f"{source}: {value!r} is not a path; give the path to write to")


def _number(value: object) -> float | None:
    # A bool is an int to Python; `threshold=True` is a slip, not 1.0.
    if isinstance(value, bool) or not isinstance(value, str | numbers.Real):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _whole(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        digits = text[1:] if text[:1] in "+-" else text
        return int(text) if digits.isascii() and digits.isdecimal() and len(digits) <= 18 else None
    try:
        return value.__index__()  # type: ignore[attr-defined, no-any-return]  # int, and numpy's integers
    except AttributeError:
        return None


@dataclass(frozen=True)
class Settings:
    """Everything a check and its session can be told, each value already a good one.

    Attributes:
        threshold: pass is ``max_abs_diff`` strictly below it.
        fixtures: how many fixtures are drawn.
        seed: what they are drawn with.
        provider: ONNX Runtime's full name of the execution provider the candidate must run on.
        strict: tighten the threshold to at most 1e-5 and fail what could pass silently.
        floor: whether to measure how far both sides are from the reference in float64, or the factor that
            tells rounding from a bug there.
        trajectory: whether to see the error after each denoising step; None is where the verdict is fail, or
            where a report is written.
        locate: how many seconds a failing test may take to find out where the two sides part; 0 is never.
        report: directory that ``parity.json`` and ``index.html`` are written to, or None.
        json: file that the JSON document is written to, or None.
    """

    threshold: Threshold = 1e-4
    fixtures: int = 5
    seed: int = 0
    provider: str = PROVIDERS["cpu"]
    strict: bool = False
    floor: bool | float = False
    trajectory: bool | None = None
    locate: float = 60.0
    report: str | None = None
    json: str | None = None


PARSERS: Final[Mapping[str, Callable[[object, str], Any]]] = MappingProxyType(
    {
        "threshold": threshold,
        "fixtures": fixtures,
        "seed": seed,
        "provider": provider_name,
        "strict": yes_or_no,
        "floor": floor,
        "trajectory": yes_or_no,
        "locate": seconds,
        "report": path,
        "json": path,
    }
)
# What one check can be told; strict and the two paths belong to the session.
CHECK_NAMES: Final = ("threshold", "fixtures", "seed", "provider", "floor", "trajectory")


@dataclass(frozen=True)
class Source:
    """One place that values come from.

    Attributes:
        label: how a message names one of its values; ``{name}`` stands for the setting's name.
        values: setting name to value; None is *not given*.
    """

    label: str
    values: Mapping[str, object]

    def named(self, name: str) -> str:
        return self.label.format(name=name)


def command_line(values: Mapping[str, object]) -> Source:
    return Source("--reflex-{name}", values)


def ini_file(values: Mapping[str, object]) -> Source:
    return Source("reflex_{name} (ini file)", values)


def call(values: Mapping[str, object]) -> Source:
    return Source("parity.check({name}=...)", values)


def marker(values: Mapping[str, object], positional: tuple[object, ...] = (), where: str = "") -> Source:
    """The source that a ``parity`` marker is.

    Args:
        values: the marker's keywords.
        positional: the marker's positional arguments; it takes none.
        where: what it marks, for the message.

    Raises:
        SettingsError: an unknown keyword or a positional argument; the message lists the good keywords.
    """
    good = ", ".join(CHECK_NAMES)
    on = f" on {where}" if where else ""
    if positional:
        raise SettingsError(f"parity marker{on}: {positional[0]!r} has no keyword; the keywords are {good}")
    for name in values:
        if name not in CHECK_NAMES:
            raise SettingsError(f"parity marker{on}: unknown keyword {name!r}; the keywords are {good}")
    # Braces in a parametrised test's id are no fields of the label.
    return Source("parity marker" + on.replace("{", "{{").replace("}", "}}") + ": {name}", values)


def resolve(*sources: Source) -> Settings:
    """One :class:`Settings` from several sources, the first that gives a value winning.

    Every value that is given is checked, also one that a stronger source overrides, so a slip does
    not lie in wait until the stronger source is gone.

    Raises:
        SettingsError: a value is bad; the message names it, where it came from and what is good.
    """
    chosen: dict[str, Any] = {}
    for source in sources:
        for field in fields(Settings):
            value = source.values.get(field.name)
            if value is not None:
                good = PARSERS[field.name](value, source.named(field.name))
                chosen.setdefault(field.name, good)
    return Settings(**chosen)
