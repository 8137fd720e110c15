"""Every kind of decision is counted in the graph that makes it, and told apart where no input can turn it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners import OnnxRunner
from pytest_reflex.verdict.coverage import Coverage, Decision, ModuleCoverage

FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64


def graph_of(
    nodes: Sequence[onnx.NodeProto], output: str = "y", kind: int = FLOAT, **constants: Any
) -> onnx.GraphProto:
    return helper.make_graph(
        list(nodes),
        "g",
        [
            helper.make_tensor_value_info("x", FLOAT, [1, 3]),
            helper.make_tensor_value_info("mask", BOOL, [1, 3]),
            helper.make_tensor_value_info("n", INT64, []),
        ],
        [helper.make_tensor_value_info(output, kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )


def model(*nodes: onnx.NodeProto, opset: int = 20, **given: Any) -> bytes:
    made = helper.make_model(
        graph_of(nodes, **given), opset_imports=[helper.make_opsetid("", opset)], ir_version=10
    )
    return bytes(made.SerializeToString())


def node(op: str, inputs: Sequence[str], output: str = "y", **more: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [output], name=f"the_{output}", **more)


def ran(graph: bytes, *fixtures: Sequence[Any], inputs: Any = None) -> dict[str, Decision]:
    """The decisions by node and what is decided, after runs with ``(x, mask, n)``."""
    plain = OnnxRunner(graph)
    watched = plain.watching(inputs)
    with plain, watched:
        for x, mask, n in fixtures:
            fed = {
                "x": np.full((1, 3), x, np.float32) if np.ndim(x) == 0 else np.asarray([x], np.float32),
                "mask": np.full((1, 3), mask) if np.ndim(mask) == 0 else np.asarray([mask]),
                "n": np.asarray(n, np.int64),
            }
            fed = {name: fed[name] for name in plain.inputs}
            expected, got = plain.run(fed), watched.run(fed)
            assert list(got) == list(expected)
            assert all((got[name] == expected[name]).all() for name in got)
        return {f"{d.node} {d.what}": d for d in watched.decisions}


def went(found: dict[str, Decision]) -> dict[str, tuple[str, ...]]:
    return {name: decision.went for name, decision in found.items()}


ONE = np.float32(1)


@pytest.mark.parametrize(
    ("nodes", "what", "one", "other"),
    [
        ([node("Where", ["mask", "x", "one"])], "condition", (0, True, 0), (0, False, 0)),
        ([node("Relu", ["x"])], "lower limit", (-1, True, 0), (2, True, 0)),
        ([node("Clip", ["x", "one", ""])], "lower limit", (0, True, 0), (2, True, 0)),
        ([node("Clip", ["x", "", "one"])], "upper limit", (2, True, 0), (0, True, 0)),
        ([node("Max", ["x", "one"])], "choice", (0, True, 0), (2, True, 0)),
        ([node("Min", ["x", "one"])], "choice", (0, True, 0), (2, True, 0)),
        (
            [node("Less", ["x", "one"], "low"), node("Cast", ["low"], to=FLOAT)],
            "condition", (0, True, 0), (2, True, 0),
        ),
        (
            [node("Not", ["mask"], "unseen"), node("Cast", ["unseen"], to=FLOAT)],
            "condition", (0, False, 0), (0, True, 0),
        ),
    ],
    ids=lambda it: it[0].op_type if isinstance(it, list) else None,
)  # fmt: skip
def test_a_condition_goes_one_way_and_the_other(
    nodes: list[onnx.NodeProto], what: str, one: Sequence[Any], other: Sequence[Any]
) -> None:
    graph = model(*nodes, one=ONE)
    name = f"{nodes[0].name} {what}"
    assert went(ran(graph)) == {name: ()}
    assert went(ran(graph, one, one)) == {name: ("yes",)}
    assert went(ran(graph, other)) == {name: ("no",)}
    assert went(ran(graph, other, one)) == {name: ("yes", "no")}


def test_elements_of_one_run_can_go_both_ways() -> None:
    found = ran(model(node("Where", ["mask", "x", "one"]), one=ONE), (0, [True, False, True], 0))
    assert found["the_y condition"].both


def test_a_row_and_another() -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    graph = model(node("Gather", ["table", "n"]), table=table)
    assert went(ran(graph, (0, True, 3), (0, True, 3))) == {"the_y row": ("one",)}
    assert went(ran(graph, (0, True, 3), (0, True, 0))) == {"the_y row": ("one", "another")}


def loop(count: str) -> list[onnx.NodeProto]:
    """Doubles x so many times, but holds it at one: a limit inside of the loop."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Add", ["held", "held"], ["twice"]),
            helper.make_node("Clip", ["twice", "", "one"], ["next"], name="limit"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("go", BOOL, []),
            helper.make_tensor_value_info("held", FLOAT, [1, 3]),
        ],
        [
            helper.make_tensor_value_info("on", BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, [1, 3]),
        ],
    )
    return [node("Loop", [count, "", "x"], body=body)]


