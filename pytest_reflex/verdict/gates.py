"""The verdict on one fixture: gates in order, each of which must say yes; nothing else decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from pytest_reflex.verdict.naming import output_advice
from pytest_reflex.verdict.quantised import QuantisedDistances
from pytest_reflex.verdict.results import (
    FIXTURE_GATE_NAMES,
    RUN_GATE_NAMES,
    Answer,
    FixtureResult,
    OutputResult,
)

if TYPE_CHECKING:
    import numpy as np

    from pytest_reflex.verdict.metrics import Difference
    from pytest_reflex.verdict.rounding import Floor

Arrays = Mapping[str, "np.ndarray"]


@dataclass(frozen=True)
class Evidence:
    """What the fixture gates look at: both sides' outputs for one fixture, and how the candidate ran.

    ``bounds`` holds the outputs that have a threshold of their own, and ``rtol`` the share of the
    reference's value that is added to any; ``infinities`` says that an infinity which both sides give in the
    same place is what is meant; ``quantised`` is of outputs of a quantised graph; ``in_units`` has the
    largest difference of each element of outputs that have physical units.
    """

    reference: Arrays
    candidate: Arrays
    threshold: float
    provider_asked: str
    providers_used: Sequence[str]
    floors: Mapping[str, Floor] = field(default_factory=dict)
    bounds: Mapping[str, float] = field(default_factory=dict)
    infinities: bool = False
    rtol: float = 0.0
    quantised: Mapping[str, QuantisedDistances] = field(default_factory=dict)
    in_units: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @cached_property
    def pairs(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Both sides of each output that holds an element, what is meant to be infinite as 0 on both.

        To be asked only of outputs of the same structure.
        """
        both = {name: (r, self.candidate[name]) for name, r in self.reference.items() if r.size}
        return {name: without_infinities(*pair) for name, pair in both.items()} if self.infinities else both

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """How each output that holds an element differs, by name."""
        from pytest_reflex.verdict.metrics import difference

        return {name: difference(r, c) for name, (r, c) in self.pairs.items()}


