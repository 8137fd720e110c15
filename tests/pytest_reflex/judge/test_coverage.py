"""What the fixtures asked of the candidate's graph: said, chosen for, refused where it is too little."""

from __future__ import annotations

import dataclasses
import html
import json
import sys

import jsonschema
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from policy_cases import SPECS, Function, candidate, honest, only_refusal

from pytest_reflex.errors import MissingPackageError, ReflexError
from pytest_reflex.inputs import (
    Bernoulli,
    CameraMask,
    Gaussian,
    ImagePromptMask,
    ImagePromptTokens,
    ImageTokenMask,
    InputSpec,
    Integers,
    PromptMask,
    Tokens,
    make_fixture,
)
from pytest_reflex.inputs.chunks import Delay, Horizon
from pytest_reflex.inputs.fixtures import fixtures_from
from pytest_reflex.inputs.prompts import Text
from pytest_reflex.inputs.ranges import corners, swaps
from pytest_reflex.inputs.vision_prompts import VisionPromptMask, VisionPromptTokens
from pytest_reflex.judge.check import check
from pytest_reflex.judge.coverage import input_ranges
from pytest_reflex.report import json as as_json
from pytest_reflex.report.html.pages import page
from pytest_reflex.report.json.documents import Entry, Run
from pytest_reflex.report.markdown import markdown
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import OnnxRunner

INPUTS = [InputSpec("x", (1, 1), meaning=Gaussian())]


def clipped(limit: float, beyond: float = 0.0) -> OnnxRunner:
    """Holds its input at a limit, and is off by as much as is said where it does."""
    nodes = [
        helper.make_node("Clip", ["x", "", "limit"], ["held"], name="clip"),
        helper.make_node("Greater", ["x", "limit"], ["is_held"], name="greater"),
        helper.make_node("Add", ["held", "beyond"], ["off"]),
        helper.make_node("Where", ["is_held", "off", "held"], ["actions"], name="where"),
    ]
    for node in nodes:
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'owner.limits', 'op']")
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1])]
    made = [helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, 1])]
    constants = {"limit": np.float32(limit), "beyond": np.float32(beyond)}
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "clip", given, made, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return OnnxRunner(model.SerializeToString(), name="clipped")


def judged(limit: float, beyond: float = 0.0, **options) -> ParityResult:
    truth = Function(lambda x: {"actions": np.minimum(x, np.float32(limit))}, "reference", kind="torch")
    return check(truth, clipped(limit, beyond), inputs=options.pop("inputs", INPUTS), **options)


def first_above(limit: float) -> int:
    return next(i for i in range(256) if make_fixture(INPUTS, 0, i)["x"].item() > limit)


# Some draws are above it, and none of the first five.
LIMIT = max(make_fixture(INPUTS, 0, i)["x"].item() for i in range(5)) + 0.1


def test_nobody_asked_and_nobody_looked() -> None:
    assert judged(LIMIT).coverage is None


def test_looking_refuses_nothing_and_is_a_doubt() -> None:
    seen = judged(LIMIT, coverage=0)
    assert seen.passed
    assert (seen.coverage.both, seen.coverage.reachable, seen.coverage.chosen) == (0, 3, ())
    assert [(doubt.gate, doubt.said.partition(":")[0]) for doubt in seen.doubts] == [
        ("coverage", "3 of 3 decisions of the graph went one way alone")
    ]
    assert only_refusal(judged(LIMIT, coverage=0, strict=True), "coverage")


def test_fixtures_are_chosen_that_ask_what_was_not_asked() -> None:
    found = judged(LIMIT, coverage="95%")
    assert found.passed
    assert found.coverage.chosen == (first_above(LIMIT),)
    assert [f.fixture_idx for f in found.fixtures] == [0, 1, 2, 3, 4, first_above(LIMIT)]
    assert found.coverage.share == 1.0
    # It was not drawn at random, so the claim is that of five.
    assert (found.claim.judged, found.count, found.left_out) == (5, 6, 0)
    assert found.coverage.text.startswith(
        "3 of 3 decisions of the graph went both ways in 6 fixtures looked at (100.0 %)"
    )


def test_a_fault_that_five_fixtures_never_asked_for_is_found() -> None:
    assert judged(LIMIT, beyond=0.5).passed
    found = judged(LIMIT, beyond=0.5, coverage="95%")
    assert [(idx, answer.gate) for idx, answer in found.refusals] == [(first_above(LIMIT), "threshold")]
    assert ParityResult.from_json(json.loads(json.dumps(found.to_json()))) == found


