"""What a check can be told, where each value may come from, and what is a good value.

A value is taken from the first place that gives one: command line, then the keywords of a call, then
the ``parity`` marker, then the ini file, then the default. ``None`` means *not given*; 0 is a value.
Nothing here knows pytest: a bad value is a :class:`~pytest_reflex.errors.SettingsError`.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, make_dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeAlias, TypedDict, cast, get_type_hints

from pytest_reflex.errors import SettingsError, brief
from pytest_reflex.verdict.claim import CONFIDENCE, Asked
from pytest_reflex.verdict.tolerances import Amount, Tolerances
from pytest_reflex.verdict.units import OWN, UNITS, Units, unit_named

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
        f"{source}: {brief(value)} is not an execution provider; "
        f"give one of {', '.join(PROVIDERS)} (or ONNX Runtime's full name, such as CPUExecutionProvider)"
    )


# Short names of what opens graphs; which there are, :mod:`pytest_reflex.runners.runtimes` knows.
RUNTIMES: Final[Mapping[str, str]] = MappingProxyType({"ort": "onnxruntime"})


def runtimes(value: object, source: str = "runtimes") -> tuple[str, ...]:
    """The names of runtimes in full, each once.

    Args:
        value: a list of names, or text with commas between them, such as ``ort,openvino``.
        source: where the value came from, for the message.

    Raises:
        SettingsError: it is anything else, is empty, or names one twice.
    """
    given = value.split(",") if isinstance(value, str) else value
    names: list[str] = []
    if isinstance(given, list | tuple) and all(isinstance(name, str) for name in given):
        names = [RUNTIMES.get(name.strip(), name.strip()) for name in given if name.strip()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if not names or twice is not None:
        wrong = f"names {brief(twice)[1:-1]} twice" if twice is not None else "names no runtimes"
        raise SettingsError(
            f"{source}: {brief(value)} {wrong}; give names with commas between them, such as ort,openvino"
        )
    return tuple(names)


# One floor is no less than 16 units in the last place, and so 10,000 are no less than 1 % of an output.
MOST_FLOORS: Final = 10_000
# In place of a threshold that nobody gave: 1e-4, or 2x floor of a candidate that is not in float32.
UNSAID: Final = Amount(0.0)
# Fixtures 1 and 2 are where the ends of what is drawn lie: fewer than three see the plain case alone.
FEWEST_STRICT: Final = 3


def threshold(value: object, source: str = "threshold") -> Tolerances:
    """Bounds on max_abs_diff: a number, ``"2x floor"`` or ``"0.01 deg"``, or one for each output.

    Args:
        value: a finite number above 0, in the outputs' own unit; ``"2x floor"``, in floors; ``"0.01 deg"`` or
            ``"0.01 deg and 1 mm"``, in the robot's units; a mapping of these to outputs' names; or text of
            several, ``"actions=1e-5, logits=3x floor"``, of which one without a name is for all other
            outputs; or a list of such texts, in which a later one wins.
        source: where the value came from, for the message.

    Raises:
        SettingsError: it is anything else (NaN, infinity, 0, a bool, text that is no number).
    """
    if isinstance(value, Tolerances):
        rest = value.rest if value.rest == UNSAID else _amount(value.rest, source)
        outputs = {name: _amount(one, source) for name, one in value.outputs.items()}
        found = replace(value, rest=rest, outputs=outputs)
        return value if found == value else found
    if isinstance(value, Mapping):
        pairs = list(value.items())
        if not pairs or not all(isinstance(name, str) and name for name, _ in pairs):
            raise SettingsError(
                f"{source}: {brief(value)} names no outputs; give their thresholds by name, such as "
                "{'actions': 1e-5}"
            )
        named = {name: _amount(one, source) for name, one in pairs}
    else:
        several = isinstance(value, list | tuple) and value and all(isinstance(one, str) for one in value)
        named = {}
        for text in value if several else [value]:  # type: ignore[attr-defined]
            named |= _named(text, source)
    # What is not given is for the check to choose, by the candidate's precision.
    return Tolerances(named.pop("", UNSAID), named)


def budget(value: object, source: str = "budget") -> float:
    """What an error may be, in the outputs' own unit: one finite number above 0.

    Raises:
        SettingsError: it is anything else, such as a multiple of a floor.
    """
    number = _number(value)
    if number is None or not math.isfinite(number) or number <= 0:
        raise SettingsError(
            f"{source}: {brief(value)} is no budget; give one finite number above 0, in the outputs' own "
            "unit, such as 1e-2"
        )
    return number


def over(stronger: Tolerances, weaker: Tolerances) -> Tolerances:
    """What is asked where two places give thresholds: what the stronger does not name keeps its own.

    A threshold without a name is for all outputs, and leaves nothing of the weaker.
    """
    if stronger.rest != UNSAID:
        return stronger
    return Tolerances(weaker.rest, {**weaker.outputs, **stronger.outputs}, stronger.rtol)


def _named(text: object, source: str) -> dict[str, Amount]:
    """``actions=1e-5, 1e-4`` by name; what has none is under the empty one."""
    if not isinstance(text, str) or "=" not in text:
        return {"": _amount(text, source)}
    found: dict[str, Amount] = {}
    for part in filter(None, (part.strip() for part in text.replace("\n", ",").split(","))):
        name, _, one = part.rpartition("=")
        if name.strip() in found:
            whose = f"output {brief(name.strip())}" if name.strip() else "the outputs"
            raise SettingsError(f"{source}: {brief(text)} gives {whose} two thresholds; give one")
        found[name.strip()] = _amount(one.strip(), source)
    return found


def _amount(value: object, source: str) -> Amount:
    if isinstance(value, Amount) and value.unit:
        value = str(value)
    if isinstance(value, str) and any(_split(part) for part in value.split(" and ")):
        return _physical(value, source)
    words = value.lower().split() if isinstance(value, str) else []
    in_floors = len(words) == 2 and words[1] == "floor" and words[0].endswith("x")
    given = words[0][:-1] if in_floors else value
    if isinstance(value, Amount):
        in_floors, given = value.in_floors, value.number
    number = _number(given)
    if number is None or not math.isfinite(number) or number <= 0:
        raise SettingsError(
            f"{source}: {brief(value)} is not a threshold; give a finite number above 0, such as 1e-5, or 2x "
            "floor, or 0.01 deg"
        )
    if in_floors and number > MOST_FLOORS:
        raise SettingsError(
            f"{source}: {brief(value)} is more than any output is in floors; give "
            f"{MOST_FLOORS:g}x floor at most"
        )
    return Amount(number, in_floors)


def _split(part: str) -> tuple[str, str] | None:
    """``0.01 deg`` as its number and its unit; None where it has no unit."""
    text = part.strip()
    digits = text.rstrip("%").rstrip() if text.endswith("%") else text.rpartition(" ")[0].rstrip()
    unit = "%" if text.endswith("%") else text.rpartition(" ")[2]
    known = OWN if unit.lower() == OWN else unit_named(unit)
    return (digits, known) if known is not None else None


def _physical(value: str, source: str) -> Amount:
    """``0.01 deg and 1 mm``: a threshold for each kind of unit."""
    found: list[Amount] = []
    for part in value.split(" and "):
        digits, unit = _split(part) or ("", "")
        number = _number(digits)
        if not unit or number is None or not math.isfinite(number) or number <= 0:
            raise SettingsError(
                f"{source}: {brief(part.strip())} in {brief(value)} is not a threshold in a unit; give a "
                f"finite number above 0 and one of {', '.join(UNITS)}, such as 0.01 deg"
            )
        found.append(Amount(number, unit=unit))
    kinds = [UNITS[one.unit][0] if one.unit != OWN else OWN for one in found]
    if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
        raise SettingsError(f"{source}: {brief(value)} has two thresholds for one {twice}; give one")
    return replace(found[0], also=tuple(found[1:]))


def units(value: object, source: str = "units") -> Units:
    """What the elements of an action are in: ``"deg"``, or ``"deg, gripper.pos=%"``.

    Args:
        value: a unit; text of a unit and of those of single elements, by name or number; or a mapping of
            elements to units.
        source: where the value came from, for the message.

    Raises:
        SettingsError: it is anything else.
    """
    if isinstance(value, Units):
        return value
    pairs: list[tuple[object, object]] = []
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, str):
        pairs = [(name, unit) for name, _, unit in (part.rpartition("=") for part in value.split(","))]
    found: dict[str, str] = {}
    for name, unit in pairs:
        known, key = unit_named(unit), str(name).strip()
        if known is None or key in found:
            why = f"gives {brief(key or 'all elements')} two units" if key in found else f"says {brief(unit)}"
            raise SettingsError(
                f"{source}: {brief(value)} {why}; give one of {', '.join(UNITS)}, or 'deg, NAME=%'"
            )
        found[key] = known
    if not found:
        raise SettingsError(
            f"{source}: {brief(value)} says no unit; give one of {', '.join(UNITS)}, or 'deg, NAME=%'"
        )
    return Units(found.pop("", ""), found)


def rtol(value: object, source: str = "rtol") -> float:
    """The share of the reference's value that is added to the threshold: 0 or more, below 1.

    Raises:
        SettingsError: it is anything else.
    """
    number = _number(value)
    if number is None or not 0 <= number < 1:
        raise SettingsError(
            f"{source}: {brief(value)} is no share of a value; give a number from 0 to below 1, such as 1e-6"
        )
    return number


# What can be told of a candidate's precision; "graph" is what its graph is in.
ROUNDINGS: Final = ("graph", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int8")


def rounding(value: object, source: str = "rounding") -> str:
    """In which precision the candidate may round: ``graph``, which reads it, or a name.

    Raises:
        SettingsError: it is none of :data:`ROUNDINGS`.
    """
    name = value.strip().lower() if isinstance(value, str) else value
    if name not in ROUNDINGS:
        raise SettingsError(f"{source}: {brief(value)} is no precision; give one of {', '.join(ROUNDINGS)}")
    return str(name)


def floor(value: object, source: str = "floor") -> bool | float:
    """Whether to measure the float64 floor, or how many times as far as PyTorch the candidate may be.

    Raises:
        SettingsError: it is neither yes nor no, nor a finite number of at least 1.
    """
    number = None if isinstance(value, bool) or value in ("1", "0") else _number(value)
    if number is None:
        return yes_or_no(value, source)
    if not math.isfinite(number) or number < 1:
        raise SettingsError(f"{source}: {brief(value)} is neither yes nor no, nor a factor of at least 1")
    return number


def factor(value: object, source: str = "factor") -> float:
    """How many times as large something may be: a finite number, 1 or more.

    Raises:
        SettingsError: it is anything else.
    """
    number = _number(value)
    if number is None or not math.isfinite(number) or number < 1:
        raise SettingsError(f"{source}: {brief(value)} is not a factor; give a finite number, 1 or more")
    return number


def _count(value: object, source: str, what: str, least: int) -> int:
    number = _whole(value)
    if number is None or number < least:
        raise SettingsError(f"{source}: {brief(value)} is not {what}; give a whole number, {least} or more")
    return number


def fixtures(value: object, source: str = "fixtures") -> int:
    """How many fixtures to draw: a whole number, 1 or more.

    Raises:
        SettingsError: it is anything else.
    """
    return _count(value, source, "a number of fixtures", 1)


def workers(value: object, source: str = "workers") -> int:
    """How many processes judge fixtures beside each other: a whole number, 1 or more.

    Raises:
        SettingsError: it is anything else.
    """
    return _count(value, source, "a number of workers", 1)


def ray(value: object, source: str = "ray") -> str:
    """Where a cluster of Ray's answers: ``HOST:PORT``, ``ray://HOST:PORT``, or ``auto`` for this machine's.

    Raises:
        SettingsError: it is anything else.
    """
    text = value.strip() if isinstance(value, str) else ""
    host, _, port = text.removeprefix("ray://").rpartition(":")
    number = _whole(port) if port.isdecimal() else None
    if text == "auto" or (host and number is not None and 0 < number < 1 << 16):
        return text
    raise SettingsError(
        f"{source}: {brief(value)} is no address; give HOST:PORT, as `ray start --head` says it, or auto"
    )


def require_enough(count: int, strict: bool) -> None:
    """Refuse a strict check of a few fixtures; ``count`` is of those that differ.

    Raises:
        SettingsError: there are fewer than :data:`FEWEST_STRICT`.
    """
    if strict and count < FEWEST_STRICT:
        raise SettingsError(
            f"fixtures: {count} that differ by more than rounding are too few for strict; give "
            f"{FEWEST_STRICT} or more"
        )


def seed(value: object, source: str = "seed") -> int:
    """What fixtures are drawn with: a whole number, 0 or more (numpy takes no negative seed).

    Raises:
        SettingsError: it is anything else.
    """
    return _count(value, source, "a seed", 0)


def claim(value: object, source: str = "claim") -> Asked:
    """What the fixtures have to establish: a share of inputs, and at which confidence.

    Args:
        value: the share, above 0 and up to a half, at 95 %; or text such as ``1e-3@95%``, ``0.1%@99%``.
        source: where the value came from, for the message.

    Raises:
        SettingsError: it is anything else.
    """
    if isinstance(value, Asked):
        return value
    said = value.split("@") if isinstance(value, str) else [value]
    share, sure = _share(said[0]), _share(said[1]) if len(said) == 2 else CONFIDENCE
    if len(said) < 3 and share is not None and sure is not None:
        with suppress(ValueError):
            return Asked(share, sure)
    raise SettingsError(
        f"{source}: {brief(value)} is no claim; give a share of inputs, at most 50%, and a confidence, at "
        "least 50%, such as 1e-3@95%"
    )


def coverage(value: object, source: str = "coverage") -> float:
    """The share of the graph's decisions that fixtures have to take both ways: from 0 to 1, or ``95%``.

    Raises:
        SettingsError: it is anything else.
    """
    share = _share(value)
    if share is None or not 0 <= share <= 1:
        raise SettingsError(
            f"{source}: {brief(value)} is no share of decisions; give one up to 100%, such as 95%"
        )
    return share


def _share(value: object) -> float | None:
    """A share of all: a number, or text of one that may be in percent, in ASCII's digits and no others."""
    text = value.strip() if isinstance(value, str) else ""
    if not text.isascii() or "_" in text:
        return None
    number = _number(text[:-1]) if text.endswith("%") else _number(value)
    return number / 100 if number is not None and text.endswith("%") else number


