"""What is asked of every fixture, and the verdict on one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pytest_reflex import settings
from pytest_reflex.errors import SettingsError
from pytest_reflex.inputs.fixtures import Fixtures
from pytest_reflex.judge.precision import Held, Outputs, distances_of
from pytest_reflex.judge.sides import Sides
from pytest_reflex.runners.base import SaysUnits, said_by
from pytest_reflex.verdict.gates import Evidence, judge_fixture, same_structure, without_infinities
from pytest_reflex.verdict.results import FixtureResult
from pytest_reflex.verdict.rounding import FACTOR, Floor, Rounding, floors_of
from pytest_reflex.verdict.tolerances import THRESHOLD, Amount, Tolerances
from pytest_reflex.verdict.units import InUnits, Units, units_of, worst_elements

__all__ = ["Terms", "Truth", "judged_fixture", "robot_units"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Terms:
    """What the caller asks of every fixture, and what the candidate is held to."""

    asked: Tolerances
    by_default: bool
    strict: bool
    factor: float | None
    infinities: bool
    held: Held
    units: Units | None = None

    @classmethod
    def of(cls, told: settings.Settings, held: Held) -> Terms:
        given: Tolerances = told.threshold or Tolerances(settings.UNSAID)
        by_default = given.rest == settings.UNSAID
        narrower = held.precision.name != "float32"
        rest = (Amount(FACTOR, True) if narrower else Amount(THRESHOLD)) if by_default else given.rest
        asked = Tolerances(rest, given.outputs, told.rtol or given.rtol)
        factor = FACTOR if isinstance(told.floor, bool) else told.floor
        return cls(
            asked,
            by_default and not given.outputs,
            told.strict,
            factor if told.floor or asked.needs_floors else None,
            told.infinities,
            held,
            told.units,
        )

    @property
    def bound(self) -> float:
        """The threshold of outputs that have none of their own."""
        return self.asked.plain(strict=self.strict)


@dataclass(frozen=True)
class Truth:
    """What the reference gives in one fixture, in float64, and in the precision of the candidate."""

    outputs: dict[str, Array]
    exact: Outputs
    rounded: Outputs


def judged_fixture(
    fixture_idx: int,
    got: Mapping[str, Array],
    truth: Truth,
    rounding: Mapping[str, Rounding],
    terms: Terms,
    sides: Sides,
    fixtures: Fixtures,
) -> FixtureResult:
    """The verdict on what the candidate has just given; nothing of it is held any longer."""
    runner = sides.candidate
    used = tuple(said_by(runner, "providers_used", ()))
    evidence = _evidence(truth, rounding, got, terms, sides, used)
    if fixture_idx == 0 and evidence.floors:
        found = distances_of(runner, terms.held, got, fixtures.make(0), truth.exact)
        evidence = replace(evidence, quantised=found)
    return judge_fixture(fixture_idx, evidence)


def _evidence(
    truth: Truth,
    rounding: Mapping[str, Rounding],
    got: Mapping[str, Array],
    terms: Terms,
    sides: Sides,
    used: Sequence[str],
) -> Evidence:
    evidence = Evidence(
        truth.outputs,
        got,
        terms.bound,
        sides.provider,
        used,
        infinities=terms.infinities,
        rtol=terms.asked.rtol,
    )
    if not same_structure(evidence):
        return evidence
    _require_named(terms.asked, evidence.reference)
    found: dict[str, Floor] = {}
    if terms.factor is not None:
        candidate = {name: pair[1] for name, pair in evidence.pairs.items()}
        exact, rounded = (_without_infinities(side, evidence) for side in (truth.exact, truth.rounded))
        name = terms.held.precision.name
        found = floors_of(exact, rounded, candidate, rounding, terms.factor, name, terms.held.unsure)
    floats = [name for name, (r, _) in evidence.pairs.items() if r.dtype.kind not in "iub"]
    seen = _in_units(evidence, floats, terms, sides)
    return replace(
        evidence,
        floors=found,
        bounds=terms.asked.bounds(found, floats, strict=terms.strict, seen=seen),
        in_units={name: elements for name, (_, elements) in seen.items()},
    )


def _in_units(
    evidence: Evidence, floats: Sequence[str], terms: Terms, sides: Sides
) -> dict[str, tuple[InUnits, tuple[float, ...]]]:
    """Of outputs with physical units those, and the largest difference of each element in its own unit."""
    said = robot_units(sides.candidate, terms.asked)
    found = {}
    for name in floats:
        known = units_of(said, terms.units, name, evidence.reference[name].shape)
        if known is not None:
            found[name] = known, worst_elements(*evidence.pairs[name])
    return found


def robot_units(runner: object, asked: Tolerances) -> Mapping[str, InUnits]:
    """What a candidate says of the robot's units of its outputs, as far as it is to be believed.

    Raises:
        SettingsError: a threshold counts in units of which what it says is not to be believed.
    """
    said: Mapping[str, InUnits] = runner.robot_units if isinstance(runner, SaysUnits) else {}
    if not said or not (apart := said_by(runner, "units_apart", "")):
        return said
    if counted := [name for name in said if asked.of(name).unit]:
        raise SettingsError(f"threshold: {asked.of(counted[0])} is asked of {counted[0]}, and {apart}")
    return {}


def _without_infinities(side: Outputs, evidence: Evidence) -> Outputs:
    """The reference's outputs in another precision without the infinities that are meant."""
    if isinstance(side, str) or not evidence.infinities:
        return side
    outputs = evidence.reference
    return {n: without_infinities(array, outputs.get(n, array))[0] for n, array in side.items()}


def _require_named(asked: Tolerances, outputs: Mapping[str, Array]) -> None:
    """Refuse a threshold of an output that is not there, or is exact."""
    for name in asked.outputs:
        if name not in outputs:
            given = ", ".join(outputs)
            raise SettingsError(f"threshold: there is no output {name!r}; the reference gives {given}")
        if outputs[name].dtype.kind in "iub":
            raise SettingsError(
                f"threshold: output {name!r} is {outputs[name].dtype}, which has to be equal; give it none"
            )
