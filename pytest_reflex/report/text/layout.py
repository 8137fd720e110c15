"""How text takes the columns that there are: lines that break between words, tables that get narrower."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Columns of somebody who breaks lines otherwise, or not at all.
UNBROKEN: Final = 1 << 30
# Below this lines break that else stand as they are, so that a path or a value stays in one piece.
NARROW: Final = 60


@dataclass(frozen=True)
class Form:
    """One way to write a table.

    Attributes:
        header: a word for each column that the rows have.
        kept: the columns that are shown, in order.
        gap: blanks between them.
    """

    header: Sequence[str]
    kept: Sequence[int]
    gap: int = 2


def table(rows: Sequence[Sequence[str]], forms: Sequence[Form], width: int) -> list[str]:
    """Rows under their header, in the first form that fits the width; the last one where none does.

    Every column but the last shown is right-aligned.
    """
    lines: list[str] = []
    for form in forms:
        kept = form.kept
        wide = [max(len(row[c]) for row in (form.header, *rows)) for c in kept[:-1]]
        gap = " " * form.gap
        lines = [
            gap.join([*(row[c].rjust(w) for c, w in zip(kept, wide, strict=False)), row[kept[-1]]]).rstrip()
            for row in (form.header, *rows)
        ]
        if max(map(len, lines)) <= width:
            break
    return lines


def wrapped(text: str, width: int, *, first: str = "", rest: str = "", as_it_is: bool = False) -> list[str]:
    """Text in lines of at most so many columns; a word that is longer stays whole.

    Args:
        text: the text; blanks in it count as one, unless it is to stay as it is.
        width: columns.
        first: what the first line begins with.
        rest: what every other line begins with.
        as_it_is: whether blanks in it are kept.
    """
    # A path or a name is not broken: it is there to be copied.
    return textwrap.wrap(
        text if as_it_is else " ".join(text.split()),
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def named_facts(lines: Sequence[str], width: int) -> list[str]:
    """Lines of a name and what it is, as they are where there is room; a long one breaks after its name."""
    if width >= NARROW:
        return list(lines)
    broken = []
    for line in lines:
        indent = _indent(line)
        broken += wrapped(line.strip(), width, first=indent, rest=f"{indent}  ", as_it_is=True)
    return broken


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
