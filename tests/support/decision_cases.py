"""Graphs of a few nodes, and the decisions that runs of them took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pytest_reflex.runners import OnnxRunner
from pytest_reflex.verdict.coverage import Decision

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
