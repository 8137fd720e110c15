"""Results of every kind, made by hand, for the tests of what is said of them."""

from __future__ import annotations

import math
from typing import Any

from pytest_reflex.metrics import Difference
from pytest_reflex.verdict import (
    FIXTURE_GATE_NAMES,
    RUN_GATE_NAMES,
    YES,
    Answer,
    FixtureResult,
    OutputResult,
    ParityResult,
)

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
    answers = (*(Answer(name, YES) for name in before), Answer(gate, reason))
    figures = None if worst is None else difference(worst)
    return FixtureResult(idx, answers, (OutputResult("actions", "float32", (1, 50, 32), figures),))


def measured(idx: int, worst: float, threshold: float = 1e-5) -> FixtureResult:
    if not worst < threshold:
        reason = f"actions: max_abs_diff {worst:.3e} is not below {threshold:.1e}"
        return refused(idx, "threshold", reason, worst)
    answers = tuple(Answer(name, YES) for name in FIXTURE_GATE_NAMES)
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
        "answers": tuple(Answer(gate, said.get(gate, YES)) for gate in RUN_GATE_NAMES),
        **SIDES,
    }
    return ParityResult(**{**plain, **given})


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