def seconds(value: object, source: str = "locate") -> float:
    """How long something may take: a finite number of seconds, 0 or more.

    Raises:
        SettingsError: it is anything else.
    """
    number = _number(value)
    if number is None or not math.isfinite(number) or number < 0:
        raise SettingsError(f"{source}: {brief(value)} is not a time; give seconds, 0 or more")
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
    raise SettingsError(f"{source}: {brief(value)} is neither yes nor no; give true or false")


def path(value: object, source: str = "path") -> str:
    """Where to write: a non-empty path. Whether it can be written is found out when it is.

    Raises:
        SettingsError: it is empty or no path.
    """
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str) and text.strip() and "\0" not in text:
            return text
    raise SettingsError(f"{source}: {brief(value)} is not a path; give the path to write to")


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
class Setting:
    """All there is to say of a setting but its name and its type; every way in is derived from it.

    Attributes:
        parse: a good value of a given one and of where it came from, for the message of its SettingsError.
        default: what holds where nothing is given, as one would write it; None is for the code to decide.
        help: one line for ``--help``, without capital and full stop.
        metavar: how ``--help`` names the value; None makes a switch, with a ``no-`` twin unless it is off
            where nobody says.
        ini: types of the ini value in a TOML file. Text stays text, for ``parse`` and its messages.
        otherwise: words for the default where its value says too little.
        repeated: whether a command line may give it several times; ``parse`` then gets a list.
        over: what a stronger place's value leaves of a weaker one's; by default nothing.
    """

    parse: Callable[[object, str], Any]
    default: object
    help: str
    metavar: str | None = None
    ini: Any = bool | str
    otherwise: str = ""
    repeated: bool = False
    over: Callable[[Any, Any], Any] | None = None

    @property
    def switch(self) -> bool:
        return self.metavar is None

    @property
    def shown_default(self) -> str:
        """The default in words; empty where there is none, or where a switch is off."""
        silent = self.default is None or self.default is False
        return self.otherwise or ("yes" if self.default is True else "" if silent else str(self.default))

    @property
    def help_with_default(self) -> str:
        return f"{self.help} (default {self.shown_default})" if self.shown_default else self.help

    def flags(self, name: str, prefix: str = "--") -> tuple[str, ...]:
        """The flag of the setting under its name, and its ``no-`` twin where it has one."""
        flag = name.replace("_", "-")
        twin = self.switch and self.default is not False
        return (f"{prefix}{flag}", f"{prefix}no-{flag}") if twin else (f"{prefix}{flag}",)


