"""One decision of a graph flipped or frozen: what five fixtures let pass, coverage refuses."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from decision_operators import decision_mutants
from onnx import TensorProto, helper, numpy_helper

from pytest_reflex import InputSpec, check
from pytest_reflex.inputs import State
from pytest_reflex.runners import FunctionRunner, OnnxRunner

pytestmark = pytest.mark.once
INPUTS = [InputSpec("x", (1, 6), meaning=State()), InputSpec("y", (1, 6), meaning=State())]
FAR = np.float32(5.5)


def honest(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Each kind of decision, and one that only a corner takes: all of x at its upper end."""
    total = np.float32(x.sum())
    held = np.clip(x, np.float32(-0.5), np.float32(0.5))
    larger = np.maximum(held, y)
    return {"actions": np.where(total > FAR, larger + 1, larger) + np.maximum(x, 0)}


def graph() -> bytes:
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "far"], ["all_up"], name="greater"),
        helper.make_node("Clip", ["x", "low", "high"], ["held"], name="clip"),
        helper.make_node("Max", ["held", "y"], ["larger"], name="max"),
        helper.make_node("Add", ["larger", "one"], ["more"]),
        helper.make_node("Where", ["all_up", "more", "larger"], ["chosen"], name="where"),
        helper.make_node("Relu", ["x"], ["above"], name="relu"),
        helper.make_node("Add", ["chosen", "above"], ["actions"]),
    ]
    constants = {"far": FAR, "low": np.float32(-0.5), "high": np.float32(0.5), "one": np.float32(1)}
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 6]) for name in ("x", "y")]
    made = [helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, 6])]
    whole = helper.make_graph(nodes, "decisions", given, made, weights)
    return bytes(
        helper.make_model(
            whole, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
        ).SerializeToString()
    )


def passes(data: bytes, **options: object) -> bool:
    reference = FunctionRunner(honest, name="reference")
    return check(reference, OnnxRunner(data, name="mutant"), inputs=INPUTS, **options).passed


def test_every_decision_is_flipped_and_frozen_and_coverage_kills_what_five_fixtures_do_not() -> None:
    assert passes(graph(), coverage="95%")
    mutants = decision_mutants(graph())
    kinds = Counter(where.partition(" ")[0] for where, _ in mutants)
    assert kinds == {"Greater": 3, "Where": 3, "Max": 3, "Relu": 2, "Clip": 2}
    plain = {where for where, make in mutants if passes(make())}
    wide = {where for where, make in mutants if passes(make(), coverage="95%")}
    # Nothing but a corner has all of x above.
    assert plain == {"Greater greater, condition: always no", "Where where, condition: always no"}
    assert wide == set()


def test_a_mutant_is_a_graph_with_one_change() -> None:
    for where, make in decision_mutants(graph()):
        changed = onnx.ModelProto.FromString(make())
        onnx.checker.check_model(changed)
        assert changed.SerializeToString() != graph(), where
        more = len(changed.graph.node) - len(onnx.ModelProto.FromString(graph()).graph.node)
        assert more in (0, 1, 2), where


def test_decisions_inside_of_a_loop_are_changed_there() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Less", ["carried", "limit"], ["small"], name="less"),
            helper.make_node("Where", ["small", "grown", "carried"], ["next"], name="inside"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, [1, 6]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [1, 6]),
        ],
    )
    nodes = [
        helper.make_node("Add", ["x", "one"], ["grown"]),
        helper.make_node("Loop", ["times", "", "x"], ["actions"], body=body, name="loop"),
    ]
    constants = {"one": np.float32(1), "limit": np.float32(0), "times": np.int64(2)}
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 6]) for name in ("x", "actions")]
    whole = helper.make_graph(nodes, "looped", ends[:1], ends[1:], weights)
    made = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    mutants = dict(decision_mutants(made.SerializeToString()))
    assert len(mutants) == 6
    given = np.float32([[-1, -0.5, 0.5, 1, -2, 2]])

    def run(data: bytes) -> list[float]:
        with OnnxRunner(data, name="looped") as runner:
            return list(runner.run({"x": given})["actions"].ravel().tolist())

    assert run(made.SerializeToString()) == [0, 0.5, 0.5, 1, -1, 2]
    assert run(mutants["Where inside, condition: always no"]()) == given.ravel().tolist()
    assert run(mutants["Less less, condition: flipped"]()) == [-1, -0.5, 1.5, 2, -2, 3]