def without_infinities(r: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of floats with 0 on both sides wherever both are the same infinity; others as they are."""
    import numpy as np

    from pytest_reflex.verdict.metrics import is_float

    if not is_float(r.dtype):
        return r, c
    meant = np.isinf(r) & (r == c)
    return (
        (np.where(meant, r.dtype.type(0), r), np.where(meant, c.dtype.type(0), c)) if meant.any() else (r, c)
    )


def _structure(e: Evidence) -> Answer:
    from pytest_reflex.verdict.metrics import is_comparable

    if not e.reference:
        return Answer.no("structure", "the reference gave no output, so there is nothing to compare")
    want, got = list(e.reference), list(e.candidate)
    missing = [n for n in want if n not in e.candidate]
    extra = [n for n in got if n not in e.reference]
    if missing or extra:
        parts = [f"missing {', '.join(map(repr, missing))}"] if missing else []
        parts += [f"unexpected {', '.join(map(repr, extra))}"] if extra else []
        return Answer.no(
            "structure",
            f"outputs differ: {'; '.join(parts)} (reference gives {', '.join(map(repr, want))})"
            + output_advice(want, got),
        )
    if want != got:
        return Answer.no(
            "structure",
            f"outputs are reordered: reference gives {', '.join(want)}, candidate {', '.join(got)}"
            + output_advice(want, got),
        )
    for name in want:
        r, c = e.reference[name], e.candidate[name]
        if r.dtype != c.dtype:
            return Answer.no("structure", f"{name}: dtype is {c.dtype}, reference has {r.dtype}")
        if r.shape != c.shape:
            return Answer.no("structure", f"{name}: shape is {list(c.shape)}, reference has {list(r.shape)}")
        if not is_comparable(r.dtype):
            return Answer.no("structure", f"{name}: dtype {r.dtype} cannot be compared as numbers")
    if not any(r.size for r in e.reference.values()):
        empty = ", ".join(f"{name} has shape {list(r.shape)}" for name, r in e.reference.items())
        return Answer.no("structure", f"{empty}, which holds no element, so there is nothing to compare")
    return Answer.yes("structure")


def _provider(e: Evidence) -> Answer:
    if not e.provider_asked:
        # The candidate is no ONNX Runtime session: it has no provider to fall back from.
        return Answer.yes("provider")
    used = e.providers_used[0] if e.providers_used else None
    if used == e.provider_asked:
        return Answer.yes("provider")
    return Answer.no("provider", f"ran on {used or 'no provider'}, not on {e.provider_asked} as asked")


def _finite(e: Evidence) -> Answer:
    from pytest_reflex.verdict.metrics import is_float

    for name, (r, c) in e.pairs.items():
        if not is_float(r.dtype):
            continue
        found = {"candidate": _not_finite(c), "reference": _not_finite(r)}
        said = [f"{side} {name}{place}" for side, place in found.items() if place]
        if said:
            both = ", and " if len(said) == 2 else ""
            hint = both and e.infinities is False and _same_infinities(r, c)
            advice = "; where an infinity on both sides is meant, say infinities=True" if hint else ""
            return Answer.no("finite", both.join(said) + advice)
    return Answer.yes("finite")


def _not_finite(array: np.ndarray) -> str:
    """Where an array is not finite, in words; empty when it is throughout."""
    import numpy as np

    bad = ~np.isfinite(array)
    if not bad.any():
        return ""
    at = np.unravel_index(int(bad.argmax()), array.shape)
    many = f"({int(bad.sum())} of {bad.size} elements are not finite)"
    return f"{[int(i) for i in at]} is {float(array[at])} {many}"


def _same_infinities(r: np.ndarray, c: np.ndarray) -> bool:
    import numpy as np

    bad = ~np.isfinite(r)
    return bool(np.array_equal(bad, ~np.isfinite(c)) and (r == c)[bad].all())


def _exact(e: Evidence) -> Answer:
    import numpy as np

    for name, r in e.reference.items():
        c = e.candidate[name]
        if r.dtype.kind in "iub" and not np.array_equal(r, c):
            wrong = r != c
            at = [int(i) for i in np.argwhere(wrong)[0]]
            return Answer.no(
                "exact",
                f"{name}{at} is {c[tuple(at)]}, reference has {r[tuple(at)]} "
                f"({int(wrong.sum())} of {wrong.size} elements differ; {r.dtype} must be equal)",
            )
    return Answer.yes("exact")


def _threshold(e: Evidence) -> Answer:
    return below_threshold(e.differences, e.threshold, e.bounds, e.rtol, e.floors)


def below_threshold(
    differences: Mapping[str, Difference],
    threshold: float,
    bounds: Mapping[str, float] | None = None,
    rtol: float = 0.0,
    floors: Mapping[str, Floor] | None = None,
) -> Answer:
    """What the threshold gate says of the outputs' figures: yes, or why not of the one furthest above.

    Args:
        differences: the figures, by output.
        threshold: the bound of outputs that have none of their own.
        bounds: those of outputs that have; 0 where it is in floors and there is none, or nothing is rounded.
        rtol: the share of the reference's value that is added to a bound; integers have none.
        floors: the outputs' floors, which say why there is none.
    """
    worst, most, above = "", -1.0, 0
    for name, d in differences.items():
        bound = (bounds or {}).get(name, threshold)
        floor = (floors or {}).get(name)
        # Where nothing is rounded, as in an output that is 0 throughout, equal is as near as anything can be.
        none = bound == 0 and floor is not None and not floor.unknown
        # Asked this way round, a NaN is a refusal.
        if d.excess(rtol) < bound or (none and d.max_abs_diff == 0):
            continue
        said = f"{name}: max_abs_diff {d.max_abs_diff:.3e}"
        if bound == 0 and floor is not None and floor.unknown:
            why = f"has no floor to be held to ({floor.unknown}); give the threshold as a number"
        elif rtol:
            why = f"is {d.excess(rtol):.3e} beyond rtol {rtol:g}, not below {bound:.1e}"
        else:
            why = f"is not below {bound:.1e}"
        beyond = d.excess(rtol) / bound if bound > 0 else math.inf
        above += 1
        # A NaN is beyond everything.
        if not worst or not beyond <= most:
            worst, most = f"{said} {why}", math.inf if math.isnan(beyond) else beyond
    more = f", and {above - 1} more output{'s' * (above > 2)}" if above > 1 else ""
    return Answer.no("threshold", f"{worst}{more}") if worst else Answer.yes("threshold")


FIXTURE_GATES: Final[tuple[tuple[str, Callable[[Evidence], Answer]], ...]] = tuple(
    zip(FIXTURE_GATE_NAMES, (_structure, _provider, _finite, _exact, _threshold), strict=True)
)


def run_answers(
    reasons: Mapping[str, Sequence[str]], doubts: Mapping[str, Sequence[str]], *, strict: bool
) -> tuple[Answer, ...]:
    """What each run gate answers: its reasons to refuse, and after them, under strict, its doubts."""
    said = {g: [*reasons.get(g, ()), *(doubts.get(g, ()) if strict else ())] for g in RUN_GATE_NAMES}
    # No reasons are a yes, but only of a gate that was asked for some.
    said |= {
        g: [f"the {g} gate was not asked"] for g in RUN_GATE_NAMES if g not in reasons and g not in doubts
    }
    return tuple(Answer.no(g, "; ".join(why)) if why else Answer.yes(g) for g, why in said.items())


def same_structure(evidence: Evidence) -> bool:
    """Whether both sides' outputs can be laid side by side."""
    return _structure(evidence).passed


def judge_fixture(fixture_idx: int, evidence: Evidence) -> FixtureResult:
    """Ask the fixture gates in order and stop at the first that refuses."""
    from pytest_reflex.verdict.summaries import error_grid

    answers: list[Answer] = []
    for name, gate in FIXTURE_GATES:
        answer = gate(evidence)
        if not isinstance(answer, Answer) or answer.gate != name:
            answer = Answer.no(name, f"the {name} gate answered {answer!r}, which is no answer of its own")
        answers.append(answer)
        if not answer.passed:
            break
    # Figures are taken whenever the arrays can be laid side by side, also for a fixture that was refused.
    comparable = answers[0].passed
    outputs = tuple(
        OutputResult(
            name,
            str(r.dtype),
            tuple(int(n) for n in r.shape),
            evidence.differences.get(name) if comparable else None,
            error_grid(*evidence.pairs[name]) if comparable and r.size else None,
            evidence.floors.get(name),
            evidence.bounds.get(name),
            evidence.quantised.get(name),
            evidence.in_units.get(name, ()),
        )
        for name, r in evidence.reference.items()
    )
    return FixtureResult(fixture_idx, tuple(answers), outputs)
