"""Figures and text as JSON holds them, and a document as text. NaN and the infinities are strings there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_reflex.errors import ReflexError

NON_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
# What fits in this many columns stands in one line, and so does a row of figures however long.
_COLUMNS: Final = 110
# Some ten levels are what documents and manifests have.
_DEEPEST: Final = 100


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
    if isinstance(value, str) and value in NON_FINITE:
        return NON_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ReflexError(f"{value!r} is no figure; expected a number, 'NaN', 'Infinity' or '-Infinity'")
    return float(value)


def shallow(value: object) -> bool:
    """Whether JSON is nested as little as all that is written here: what is not would exhaust the stack."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for node in level
            if isinstance(node, dict | list)
            for inner in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return True
    return False


def dumps(made: Mapping[str, Any]) -> str:
    """A document as text: the same document gives the same bytes."""
    return _text(made, "") + "\n"


def _text(value: Any, indent: str) -> str:
    if not isinstance(value, dict | list) or not value:
        return _line(value)
    items = value.values() if isinstance(value, dict) else value
    if all(map(_short, items)):
        line = _line(value)
        if len(indent) + len(line) <= _COLUMNS or all(isinstance(item, int | float) for item in items):
            return line
    inner = indent + "  "
    if isinstance(value, dict):
        parts = [f"{_line(str(key))}: {_text(item, inner)}" for key, item in value.items()]
        opening, closing = "{", "}"
    else:
        parts = [_text(item, inner) for item in value]
        opening, closing = "[", "]"
    between = f",\n{inner}"
    return f"{opening}\n{inner}{between.join(parts)}\n{indent}{closing}"


def _short(value: Any) -> bool:
    """Whether a value may stand in a line with others: no container, or a list of a few figures."""
    if isinstance(value, list):
        return len(value) <= 8 and all(isinstance(item, int | float) for item in value)
    return not isinstance(value, dict) or not value


def _line(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
