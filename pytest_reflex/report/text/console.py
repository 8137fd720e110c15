"""How wide the console is, and whether it takes colour."""

from __future__ import annotations

import os
import re
import shutil
from typing import Any, Final

from pytest_reflex.report.text.terminal import WIDTH

# Below this a table of figures does not fit; above that lines are longer than an eye follows.
NARROWEST: Final = 40
WIDEST: Final = 100

_RESET: Final = "\033[0m"
_GREEN: Final = "\033[1;32m"
_RED: Final = "\033[1;31m"
_BAD: Final = re.compile(r"(?m)^(?: +\d+  .*  NO  .*|  passed +NO)$")


def columns() -> int:
    """How many columns a report may take: the console's, from 40 to 100; 80 where there is none."""
    return min(max(shutil.get_terminal_size((WIDTH, 24)).columns, NARROWEST), WIDEST)


def takes_color(stream: Any) -> bool:
    """Whether to write colour: to a terminal, unless ``NO_COLOR`` says no (no-color.org)."""
    return (
        bool(getattr(stream, "isatty", lambda: False)())
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
    )


def painted(text: str) -> str:
    """A result's text with its verdict and its failing rows in colour; the words stay the same."""
    first, newline, rest = text.partition("\n")
    color = _GREEN if first.startswith(("parity PASS", "agreement PASS")) else _RED
    return f"{color}{first}{_RESET}{newline}" + _BAD.sub(lambda m: f"{_RED}{m[0]}{_RESET}", rest)
