"""What a failure says to do next looks at how much is wrong; its figures are read at a glance."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from report_cases import FAILING, floored, located, measured, result

from pytest_reflex import InputSpec, check
from pytest_reflex.inputs import Bernoulli
from pytest_reflex.report.text.advice import next_steps
from pytest_reflex.report.text.terminal import bound, failure_message, first_refusal, headline, told_apart
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import FunctionRunner
from pytest_reflex.settings import claim as claim_of
from pytest_reflex.verdict.claim import Claim
from pytest_reflex.verdict.precision import Precision
from pytest_reflex.verdict.quantised import QuantisedDistances
from pytest_reflex.verdict.results import RUN_GATE_NAMES, Answer
from pytest_reflex.verdict.rounding import Floor

SPECS = [InputSpec("x", (1, 64))]


def judged(error: np.ndarray, **options: object) -> ParityResult:
    def reference(x: np.ndarray) -> np.ndarray:
        return x * np.float32(3)

    def candidate(x: np.ndarray) -> np.ndarray:
        return x * np.float32(3) + error.astype(np.float32)

    return check(FunctionRunner(reference), FunctionRunner(candidate), inputs=SPECS, **options)


def advised(found: ParityResult) -> str:
    return next_steps(found, first_refusal(found)[1])


def one(amount: float) -> np.ndarray:
    error = np.zeros((1, 64))
    error[0, 17] = amount
    return error


def test_one_wrong_element_of_64_is_not_every_weight() -> None:
    assert advised(judged(one(0.5))) == (
        "little of output is wrong, [0, 17] most: look at what writes that place alone, such as an index, a "
        "slice, a clamp, one joint's scale; what all elements pass through is right."
    )


def test_a_small_error_everywhere_is_not_called_a_wrong_weight() -> None:
    said = advised(judged(np.full((1, 64), 1e-3)))
    assert re.match(r"every fixture fails, by \de-04 of what output is: look at constants and times", said)
    assert "weights" not in said


def test_a_large_error_everywhere_is() -> None:
    assert advised(judged(np.full((1, 64), 3.0))).startswith(
        "every fixture fails, by much, so look at what all"
    )


def test_rounding_is_called_so() -> None:
    made = floored(result(measured(0, 2e-5)), 9e-7)
    assert made.word == "rounding"
    assert "'2x floor'" in advised(made)


@pytest.mark.parametrize(
    ("precision", "floor", "said"),
    [
        (Precision("float16", "float16"), None, "float16 costs much by itself: --floor or floor=True says"),
        (Precision("float16", "float16"), 9e-7, "asks for more than float16 gives here. Say it in units"),
        (Precision("float16", "float16"), 1e-2, "the only fixture fails, by "),
        (
            Precision("float32", "partly float16"),
            None,
            "the candidate is partly float16 and was held",
        ),
        (
            Precision("float32", "partly float16"),
            9e-7,
            "asks for more than float32 gives here. Say it in units",
        ),
        (Precision("float32", "partly float16", None, True), None, "the only fixture fails, by "),
        (
            Precision("float32", "said to be int8 (not read)"),
            None,
            "the candidate is said to be int8 (not read)",
        ),
    ],
)
def test_what_a_precision_explains_is_said(precision: Precision, floor: float | None, said: str) -> None:
    made = dataclasses.replace(result(measured(0, 2e-5)), precision=precision)
    made = made if floor is None else floored(made, floor)
    assert said in advised(made)


def test_who_holds_a_recording_alone_is_told_which_number_to_give() -> None:
    said = Precision("float32", "said to be int8 (not read)", "int8")
    made = dataclasses.replace(result(measured(0, 2e-5)), precision=said)
    assert "which, --rounding int8 or rounding='int8'" in advised(made)
    recorded = dataclasses.replace(made, reference={**made.reference, "kind": "recorded"})
    assert "the number that it was proven with, --threshold; a bundle's reflex.json has" in advised(recorded)


def test_what_nobody_can_say_is_to_be_given_as_a_number() -> None:
    made = floored(result(measured(0, 2e-5)), 9e-7)
    (fixture,) = made.fixtures
    (output,) = fixture.outputs
    unheld = dataclasses.replace(output, bound=0.0, floor=Floor(2.0, unknown="a recording"))
    made = dataclasses.replace(made, fixtures=(dataclasses.replace(fixture, outputs=(unheld,)),))
    assert "give a number that your arm allows" in advised(made)
    runtime = QuantisedDistances(runtime=1.0, floor=1e-9, cost=None, scale=1.0)
    wrong = dataclasses.replace(unheld, quantised=runtime)
    made = dataclasses.replace(made, fixtures=(dataclasses.replace(fixture, outputs=(wrong,)),))
    assert "the runtime computes something else than its own graph says" in advised(made)


def test_next_prints_the_real_paths() -> None:
    made = dataclasses.replace(
        FAILING,
        located=located(),
        candidate={**FAILING.candidate, "kind": "bundle", "path": "out/p 0"},
        reference={**FAILING.reference, "name": "checkpoints/pi0"},
    )
    assert "reflex locate 'out/p 0' --model checkpoints/pi0 --fixture 1 --repro repro writes" in " ".join(
        failure_message(made).split()
    )
    stored = dataclasses.replace(
        made,
        reference=FAILING.reference,
        candidate={**made.candidate, "source": {"kind": "checkpoint", "checkpoint": "lerobot/pi0_base"}},
    )
    assert "--model lerobot/pi0_base " in advised(stored)


def test_next_names_the_search_where_nobody_has_looked() -> None:
    made = dataclasses.replace(
        FAILING,
        located=None,
        candidate={**FAILING.candidate, "kind": "bundle", "path": "out/p 0"},
        reference={**FAILING.reference, "kind": "torch", "name": "arm.py:policy"},
    )
    said = " reflex locate 'out/p 0' --model arm.py:policy --fixture 1 names the first module that parts."
    assert advised(made).endswith(said)
    assert "--fixture 1 --seed 7 names" in advised(dataclasses.replace(made, seed=7))
    told = advised(dataclasses.replace(made, seed=None))  # the command draws inputs of its own
    assert "locate(policy, inputs=INPUTS, fixture_idx=1), with the inputs that were judged, names" in told
    # A recording has no modules, a plain file no manifest; and what was looked for is not looked for again.
    for other in (
        dataclasses.replace(made, reference={**made.reference, "kind": "recorded"}),
        dataclasses.replace(made, candidate={**made.candidate, "kind": "onnx"}),
        dataclasses.replace(made, located=located()),
    ):
        assert said not in advised(other)


@pytest.mark.parametrize("threshold", [1.2345678901234567e-05, 1e-5, 3.3333333333333335e-05, 1 / 3])
def test_a_headline_never_prints_a_bound_to_sixteen_digits(threshold: float) -> None:
    for value in (
        threshold * 0.999,
        threshold,
        threshold * 1.001,
        threshold * (1 - 1e-6),
        np.nextafter(threshold, 0),
    ):
        made = result(measured(0, float(value), threshold), threshold=threshold)
        said = headline(made)
        assert not re.search(r"\d\.\d{9,}", said), said
        seen, limit = told_apart(float(value), threshold)
        if abs(value - threshold) > 1e-7 * threshold or value == threshold:
            assert (float(seen) < float(limit)) == (value < threshold)


def test_before_and_after() -> None:
    made = result(measured(0, 2e-5, 1.2345678901234567e-05), threshold=1.2345678901234567e-05)
    assert headline(made).startswith(
        "parity FAIL: max_abs_diff 2.000e-05 is not below 1.235e-05 (1 of 1 fixture"
    )
    assert bound(1e-5) == "1.0e-05"


def test_a_pass_says_which_fixture_is_nearest_where_another_has_the_larger_figure() -> None:
    made = []
    for index, (value, limit) in enumerate([(2e-5, 2.1e-5), (3e-5, 9e-5)]):
        one = measured(index, value, 1e-4)
        outputs = tuple(dataclasses.replace(output, bound=limit) for output in one.outputs)
        made.append(dataclasses.replace(one, outputs=outputs))
    said = headline(result(*made, threshold=1e-4))
    assert said == "parity PASS: max_abs_diff 2.000e-05 is below 2.1e-05 (2 fixtures; nearest: fixture 0)"
    assert "nearest" not in headline(result(*made[:1], threshold=1e-4))


def test_each_gate_of_the_run_has_its_own_advice() -> None:
    said = {gate: next_steps(FAILING, Answer.no(gate, "no")) for gate in RUN_GATE_NAMES}
    assert len(set(said.values())) == len(said)
    assert "lower share" in said["coverage"]
    assert all("--reflex-report" not in one for one in said.values())


def of_claim(count: int, *, seed: int | None, claim: Claim, **given: object) -> str:
    found = result(*(measured(idx, 1e-6) for idx in range(count)), seed=seed, claim=claim)
    return next_steps(found, Answer.no("claim", "not reached"))


def test_the_way_to_a_claim_is_the_one_that_its_fixtures_have() -> None:
    """Frames are recorded, fixtures without a seed are asked for, draws take time and workers."""
    passed, asked = [True] * 5, claim_of("1e-3@95%")
    assert asked is not None
    recorded = Claim.of(passed, source="recorded", distinct=5, asked=asked)
    assert of_claim(5, seed=None, claim=recorded).startswith("record more frames, each picked independently")
    derived = Claim.of(passed, source="derived", distinct=5, asked=asked)
    assert of_claim(5, seed=0, claim=derived) == "ask for 2,995 fixtures, fixtures=2995 or --fixtures."
    drawn = Claim.of(passed, source="drawn", distinct=5, asked=asked)
    early = dataclasses.replace(drawn, stopped="budget", needs=7.2)
    said = of_claim(5, seed=0, claim=early)
    assert said.startswith(
        "give it more time (claim_budget=, --claim-budget, in pytest --reflex-claim-budget"
    )
    assert ", some 7" in said
    assert (
        "more processes (workers=, --workers, --reflex-workers), or ask for less: 45.1 % is reached." in said
    )
    # What was stopped by a violation is no matter of time.
    assert "more time" not in of_claim(5, seed=0, claim=dataclasses.replace(drawn, stopped="violation"))


def test_floats_that_are_off_are_looked_at_before_integers_made_of_them() -> None:
    def reference(x: np.ndarray) -> dict[str, np.ndarray]:
        return {"actions": x, "bin": np.floor(4 * x).astype(np.int64)}

    def candidate(x: np.ndarray) -> dict[str, np.ndarray]:
        return reference(x + np.float32(0.3))

    found = check(FunctionRunner(reference), FunctionRunner(candidate), inputs=SPECS)
    assert first_refusal(found)[1].gate == "exact"
    assert re.match(r"actions is off by 3\.0e-01 too, so look at it first: integers", advised(found))


def test_floats_that_are_right_are_not_looked_at_first() -> None:
    """Nor where they are not finite, or within what rtol allows."""

    def told(candidate: object, **options: object) -> str:
        def reference(x: np.ndarray) -> dict[str, np.ndarray]:
            return {"actions": x, "bin": np.floor(4 * x).astype(np.int64)}

        return advised(check(FunctionRunner(reference), FunctionRunner(candidate), inputs=SPECS, **options))  # type: ignore[arg-type]

    for off, options in ((0.0, {}), (1e-3, {"rtol": 0.9}), (np.nan, {})):
        said = told(
            lambda x, off=off: {
                "actions": x * np.float32(1 + off),
                "bin": np.floor(4 * x + 1).astype(np.int64),
            },
            **options,
        )
        assert "look at it first" not in said


def test_fixtures_that_are_off_alike_are_not_compared_with_each_other() -> None:
    """A threshold between them cuts nothing apart; one that is off by far more is another matter."""
    near = result(measured(0, 1.4e-5), measured(1, 0.9e-5), threshold=1e-5)
    assert advised(near).startswith("all fixtures are off alike, and the threshold lies between them, by ")
    far = result(measured(0, 1e-3), measured(1, 0.9e-5), threshold=1e-5)
    assert advised(far).startswith("compare the inputs of fixture 0, which fails, with those of fixture 1")


def test_a_dead_input_leads_whatever_else_is_wrong() -> None:
    def reference(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return x * mask

    def candidate(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return x

    specs = [InputSpec("x", (1, 8)), InputSpec("mask", (1, 8), "bool", Bernoulli())]
    found = check(FunctionRunner(reference), FunctionRunner(candidate), inputs=specs)
    assert first_refusal(found)[1].gate == "threshold"
    assert advised(found).startswith("input 'mask' is dead: with another value the reference changes by ")
    assert advised(found).endswith(": look first at where the export drops it, such as a mask or a camera.")
