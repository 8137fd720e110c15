"""Two runs side by side: what got worse, better, is new and is gone. It decides nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pytest_reflex.report.json.values import number

# Figures within one binary digit of each other are called the same: sums in another order differ as much.
FACTOR: Final = 2.0

KINDS: Final = ("worse", "gone", "new", "better", "same")


@dataclass(frozen=True)
class Change:
    """One result in two runs.

    Attributes:
        kind: one of :data:`KINDS`.
        name: what was judged.
        before: the earlier entry, None when it is new.
        after: the later entry, None when it is gone.
    """

    kind: str
    name: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None

    @property
    def words(self) -> str:
        """What changed, in one phrase."""
        if self.before is None or self.after is None:
            entry = self.after or self.before or {}
            return f"{self.kind}, {'pass' if entry.get('passed') is True else 'fail'}"
        was, now = self.before["passed"] is True, self.after["passed"] is True
        if was != now:
            return "passed before, fails now" if was else "failed before, passes now"
        a, b = _largest(self.before), _largest(self.after)
        if a == b:
            return "the same"
        if not (a and b and math.isfinite(a) and math.isfinite(b)):
            return f"{self.kind}, {'both pass' if now else 'both fail'}"
        ratio = b / a if b > a else a / b
        size = f"{ratio:.2g} times" if ratio < 1e4 else f"{ratio:.0e} times"
        return f"{size} {'larger' if b > a else 'smaller'}, {'both pass' if now else 'both fail'}"


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What changed from one run document to another, the worst first.

    A result is known by its test and call, or where no test made it by its name. A verdict that changed
    is worse or better whatever the figures; with the same verdict, figures more than :data:`FACTOR`
    apart are. A result that is gone is told next to what got worse: nobody judged it.
    """
    old, new = _by_key(before.get("results", ())), _by_key(after.get("results", ()))
    changes = [_change(old.get(key), new.get(key)) for key in {**old, **new}]
    return sorted(changes, key=lambda c: (KINDS.index(c.kind), c.name))


def _change(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Change:
    name = str((after or before or {}).get("name", ""))
    if before is None or after is None:
        return Change("new" if before is None else "gone", name, before, after)
    was, now = before["passed"] is True, after["passed"] is True
    if was != now:
        return Change("worse" if was else "better", name, before, after)
    a, b = _largest(before), _largest(after)
    kind = "worse" if b > FACTOR * a else "better" if a > FACTOR * b else "same"
    return Change(kind, name, before, after)


def _largest(entry: Mapping[str, Any]) -> float:
    """The entry's figure; what could not be measured, or is NaN, counts as more than any number."""
    value = number(entry["max_abs_diff_across_all"])
    return math.inf if value is None or math.isnan(value) else value


def _by_key(results: Iterable[Mapping[str, Any]]) -> dict[tuple[object, ...], Mapping[str, Any]]:
    found: dict[tuple[object, ...], Mapping[str, Any]] = {}
    for entry in results:
        key: tuple[object, ...] = (
            ("test", entry["nodeid"], entry.get("call", 0)) if "nodeid" in entry else ("name", entry["name"])
        )
        again = 0
        while (*key, again) in found:
            again += 1
        found[*key, again] = entry
    return found
