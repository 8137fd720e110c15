"""How the error grows over a denoising loop, in one fixture of a verdict that stands. It decides nothing.

Both sides run that fixture once more, in a way that shows what the loop holds after each step. Each must end,
bit for bit, in an output that it was judged by: else what it showed is of another run, and nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pytest_reflex.errors import ReflexError, RunnerError
from pytest_reflex.runners.base import Runner, first_line, trajectory_of
from pytest_reflex.verdict.metrics import absolute_difference
from pytest_reflex.verdict.summaries import StepDifference

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_reflex.inputs.fixtures import Fixtures
    from pytest_reflex.runners.base import Trajectory
    from pytest_reflex.verdict.results import FixtureResult

Array = np.ndarray[Any, Any]
Outputs = Mapping[str, Array]

UNSEEN: Final = "neither side shows what it holds after each step"
UNASKED: Final = "a pass looks at its steps when asked to: trajectory=True, --trajectory, --reflex-trajectory"


@dataclass(frozen=True)
class TrajectoryErrors:
    """The error after each step, or why there is none.

    Attributes:
        steps: one figure for each step, in order; empty where ``unseen`` says why.
        fixture_idx: the fixture they are of; None where there are none.
        unseen: why there are none, in words; empty where there are some.
    """

    steps: tuple[StepDifference, ...] = ()
    fixture_idx: int | None = None
    unseen: str = ""


def trajectory_errors(
    reference: Runner,
    candidate: Runner,
    fixtures: Fixtures,
    results: Sequence[FixtureResult],
    judged: tuple[Sequence[Outputs], Sequence[Outputs]] | None,
    report_progress: Callable[[str, int, int], None],
) -> TrajectoryErrors:
    """The error after each denoising step of the worst fixture. Raises nothing: it decides nothing.

    Args:
        reference: its runner, closed.
        candidate: its runner, closed.
        fixtures: the fixtures that were judged.
        results: what was found of each.
        judged: each fixture's outputs, the reference's and the candidate's; None where nobody asks for the
            steps, so that nothing is run.
        tell: told of both runs.
    """
    found = {"reference": trajectory_of(reference), "candidate": trajectory_of(candidate)}
    sides = {side: shown for side, shown in found.items() if shown is not None}
    blind = [side for side in found if side not in sides]
    if blind:
        lone = f"the {blind[0]} does not show what it holds after each step"
        return TrajectoryErrors(unseen=UNSEEN if len(blind) == 2 else lone)
    if judged is None:
        return TrajectoryErrors(unseen=UNASKED)
    worst = worst_idx(results)
    if worst is None:
        return TrajectoryErrors(unseen="in no fixture could the outputs be laid side by side")
    states: dict[str, Array] = {}
    # The candidate first: the reference is often read from disk again, for nothing if this fails.
    for done, side in enumerate(("candidate", "reference")):
        report_progress("steps", done, 2)
        outputs = judged[side == "candidate"][worst]
        try:
            states[side] = _states(sides[side], fixtures.make(worst), outputs)
        except Exception as error:
            said = str(error) if isinstance(error, ReflexError) else first_line(error)
            return TrajectoryErrors(unseen=f"the {side}'s steps could not be seen: {said}")
    report_progress("steps", 2, 2)
    return _compared(states["reference"], states["candidate"], worst)


def worst_idx(results: Sequence[FixtureResult]) -> int | None:
    """The first of the fixtures that differ most; the choice hangs on no threshold.

    None where no fixture's outputs could be laid side by side.
    """
    figures = {i: f.max_abs_diff for i, f in enumerate(results) if f.max_abs_diff is not None}
    return max(figures, key=lambda i: (math.isnan(figures[i]), figures[i]), default=None)


def _states(shown: Trajectory, inputs: dict[str, Array], outputs: Outputs) -> Array:
    states = np.asarray(shown(inputs))
    if states.ndim < 1 or not len(states):
        raise RunnerError("none was shown")
    last = np.ascontiguousarray(states[-1])
    if not any(_same_bits(last, output) for output in outputs.values()):
        raise RunnerError("the run that shows them ends in other bits than the run that was judged")
    return states


def _same_bits(one: Array, other: Array) -> bool:
    return (one.dtype, one.shape) == (other.dtype, other.shape) and one.tobytes() == other.tobytes()


def _compared(reference: Array, candidate: Array, fixture_idx: int) -> TrajectoryErrors:
    if len(reference) != len(candidate):
        many = f"the reference takes {len(reference)} steps and the candidate {len(candidate)}"
        return TrajectoryErrors(unseen=f"{many}, so that no step of one is a step of the other")
    if (reference.dtype, reference.shape) != (candidate.dtype, candidate.shape):
        forms = [f"{a.dtype} {list(a.shape)}" for a in (reference, candidate)]
        return TrajectoryErrors(unseen=f"the reference's steps are {forms[0]} and the candidate's {forms[1]}")
    steps = []
    for index, (r, c) in enumerate(zip(reference, candidate, strict=True)):
        errors = absolute_difference(r, c)
        with np.errstate(invalid="ignore"):  # infinities of both signs
            steps.append(StepDifference(index + 1, float(errors.max()), float(errors.mean())))
    return TrajectoryErrors(tuple(steps), fixture_idx)
