"""Where a node comes from: its module and its line, in a bundle's graph and in one that torch wrote alone."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from pytest_reflex import InputSpec, check
from pytest_reflex.runners.graph_origin import line_of, module_of, said_of

SCOPES, STACK = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.stack_trace"


class Turns(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.arm = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.arm(x)
        return torch.where(x.sum() > 1e3, y * 2, y)


LINE = Turns.forward.__code__.co_firstlineno + 2


@pytest.mark.parametrize(
    ("stack", "line"),
    [
        ("", ""),
        ("tracing.py:62 in forward\ntorch.py:143 in forward", ""),
        (
            "tracing.py:62 in forward\nbr.py:7 in forward\ntorch/nn/modules/linear.py:134 in forward",
            "br.py:7",
        ),
        (
            "exporters/graph/halves.py:3 in f\ntransformers/models/x/y.py:8 in g",
            "transformers/models/x/y.py:8",
        ),
        ('File "/home/me/arm/policy.py", line 5, in forward\n    return x\n', "policy.py:5"),
        ('  File "C:\\arm\\policy.py", line 5, in forward', "policy.py:5"),
        (
            'File "/x/pytest_reflex/policy.py", line 5, in forward\n'
            'File "/v/site-packages/torch/nn/linear.py", line 1, in f',
            "policy.py:5",
        ),
        ('File "/v/lib/site-packages/transformers/a.py", line 5, in f', "transformers/a.py:5"),
        ("no frame at all", ""),
    ],
)
def test_the_innermost_line_of_the_policy_s_own(stack: str, line: str) -> None:
    assert line_of({STACK: stack}) == line


@pytest.mark.parametrize(
    ("scopes", "module"),
    [
        ("['', 'owner', 'owner.arm', 'linear']", "arm"),
        ("['', 'owner', 'gt']", ""),
        ("['', 'arm.layers.0', 'gt']", "arm.layers.0"),
        ("[]", ""),
        ("[", ""),
        ("7", ""),
    ],
)
def test_the_module_as_pytorch_names_it(scopes: str, module: str) -> None:
    assert module_of({SCOPES: scopes}) == module


def test_a_decision_that_was_never_asked_names_its_line(tmp_path: Path) -> None:
    torch.manual_seed(0)
    policy = Turns().eval()
    file = tmp_path / "turns.onnx"
    names = {"input_names": ["x"], "output_names": ["y"]}
    torch.onnx.export(policy, (torch.zeros(1, 4),), file, dynamo=True, **names)
    nodes = onnx.load(file).graph.node
    assert {(module_of(said), line_of(said)) for said in map(said_of, nodes)} >= {
        ("arm", f"test_graph_origin.py:{LINE - 1}"),
        ("", f"test_graph_origin.py:{LINE}"),
    }
    result = check(policy, file, [InputSpec("x", (1, 4))], coverage=1.0)
    assert result.coverage is not None
    assert {decision.source for decision in result.coverage.missed} == {f"test_graph_origin.py:{LINE}"}
    assert f"(test_graph_origin.py:{LINE}), condition: never true" in str(result)
