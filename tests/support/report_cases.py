"""Results of every kind, made by hand, for the tests of what is said of them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from pytest_reflex.result import ParityResult
from pytest_reflex.verdict.divergence import Divergence, Growth, Location
from pytest_reflex.verdict.metrics import Difference
from pytest_reflex.verdict.results import (
    FIXTURE_GATE_NAMES,
    RUN_GATE_NAMES,
    Answer,
    FixtureResult,
    OutputResult,
)
from pytest_reflex.verdict.rounding import Floor
from pytest_reflex.verdict.tolerances import Amount, Tolerances

SIDES: dict[str, Any] = {
    "reference": {"kind": "torch", "class": "PI0Policy"},
    "candidate": {
        "kind": "onnx",
        "path": "pi0/model.onnx",
        "provider_asked": "CPUExecutionProvider",
        "providers_used": ["CPUExecutionProvider"],
    },
}


def difference(worst: float, **given: Any) -> Difference:
    plain: dict[str, Any] = {
        "elements": 1600,
        "max_abs_diff": worst,
        "mean_abs_diff": worst / 10,
        "cos": 1.0,
        "max_rel_diff": 2 * worst,
        "rmse": worst / 3,
        "sqnr_db": 60.0,
        "ulp_p50": 1,
        "ulp_p99": 9,
        "ulp_max": 158729,
        "worst_index": (0, 17, 3),
        "worst_reference": 0.5123456478118896,
        "worst_candidate": 0.5123456478118896 + worst,
        "unequal": 100,
    }
    return Difference(**{**plain, **given})


def refused(idx: int, gate: str, reason: str, worst: float | None = None) -> FixtureResult:
    before = FIXTURE_GATE_NAMES[: FIXTURE_GATE_NAMES.index(gate)]
    answers = (*(Answer.yes(name) for name in before), Answer.no(gate, reason))
    figures = None if worst is None else difference(worst)
    return FixtureResult(idx, answers, (OutputResult("actions", "float32", (1, 50, 32), figures),))


def measured(idx: int, worst: float, threshold: float = 1e-5) -> FixtureResult:
    if not worst < threshold:
        reason = f"actions: max_abs_diff {worst:.3e} is not below {threshold:.1e}"
        return refused(idx, "threshold", reason, worst)
    answers = tuple(Answer.yes(name) for name in FIXTURE_GATE_NAMES)
    output = OutputResult("actions", "float32", (1, 50, 32), difference(worst))
    return FixtureResult(idx, answers, (output,))


def result(*fixtures: FixtureResult, refusing: dict[str, str] | None = None, **given: Any) -> ParityResult:
    said = refusing or {}
    plain: dict[str, Any] = {
        "name": "test_pi0.py::test_pi0",
        "threshold": 1e-5,
        "strict": False,
        "seed": 0,
        "fixtures": fixtures,
        "answers": tuple(Answer(gate, said.get(gate)) for gate in RUN_GATE_NAMES),
        **SIDES,
    }
    made = {**plain, **given}
    return ParityResult(**{"asked": Tolerances(Amount(made["threshold"])), **made})


def floored(made: ParityResult, *errors: float) -> ParityResult:
    """The result with a floor in each fixture: PyTorch 9e-7 from float64, the candidate as far as given."""
    fixtures = []
    for fixture, error in zip(made.fixtures, errors, strict=True):
        floor = Floor(2.0, 9600, 4.9, 9e-7, 2e-7, 1e-6, 2.2e-7, error, error / 4)
        outputs = tuple(dataclasses.replace(output, floor=floor) for output in fixture.outputs)
        fixtures.append(dataclasses.replace(fixture, outputs=outputs))
    return dataclasses.replace(made, fixtures=tuple(fixtures))


def located(name: str = "expert.layers.4.norm_2", layers: int = 6, steps: int = 10) -> Divergence:
    """A bug in step 7, layer 4; every name in it is ``name`` or begins with that of its layer."""
    vision = [Growth(None, f"vision.layers.{i}", 2e-7 * 1.2**i, 1e-7, 3.0) for i in range(layers)]
    depth = [(step, i, (step, i) >= (7, 4)) for step in range(steps) for i in range(layers)]
    expert = [
        Growth(
            step, f"expert.layers.{i}", 3e-3 if wrong else 5e-7, 1e-3 if (step, i) == (7, 4) else 1e-7, 4.0
        )
        for step, i, wrong in depth
    ]
    place = Location(
        7, name, f"{name}.py:88", f"step_7/{name}", name, "Add", (0, 3, 11), 0.12345, 0.12445, 1e-3, 6e-8, 3.2
    )
    said = f"step 7, {name} (modeling.py:88): Add is 1.0e-03 off by itself"
    return Divergence(1, "graph", said, place, (*vision, *expert), 9737, 120, 38.4)


PASSING = result(measured(0, 3e-7), measured(1, 4.5e-7))
FAILING = result(measured(0, 3e-7), measured(1, 9.461e-3), measured(2, 2e-7))
STRUCTURE = result(
    *(
        refused(
            i,
            "structure",
            "outputs differ: missing 'actions'; unexpected 'action' (reference gives 'actions')",
        )
        for i in range(5)
    ),
    refusing={"compared": "nothing was compared"},
)
NOT_FINITE = result(
    measured(0, 3e-7),
    refused(1, "finite", "candidate actions[0, 3, 2] is nan (1 of 1600 elements are not finite)", math.nan),
)
DEAD = result(
    measured(0, 3e-7),
    refusing={
        "inputs": "image0 is dead: it changes the reference's actions by 3.1e-01 and not the candidate's"
    },
)
EMPTY = result(refusing={"compared": "no fixture was compared"})
ALL = {
    "passing": PASSING,
    "failing": FAILING,
    "structure": STRUCTURE,
    "nan": NOT_FINITE,
    "dead": DEAD,
    "empty": EMPTY,
}