def ladder(limits: list[float]) -> OnnxRunner:
    """One condition for each limit: whether the input's sum is above it."""
    nodes = [
        helper.make_node("Cast", ["x"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "limits"], ["above"], name="above"),
    ]
    nodes += [
        helper.make_node("Slice", ["above", f"from{i}", f"to{i}"], [f"above{i}"]) for i in range(len(limits))
    ]
    nodes += [
        helper.make_node("Where", [f"above{i}", "one", "zero"], [f"part{i}"], name=f"where{i}")
        for i in range(len(limits))
    ]
    nodes.append(helper.make_node("Sum", [f"part{i}" for i in range(len(limits))], ["actions"]))
    given = [helper.make_tensor_value_info("x", TensorProto.BOOL, [1, 16])]
    made = [helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1])]
    constants = {"limits": np.float32(limits), "one": np.float32([1]), "zero": np.float32([0])}
    for i in range(len(limits)):
        constants |= {f"from{i}": np.int64([i]), f"to{i}": np.int64([i + 1])}
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "ladder", given, made, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return OnnxRunner(model.SerializeToString(), name="ladder")


def climbed(limits: list[float], **options) -> ParityResult:
    truth = Function(
        lambda x: {"actions": np.float32([np.sum(np.float32(x.sum()) > np.float32(limits))])},
        "reference",
        kind="torch",
    )
    switches = [InputSpec("x", (1, 16), "bool", Bernoulli())]
    return check(truth, ladder(limits), inputs=switches, **{"coverage": 1.0, **options})


@pytest.mark.parametrize(("asked", "silent"), [("1%", False), ("94%", False), ("95%", True)])
def test_asking_for_little_silences_no_doubt(asked: str, silent: bool) -> None:
    """What strict doubts is doubted until nearly all is asked for, which then refuses by itself."""
    limits = [15.5, *np.linspace(7, 9, 18)]  # no draw reaches the first; one more decision is of them all
    found = climbed(limits, coverage=asked)
    assert found.passed
    assert (found.coverage.both, found.coverage.reachable) == (19, 20)
    assert bool(found.doubts) is not silent
    strict = climbed(limits, coverage=asked, strict=True)
    assert strict.passed is silent
    assert silent or "went one way alone: " in only_refusal(strict, "coverage")


def test_what_no_draw_is_a_corner_is() -> None:
    """Sixteen booleans are all true once in 65,536 draws."""
    found = climbed([15.5])
    assert found.passed
    (corner,) = found.coverage.chosen
    assert make_fixture([InputSpec("x", (1, 16), "bool", Bernoulli())], 0, corner)["x"].all()
    assert found.count == 6
    assert ParityResult.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_no_more_are_chosen_than_it_takes() -> None:
    """Each draw beyond another limit asks something new; the last of them asks it all."""
    sums = [
        int(make_fixture([InputSpec("x", (1, 16), "bool", Bernoulli())], 0, i)["x"].sum()) for i in range(5)
    ]
    found = climbed([limit + 0.5 for limit in range(min(sums) - 1, 16)])
    assert found.passed
    assert len(found.coverage.chosen) <= 2
    assert found.coverage.share == 1.0


RARE = [
    InputSpec("few", (1, 3), "int64", Integers(-3, 4)),
    InputSpec("many", (1, 8), "int64", Integers(0, 1000)),
    InputSpec("flag", (4,), "bool", Bernoulli(0.001)),
    InputSpec("camera", (2,), "bool", CameraMask(camera=0, cameras=1)),
    InputSpec("cameras", (1, 2), "bool", CameraMask()),
    InputSpec("right", (2, 9), "bool", PromptMask()),
    InputSpec("left", (2, 9), "int64", PromptMask("left")),
    InputSpec("image_tokens", (1, 8), "bool", ImageTokenMask()),
    InputSpec("words", (2, 9), "int64", Tokens(2000, mask="right", pad=-1)),
    InputSpec("prefix", (1, 12), "bool", ImagePromptMask("cameras", 4)),
    InputSpec("prompt", (1, 12), "int64", ImagePromptTokens(50, 60, 4, "cameras", "prefix")),
    InputSpec("seen", (1, 14), "bool", VisionPromptMask(2, 3)),
    InputSpec("read", (1, 14), "int64", VisionPromptTokens(2, 3, 50, 60, "seen", pad=-7)),
    InputSpec("horizon", (), "int64", Horizon(5)),
    InputSpec("delay", (), "int64", Delay(5, "horizon")),
    InputSpec("task", (20,), "uint8", Text()),
]