# What a body of a loop reads: which time it is, whether to go on, what goes round.
BODY = [("i", INT64, []), ("go", BOOL, []), ("held", FLOAT, [1, 3])]


def test_a_loop_s_body_and_its_count() -> None:
    graph = model(*loop("n"), one=ONE)
    inside, count = "limit upper limit", "the_y count"
    assert went(ran(graph, (0.1, True, 2))) == {inside: ("no",), count: ("one",)}
    assert went(ran(graph, (0.1, True, 9))) == {inside: ("yes", "no"), count: ("one",)}
    assert went(ran(graph, (0.1, True, 0), (0.1, True, 2))) == {inside: ("no",), count: ("one", "another")}
    fixed = ran(model(*loop("three"), one=ONE, three=np.int64(3)), (0.1, True, 0))
    assert fixed[count].constant
    assert not fixed[inside].constant


def test_a_branch_s_conditions_are_of_that_branch() -> None:
    def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph(
            list(nodes), name, [], [helper.make_tensor_value_info(f"{name}_y", FLOAT, [1, 3])]
        )

    positive = branch("then", helper.make_node("Relu", ["x"], ["then_y"], name="relu"))
    limits = helper.make_node("Clip", ["x", "", "one"], ["else_y"], name="clip")
    nodes = [
        helper.make_node("ReduceMax", ["ints"], ["any"], keepdims=0),
        helper.make_node("Cast", ["any"], ["some"], to=BOOL),
        node("If", ["some"], then_branch=positive, else_branch=branch("else", limits)),
    ]
    graph = model(helper.make_node("Cast", ["mask"], ["ints"], to=TensorProto.INT32), *nodes, one=ONE)
    assert went(ran(graph, (2, True, 0))) == {
        "the_y condition": ("yes",), "relu lower limit": ("no",), "clip upper limit": ()
    }  # fmt: skip
    assert went(ran(graph, (2, True, 0), (2, False, 0), (-1, True, 0))) == {
        "the_y condition": ("yes", "no"), "relu lower limit": ("yes", "no"), "clip upper limit": ("yes",)
    }  # fmt: skip


def test_constants_decide_and_a_guard_guards() -> None:
    graph = model(
        node("Less", ["one", "two"], "sooner"),
        node("Not", ["never"], "always"),
        node("Or", ["mask", "always"], "overruled"),
        node("And", ["mask", "sooner"], "asked"),
        node("And", ["asked", "overruled"], "both"),
        node("IsNaN", ["x"], "lost"),
        node("Where", ["lost", "one", "x"], "kept"),
        node("Where", ["both", "kept", "two"]),
        one=ONE, two=np.float32(2), never=np.zeros((1, 3), bool),
    )  # fmt: skip
    ends = np.zeros((1, 3), bool), np.ones((1, 3), bool)
    found = ran(graph, (1, True, 0), inputs={"mask": ends})
    constant = {name for name, decision in found.items() if decision.constant}
    assert constant == {"the_sooner condition", "the_always condition", "the_overruled condition"}
    assert {name for name, decision in found.items() if decision.what == "guard"} == {
        "the_lost guard", "the_kept guard"
    }  # fmt: skip
    coverage = Coverage.of(found.values(), fixtures=1, chosen=(), asked=0.9)
    assert (coverage.both, coverage.reachable, coverage.constant, coverage.guards) == (0, 3, 3, 2)
    # A mask that is never false decides what is made of it.
    held = ran(graph, (1, True, 0), inputs={"mask": (ends[1], ends[1])})
    assert held["the_y condition"].constant
    # And without ranges no more than constants alone.
    bare = ran(graph, (1, True, 0))
    assert not bare["the_asked condition"].constant
    # A guard that has met what it guards against is a decision like any other.
    assert (
        Coverage.of(ran(graph, ([1, np.nan, 1], True, 0)).values(), fixtures=1, chosen=(), asked=0).both == 2
    )


