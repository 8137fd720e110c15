"""What the fixtures of a run establish of the inputs that nobody judged: a bound on how many are refused.

Each fixture is refused or is not. Of ``n`` independent draws of which ``k`` were refused, Clopper and
Pearson's upper bound is what the share of all such draws is below, at a confidence: 5 draws without a refusal
say 45 %, 299 say 1 % and 2,995 say 0.1 %, at 95 %.

Who draws until he likes what he sees has no fixed ``n``. What holds then, wherever one stops, is the bound of
the draws before the first refusal: for a share ``p`` it is wrong only where more than
``log(1 - confidence) / log(1 - p)`` draws in a row were not refused, and that is one event, of probability
``1 - confidence`` at most, however often one looks.

Fixtures need not be alike. Where each has a share of its own, no refusal in all of them is at most as likely
as with their mean (a product is at most the mean's power), so that the bound holds for that mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Self

__all__ = [
    *("CONFIDENCE", "MOST_SHARE", "Asked", "Claim", "anytime", "clopper_pearson"),
    *("draws_for", "percent", "seconds_text", "sureness"),
]

CONFIDENCE: Final = 0.95
# Beyond these is no check that anybody waits for: 3 thousand million draws, and once in a million wrong. And
# who asks for a share above a half has written the confidence in its place.
LEAST_SHARE: Final = 1e-9
MOST_SHARE: Final = 0.5
LEAST_CONFIDENCE: Final = 0.5
MOST_CONFIDENCE: Final = 1 - 1e-6
Source = Literal["drawn", "derived", "recorded"]


def clopper_pearson(refused: int, judged: int, confidence: float = CONFIDENCE) -> float:
    """The upper bound on a share, of a number of draws that was fixed before.

    It is the ``p`` at which ``refused`` of ``judged`` or fewer have a probability of ``1 - confidence``: the
    quantile of the Beta distribution with ``refused + 1`` and ``judged - refused``, found by bisection over
    the binomial's tail (Clopper and Pearson, Biometrika 26, 1934; one-sided).

    Args:
        refused: how many were refused, from 0 to ``judged``.
        judged: how many were drawn.
        confidence: above 0 and below 1.
    """
    if refused >= judged:
        return 1.0
    if refused == 0:
        return anytime(judged, confidence)
    wanted = math.log1p(-confidence) - _log_ways(judged, refused)
    low, high = refused / judged, 1.0
    while low < (middle := (low + high) / 2) < high:
        if _log_tail(refused, judged, middle) > wanted:
            low = middle
        else:
            high = middle
    return high


def _log_ways(judged: int, refused: int) -> float:
    """The logarithm of the number of ways to choose; exact before it is rounded, where that is quick."""
    if min(refused, judged - refused) <= 1000:
        return math.log(math.comb(judged, refused))
    return math.lgamma(judged + 1) - math.lgamma(refused + 1) - math.lgamma(judged - refused + 1)


def _log_tail(refused: int, judged: int, share: float) -> float:
    """The logarithm of the probability of ``refused`` or fewer, where ``share`` is at least their share.

    Divided by the number of ways in which ``refused`` can be chosen.
    """
    largest = refused * math.log(share) + (judged - refused) * math.log1p(-share)
    # From the largest term downwards each is a smaller part of the one before.
    total = term = 1.0
    for k in range(refused, 0, -1):
        term *= k / (judged - k + 1) * (1 - share) / share
        total += term
        if term < total * 1e-18:
            break
    return largest + math.log(total)


def anytime(clean: int, confidence: float = CONFIDENCE) -> float:
    """The upper bound on a share by draws before the first refusal, wherever one stops: ``1 - a**(1/n)``."""
    return -math.expm1(math.log1p(-confidence) / clean) if clean else 1.0


def draws_for(share: float, confidence: float = CONFIDENCE) -> int:
    """How many draws without a refusal establish that at most this share is refused."""
    found = max(1, math.ceil(math.log1p(-confidence) / math.log1p(-share)))
    while anytime(found, confidence) > share:
        found += 1
    while found > 1 and anytime(found - 1, confidence) <= share:
        found -= 1
    return found


def percent(share: float) -> str:
    """A share in percent with three digits, rounded up: what is said is never less than what holds."""
    if share <= 0:
        return "0 %"
    scale = 10.0 ** (2 - math.floor(math.log10(100 * share)))
    return f"{min(math.ceil(100 * share * scale * (1 - 1e-12)) / scale, 100):.10g} %"


def sureness(confidence: float) -> str:
    """A confidence in percent, rounded down at its sixth decimal: what is said never exceeds what holds."""
    return f"{math.floor(100 * confidence * 1e6 * (1 + 1e-12)) / 1e6:.10g} %"


def seconds_text(seconds: float) -> str:
    """Seconds with two digits, rounded up: ``0.38``, ``440``, ``1,300``."""
    if not 0 < seconds < math.inf:
        return "0"
    scale = 10.0 ** (1 - math.floor(math.log10(seconds)))
    return f"{math.ceil(seconds * scale * (1 - 1e-12)) / scale:,.12g}"


@dataclass(frozen=True)
class Asked:
    """A claim that is asked for: at most this share of inputs is refused, at this confidence.

    Attributes:
        share: from :data:`LEAST_SHARE` to :data:`MOST_SHARE`.
        confidence: from :data:`LEAST_CONFIDENCE` to :data:`MOST_CONFIDENCE`.
        budget: how many seconds the check may take for it; None where it may take what it needs.

    Raises:
        ValueError: a value is none of these.
    """

    share: float
    confidence: float = CONFIDENCE
    budget: float | None = None

    def __post_init__(self) -> None:
        sound = (
            LEAST_SHARE <= self.share <= MOST_SHARE and LEAST_CONFIDENCE <= self.confidence <= MOST_CONFIDENCE
        )
        if not sound or not (self.budget is None or 0 <= self.budget < math.inf):
            raise ValueError(f"a share of {self.share} at {self.confidence} in {self.budget} s is no claim")

    @property
    def draws(self) -> int:
        """How many draws without a refusal it takes."""
        return draws_for(self.share, self.confidence)

    def __str__(self) -> str:
        return f"{self.share:g}@{100 * self.confidence:.10g}%"


@dataclass(frozen=True)
class Claim:
    """What the fixtures of a run establish.

    Attributes:
        source: whether fixtures were drawn, and the claim is of inputs that are drawn like them; derived from
            drawn ones, as what a pipeline's stage is handed, and it is of inputs that come of such; or
            recorded, and it is of what these inputs were taken from.
        judged: how many fixtures were judged.
        counted: how many of them the claim rests on: recorded ones that are near copies count once.
        refused: how many were refused.
        clean: how many were judged before the first that was refused.
        asked: what was asked for; None where nobody asked, and the fixtures establish what they do.
        stopped: why drawing stopped though no fixture was refused: ``budget``, or ``unfit`` where another
            gate had refused the run already. Empty where neither is so.
        needs: how many seconds the whole check takes for what is asked, at the rate at which it went until
            the budget ended; None where nobody knows. No report keeps it but in words.

    Raises:
        ValueError: the numbers cannot be those of any run.
    """

    source: Source
    judged: int
    counted: int
    refused: int
    clean: int
    asked: Asked | None = None
    stopped: Literal["", "budget", "unfit"] = ""
    needs: float | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        counts = 0 <= self.counted <= self.judged and self.judged < 1 << 53
        every = self.source == "recorded" or self.counted == self.judged
        left = self.judged - self.clean
        if (
            not counts
            or not every
            or not 0 <= self.refused <= left <= self.judged
            or (left and not self.refused)
        ):
            raise ValueError(
                f"{self.judged} judged, {self.counted} counted and {self.refused} refused is no claim"
            )

    @classmethod
    def of(cls, passed: list[bool], *, source: Source, distinct: int, asked: Asked | None = None) -> Self:
        """What some fixtures establish, by whether each passed, in order."""
        clean = passed.index(False) if False in passed else len(passed)
        counted = distinct if source == "recorded" else len(passed)
        return cls(
            source,
            len(passed),
            counted,
            len(passed) - sum(passed),
            clean,
            asked,
        )

    def going_on(self, passed: bool) -> Self:
        """With one more draw."""
        clean = self.clean + (passed and not self.refused)
        refused = self.refused + (not passed)
        return replace(self, judged=self.judged + 1, counted=self.counted + 1, refused=refused, clean=clean)

    @property
    def confidence(self) -> float:
        return CONFIDENCE if self.asked is None else self.asked.confidence

    @property
    def sequential(self) -> bool:
        """Whether the draws might have ended anywhere, so that no fixed number may be counted on."""
        return self.asked is not None and self.source == "drawn"

    @property
    def bound(self) -> float:
        """At most this share of such inputs is refused; 1 where nothing is known of them."""
        if self.sequential:
            return anytime(min(self.clean, self.counted), self.confidence)
        # Of near copies it is not known which were refused together: each counts as one that was.
        return clopper_pearson(min(self.refused, self.counted), self.counted, self.confidence)

    @property
    def reached(self) -> bool:
        """Whether what was asked for is established."""
        return self.asked is None or self.bound <= self.asked.share

    @property
    def settled(self) -> bool:
        """Whether no further draw can change the answer: it is reached, or one was refused."""
        return self.reached or self.refused > 0

    @property
    def text(self) -> str:
        """What is established, as a sentence without its full stop."""
        if not self.counted:
            return "nothing was judged, so nothing is claimed of any input"
        did = f"{self.refused:,} of {self.judged:,} did"
        if self.sequential and self.refused:
            did = f"0 of the {self.clean:,} before the first refusal did; in all {did}"
        if self.counted < self.judged:
            did += f", of which {self.counted:,} differ"
        if self.bound >= 1:
            return f"nothing is claimed of other inputs ({self.refused:,} of {self.judged:,} fail)"
        share, sure = percent(self.bound), sureness(self.confidence)
        if self.source != "recorded":
            return f"at most {share} of inputs drawn like these exceed the threshold, at {sure} ({did})"
        return (
            f"at most {share} of the inputs that these recorded ones were taken from exceed the threshold, "
            f"at {sure}, "
            f"if each was picked independently of the others ({did})"
        )

    @property
    def refusals(self) -> list[str]:
        """Why what was asked for is not established; nothing where it is."""
        if self.asked is None or self.reached:
            return []
        said = f"{percent(self.asked.share)} at {sureness(self.confidence)} is asked for"
        shown = f"at most {percent(self.bound)}" if self.bound < 1 else "nothing"
        if self.source == "recorded":
            return [f"{said}, and {self._of_recorded(shown)}"]
        if self.source == "derived":
            return [
                f"{said}, and {self.counted:,} fixtures establish {shown}; no more are drawn for a "
                f"pipeline's stages, so ask for {self.asked.draws:,} fixtures"
            ]
        if self.refused:
            before = f", the first after {self.clean:,} that pass" if self.clean else " already"
            return [f"{said}, and fixture {self.clean} fails{before}"]
        judged = f"{self.judged:,} of {self.asked.draws:,} fixtures were judged"
        reached = f"which establish {shown}"
        if self.stopped == "budget" and self.asked.budget is not None:
            ended = f"when the budget of {self.asked.budget:g} s ended"
            takes = "" if self.needs is None else f"; at this rate it takes some {seconds_text(self.needs)} s"
            return [f"{said}; {judged} {ended}, {reached}{takes}; give more with claim_budget"]
        if self.stopped == "unfit":
            return [f"{said}; {judged}, {reached}: no more are drawn where another gate refuses"]
        return [f"{said}; {judged}, {reached}"]

    def _of_recorded(self, shown: str) -> str:
        """What recorded fixtures establish, ``shown``, and what would establish more."""
        needed = 0 if self.asked is None else self.asked.draws
        if self.refused:
            fail = "fails" if self.refused == 1 else "fail"
            told = f"{self.refused:,} of {self.judged:,} recorded fixtures {fail}, so that they establish "
            told += shown
            return told if self.counted == self.judged else f"{told} ({self.counted:,} differ)"
        return (
            f"{self.counted:,} recorded fixtures that differ establish {shown}; record {needed:,}, or give "
            "InputSpecs to draw from"
        )