class ParityOptions(TypedDict, total=False):
    """What every way in can be told; None is *not given*."""

    threshold: Annotated[
        float | str | Mapping[str, float | str] | Tolerances | None,
        Setting(
            threshold,
            None,
            "pass is max_abs_diff strictly below it; or '2x floor', or '0.01 deg'; NAME=... for one output",
            "FLOAT",
            float | str,
            otherwise="1e-4; 2x floor where the candidate is not in float32",
            repeated=True,
            over=over,
        ),
    ]
    """Pass is ``max_abs_diff`` strictly below it, in the outputs' own unit; or ``"2x floor"``, twice the
    rounding error of the candidate's precision, for each fixture and output; or ``"0.01 deg"`` or
    ``"0.01 deg and 1 mm"``, in the robot's units; or one for each output, ``{"actions": 1e-5, "logits":
    "3x floor"}``."""
    units: Annotated[
        str | Mapping[str, str] | Units | None,
        Setting(
            units,
            None,
            "what actions are in, where no bundle says it: 'deg', or 'deg, NAME=mm'",
            "UNITS",
            str,
        ),
    ]
    """The unit of an action's elements, where the candidate does not say it: ``"deg"``, or ``"deg,
    gripper.pos=%"``; one of rad, deg, m, mm and %."""
    rtol: Annotated[
        float | None,
        Setting(
            rtol,
            0,
            "adds this share of the reference's value to the threshold, element by element",
            "FLOAT",
            float | str,
        ),
    ]
    """Numpy's: adds this share of ``|reference|`` to the threshold, for each element."""
    fixtures: Annotated[int | None, Setting(fixtures, 5, "how many fixtures are drawn", "N", int | str)]
    """How many fixtures are drawn."""
    seed: Annotated[int | None, Setting(seed, 0, "what fixtures are drawn with", "N", int | str)]
    """What they are drawn with."""
    claim: Annotated[
        float | str | Asked | None,
        Setting(
            claim,
            None,
            "draw until it is shown that at most this share of inputs exceeds the threshold, such as 1e-3",
            "SHARE",
            float | str,
        ),
    ]
    """Draw as many fixtures as it takes to establish that at most this share of inputs drawn like them
    exceeds the threshold, at a confidence: ``"1e-3@95%"``. The first that does ends it, and so does
    ``claim_budget``."""
    claim_budget: Annotated[
        float | None,
        Setting(
            seconds,
            None,
            "how long the check may take for its claim; when it ends first, the verdict is fail",
            "SECONDS",
            float | str,
        ),
    ]
    """How many seconds the check may take for its claim; by default as many as it takes."""
    coverage: Annotated[
        float | str | None,
        Setting(
            coverage,
            None,
            "see which decisions of the graph went both ways, and fail where fewer did than this share",
            "SHARE",
            float | str,
        ),
    ]
    """See which decisions of the candidate's graph the fixtures took both ways, choose further ones that take
    more, and refuse where fewer than this share did: ``"95%"``; 0 looks and refuses nothing."""
    provider: Annotated[
        str | None, Setting(provider_name, "cpu", "ONNX Runtime's execution provider to run on", "NAME", str)
    ]
    """The execution provider the candidate must run on, by short or full name."""
    floor: Annotated[
        bool | float | None,
        Setting(floor, False, "run the reference in float64 too, and say what is rounding and what a bug"),
    ]
    """Run the reference in float64 too, and say of each fixture whether it is rounding or a bug; a number is
    how many times as far as PyTorch from that truth the candidate may be (2 by default)."""
    rounding: Annotated[
        str | None,
        Setting(rounding, "graph", "the precision that the candidate may round in", "NAME", str),
    ]
    """The precision that the candidate may round in: ``graph`` takes what nearly all of its graph is in; a
    name such as ``float16`` is for a graph that is partly so, or a candidate whose graph cannot be read."""
    infinities: Annotated[
        bool | None,
        Setting(
            yes_or_no, False, "an infinity that both sides give in the same place is meant, and is equal"
        ),
    ]
    """An infinity that both sides give in the same place is meant, and is equal: a mask's fill, a cost
    without bound. By default, and for NaN always, what is not finite is refused."""
    trajectory: Annotated[
        bool | None,
        Setting(yes_or_no, None, "see the error after each denoising step", otherwise="of a fail"),
    ]
    """See the error after each denoising step too, for one more run of each side; by default only where the
    verdict is fail or, in a test, a report is written. It decides nothing."""


