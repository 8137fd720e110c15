"""What torch cannot trace or convert is said in three lines: the cause, the model's own line, the way out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import nn

from exporters.graph.tracing import trace
from pytest_reflex.errors import TracingError

Forward = Callable[[nn.Module, torch.Tensor], torch.Tensor]


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(x.detach().numpy() * 2)


@torch.library.custom_op("reflex_tests::without_a_fake", mutates_args=())
def without_a_fake(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@torch.library.custom_op("reflex_tests::with_a_fake", mutates_args=())
def with_a_fake(x: torch.Tensor) -> torch.Tensor:
    return x * 3


with_a_fake.register_fake(torch.empty_like)


def branch(policy, x):
    if x.sum() > 0:
        return policy.linear(x)
    return x


def loop(policy, x):
    while x.abs().max() > 1:
        x = x * 0.5
    return x


def assertion(policy, x):
    assert x.abs().max() < 100
    return policy.linear(x)


def rows(policy, x):
    return x[[i for i in range(2) if x[i, 0] > 0]]


def found_rows(policy, x):
    found = (x > 0).nonzero()
    return found.view(2, -1)


def enough_rows(policy, x):
    found = (x > 0).nonzero()
    if found.shape[0] > 2:
        return found * 1.0
    return x


def length(policy, x):
    return x.new_zeros(int(x.sum().item()))


def count(policy, x):
    for _ in range(int(x[0, 0].abs() * 3)):
        x = x + 1
    return x


def numpy_call(policy, x):
    return torch.from_numpy(x.numpy() * 2)


def numpy_function(policy, x):
    return torch.tensor(np.sin(x))


def function_in_numpy(policy, x):
    return Twice.apply(x)


def median(policy, x):
    return x.median(-1).values


def singular_values(policy, x):
    return torch.linalg.svd(x).S


def eigenvalues(policy, x):
    return torch.linalg.eigvals(x @ x.T).real


def factor(policy, x):
    return torch.linalg.cholesky(x @ x.T + torch.eye(2))


def bessel(policy, x):
    return torch.special.bessel_j0(x)


def own_operator(policy, x):
    return torch.ops.reflex_tests.without_a_fake(x)


def own_operator_in_onnx(policy, x):
    return torch.ops.reflex_tests.with_a_fake(x)


def gradient(policy, x):
    with torch.enable_grad():
        x = x.requires_grad_()
        return torch.autograd.grad(policy.linear(x).sum(), x)[0]


def wrong_shape(policy, x):
    return policy.linear(x.T)


def no_such_part(policy, x):
    return policy.decoder(x)


def no_such_key(policy, x):
    return x + {}["scale"]


def fixed(policy, x):
    return policy.linear(x).reshape(3, 2, 2)


def of_a_module(forward: Forward) -> nn.Module:
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": forward(self, x)}

    return Policy().eval()


EXPORT, ONNX = "torch.export could not trace Policy: ", "torch.onnx could not convert Policy: "
VALUES = "what it does next depends on the values of a tensor, and a graph has one way"
OTHER_WAY = (
    "write a branch with torch.where or torch.cond, and a loop with a fixed count; leave out an assert"
)
LATE = "what it does next depends on a size that is known only when it runs "
SIZE = "a size or a count depends on the values of a tensor "
SHAPES = "take it from shapes, or take the largest and mask what is too much"
NUMPY = "it leaves torch for numpy, where nothing can be traced"
OPERATORS = "write it with torch's operators; what depends on no input can be a buffer"
# The program that is converted knows the lines of modules alone.
OF_THE_MODULE = 'return {"y": forward(self, x)}'
ELSEWISE = "compute it by other operators there"
# What fails, the cause, the source line that is quoted, and the way out.
CASES: dict[Forward, tuple[str, str, str | None]] = {
    branch: (EXPORT + VALUES, "if x.sum() > 0:", OTHER_WAY),
    loop: (EXPORT + VALUES, "while x.abs().max() > 1:", OTHER_WAY),
    assertion: (EXPORT + VALUES, "assert x.abs().max() < 100", OTHER_WAY),
    rows: (EXPORT + VALUES, "return x[[i for i in range(2) if x[i, 0] > 0]]", OTHER_WAY),
    found_rows: (
        EXPORT + LATE + "(2*u0 < 2)",
        "return found.view(2, -1)",
        "say before it which it is: torch._check(2*found.shape[0] < 2) or "
        "torch._check(2*found.shape[0] >= 2)",
    ),
    enough_rows: (
        EXPORT + LATE + "(u0 > 2)",
        "if found.shape[0] > 2:",
        "do without the branch, or say before it which way it goes with torch._check(...)",
    ),
    length: (EXPORT + SIZE + "(TruncToInt(zuf0))", "return x.new_zeros(int(x.sum().item()))", SHAPES),
    count: (EXPORT + SIZE + "(zuf0)", "for _ in range(int(x[0, 0].abs() * 3)):", SHAPES),
    numpy_call: (EXPORT + NUMPY, "return torch.from_numpy(x.numpy() * 2)", OPERATORS),
    numpy_function: (EXPORT + NUMPY, "return torch.tensor(np.sin(x))", OPERATORS),
    function_in_numpy: (EXPORT + NUMPY, "return torch.from_numpy(x.detach().numpy() * 2)", OPERATORS),
    median: (ONNX + "torch.onnx has no translation of aten.median.dim", OF_THE_MODULE, ELSEWISE),
    singular_values: (
        ONNX + "torch.onnx has no translation of aten._linalg_svd",
        OF_THE_MODULE,
        ELSEWISE,
    ),
    eigenvalues: (
        ONNX + "torch.onnx has no translation of aten.linalg_eig",
        OF_THE_MODULE,
        ELSEWISE,
    ),
    factor: (
        ONNX + "torch.onnx has no translation of aten.linalg_cholesky_ex",
        OF_THE_MODULE,
        ELSEWISE,
    ),
    bessel: (
        ONNX + "torch.onnx has no translation of prims.bessel_j0",
        OF_THE_MODULE,
        ELSEWISE,
    ),
    own_operator: (
        EXPORT + "torch does not know what shape the custom operator reflex_tests::without_a_fake gives",
        "return torch.ops.reflex_tests.without_a_fake(x)",
        "register it: without_a_fake.register_fake",
    ),
    own_operator_in_onnx: (
        ONNX + "torch.onnx has no translation of reflex_tests.with_a_fake",
        OF_THE_MODULE,
        ELSEWISE,
    ),
    wrong_shape: (
        EXPORT + "RuntimeError: a and b must have same reduction dim, but got [4, 2] X [4, 4].",
        "return policy.linear(x.T)",
        None,
    ),
    no_such_part: (
        EXPORT + "AttributeError: 'Policy' object has no attribute 'decoder'",
        "return policy.decoder(x)",
        None,
    ),
    no_such_key: (EXPORT + "KeyError: 'scale'", 'return x + {}["scale"]', None),
}


def message(
    forward: Forward, size: int = 2, free: Mapping[str, Sequence[str | None]] | None = None
) -> list[str]:
    module = of_a_module(forward)
    with pytest.raises(TracingError) as raised:
        trace(module, module.forward, {"x": torch.ones(size, 4)}, free=free or {})
    return str(raised.value).splitlines()


@pytest.mark.parametrize("forward", CASES, ids=lambda forward: forward.__name__)
def test_the_cause_the_line_and_the_way_out(forward: Forward, capfd: pytest.CaptureFixture[str]) -> None:
    cause, source, way_out = CASES[forward]
    told = message(forward)
    assert len(told) <= 3
    where = told.pop(1)
    assert told == [cause, *([f"  {way_out}"] if way_out else [])]
    assert where.startswith(f"  at {__file__}:")
    assert where.endswith(f": {source}")
    # Torch prints the graph so far, and logs what it tried; the three lines say it.
    assert capfd.readouterr() == ("", "")


def test_a_gradient_inside_has_no_line_of_its_own() -> None:
    assert message(gradient) == [
        EXPORT + "it takes a gradient, or keeps a tensor from another trace",
        "  compute the gradient in closed form, and keep no tensors of a run as attributes",
    ]


def test_a_free_size_that_the_model_fixes() -> None:
    assert message(fixed, 3, {"x": ["batch", None]}) == [
        EXPORT + "the size of batch is free, and the model fixes it to 3",
        "  write x.shape[0] or -1 where it has a number, or leave the axis fixed",
    ]


def test_what_the_model_prints_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    def talking(policy: nn.Module, x: torch.Tensor) -> torch.Tensor:
        import sys

        print("seen", file=sys.stderr)
        return branch(policy, x)

    message(talking)
    assert capfd.readouterr().err == "seen\n"
