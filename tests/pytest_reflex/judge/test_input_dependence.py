"""The inputs gate: an input that reaches the reference and not the candidate is dead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from policy_cases import SPECS, Function, Policy, candidate, honest, only_refusal, unmasked

from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs import Bernoulli, CameraMask, InputSpec, Integers, make_fixture
from pytest_reflex.judge.check import check
from pytest_reflex.judge.input_dependence import unequal_bits
from pytest_reflex.report.text.advice import next_steps
from pytest_reflex.runners import RecordedRunner
from pytest_reflex.runners.recorded import save_recording


def test_inputs_refuses_alone():
    """All masks are true where the two are compared; only the swap shows that one side ignores them."""
    fixtures = [{"x": np.full((1, 8), i, np.float32), "mask": np.ones((1, 8), bool)} for i in range(3)]
    fixtures.append({"x": np.zeros((1, 8), np.float32) - 0.25, "mask": np.zeros((1, 8), bool)})
    result = check(Policy(), candidate(masked=False), inputs=fixtures)
    said = only_refusal(result, "inputs")
    reason = "with another value the reference changes by 5.000e-01, and the candidate gives the same bits"
    assert said == f"input 'mask' is dead: {reason}"
    assert result.candidate["live_inputs"] == ["x"]


def test_an_input_that_varies_in_no_judged_fixture_is_drawn_until_it_does():
    cameras = InputSpec("cameras", (1, 3), "bool", CameraMask())

    def last(x, cameras):
        return {"actions": x * cameras[:, :1]}

    def blind(x, cameras):
        return {"actions": x}

    spec = InputSpec("camera_0", (1,), "bool", CameraMask(0, 3))
    assert make_fixture([cameras], 0, 1)["cameras"].tolist() == [[True, True, False]]
    sides = (
        Function(lambda x, camera_0: last(x, camera_0[:, None]), "reference"),
        Function(lambda x, camera_0: blind(x, camera_0)),
    )
    said = only_refusal(check(*sides, inputs=[SPECS[0], spec], fixtures=2), "inputs")
    assert said.startswith("input 'camera_0' is dead")


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1,)], ids=["of all", "two rows", "of one"])
def test_the_mask_of_an_only_camera_is_known_to_be_used(shape: tuple[int, ...]) -> None:
    """It is false in one fixture alone, which is judged; what is drawn beyond has always the one camera."""
    meaning = CameraMask() if len(shape) == 2 else CameraMask(0, 1)
    specs = [InputSpec("x", (shape[0], 8)), InputSpec("camera", shape, "bool", meaning)]
    seen = Function(lambda x, camera: {"actions": x * camera.reshape(-1, 1)}, "reference")
    same = check(seen, Function(seen.function), inputs=specs, strict=True)
    assert same.passed
    assert same.candidate["live_inputs"] == ["x", "camera"]
    # One that does not look, and one that looks at the first row for all.
    assert not check(seen, Function(lambda x, camera: {"actions": x}), inputs=specs).passed
    first = Function(lambda x, camera: {"actions": x * camera.reshape(-1, 1)[:1]})
    assert check(seen, first, inputs=specs).passed is (shape[0] == 1)


def test_an_input_that_neither_side_uses_is_a_note_and_under_strict_a_refusal():
    sides = (Function(unmasked, "reference"), candidate(masked=False))
    result = check(*sides, inputs=SPECS)
    assert result.passed
    assert result.notes == ("input 'mask' changes neither side where it was swapped, in fixtures 0 and 2",)
    refused = check(*sides, inputs=SPECS, strict=True)
    assert only_refusal(refused, "inputs") == result.notes[0]
    assert "take another seed (--seed N)" in next_steps(refused, refused.refusals[0][1])


def test_an_input_that_never_varies_is_a_note_and_under_strict_a_refusal():
    # Ids that are all one have no other order, and what else they may be is not known.
    specs = [SPECS[0], InputSpec("embodiment", (1, 2), "int64", Integers(0, 3))]
    one = [{**make_fixture(specs, 0, idx), "embodiment": np.full((1, 2), 2)} for idx in range(3)]
    sides = [Function(lambda x, embodiment: {"actions": x * embodiment[0, 0]}, name) for name in "ab"]
    result = check(*sides, inputs=one)
    assert result.passed
    assert result.seed is None
    note = "input 'embodiment' never varies, so it is not known whether it is used"
    assert result.notes == (note,)
    assert only_refusal(check(*sides, inputs=one, strict=True), "inputs") == note


def test_one_given_fixture_is_enough_to_find_a_dead_input():
    one = [make_fixture(SPECS, 0, 0)]
    one[0]["mask"][:] = True
    assert check(Policy(), candidate(), inputs=one).passed
    said = only_refusal(check(Policy(), candidate(masked=False), inputs=one), "inputs")
    assert said.startswith("input 'mask' is dead")
    baked = {"actions": honest(**one[0])["actions"].copy()}
    said = only_refusal(check(Policy(), Function(lambda x, mask: baked), inputs=one), "inputs")
    assert "input 'x' is dead" in said


def test_an_input_that_the_candidate_will_not_have_swapped_is_live_and_noted():
    plain = make_fixture(SPECS, 0, 0)

    def coupled(x, mask):
        if x.tobytes() == plain["x"].tobytes() and mask.tobytes() != plain["mask"].tobytes():
            raise RunnerError("mask and x do not fit together")
        return honest(x, mask)

    result = check(Policy(), Function(coupled), inputs=SPECS, strict=True)
    assert result.passed
    assert result.notes == (
        "input 'mask' was not varied alone: the candidate refuses it (mask and x do not fit together)",
    )


def test_an_input_that_the_candidate_never_has_swapped_is_doubted_where_the_reference_takes_it():
    known = [make_fixture(SPECS, 0, idx)["x"].tobytes() for idx in range(5)]

    def choosy(x, mask):
        if x.tobytes() not in known:
            raise RunnerError("that x is not among the stored")
        return honest(x, mask)

    result = check(Policy(), Function(choosy), inputs=SPECS)
    assert result.passed
    note = "input 'x' was not varied alone: the candidate refuses it (that x is not among the stored)"
    assert result.notes == (f"{note}, and the reference takes it",)
    strict = check(Policy(), Function(choosy), inputs=SPECS, strict=True)
    assert only_refusal(strict, "inputs") == f"{note}, and the reference takes it"
    # Where the policy refuses it too, the two agree.
    both = check(Function(choosy, "reference"), Function(choosy), inputs=SPECS, strict=True)
    assert (both.passed, both.notes) == (True, (note,))


def test_a_candidate_that_only_knows_the_judged_answers_is_refused():
    known = {}

    def replay(x, mask):
        if x.tobytes() + mask.tobytes() not in known:
            raise RunnerError("not among the stored answers")
        return known[x.tobytes() + mask.tobytes()]

    for idx in range(5):
        inputs = make_fixture(SPECS, 0, idx)
        known[inputs["x"].tobytes() + inputs["mask"].tobytes()] = honest(**inputs)
    said = only_refusal(check(Policy(), Function(replay), inputs=SPECS), "inputs")
    assert said.startswith(
        "the candidate runs on the judged inputs and on no others: with another 'x' it refuses"
    )


@pytest.mark.parametrize(
    ("again", "said"),
    [
        ({"a": [1.0, 2.0]}, ""),
        ({"a": [1.0, 3.0]}, "a[1] was 2.0 and then 3.0 (1 of 2 elements differ)"),
        ({"a": [1.0, np.nan]}, "a[1] was 2.0 and then nan (1 of 2 elements differ)"),
        ({"a": [1.0]}, "a was float32 [2] and then float32 [1]"),
        ({"b": [1.0, 2.0]}, "the outputs were ['a'] and then ['b']"),
    ],
)
def test_an_answer_is_repeated_to_the_bit_or_it_is_said_where_not(again, said):
    made = {name: np.array(values, np.float32) for name, values in again.items()}
    assert unequal_bits({"a": np.array([1, 2], np.float32)}, made) == said


def test_a_zero_of_another_sign_is_another_answer():
    assert unequal_bits({"a": np.zeros(1)}, {"a": -np.zeros(1)}).startswith("a[0] was 0.0 and then -0.0")


def test_a_candidate_that_gives_another_form_when_it_is_asked_again_does_not_repeat():
    turns = iter([{"actions": np.zeros((1, 8), np.float32)}] * 5)

    def shrinking(x, mask):
        return next(turns, {"actions": np.zeros((1, 7), np.float32)})

    zero = Function(lambda x, mask: {"actions": np.zeros((1, 8), np.float32)}, "reference")
    result = check(zero, Function(shrinking, "candidate"), inputs=SPECS)
    assert not result.passed
    said = [answer.said for _, answer in result.refusals if answer.gate == "repeat"]
    assert said == ["fixture 0 run again gave other bits: actions was float32 [1, 8] and then float32 [1, 7]"]


def test_an_input_that_changes_the_form_of_the_reference_s_outputs_alone_is_dead():
    def growing(x, mask):
        return {"actions": np.zeros((1, 8 + int(mask.sum())), np.float32)}

    still = Function(lambda x, mask: {"actions": np.zeros((1, 8), np.float32)}, "candidate")
    plain = {"x": np.zeros((1, 8), np.float32), "mask": np.zeros((1, 1), bool)}
    result = check(Function(growing, "reference"), still, inputs=[plain, {**plain, "mask": ~plain["mask"]}])
    said = next(answer.said for _, answer in result.refusals if answer.gate == "inputs")
    assert said.startswith("input 'mask' is dead")
    assert "the reference gives outputs of another form" in said


def test_an_input_that_changes_what_is_no_number_is_live_all_the_same():
    def named(x, mask):
        return {"actions": np.array([str(float(x[0, 0]))], "U30")}

    result = check(Function(named, "reference"), Function(named, "candidate"), inputs=SPECS)
    assert {answer.gate for _, answer in result.refusals} >= {"structure"}
    assert result.candidate["live_inputs"] == ["x"]


def test_how_far_each_input_moves_each_output_is_kept_of_the_fixture_in_which_it_moves_it_most():
    def two(x, mask):
        return {"sum": x.sum(1, keepdims=True), "count": mask.sum(1), "still": np.zeros((1, 1), np.float32)}

    given = [
        {"x": np.full((1, 8), value, np.float32), "mask": np.arange(8)[None] < count}
        for value, count in ((1, 2), (3, 2), (9, 5))
    ]
    result = check(Function(two, "reference"), Function(two, "candidate"), inputs=given)
    # Swapped in fixtures 0 and 2: between the two of them and the next one lies what nobody judged.
    moved = {name: dict(outputs) for name, outputs in result.effects.items()}
    assert set(moved) == {"x", "mask"}
    assert moved["x"]["count"] == moved["x"]["still"] == moved["mask"]["sum"] == 0
    assert moved["x"]["sum"] == 8 * max((3 - 1) / 2, (9 - 1) / 2)
    assert moved["mask"]["count"] > 0


def test_an_input_that_was_refused_once_has_no_figures_of_what_it_moves():
    given = [{"x": np.full((1, 8), value, np.float32)} for value in (1, 3, 9)]

    def picky(x):
        if x[0, 0] == 2:  # between the first two
            raise RunnerError("not that one")
        return {"y": x * 2}

    twice = Function(lambda x: {"y": x * 2}, "reference")
    assert check(twice, Function(twice.function, "candidate"), inputs=given).effects["x"]["y"] > 0
    result = check(twice, Function(picky, "candidate"), inputs=given)
    assert result.candidate["live_inputs"] == ["x"]
    assert result.effects == {}


@pytest.mark.parametrize("places", [(0, 1), (1, 2), (0, 2)])
@pytest.mark.parametrize("kind", ["mask", "ids"])
def test_a_recorded_input_of_which_a_part_is_read_is_live(kind: str, places: tuple[int, int], tmp_path: Path):
    """The places that are not read may be all that another value differs in."""
    mask = kind == "mask"
    shape = (1, 2) if mask else (1, 8)
    spec = InputSpec("given", shape, "bool" if mask else "int64", Bernoulli() if mask else Integers(0, 999))
    first, last = places if mask else (4 * places[0], 4 * places[1])

    def reads(x, given):
        return {"actions": x * given[:, first:last].astype(np.float32).mean(dtype=np.float32)}

    specs, kept = [InputSpec("x", (1, 4)), spec], []
    check(Function(reads), Function(reads), inputs=specs, record=lambda *one: kept.append(one))
    save_recording(tmp_path / "f.safetensors", kept, live_inputs=["x", "given"])
    recording = RecordedRunner(tmp_path / "f.safetensors")
    assert check(recording, Function(reads), inputs=recording.recorded()).passed
    dropped = Function(lambda x, given: {"actions": reads(x, np.ones_like(given))["actions"]})
    assert not check(recording, dropped, inputs=recording.recorded()).passed