class CheckOptions(ParityOptions, total=False):
    """What ``check``, ``export`` and their command lines can be told; None is *not given*."""

    strict: Annotated[
        bool | None, Setting(yes_or_no, False, "tighten to 1e-5 and fail what could pass silently")
    ]
    """Lower the threshold to 1e-5 at most, and refuse what would otherwise be noted."""
    workers: Annotated[
        int | None,
        Setting(
            workers,
            None,
            "how many processes judge fixtures side by side, over Ray",
            "N",
            int | str,
            otherwise="1; with an address of Ray's its cores",
        ),
    ]
    """How many processes judge fixtures side by side, over Ray: each holds both sides, and the verdict is
    what one process gives. 1 is this process alone."""
    ray: Annotated[
        str | None,
        Setting(
            ray,
            None,
            "the cluster that the workers run on: HOST:PORT, as `ray start` says it",
            "ADDRESS",
            str,
        ),
    ]
    """The address of a cluster of Ray's that the workers run on, ``HOST:PORT`` or ``auto``; by default they
    run on this machine."""


# Of a test alone: what judges one candidate on several runtimes is `matrix`, and not `check`.
_Runtimes: TypeAlias = Annotated[
    str | Sequence[str] | None,
    Setting(
        runtimes,
        None,
        "judge every bundle on each of these, such as ort,openvino, and name the odd one out",
        "NAMES",
        str,
    ),
]


