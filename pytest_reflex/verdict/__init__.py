"""What is found and what it means: figures, gates, results. Arrays in, answers out.

Nothing here knows a runner or a report, and importing it imports no numpy.
"""

from pytest_reflex.verdict.gates import (
    FIXTURE_GATES,
    Evidence,
    below_threshold,
    judge_fixture,
    same_structure,
)
from pytest_reflex.verdict.results import (
    FIXTURE_GATE_NAMES,
    RUN_GATE_NAMES,
    Answer,
    FixtureResult,
    OutputResult,
    RunResult,
)
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD, THRESHOLD, Amount, Tolerances

__all__ = [
    "FIXTURE_GATES",
    "FIXTURE_GATE_NAMES",
    "RUN_GATE_NAMES",
    "STRICT_THRESHOLD",
    "THRESHOLD",
    "Amount",
    "Answer",
    "Evidence",
    "FixtureResult",
    "OutputResult",
    "RunResult",
    "Tolerances",
    "below_threshold",
    "judge_fixture",
    "same_structure",
]
