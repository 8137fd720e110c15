"""Rounding or a bug: both sides' distance from what the same program gives in float64.

Two float32 programs that compute the same thing differ, and neither is the truth: each is some rounding
away from it. The reference, run once more in float64, is that truth. A candidate that is no further from it
than PyTorch is, within a factor, differs by rounding; one that is further has a fault.

A candidate in a narrower precision is held to that one's rounding: the same PyTorch program, rounded as a
conversion has to round it, is then what is as far from the truth as the candidate may be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = [
    "ABSOLUTE_ULPS", "FACTOR", "Floor", "Rounding", "Word", "floors_of", "in_words", "rounding_of",
    "worst_word",
]  # fmt: skip

Word = Literal["rounding", "undecided", "bug"]
WORDS: Final[tuple[Word, ...]] = ("rounding", "undecided", "bug")

# The candidate may be this many times as far from the truth as PyTorch is.
FACTOR: Final = 2.0
# And may always be this far: float32 units in the last place of the largest value. Where an output is small,
# PyTorch may hit the truth by luck, and a candidate that misses it by some bits is no bug.
ABSOLUTE_ULPS: Final = 16
# Fewer values than this in a whole run, and chance alone makes one side's largest error several times the
# other's: what is further than allowed is then undecided, up to so many times.
FEW_VALUES: Final = 128
CHANCE: Final = 10.0


@dataclass(frozen=True)
class Rounding:
    """PyTorch's own error in a whole run, for one output, relative to the largest value of each fixture.

    One fixture's error may be small by luck; what PyTorch does in the others belongs to its rounding too.

    Attributes:
        values: how many values all fixtures hold.
        max: the largest ``max |reference - truth| / max |truth|`` of any fixture.
        rms: the same of the root mean square.
    """

    values: int = 0
    max: float = 0.0
    rms: float = 0.0


@dataclass(frozen=True)
class Floor:
    """How far the two sides of one output of one fixture are from the float64 truth, in the output's unit.

    Attributes:
        factor: how many times as far as PyTorch the candidate may be.
        values: how many values the run's fixtures hold for this output.
        scale: the largest ``|truth|``.
        reference_max: PyTorch's largest error against the truth.
        reference_rms: the root mean square of its error.
        run_max: PyTorch's largest error in any fixture of the run, at this fixture's scale.
        run_rms: the same of the root mean square.
        candidate_max: the candidate's largest error against the truth.
        candidate_rms: the root mean square of its error.
        unknown: why nothing can be said, and then the figures are None; else empty.
        precision: whose rounding it is. Below float32 "PyTorch's error" is that of the PyTorch program
            rounded to it.
        unsure: what an honest conversion may have that the prediction does not know of; with it the
            candidate is undecided where it is further than allowed, up to :data:`CHANCE` times.
    """

    factor: float
    values: int = 0
    scale: float | None = None
    reference_max: float | None = None
    reference_rms: float | None = None
    run_max: float | None = None
    run_rms: float | None = None
    candidate_max: float | None = None
    candidate_rms: float | None = None
    unknown: str = ""
    precision: str = "float32"
    unsure: str = ""

    @property
    def absolute(self) -> float:
        """The distance that is always allowed: :data:`ABSOLUTE_ULPS` of the largest value."""
        if not self.scale:
            return 0.0
        # The spacing of float32 values there: 24 bits of mantissa, subnormal below 2**-126.
        return ABSOLUTE_ULPS * math.ldexp(1.0, max(math.frexp(self.scale)[1] - 24, -149))

    @property
    def unit(self) -> float | None:
        """One floor: PyTorch's largest error in the run, or what is always allowed where that is more."""
        if self.reference_max is None:
            return None
        return max(self.reference_max, self.run_max or 0.0, self.absolute)

    @property
    def ratio(self) -> float | None:
        """How many times as far as PyTorch the candidate is in this fixture, by the largest error."""
        return _ratio(self.candidate_max, self.reference_max)

    @property
    def rms_ratio(self) -> float | None:
        """The same by the root mean square."""
        return _ratio(self.candidate_rms, self.reference_rms)

    @property
    def word(self) -> Word:
        """``rounding``, ``bug``, or ``undecided`` with :attr:`reason`."""
        return self._judged[0]

    @property
    def allowed(self) -> float | None:
        """How far the candidate's largest error may be and still be rounding."""
        return self._allowed(self.reference_max, self.run_max)

    @property
    def reason(self) -> str:
        """Why it is undecided; else empty."""
        return self._judged[1]

    @property
    def _judged(self) -> tuple[Word, str]:
        pairs = (
            (self.candidate_max, self.reference_max, self.run_max),
            (self.candidate_rms, self.reference_rms, self.run_rms),
        )
        beyond = 0.0
        for candidate, own, run in pairs:
            allowed = self._allowed(own, run)
            if candidate is None or allowed is None:
                return "undecided", self.unknown or "no error was measured"
            # Asked this way round, a NaN is no rounding.
            if not candidate <= allowed:
                times = candidate / allowed if allowed > 0 else math.inf
                beyond = max(beyond, math.inf if math.isnan(times) else times)
        if not beyond:
            return "rounding", ""
        if self.values < FEW_VALUES and beyond <= CHANCE:
            return (
                "undecided",
                f"{self.values} values are too few to tell a factor of {beyond:.1f} from chance; "
                "judge more fixtures, such as 30",
            )
        if self.unsure and beyond <= CHANCE:
            return "undecided", f"it is {beyond:.1f} times further than rounding explains; {self.unsure}"
        return "bug", ""

    def _allowed(self, own: float | None, run: float | None) -> float | None:
        if own is None or run is None:
            return None
        return max(self.factor * max(own, run), self.absolute)