def test_what_inputs_can_be_is_what_they_mean_and_not_what_was_drawn() -> None:
    found = input_ranges(fixtures_from(RARE, 5, 0))
    for name, low, high in (("many", 0, 999), ("flag", False, True), ("words", -1, 1999), ("delay", 0, 5)):
        assert (found[name][0] == low).all()
        assert (found[name][1] == high).all()
    assert {*found} == {spec.name for spec in RARE}
    # One token is always there, and of a prompt with images as many as they take.
    assert found["right"][0].tolist() == [[True] + [False] * 8] * 2
    assert found["left"][0].tolist() == [[0] * 8 + [1]] * 2
    assert found["seen"][0].sum() == 9
    for idx in [*range(60), *corners(RARE), *swaps(RARE, 4)]:
        for name, array in make_fixture(RARE, 0, idx).items():
            low, high = found[name]
            assert (low.dtype, low.shape) == (array.dtype, array.shape)
            assert ((low <= array) & (array <= high)).all(), name


def test_a_corner_that_both_a_claim_and_coverage_ask_for_is_judged_once() -> None:
    found = climbed([15.5], claim="40%@95%")
    assert found.passed
    idxs = [f.fixture_idx for f in found.fixtures]
    assert len({*idxs}) == len(idxs)
    assert {*found.coverage.chosen} < {*idxs}
    assert ParityResult.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_what_is_never_drawn_is_refused_by_name() -> None:
    said = only_refusal(judged(100.0, coverage="95%"), "coverage")
    assert said == (
        "0 of 3 decisions of the graph went both ways, 0.0 %, and 95 % is asked for; never asked in the 5 "
        "fixtures looked at: limits: Clip clip, upper limit: no value was held; limits: Greater greater, "
        "condition: never true; limits: Where where, condition: never true"
    )


def test_recorded_fixtures_are_all_there_are() -> None:
    given = [make_fixture(INPUTS, 0, idx) for idx in (0, 1, 2)]
    assert only_refusal(judged(LIMIT, coverage="95%", inputs=given), "coverage")
    given.append(make_fixture(INPUTS, 0, first_above(LIMIT)))
    assert judged(LIMIT, coverage="95%", inputs=given).passed


def test_a_claim_draws_what_was_chosen_and_counts_it() -> None:
    found = judged(LIMIT, coverage="95%", claim="5%")
    assert found.passed
    assert first_above(LIMIT) < 59
    assert (found.claim.judged, found.count, found.coverage.chosen) == (59, 59, ())
    assert ParityResult.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_what_shows_no_graph_is_not_known() -> None:
    sides = Function(honest, "reference", kind="torch"), Function(honest)
    said = only_refusal(check(*sides, inputs=SPECS, coverage=0.5), "coverage")
    assert said == "the decisions of the graph are not known: function shows no graph"
    assert check(*sides, inputs=SPECS, coverage=0).passed
    assert only_refusal(check(*sides, inputs=SPECS, coverage=0, strict=True), "coverage") == said


def test_a_mask_goes_both_ways() -> None:
    sides = Function(honest, "reference", kind="torch"), candidate()
    assert check(*sides, inputs=SPECS, coverage=1.0, strict=True).coverage.both == 1


def test_every_face_says_it() -> None:
    found = judged(LIMIT, coverage=0)
    run = Run((Entry(found),))
    text = " ".join(str(found).split())
    assert f"Coverage: {found.coverage.text}" in text
    assert "limits: 0 of 3" in text
    assert "never asked: limits: Where where, condition: never true" in text
    for shown in (page(run), markdown(run)):
        assert found.coverage.text in " ".join(html.unescape(shown).split())
    document = as_json.document([found])
    jsonschema.validate(document, as_json.schema())
    for key, value in (("share", 1.0), ("both", 3), ("text", "all"), ("fixtures", "5")):
        data = json.loads(json.dumps(found.to_json()))
        data["coverage"][key] = value
        with pytest.raises(ReflexError, match=r"contradicts itself|not a parity result"):
            as_json.result_from_json(data)


def test_a_chosen_fixture_is_left_out_of_no_count() -> None:
    found = judged(LIMIT, coverage="95%")
    assert found.passed
    lost = dataclasses.replace(found, coverage=None)
    with pytest.raises(ReflexError, match="its claim is not what its fixtures establish"):
        as_json.result_from_json(json.loads(json.dumps(lost.to_json())))


def test_without_onnx_nobody_can_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is no verdict on the candidate."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match=r"coverage reads the graph with onnx, .*\[export\]"):
        judged(LIMIT, coverage=0)