class CallOptions(ParityOptions, total=False):
    """What one call of ``parity.check`` and the ``parity`` marker can be told; None is *not given*."""

    runtimes: _Runtimes
    """Judge the candidate, a bundle or the path of an ``.onnx`` file, on each of these runtimes against the
    reference, which is asked once: ``["ort", "openvino"]``. The worst decides, and the odd one is named."""


class RunOptions(CheckOptions, total=False):
    """What a run of pytest can be told, by its command line or its ini file."""

    runtimes: _Runtimes
    """Judge every candidate on each of these runtimes."""
    locate: Annotated[
        float | None,
        Setting(
            seconds, 60, "how long a failing test may look for the place; 0 is never", "SECONDS", float | str
        ),
    ]
    """How many seconds a failing test may take to find out where the two sides part; 0 is never."""
    simplest: Annotated[
        float | None,
        Setting(
            seconds,
            3,
            "how long a failing test may look for the simplest input that fails; 0 is never",
            "SECONDS",
            float | str,
        ),
    ]
    """How many seconds a failing test may take to find the simplest input that fails as its worst fixture
    does, which is stored with the report; 0 is never."""
    report: Annotated[str | None, Setting(path, None, "write DIR/index.html and DIR/parity.json", "DIR", str)]
    """Directory that ``parity.json`` and ``index.html`` are written to."""
    json: Annotated[str | None, Setting(path, None, "write the results to PATH as JSON", "PATH", str)]
    """File that the JSON document is written to."""
    baseline: Annotated[
        str | None,
        Setting(path, None, "fail what got worse than in PATH, of an earlier run", "PATH", str),
    ]
    """File with the figures of an earlier run, that a passing test may not be far above."""
    baseline_factor: Annotated[
        float | None, Setting(factor, 2, "how many times the baseline a figure may be", "FLOAT", float | str)
    ]
    """How many times as large as in the baseline a figure may be."""
    baseline_update: Annotated[
        bool | None, Setting(yes_or_no, False, "write the baseline anew, and compare nothing with it")
    ]
    """Write the baseline anew at the end, from what passed."""


