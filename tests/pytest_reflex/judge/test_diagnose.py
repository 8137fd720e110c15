"""What a failing test looks for by itself: in which fixtures, with what, and what becomes of an answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from policy_cases import SPECS

from pytest_reflex.errors import RunnerError
from pytest_reflex.judge.diagnose import diagnosed
from pytest_reflex.report.text.terminal import failure_message
from pytest_reflex.result import ParityResult
from pytest_reflex.verdict.divergence import Divergence
from pytest_reflex.verdict.gates import Evidence, judge_fixture
from pytest_reflex.verdict.results import RUN_GATE_NAMES, Answer

FOUND = Divergence(2, "graph", "the node Add is wrong", None, (), 7, 0, 0.5)
ZERO = np.zeros(2, np.float32)


class Locates:
    """A candidate that knows how to look into itself."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self._error = error

    def locate(self, reference: Any, **how: Any) -> Divergence:
        self.asked.append({"reference": reference, **how})
        if self._error:
            raise self._error
        return FOUND


def failed(seed: int | None = 5, **changes: Any) -> ParityResult:
    """A run of two fixtures, of which the second is refused for what ``changes`` say."""
    good = Evidence({"y": ZERO}, {"y": ZERO}, 1e-4, "", ())
    bad = replace(good, **(changes or {"candidate": {"y": ZERO + 1}}))
    fixtures = (judge_fixture(0, good), judge_fixture(1, bad))
    answers = tuple(Answer.yes(gate) for gate in RUN_GATE_NAMES)
    return ParityResult("run", 1e-4, False, seed, fixtures, answers, notes=("first",))


def test_the_worst_fixture_is_looked_into_as_it_was_drawn() -> None:
    candidate, result = Locates(), failed()
    assert diagnosed(result, "policy", candidate, seconds=3.0) == replace(result, located=FOUND)
    how = {"reference": "policy", "fixture_idx": 1, "seed": 5, "inputs": None, "seconds": 3.0}
    assert candidate.asked == [how]
    diagnosed(result, "policy", candidate, inputs=SPECS, seconds=3.0)
    assert candidate.asked[1] == how, "specs are no recorded inputs"
    diagnosed(failed(0), "policy", candidate, seconds=3.0)
    assert candidate.asked[2]["seed"] == 0


def test_recorded_inputs_are_handed_on_and_without_them_nothing_can_be_run_again() -> None:
    candidate, given = Locates(), [{"x": ZERO}, {"x": ZERO + 1}]
    for inputs in (given, tuple(given)):
        assert diagnosed(failed(None), "policy", candidate, inputs=inputs, seconds=3.0).located is FOUND
        assert candidate.asked[-1]["inputs"] == given
        assert candidate.asked[-1]["seed"] == 0
    asked = len(candidate.asked)
    nothing: list[Any] = [None, [], iter(given), [given[0], SPECS[0]], 3]
    for inputs in nothing:
        result = failed(None)
        assert diagnosed(result, "policy", candidate, inputs=inputs, seconds=3.0) is result
    assert len(candidate.asked) == asked


def test_a_plain_file_is_not_looked_into_and_the_result_says_why() -> None:
    result = failed()
    told = diagnosed(result, "policy", "models/grasp.onnx", seconds=3.0)
    assert told.notes == (
        "first",
        "the place was not looked for: models/grasp.onnx is a plain file, and only a bundle says what line "
        "of the policy its values are of; `reflex export MODEL DIR` makes one, and shows whether exporting "
        "is wrong or the file",
    )
    assert "only a bundle" in failure_message(told)
    assert diagnosed(result, "policy", "models/grasp.onnx", seconds=0) is result
    assert diagnosed(result, "policy", "http://robot:8000", seconds=3.0) is result


@pytest.mark.parametrize(
    ("changes", "looked"),
    [
        ({"candidate": {"y": ZERO + np.nan}}, True),
        ({"reference": {"y": np.arange(2)}, "candidate": {"y": np.arange(2) + 1}}, True),
        ({"candidate": {"y": ZERO + 1}}, True),
        ({"candidate": {"y": ZERO[:1]}}, False),
        ({"provider_asked": "CPU"}, False),
        ({"threshold": 1.0}, False),  # it passes
    ],
    ids=["finite", "exact", "threshold", "structure", "provider", "none"],
)
def test_only_what_was_refused_for_its_figures_is_looked_into(changes: dict[str, Any], looked: bool) -> None:
    candidate, result = Locates(), failed(**changes)
    assert (diagnosed(result, "policy", candidate, seconds=3.0).located is FOUND) is looked
    assert len(candidate.asked) == looked


def test_nothing_is_looked_for_without_time_without_fixtures_or_where_nobody_knows_how() -> None:
    candidate, result = Locates(), failed()
    for asked, of, seconds in (
        (result, candidate, 0.0),
        (result, object(), 3.0),
        (replace(result, fixtures=()), candidate, 3.0),
    ):
        assert diagnosed(asked, "policy", of, seconds=seconds) is asked
    assert candidate.asked == []


def test_a_search_that_fails_is_a_note_beside_the_others() -> None:
    result = diagnosed(failed(), "policy", Locates(RunnerError("no such node")), seconds=3.0)
    assert result.located is None
    assert result.notes == ("first", "the place was not found: no such node")
    # Whatever else goes wrong changes the verdict as little.
    for error in (ZeroDivisionError("by 0"), SystemExit(3)):
        result = diagnosed(failed(), "policy", Locates(error), seconds=3.0)
        assert result.located is None
        assert result.notes[1].startswith(f"the place was not found: {type(error).__name__}")
