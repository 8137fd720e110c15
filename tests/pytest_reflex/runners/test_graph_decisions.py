"""Every kind of decision is counted in the graph that makes it, and told apart where no input can turn it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from decision_cases import BOOL, FLOAT, INT64, model, node, ran, went
from onnx import TensorProto, helper, numpy_helper

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners import OnnxRunner
from pytest_reflex.runners.graph_counting import Added
from pytest_reflex.runners.graph_decisions import decisions_of
from pytest_reflex.verdict.coverage import Coverage, ModuleCoverage

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


@pytest.mark.parametrize(("op", "sign"), [("Max", 1), ("Min", -1)])
def test_of_three_each_wins_and_is_beaten(op: str, sign: int) -> None:
    """So that the second against the third is a choice too, where the first loses to both."""
    graph = model(node("Cast", ["n"], "third", to=FLOAT), node(op, ["x", "one", "third"]), one=ONE * sign)

    def ways(*fixtures: tuple[float, int]) -> list[tuple[str, ...]]:
        watched = OnnxRunner(graph).watching()
        with watched:
            for x, n in fixtures:
                watched.run(
                    {
                        "x": np.full((1, 3), sign * x, np.float32),
                        "mask": np.ones((1, 3), bool),
                        "n": np.asarray(sign * n),
                    }
                )
            return [one.went for one in watched.decisions]

    # Whether each is beaten: x, one, third.
    assert ways((3, 0), (0, 0)) == [("yes", "no"), ("yes", "no"), ("yes",)]
    assert ways((3, 0), (0, 0), (0, 2)) == [("yes", "no")] * 3
    held = model(node("Tanh", ["x"], "held"), node("Max", ["held", "two", "one"]), one=ONE, two=ONE * 2)
    assert all(one.constant for one in decisions_of(held).found)


QUANTISED = {"step": np.float32(0.1), "middle": np.int8(-28), "one": ONE}


@pytest.mark.parametrize("axis", [False, True])
def test_what_a_small_type_does_not_hold(axis: bool) -> None:
    """From -10 to 15.5, and half a step beyond."""
    held = dict(QUANTISED)
    if axis:
        held |= {"step": np.full(3, 0.1, np.float32), "middle": np.full(3, -28, np.int8)}
    graph = model(
        node("QuantizeLinear", ["x", "step", "middle"], "small"),
        node("DequantizeLinear", ["small", "step", "middle"]), **held,
    )  # fmt: skip
    low, high = "the_small lower limit", "the_small upper limit"
    for x in ([15.5, -10, 0], [15.54, -10.04, 0]):
        assert went(ran(graph, (x, True, 0))) == {low: ("no",), high: ("no",)}
    assert went(ran(graph, ([15.6, 0, 0], True, 0))) == {low: ("no",), high: ("yes", "no")}
    assert went(ran(graph, ([0, -10.1, 0], True, 0))) == {low: ("yes", "no"), high: ("no",)}


def test_a_quantised_graph_has_one_limit_at_each_end() -> None:
    nodes = [
        node("Tanh", ["x"], "never"),
        *(node("QuantizeLinear", [name, "step", "middle"], f"small_{name}") for name in ("x", "never")),
        *(
            node("DequantizeLinear", [f"small_{name}", "step", "middle"], name + "2")
            for name in ("x", "never")
        ),
        node("Add", ["x2", "never2"], "sum"),
        node("QuantizeLinear", ["sum", "step", "middle"], "small_sum"),
        node("QuantizeLinear", ["x2", "step", "middle"], "again"),
        *(node("DequantizeLinear", [name, "step", "middle"], name + "3") for name in ("small_sum", "again")),
        node("Add", ["small_sum3", "again3"]),
    ]
    found = ran(model(*nodes, **QUANTISED), (15.2, True, 0))
    # What comes of a quantised tensor by the same steps is never held, nor is Tanh.
    ends = ("lower", "upper")
    assert {name: one.constant for name, one in found.items()} == {
        **{f"the_{name} {end} limit": True for name in ("small_never", "again") for end in ends},
        **{f"the_small_x and 1 more {end} limit": False for end in ends},
    }
    assert found["the_small_x and 1 more upper limit"].both
    assert not found["the_small_x and 1 more lower limit"].both


def with_domain(*nodes: onnx.NodeProto, **held: Any) -> bytes:
    made = onnx.load_model_from_string(model(*nodes, **held))
    for domain in ("com.microsoft", "own"):
        made.opset_import.append(helper.make_opsetid(domain, 1))
    return made.SerializeToString()


def test_an_operator_that_nobody_knows_is_named() -> None:
    for domain, op, more in (
        ("own", "Relu6", {}),
        ("com.microsoft", "FusedGemm", {"activation": "HardSigmoid"}),
        ("com.microsoft", "QLinearAdd", {}),
        ("", "QLinearMatMul", {}),
    ):
        with pytest.raises(RunnerError, match=rf"what {op} the_y .*is not known"):
            decisions_of(with_domain(node(op, ["x", "x"], domain=domain, **more)))
    plain = node("FusedMatMul", ["x", "x"], domain="com.microsoft", transB=1)
    assert decisions_of(with_domain(plain)).found == []


def test_a_fused_limit_is_counted() -> None:
    fused = {"domain": "com.microsoft", "activation": "Relu"}
    graph = with_domain(node("FusedGemm", ["x", "w"], **fused), w=np.eye(3, dtype=np.float32))
    name = "the_y lower limit"
    assert went(ran(graph, (1, True, 0))) == went(ran(graph, (0, True, 0))) == {name: ("no",)}
    assert went(ran(graph, ([1, -1, 1], True, 0))) == {name: ("yes", "no")}


def test_names_of_a_graph_s_own_stay_its_own() -> None:
    graph = model(node("Relu", ["x"], "reflex_watch/0"), node("Relu", ["reflex_watch/0"]))
    assert ran(graph, (-1, True, 0))["the_reflex_watch/0 lower limit"].went == ("yes",)


def test_what_has_no_element_decides_nothing() -> None:
    nodes = [
        node("Slice", ["x", "three", "three", "last"], "none"), node("Relu", ["none"], "above"),
        node("Concat", ["x", "above"], axis=1),
    ]  # fmt: skip
    (found,) = ran(model(*nodes, three=np.int64([3]), last=np.int64([1])), (1, True, 0)).values()
    assert found.constant


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_large_whole_numbers_are_compared_as_such(kind: type) -> None:
    """Beyond 2**53 neighbours are one in float64."""
    number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    nodes = [node("Cast", ["n"], "large", to=number), node("Max", ["large", "most"], "chosen")]
    graph = model(*nodes, node("Cast", ["chosen"], to=FLOAT), most=np.asarray(2**60, kind))
    for more, way in ((0, "no"), (1, "no"), (-1, "yes")):
        assert ran(graph, (0, True, 2**60 + more))["the_chosen choice"].went == (way,)


def test_large_numbers_of_a_type_that_is_not_known_are_compared_as_such() -> None:
    added = Added((f"added{number}" for number in range(20)), 20)
    below = added.below("n", "most", 0)
    graph = model(*added.nodes, node("Cast", [below], to=FLOAT), most=np.int64(2**60))
    with OnnxRunner(graph) as runner:
        given = {"x": np.zeros((1, 3), np.float32), "mask": np.ones((1, 3), bool)}
        found = [runner.run({**given, "n": np.asarray(2**60 + more)})["y"].item() for more in (-1, 0, 1)]
    assert found == [1, 0, 0]


def test_elements_of_one_run_can_go_both_ways() -> None:
    found = ran(model(node("Where", ["mask", "x", "one"]), one=ONE), (0, [True, False, True], 0))
    assert found["the_y condition"].both


def test_a_row_and_another() -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    graph = model(node("Gather", ["table", "n"]), table=table)
    assert went(ran(graph, (0, True, 3), (0, True, 3))) == {"the_y row": ("one",)}
    assert went(ran(graph, (0, True, 3), (0, True, 0))) == {"the_y row": ("one", "another")}


def test_a_row_counted_from_the_end_is_the_same_row() -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    graph = model(node("Gather", ["table", "n"]), table=table)
    assert went(ran(graph, (0, True, 1), (0, True, -3))) == {"the_y row": ("one",)}
    wide = model(node("Gather", ["table", "n"], axis=-1), table=table)
    assert went(ran(wide, (0, True, 2), (0, True, -1))) == {"the_y row": ("one",)}
    assert went(ran(wide, (0, True, 2), (0, True, -2))) == {"the_y row": ("one", "another")}


def test_a_table_is_one_wherever_its_constants_are() -> None:
    held = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3))
    for nodes in (
        [helper.make_node("Constant", [], ["table"], value=held)],
        [helper.make_node("Constant", [], ["held"], value=held), node("Identity", ["held"], "table")],
    ):
        found = ran(model(*nodes, node("Gather", ["table", "n"])), (0, True, 3), (0, True, 0))
        assert went(found) == {"the_y row": ("one", "another")}


@pytest.mark.parametrize(
    ("op", "attributes", "limits"),
    [
        ("LeakyRelu", {}, {"lower": 0}),
        ("Elu", {}, {"lower": 0}),
        ("Selu", {}, {"lower": 0}),
        ("Celu", {}, {"lower": 0}),
        ("PRelu", {}, {"lower": 0}),
        ("ThresholdedRelu", {"alpha": 2.0}, {"lower": 2}),
        ("HardSwish", {}, {"lower": -3, "upper": 3}),
        ("HardSigmoid", {}, {"lower": -2.5, "upper": 2.5}),
        ("HardSigmoid", {"alpha": -0.25, "beta": 0.0}, {"lower": -4, "upper": 0}),
        ("Shrink", {"lambd": 1.0}, {"lower": -1, "upper": 1}),
    ],
)
def test_an_operator_of_two_branches_has_limits(
    op: str, attributes: dict[str, float], limits: dict[str, float]
) -> None:
    graph = model(node(op, ["x", "slope"] if op == "PRelu" else ["x"], **attributes), slope=np.float32([0.1]))
    inside, below = (
        ran(graph, (0.01 + limits["lower"], True, 0)),
        ran(graph, (limits["lower"] - 0.01, True, 0)),
    )
    assert set(went(inside)) == {f"the_y {end} limit" for end in limits}
    assert inside["the_y lower limit"].went == ("no",)
    assert below["the_y lower limit"].went == ("yes",)
    if "upper" in limits:
        assert ran(graph, (limits["upper"] + 0.01, True, 0))["the_y upper limit"].went == ("yes",)
        assert inside["the_y upper limit"].went == ("no",)


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


def test_a_loop_that_may_stop_sooner_has_a_count() -> None:
    def body(ends: str) -> onnx.GraphProto:
        return helper.make_graph(
            [
                helper.make_node("Add", ["held", "one"], ["next"]),
                helper.make_node("ReduceMin", ["next"], ["least"], keepdims=0),
                helper.make_node("Cast", ["least"], ["on"], to=BOOL),
                helper.make_node("Identity", ["go"], ["same"]),
                helper.make_node(
                    "Constant", [], ["always"], value=numpy_helper.from_array(np.bool_(True)[...])
                ),
                helper.make_node("Identity", ["true"], ["outside"]),
            ],
            "body",
            [helper.make_tensor_value_info(n, k, s) for n, k, s in BODY],
            [
                helper.make_tensor_value_info(ends, BOOL, []),
                helper.make_tensor_value_info("next", FLOAT, [1, 3]),
            ],
        )

    held = {"one": ONE, "nine": np.int64(9), "true": np.bool_(True)}
    sooner = model(node("Loop", ["nine", "true", "x"], body=body("on")), **held)
    assert went(ran(sooner, (1, True, 0))) == {"the_y count": ("one",)}
    assert went(ran(sooner, (1, True, 0), (-3, True, 0))) == {"the_y count": ("one", "another")}
    endless = model(node("Loop", ["", "true", "x"], body=body("on")), **held)
    assert went(ran(endless, (-4, True, 0), (-3, True, 0))) == {"the_y count": ("one", "another")}
    for count, begins, ends, constant in (
        ("nine", "true", "same", True),
        ("nine", "", "same", True),
        ("nine", "true", "always", True),
        ("nine", "true", "outside", True),
        ("n", "true", "same", False),
    ):
        found = ran(model(node("Loop", [count, begins, "x"], body=body(ends)), **held), (1, True, 2))
        assert found["the_y count"].constant == constant
        assert found["the_y count"].went == ("one",)


def test_a_scan_s_body_is_looked_into() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Greater", ["each", "one"], ["large"], name="large"),
            helper.make_node("Where", ["large", "one", "each"], ["held"], name="held"),
            helper.make_node("Gather", ["table", "times"], ["read"], name="read"),
            helper.make_node("Add", ["times", "step"], ["later"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("times", INT64, []),
            helper.make_tensor_value_info("each", FLOAT, [3]),
        ],
        [
            helper.make_tensor_value_info("later", INT64, []),
            helper.make_tensor_value_info("held", FLOAT, [3]),
            helper.make_tensor_value_info("read", FLOAT, []),
        ],
    )
    for more in ({}, {"scan_output_axes": [1, 0], "scan_output_directions": [1, 0]}):
        scan = helper.make_node(
            "Scan", ["n", "x"], ["last", "y", "rows"], body=body, num_scan_inputs=1, **more
        )
        graph = model(scan, one=ONE, step=np.int64(1), table=np.float32([1, 2, 3]))
        inside = {"large condition": ("no",), "held condition": ("no",), "read row": ("one",)}
        assert went(ran(graph, (0, True, 0))) == inside
        both = ("yes", "no")
        assert went(ran(graph, (0, True, 0), (2, True, 1))) == {
            "large condition": both, "held condition": both, "read row": ("one", "another")
        }  # fmt: skip


def test_a_loop_inside_of_a_branch_inside_of_a_scan() -> None:
    """Whose graphs have to say how large what they give is."""

    def stated(name: str, kind: int = FLOAT) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, [])

    body = helper.make_graph(
        [
            helper.make_node("Relu", ["held"], ["above"], name="relu"),
            helper.make_node("Add", ["above", "one"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [stated("i", INT64), stated("go", BOOL), stated("held")], [stated("on", BOOL), stated("next")],
    )  # fmt: skip
    branches = {
        "then_branch": helper.make_graph(
            [helper.make_node("Loop", ["twice", "", "each"], ["most"], body=body, name="loop")],
            "then", [], [stated("most")],
        ),
        "else_branch": helper.make_graph(
            [helper.make_node("Identity", ["each"], ["same"])], "else", [], [stated("same")]
        ),
    }  # fmt: skip
    inside = helper.make_graph(
        [
            helper.make_node("Less", ["each", "zero"], ["low"], name="low"),
            helper.make_node("If", ["low"], ["made"], name="if", **branches),
            helper.make_node("Identity", ["times"], ["later"]),
        ],
        "inside", [stated("times", INT64), stated("each")], [stated("later", INT64), stated("made")],
    )  # fmt: skip
    nodes = [
        node("Squeeze", ["x", "first"], "row"),
        helper.make_node("Scan", ["n", "row"], ["last", "y"], body=inside, num_scan_inputs=1),
    ]
    graph = model(*nodes, one=ONE, zero=ONE * 0, twice=np.int64(2), first=np.int64([0]))
    both = ("yes", "no")
    assert went(ran(graph, ([-1, 0, 1], True, 0))) == {
        "low condition": both, "if condition": both, "relu lower limit": both, "loop count": ("one",)
    }  # fmt: skip


def test_what_is_inside_of_no_loop_or_branch_is_refused() -> None:
    """Rather than left out of the share."""
    body = helper.make_graph(
        [helper.make_node("Relu", ["each"], ["held"])],
        "body",
        [helper.make_tensor_value_info("each", FLOAT, None)],
        [helper.make_tensor_value_info("held", FLOAT, None)],
    )
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "x"], ["several"]),
        helper.make_node("SequenceMap", ["several"], ["mapped"], body=body, name="mapped"),
        helper.make_node("ConcatFromSequence", ["mapped"], ["y"], axis=0),
    ]
    with pytest.raises(RunnerError, match="the decisions inside of SequenceMap mapped cannot be watched"):
        OnnxRunner(model(*nodes)).watching()


def test_rows_inside_of_a_branch_and_of_a_loop() -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Gather", ["table", "i"], ["row"], name="read"),
            helper.make_node("Add", ["held", "row"], ["next"]),
        ],
        "body",
        [helper.make_tensor_value_info(n, k, s) for n, k, s in BODY],
        [helper.make_tensor_value_info("on", BOOL, []), helper.make_tensor_value_info("next", FLOAT, [1, 3])],
    )
    graph = model(node("Loop", ["n", "", "x"], body=body), table=table)
    assert went(ran(graph, (0, True, 0))) == {"read row": (), "the_y count": ("one",)}
    assert went(ran(graph, (0, True, 1))) == {"read row": ("one",), "the_y count": ("one",)}
    assert went(ran(graph, (0, True, 0), (0, True, 2)))["read row"] == ("one", "another")
    for opset in (17, 20):
        branches = {
            f"{name}_branch": helper.make_graph(
                nodes, name, [], [helper.make_tensor_value_info(f"{name}_y", FLOAT, [3])]
            )
            for name, nodes in (
                ("then", [helper.make_node("Gather", ["table", "n"], ["then_y"], name="then")]),
                ("else", [helper.make_node("Gather", ["table", "zero"], ["else_y"], name="else")]),
            )
        }
        nodes = [
            helper.make_node("Greater", ["n", "one"], ["later"], name="later"),
            node("If", ["later"], **branches),
        ]
        chosen = model(*nodes, opset=opset, table=table, one=np.int64(1), zero=np.int64(0))
        assert went(ran(chosen, (0, True, 0)))["then row"] == ()
        assert went(ran(chosen, (0, True, 0), (0, True, 2)))["then row"] == ("one",)
        assert went(ran(chosen, (0, True, 3), (0, True, 2)))["then row"] == ("one", "another")


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
    ("one_way", "share"), [(0, "100.0 %"), (1, "99.9 %"), (10, "99.9 %"), (334, "96.7 %")]
)
def test_a_share_is_not_all_while_one_went_one_way(one_way: int, share: str) -> None:
    found = Coverage((ModuleCoverage("", 9_999, one_way, 0, 0),), fixtures=3, asked=1.0)
    assert f"in 3 fixtures looked at ({share})" in found.text
    assert [share in refusal for refusal in found.refusals] == [True] * bool(one_way)


def test_a_constant_mask_of_both_kinds_contradicts_nothing() -> None:
    graph = model(node("Where", ["causal", "x", "one"]), one=ONE, causal=np.asarray([[True, False, True]]))
    (only,) = ran(graph, (0, True, 0), (1, False, 0)).values()
    assert only.constant
    assert not only.both
    looked = Coverage.of([only], fixtures=2, chosen=(), asked=1.0)
    assert (looked.unknown, looked.reachable, looked.constant) == ("", 0, 1)
