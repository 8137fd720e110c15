"""In which order people read results: what fails before what passes, and names as they count."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pytest_reflex.report.json.documents import Entry

_NUMBER: Final = re.compile(r"0*([0-9]+)")


def natural(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """A key that sorts names with their numbers as numbers: ``test_2`` before ``test_10``."""
    # Digits stand at every other place; of two numbers the longer one is the larger.
    parts = enumerate(_NUMBER.split(name))
    return tuple((len(part), part) if i % 2 else (0, part.casefold()) for i, part in parts), name


def to_read(entries: Iterable[Entry]) -> list[Entry]:
    """Entries in the order of a page: the failing ones first, each part by name and call."""
    return sorted(
        entries, key=lambda entry: (entry.result.passed, natural(entry.result.name), entry.call or 0)
    )
