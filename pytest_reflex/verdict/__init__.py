"""What is found and what it means: figures, gates, results. Arrays in, answers out.

Nothing here knows a runner or a report, and importing it imports no numpy.
"""

from pytest_reflex.verdict.gates import (
    FIXTURE_GATES,
    STRICT_THRESHOLD,
    THRESHOLD,
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

__all__ = [
    "FIXTURE_GATES",
    "FIXTURE_GATE_NAMES",
    "RUN_GATE_NAMES",
    "STRICT_THRESHOLD",
    "THRESHOLD",
    "Answer",
    "Evidence",
    "FixtureResult",
    "OutputResult",
    "RunResult",
    "below_threshold",
    "judge_fixture",
    "same_structure",
]