def rounding_of(
    truths: Sequence[Mapping[str, Array] | str], references: Sequence[Mapping[str, Array] | str]
) -> dict[str, Rounding]:
    """PyTorch's own rounding in a run, by output; one of each, or why there is none, for each fixture."""
    found: dict[str, Rounding] = {}
    for truth, reference in zip(truths, references, strict=True):
        if isinstance(reference, str):
            continue
        for name, array in reference.items():
            if isinstance(truth, str) or name not in truth or array.dtype.kind in "iub" or not array.size:
                continue
            if truth[name].shape != array.shape:
                continue
            known = found.get(name, Rounding())
            top, rms, scale = _errors(truth[name], array)
            if scale == 0 or not math.isfinite(top / scale):
                continue
            found[name] = Rounding(
                known.values + array.size, max(known.max, top / scale), max(known.rms, rms / scale)
            )
    return found


def floors_of(
    truth: Mapping[str, Array] | str,
    reference: Mapping[str, Array] | str,
    candidate: Mapping[str, Array],
    rounding: Mapping[str, Rounding],
    factor: float = FACTOR,
    precision: str = "float32",
    unsure: str = "",
) -> dict[str, Floor]:
    """The floor of each float output of one fixture, by name.

    Args:
        truth: the reference's outputs in float64, or why there are none.
        reference: the reference's outputs in ``precision``, or why there are none.
        candidate: the candidate's outputs, of the structure of the reference's in float32.
        rounding: what :func:`rounding_of` found over the run.
        factor: see :class:`Floor`.
        precision: see :class:`Floor`.
        unsure: see :class:`Floor`.
    """
    floors = {}
    for name, array in candidate.items():
        if array.dtype.kind in "iub" or not array.size:
            continue  # exact on both sides, or refused by a gate of its own; or nothing at all
        floor = Floor(factor, precision=precision, unsure=unsure)
        if isinstance(truth, str) or isinstance(reference, str):
            floors[name] = replace(floor, unknown=truth if isinstance(truth, str) else str(reference))
        elif name not in truth or name not in reference:
            which = "float64" if name not in truth else precision
            floors[name] = replace(floor, unknown=f"the {which} run gives no output {name!r}")
        else:
            sides = truth[name], reference[name], array
            floors[name] = _measured(floor, *sides, rounding.get(name, Rounding()))
    return floors


def _measured(floor: Floor, truth: Array, reference: Array, candidate: Array, rounding: Rounding) -> Floor:
    import numpy as np

    if truth.shape != candidate.shape or reference.shape != candidate.shape:
        unlike = ("float64", truth) if truth.shape != candidate.shape else (floor.precision, reference)
        shapes = f"{list(unlike[1].shape)} in {unlike[0]} and {list(candidate.shape)} in float32"
        return replace(floor, unknown=f"the reference gives {shapes}")
    for side, where in ((truth, "float64"), (reference, floor.precision)):
        if not np.isfinite(side).all() and (where != "float32"):
            return replace(floor, unknown=f"the {where} run of the reference is not finite")
    reference_max, reference_rms, scale = _errors(truth, reference)
    candidate_max, candidate_rms, _ = _errors(truth, candidate)
    return replace(
        floor,
        values=rounding.values,
        scale=scale,
        reference_max=reference_max,
        reference_rms=reference_rms,
        run_max=rounding.max * scale,
        run_rms=rounding.rms * scale,
        candidate_max=candidate_max,
        candidate_rms=candidate_rms,
    )


def _errors(truth: Array, side: Array) -> tuple[float, float, float]:
    """The largest ``|side - truth|``, its root mean square, and the largest ``|truth|``."""
    import numpy as np

    from pytest_reflex.verdict.metrics import pieces

    top, scale, sums = 0.0, 0.0, 0.0
    with np.errstate(all="ignore"):  # what is not finite has a gate of its own
        for _, true, given in pieces(truth, side):
            top = float(np.maximum(top, np.abs(given.astype(np.float64) - true).max()))
            scale = float(np.maximum(scale, np.abs(true).max()))
        if not 0 < top < math.inf:
            return top, top, scale
        for _, true, given in pieces(truth, side):
            # Scaled, so that squares neither overflow nor vanish.
            sums += float((((given.astype(np.float64) - true) / top) ** 2).sum())
    return top, top * math.sqrt(sums / truth.size), scale


def worst_word(words: Iterable[Word]) -> Word | None:
    """The one that says it of all: a bug anywhere is one; None when nothing was asked."""
    return max(words, key=WORDS.index, default=None)


def in_words(word: Word, precision: str) -> str:
    """``rounding``, or ``rounding in float16``; what is no rounding is so in every precision."""
    return f"{word} in {precision}" if word == "rounding" and precision != "float32" else word


def _ratio(candidate: float | None, reference: float | None) -> float | None:
    if candidate is None or reference is None:
        return None
    if reference == 0:
        return 1.0 if candidate == 0 else math.inf
    return candidate / reference
