"""What decisions amount to: never more than was reached, and nothing where the analysis was wrong."""

from __future__ import annotations

import pytest

from pytest_reflex.verdict.coverage import Coverage, Decision, ModuleCoverage


@pytest.mark.parametrize(
    ("both", "one_way", "said"),
    [(2999, 1, "99.9 %"), (1999, 1, "99.9 %"), (2, 1, "66.6 %"), (3, 0, "100.0 %"), (0, 0, "100.0 %")],
)
def test_what_is_short_of_a_share_never_reads_as_that(both: int, one_way: int, said: str) -> None:
    missed = Decision("m", "n", "Where", "condition", went=("no",))
    coverage = Coverage((ModuleCoverage("m", both, one_way, 0, 0),), (missed,) * one_way, 5, (), 1.0)
    assert f"({said})" in coverage.text
    assert all(f", {said}, and 100 % is asked for" in refusal for refusal in coverage.refusals)
    assert bool(coverage.refusals) == bool(one_way)


@pytest.mark.parametrize("what", ["condition", "guard", "count", "row"])
def test_what_went_both_ways_is_decided_by_no_constants(what: str) -> None:
    wrong = Decision("m", "n", "Where", what, constant=True, went=("yes", "no"))
    kept = Decision("m", "o", "Where", "condition", constant=True, went=("yes",))
    said = (
        f"m: Where n, {what}, was taken to be decided by constants and went both ways, so others may be too"
    )
    asked = Coverage.of([kept, wrong], fixtures=5, chosen=(), asked=1.0)
    assert (asked.both, asked.reachable, asked.constant) == (1, 1, 1)
    assert asked.text == f"not known: {said}"
    assert asked.refusals == [f"the decisions of the graph are not known: {said}"]
    looked = Coverage.of([kept, wrong], fixtures=5, chosen=(), asked=0)
    assert (looked.refusals, looked.doubts) == ([], asked.refusals)
