"""Which decisions of a candidate's graph the fixtures took both ways, and which they never asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

__all__ = ["Coverage", "Decision", "ModuleCoverage"]

# So many decisions that went one way alone are named; the rest are counted.
NAMED: Final = 50
# A share that is asked for and stands for all, as some decisions of honest graphs are out of reach.
NEARLY_ALL: Final = 0.95
# What is said of a decision that went one way alone.
_ONE_WAY: Final = {
    ("condition", "no"): "never true",
    ("condition", "yes"): "never false",
    ("lower limit", "no"): "no value was held",
    ("lower limit", "yes"): "every value was held",
    ("upper limit", "no"): "no value was held",
    ("upper limit", "yes"): "every value was held",
    ("count", "one"): "always the same",
    ("row", "one"): "always the same",
}


@dataclass(frozen=True)
class Decision:
    """One place of a graph where the values decide what is computed.

    Attributes:
        module: whose it is, as PyTorch names it; empty where the graph does not say.
        node: the node's name.
        op: its operator, such as ``Where``.
        what: ``condition``, ``lower limit``, ``upper limit``, ``choice``, ``count``, ``row``, or ``guard`` of
            one that looks for NaN or infinity, or acts on it.
        constant: whether constants decide it, or what the inputs can be: no input can turn it round.
        went: the ways that it went, of ``yes`` and ``no``; of counts and rows ``one`` and ``another``.
        source: the policy's own line that it was made of, ``policy.py:8``; empty where nothing says it.
    """

    module: str
    node: str
    op: str
    what: str
    constant: bool = False
    went: tuple[str, ...] = ()
    source: str = ""

    @property
    def both(self) -> bool:
        return len(self.went) > 1

    @property
    def reachable(self) -> bool:
        """Whether some input could turn it round, and a finite one; what went both ways was turned."""
        return self.both or not (self.constant or self.what == "guard")

    @property
    def contradicts(self) -> bool:
        """Whether it went both ways though nothing was to turn it round."""
        return self.constant and self.both

    @property
    def text(self) -> str:
        """``embed_prefix: Where node_12 (policy.py:8), condition: never true``."""
        one_way = _ONE_WAY.get((self.what, self.went[0])) if self.went else "never reached"
        went = one_way or f"only {self.went[0]}"
        module = f"{self.module}: " if self.module else ""
        source = f" ({self.source})" if self.source else ""
        return f"{module}{self.op} {self.node}{source}, {self.what}: {went}"


@dataclass(frozen=True)
class ModuleCoverage:
    """How many decisions of one module went both ways.

    Attributes:
        module: as PyTorch names it; empty where the graph does not say.
        both: how many went both ways.
        one_way: how many could, and went one way or none.
        constant: how many constants decide, or what the inputs can be, and that went one way or none.
        guards: how many look for NaN or infinity, and found none.
    """

    module: str
    both: int
    one_way: int
    constant: int
    guards: int


@dataclass(frozen=True)
class Coverage:
    """The decisions of a run.

    Attributes:
        modules: by module, in the order of the graph.
        missed: the first of those that could and did not go both ways.
        fixtures: which fixtures were looked at.
        chosen: those of them that were judged because they raised it.
        asked: the share that was asked for.
        unknown: why nothing is known, in words; else empty.
    """

    modules: tuple[ModuleCoverage, ...] = ()
    missed: tuple[Decision, ...] = ()
    fixtures: int = 0
    chosen: tuple[int, ...] = ()
    asked: float = 0.0
    unknown: str = ""

    @classmethod
    def of(cls, decisions: Iterable[Decision], *, fixtures: int, chosen: Sequence[int], asked: float) -> Self:
        """What decisions and how they went amount to."""
        found: dict[str, list[Decision]] = {}
        for decision in decisions:
            found.setdefault(decision.module, []).append(decision)
        modules = [
            ModuleCoverage(
                module,
                sum(one.both for one in own if one.reachable),
                sum(not one.both for one in own if one.reachable),
                sum(one.constant and not one.both for one in own),
                sum(not one.constant and not one.reachable for one in own),
            )
            for module, own in found.items()
        ]
        every = [one for own in found.values() for one in own]
        missed = [one for one in every if one.reachable and not one.both]
        wrong = [one for one in every if one.contradicts]
        unknown = ""
        if wrong:
            module = f"{wrong[0].module}: " if wrong[0].module else ""
            unknown = (
                f"{module}{wrong[0].op} {wrong[0].node}, {wrong[0].what}, was taken to be decided by "
                "constants and went both ways, so others may be too"
            )
        return cls(tuple(modules), tuple(missed[:NAMED]), fixtures, tuple(chosen), asked, unknown)

    @property
    def both(self) -> int:
        return sum(module.both for module in self.modules)

    @property
    def reachable(self) -> int:
        return self.both + sum(module.one_way for module in self.modules)

    @property
    def constant(self) -> int:
        return sum(module.constant for module in self.modules)

    @property
    def guards(self) -> int:
        return sum(module.guards for module in self.modules)

    @property
    def share(self) -> float:
        """Of the decisions that inputs can turn round, those that went both ways; 1 where there is none."""
        return self.both / self.reachable if self.reachable else 1.0

    @property
    def _percent(self) -> str:
        """The share, cut and not rounded: what is short of 100 % never reads as that."""
        tenths = 1000 * self.both // self.reachable if self.reachable else 1000
        return f"{tenths // 10}.{tenths % 10} %"

    @property
    def text(self) -> str:
        """What was asked of the graph, as a sentence without its full stop."""
        if self.unknown:
            return f"not known: {self.unknown}"
        told = f"{self.both:,} of {self.reachable:,} decisions of the graph went both ways"
        rest = (
            f"{self.constant:,} more are decided by constants, {self.guards:,} guard against NaN and infinity"
        )
        return f"{told} in {self.fixtures:,} fixtures looked at ({self._percent}); {rest}"

    @property
    def doubts(self) -> list[str]:
        """What was never asked, unless nearly all is asked for: a lower share is no way round a doubt."""
        one_way = self.reachable - self.both
        if self.asked >= NEARLY_ALL or self.share < self.asked:  # which refuses by itself
            return []
        if self.unknown:
            return [] if self.asked else self._unknown
        if not one_way:
            return []
        told = f"{one_way:,} of {self.reachable:,} decisions of the graph went one way alone"
        return [f"{told}: {self._named}"]

    @property
    def _unknown(self) -> list[str]:
        return [f"the decisions of the graph are not known: {self.unknown}"]

    @property
    def _named(self) -> str:
        more = self.reachable - self.both - min(3, len(self.missed))
        named = "; ".join(decision.text for decision in self.missed[:3])
        return named + (f"; and {more:,} more" if more else "")

    @property
    def refusals(self) -> list[str]:
        """Why what was asked for is not there; nothing where it is."""
        if self.unknown:
            return self._unknown if self.asked else []
        if not self.share < self.asked:
            return []
        told = f"{self.both:,} of {self.reachable:,} decisions of the graph went both ways, {self._percent}"
        return [
            f"{told}, and {100 * self.asked:g} % is asked for; never asked in the "
            f"{self.fixtures:,} fixtures looked at: {self._named}"
        ]
