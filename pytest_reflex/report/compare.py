"""Two runs side by side: what got worse, better, is new and is gone. It decides nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pytest_reflex.report.json.documents import Entry, Run
from pytest_reflex.report.order import natural

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
    before: Entry | None
    after: Entry | None

    @property
    def words(self) -> str:
        """What changed, in one phrase."""
        if self.before is None or self.after is None:
            lone = self.after or self.before
            return f"{self.kind}, {'pass' if lone is not None and lone.result.passed else 'fail'}"
        was, now = self.before.result.passed, self.after.result.passed
        if was != now:
            return "passed before, fails now" if was else "failed before, passes now"
        a, b = _figures(self.before, self.after)
        if a == b:
            return "the same"
        if not (a and b and math.isfinite(a) and math.isfinite(b)):
            return f"{self.kind}, {'both pass' if now else 'both fail'}"
        ratio = b / a if b > a else a / b
        size = f"{ratio:.2g} times" if ratio < 1e4 else f"{ratio:.0e} times"
        return f"{size} {'larger' if b > a else 'smaller'}, {'both pass' if now else 'both fail'}"


def compare(before: Run, after: Run) -> list[Change]:
    """What changed from one run to another, the worst first.

    A result is known by its test and call, or where no test made it by its name. A verdict that changed
    is worse or better whatever the figures; with the same verdict, figures more than :data:`FACTOR`
    apart are. A result that is gone is told next to what got worse: nobody judged it.
    """
    old, new = _by_key(before.results), _by_key(after.results)
    changes = [
        Change(_kind(old.get(key), new.get(key)), entry.result.name, old.get(key), new.get(key))
        for key, entry in {**old, **new}.items()
    ]
    return sorted(changes, key=lambda c: (KINDS.index(c.kind), natural(c.name)))


def _kind(before: Entry | None, after: Entry | None) -> str:
    if before is None or after is None:
        return "new" if before is None else "gone"
    if before.result.passed != after.result.passed:
        return "worse" if before.result.passed else "better"
    a, b = _figures(before, after)
    return "worse" if b > FACTOR * a else "better" if a > FACTOR * b else "same"


def _figures(before: Entry, after: Entry) -> tuple[float, float]:
    """Both results' figures; where outputs have tolerances of their own, the share of theirs that is used up.

    Of outputs of different sizes the largest difference is always that of the largest output.
    """
    old, new = before.result, after.result
    if old.asked == new.asked and old.strict == new.strict and not new.asked.is_plain:
        shares = [value / limit for value, limit in (old.margin, new.margin) if value is not None and limit]
        if len(shares) == 2 and all(math.isfinite(share) for share in shares):
            return shares[0], shares[1]
    return _largest(before), _largest(after)


def _largest(entry: Entry) -> float:
    """The result's figure; what could not be measured, or is NaN, counts as more than any number."""
    value = entry.result.max_abs_diff_across_all
    return math.inf if value is None or math.isnan(value) else value


def _by_key(results: Iterable[Entry]) -> dict[tuple[object, ...], Entry]:
    found: dict[tuple[object, ...], Entry] = {}
    for entry in results:
        key: tuple[object, ...] = (
            ("name", entry.result.name) if entry.nodeid is None else ("test", entry.nodeid, entry.call or 0)
        )
        again = 0
        while (*key, again) in found:
            again += 1
        found[*key, again] = entry
    return found