def _declared(kind: type) -> Mapping[str, Setting]:
    hints = get_type_hints(kind, include_extras=True)
    return MappingProxyType({name: hint.__metadata__[0] for name, hint in hints.items()})


PARITY: Final = _declared(CallOptions)
CHECK: Final = _declared(CheckOptions)
RUN: Final = _declared(RunOptions)

_Values: Any = make_dataclass(
    "_Values",
    [
        (name, Any, None if setting.default is None else setting.parse(setting.default, name))
        for name, setting in RUN.items()
    ],
    frozen=True,
)


class Settings(_Values):
    """Everything in :class:`RunOptions`, each value already a good one; the provider by its full name."""

    def check_options(self) -> CheckOptions:
        """What of it one check is told."""
        told = {name: getattr(self, name) for name in CHECK}
        if self.claim is None:  # a budget for all claims of a run says nothing where there is none
            told["claim_budget"] = None
        return cast(CheckOptions, told)


@dataclass(frozen=True)
class Source:
    """One place that values come from.

    Attributes:
        label: how a message names one of its values; ``{name}`` stands for the setting's name, ``{flag}``
            for that with dashes.
        values: setting name to value; None is *not given*.
    """

    label: str
    values: Mapping[str, object]

    def named(self, name: str) -> str:
        return self.label.format(name=name, flag=name.replace("_", "-"))


