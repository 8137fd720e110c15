"""One small policy, as a module, as an ONNX model and as a function, right and wrong."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from pytest_reflex.inputs import Bernoulli, InputSpec
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import OnnxRunner, RunnerBase

SPECS = [InputSpec("x", (1, 8)), InputSpec("mask", (1, 8), "bool", Bernoulli())]


class Policy(nn.Module):
    """2x + 0.5, and 0 where the mask is false."""

    def forward(self, x, mask):
        return {"actions": torch.where(mask, 2 * x + 0.5, torch.zeros_like(x))}


def policy_model(offset: float = 0.5, masked: bool = True) -> bytes:
    """The same in ONNX; without ``masked`` it takes the mask and ignores it."""
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["moved"]),
        helper.make_node("Where", ["mask", "moved", "zero"], ["actions"])
        if masked
        else helper.make_node("Identity", ["moved"], ["actions"]),
    ]
    constants = {"two": 2.0, "offset": offset, "zero": 0.0}
    graph = helper.make_graph(
        nodes,
        "policy",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8]),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, [1, 8]),
        ],
        [helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def candidate(**changes) -> OnnxRunner:
    return OnnxRunner(policy_model(**changes), name="candidate")


class Function(RunnerBase):
    """A runner around a function of the inputs."""

    def __init__(self, function, name="function", **facts):
        self.name, self.function, self.given, self.opened = name, function, facts, 0

    def open(self):
        self.opened += 1

    def run(self, inputs):
        return self.function(**inputs)

    def close(self):
        self.opened -= 1

    def facts(self):
        return {"kind": "function", **self.given}


def honest(x, mask):
    return {"actions": np.where(mask, np.float32(2) * x + np.float32(0.5), np.float32(0))}


def unmasked(x, mask):
    return {"actions": np.float32(2) * x + np.float32(0.5)}


def only_refusal(result: ParityResult, gate: str) -> str:
    """Why the run failed, when it failed for this one reason."""
    assert not result.passed
    (idx, answer), *more = result.refusals
    assert not more
    assert (idx, answer.gate) == (None, gate)
    return answer.said