def test_what_an_operator_never_gives_decides() -> None:
    small = {"low": np.float32(-1), "high": ONE, "half": np.float32(0.5), "lowest": np.float32(-3e38)}
    graph = model(
        node("Tanh", ["x"], "held"),
        node("Clip", ["held", "low", "high"], "wide"),
        node("Clip", ["held", "", "half"], "narrow"),
        node("ArgMax", ["x"], "place", axis=1, keepdims=1),
        node("Less", ["place", "none"], "nowhere"),
        node("Greater", ["place", "none"], "somewhere"),
        node("Equal", ["place", "third"], "last"),
        node("Less", ["x", "half"], "small"),
        node("Where", ["small", "zero", "lowest"], "added"),
        node("Equal", ["added", "gone"], "masked"),
        node("Cast", ["added"], "full", to=BOOL),
        node("Not", ["full"], "open"),
        node("Where", ["masked", "wide", "narrow"], "one"),
        node("Where", ["nowhere", "wide", "one"], "two"),
        node("Where", ["somewhere", "one", "two"], "three"),
        node("Where", ["last", "three", "wide"], "four"),
        node("Where", ["open", "four", "narrow"]),
        none=np.int64([[0]]), third=np.int64([[2]]), zero=np.float32(0), gone=np.float32(-np.inf), **small,
    )  # fmt: skip
    found = ran(graph, ([0.1, 0.2, 0.9], True, 0), ([0.9, 0.1, 0.2], True, 0))
    constant = {name for name, decision in found.items() if decision.constant}
    assert constant == {
        "the_wide lower limit", "the_wide upper limit", "the_nowhere condition", "the_masked condition",
        "the_one condition", "the_two condition",
    }  # fmt: skip
    # The others are left to the fixtures, and a first place is not above none.
    both = {name for name, decision in found.items() if decision.both}
    assert {"the_somewhere condition", "the_last condition", "the_open condition"} <= both
    assert "the_narrow upper limit" in both


def test_what_is_around_a_loop_decides_inside_of_it() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Less", ["held", "one"], ["small"], name="small"),
            helper.make_node("Where", ["small", "one", "two"], ["size"], name="size"),
            helper.make_node("Less", ["size", "none"], ["never"], name="never"),
            helper.make_node("Where", ["never", "held", "size"], ["next"], name="next"),
        ],
        "body",
        [helper.make_tensor_value_info(n, k, s) for n, k, s in BODY],
        [helper.make_tensor_value_info("on", BOOL, []), helper.make_tensor_value_info("next", FLOAT, [1, 3])],
    )
    graph = model(node("Loop", ["n", "", "x"], body=body), one=ONE, two=np.float32(2), none=np.float32(0))
    found = ran(graph, (0.1, True, 3))
    assert {name for name, decision in found.items() if decision.constant} == {
        "never condition", "next condition"
    }  # fmt: skip
    assert found["small condition"].both
    # Of what goes round in the loop nothing is known, though it has the name of something around it.
    for name in ("one", "two"):
        shadowed = onnx.ModelProto.FromString(graph)
        inner = shadowed.graph.node[0].attribute[0].g
        inner.input[2].name = name
        for each in inner.node:
            each.input[:] = [name if read == "held" else read for read in each.input]
        again = ran(shadowed.SerializeToString(), (0.1, True, 3))
        assert not again["never condition"].constant


def test_weights_stay_beside_the_file(tmp_path: Path) -> None:
    made = onnx.load_model_from_string(
        model(node("Add", ["x", "w"], "moved"), node("Relu", ["moved"]), w=np.full((1, 3), 2, np.float32))
    )
    onnx.save(made, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    watched = OnnxRunner(tmp_path / "m.onnx").watching()
    with watched:
        watched.run(
            {"x": np.full((1, 3), -1, np.float32), "mask": np.ones((1, 3), bool), "n": np.int64(0)[()]}
            | {"n": np.asarray(0, np.int64)}
        )
    assert [(d.node, d.went) for d in watched.decisions] == [("the_y", ("no",))]


def test_what_cannot_be_watched_says_why() -> None:
    with pytest.raises(RunnerError, match="from opset 13 on, and this graph has 12"):
        OnnxRunner(model(node("Relu", ["x"]), opset=12)).watching()
    with pytest.raises(RunnerError, match="is no ONNX model"):
        OnnxRunner(b"\0 no model").watching()


@pytest.mark.parametrize(
    ("one_way", "share"), [(0, "100.0 %"), (1, "99.9 %"), (10, "99.9 %"), (334, "96.8 %")]
)
def test_a_share_is_not_all_while_one_went_one_way(one_way: int, share: str) -> None:
    found = Coverage((ModuleCoverage("", 9_999, one_way, 0, 0),), fixtures=3, asked=1.0)
    assert f"in 3 fixtures ({share})" in found.text
    assert [share in refusal for refusal in found.refusals] == [True] * bool(one_way)