def command_line(values: Mapping[str, object]) -> Source:
    return Source("--reflex-{flag}", values)


def ini_file(values: Mapping[str, object]) -> Source:
    return Source("reflex_{name} (ini file)", values)


def call(values: Mapping[str, object], method: str = "check") -> Source:
    return Source(f"parity.{method}({{name}}=...)", _known(values, PARITY, f"Parity.{method}"))


def of_call(values: Mapping[str, object], function: str) -> Settings:
    """What ``check`` and ``export`` were told by their keywords.

    Raises:
        TypeError: a keyword is none.
        SettingsError: a value is bad.
    """
    for name, value in _known(values, CHECK, function).items():
        # No weaker place is asked here, so None says nothing but where it is the default; parse refuses it.
        if value is None and CHECK[name].default is not None:
            CHECK[name].parse(value, name)
    source = Source("{name}", values)
    return with_its_claim(resolve(source), source)


def with_its_claim(chosen: Settings, *sources: Source) -> Settings:
    """What was chosen, where no budget was given to a claim that nobody asks for.

    Args:
        chosen: what was chosen of these and of weaker places.
        sources: places that speak of one comparison alone. A run of pytest has a budget for whatever claims
            its tests have.

    Raises:
        SettingsError: one gives ``claim_budget``, and nobody a claim.
    """
    for source in sources if chosen.claim is None else ():
        if (given := source.values.get("claim_budget")) is not None:
            raise SettingsError(
                f"{source.named('claim_budget')}: {brief(given)} is the budget of a claim, and no claim is "
                "asked for; give claim, such as 1e-3@95%, or leave the budget out"
            )
    return chosen


def _known(values: Mapping[str, object], good: Mapping[str, Setting], function: str) -> Mapping[str, object]:
    for name in values:
        if name not in good:  # what Python says where keywords are written out
            from pytest_reflex.verdict.naming import did_you_mean

            nearest = did_you_mean(name, good)
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{nearest}")
    return values


def marker(values: Mapping[str, object], positional: tuple[object, ...] = (), where: str = "") -> Source:
    """The source that a ``parity`` marker is.

    Args:
        values: the marker's keywords.
        positional: the marker's positional arguments; it takes none.
        where: what it marks, for the message.

    Raises:
        SettingsError: an unknown keyword or a positional argument; the message lists the good keywords.
    """
    good = ", ".join(PARITY)
    on = f" on {where}" if where else ""
    if positional:
        raise SettingsError(
            f"parity marker{on}: {brief(positional[0])} has no keyword"
            + (f"; write threshold={positional[0]!r}" if isinstance(positional[0], int | float | str) else "")
            + f"; the keywords are {good}"
        )
    if strange := [name for name in values if name not in PARITY]:
        from pytest_reflex.verdict.naming import unknown

        said = unknown("keyword", strange, PARITY)
        raise SettingsError(f"parity marker{on}: {said}; the keywords are {good}")
    # Braces in a parametrised test's id are no fields of the label.
    return Source("parity marker" + on.replace("{", "{{").replace("}", "}}") + ": {name}", values)


def resolve(*sources: Source) -> Settings:
    """One :class:`Settings` from several sources, the first that gives a value winning, output by output.

    Every value that is given is checked, also one that a stronger source overrides, so a slip does
    not lie in wait until the stronger source is gone.

    Raises:
        SettingsError: a value is bad; the message names it, where it came from and what is good.
    """
    chosen: dict[str, Any] = {}
    for source in sources:
        for name, setting in RUN.items():
            value = source.values.get(name)
            if value is None:
                continue
            parsed = setting.parse(value, source.named(name))
            if name not in chosen:
                chosen[name] = parsed
            elif setting.over is not None:
                chosen[name] = setting.over(chosen[name], parsed)
    return Settings(**chosen)
