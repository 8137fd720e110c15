"""What each node of a policy adds to the error of a narrower precision, from one walk forwards and one back.

A node's *local error* is what it gives otherwise when what it reads of that precision is rounded. How far
that reaches the output is known to first order from the output's gradient there: their product, summed over
a node's elements and over all denoising steps, is the node's contribution. It is taken along a few random
directions of the output, whose root mean square is the length of the error that the node makes.

It holds while errors are small; what is far off is ranked high all the same, which is what it is for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx

from exporters.divergence.interpreter import Interpreter, Program, Step
from exporters.graph.loop_invariant import TIME, X_T
from pytest_reflex.errors import RunnerError

__all__ = ["Contributions", "Unit", "contributions"]

# A node of the traced program, whichever step it runs in: its half and its name.
Unit = tuple[str, str]
# A node, what it gives in a run, and how far that is off.
_Found = tuple[Unit, torch.Tensor, torch.Tensor]
# Directions of the output that errors are measured along: the length is known to a third or so.
_DIRECTIONS: Final = 4
_aten = torch.ops.aten
_PRODUCTS: Final[Mapping[object, tuple[int, ...]]] = {
    _aten.linear.default: (0, 1), _aten.mm.default: (0, 1), _aten.bmm.default: (0, 1),
    _aten.matmul.default: (0, 1), _aten.addmm.default: (1, 2), _aten.convolution.default: (0, 1),
    _aten.conv2d.default: (0, 1), _aten.scaled_dot_product_attention.default: (0, 1, 2),
}  # fmt: skip
_STORED: Final = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Contributions:
    """The length of the error of the output that each node makes; nodes that make none are left out.

    Attributes:
        reading: by what it reads being rounded.
        giving: by what it gives being rounded, where a precision does that between two nodes.
    """

    reading: Mapping[Unit, float]
    giving: Mapping[Unit, float]


def contributions(interpreter: Interpreter, programs: Mapping[str, Program], precision: str) -> Contributions:
    """What each node adds.

    Args:
        interpreter: the policy's values in one fixture, with their gradients.
        programs: its programs, by half.
        precision: ``float16``, ``bfloat16`` (the weights alone), ``int8`` or ``int8-dynamic``.

    Raises:
        RunnerError: the policy has no gradient.
    """
    local = _LocalError(programs, precision)
    read: list[_Found] = []
    given: list[_Found] = []
    for step in interpreter:
        for found, error in ((read, local.of(step)), (given, local.after(step))):
            if error is not None:
                found.append(((step.key.half, step.key.name), step.tensor, error))
    output = interpreter.output
    if output is None or not output.requires_grad:
        raise RunnerError("the policy's output has no gradient, so nothing says which of its nodes matter")
    return Contributions(_lengths(output, read, keep=True), _lengths(output, given, keep=False))


def _lengths(output: torch.Tensor, found: Sequence[_Found], *, keep: bool) -> dict[Unit, float]:
    generator = torch.Generator().manual_seed(0)
    sums: dict[Unit, list[float]] = {}
    if not found:
        return {}
    for direction in range(_DIRECTIONS):
        signs = torch.randint(0, 2, output.shape, generator=generator) * 2.0 - 1.0
        gradients = torch.autograd.grad(
            (output * signs).sum(),
            [tensor for _, tensor, _ in found],
            retain_graph=keep or direction + 1 < _DIRECTIONS,
            allow_unused=True,
        )
        for (unit, _, error), gradient in zip(found, gradients, strict=True):
            along = sums.setdefault(unit, [0.0] * _DIRECTIONS)
            if gradient is not None:
                along[direction] += float((gradient.double() * error.double()).sum())
    return {unit: math.sqrt(sum(a * a for a in along) / _DIRECTIONS) for unit, along in sums.items()}


class _LocalError:
    """What a node gives otherwise where what it reads is rounded."""

    def __init__(self, programs: Mapping[str, Program], precision: str) -> None:
        self._precision = precision
        # What a graph holds: weights, constants and what is made of them alone; and what is narrow where it
        # is read: what is held, and what a graph is given, which it casts.
        self._held = {half: self._held_by(program) for half, program in programs.items()}
        self._stored = {
            half: program.weights if precision == "bfloat16" else self._held[half] | _given_to(program)
            for half, program in programs.items()
        }

    @staticmethod
    def _held_by(program: Program) -> frozenset[fx.Node]:
        folded, _ = program.split(program.inputs)
        told = [program.inputs[TIME]] if TIME in program.inputs else []
        return frozenset((*program.fixed, *folded, *told))

    def of(self, step: Step) -> torch.Tensor | None:
        """The difference of the node's value; None where there is none."""
        node = step.node
        # A clock is computed in float64, of a time that is stored.
        wide = step.tensor.dtype in (torch.float32, torch.float64)
        if node is None or not wide or node in self._held[step.key.half]:
            return None
        with torch.no_grad():
            given = self._rounded(step, node)
            if given is None:
                return None
            error = Program.compute(node, given) - step.tensor
        return error if bool(error.any()) and bool(error.isfinite().all()) else None

    def after(self, step: Step) -> torch.Tensor | None:
        """How far off what the node gives is where it is rounded; only float16 does that."""
        if self._precision != "float16" or step.node is None or not _is_float(step.tensor):
            return None
        with torch.no_grad():
            error = _narrow(step.tensor, torch.float16) - step.tensor
        return error if bool(error.isfinite().all()) else None

    def _rounded(self, step: Step, node: fx.Node) -> dict[fx.Node, Any] | None:
        if self._precision.startswith("int8"):
            read = [node.args[at] for at in _PRODUCTS.get(node.target, ()) if at < len(node.args)]
            operands = _floats(read, step.given)
            return {**step.given, **{n: _in_int8(step.given[n]) for n in operands}} if operands else None
        held = _floats(self._stored[step.key.half] & step.given.keys(), step.given)
        rounded = {n: _narrow(step.given[n], _STORED[self._precision]) for n in held}
        return {**step.given, **rounded} if rounded else None


def _given_to(program: Program) -> frozenset[fx.Node]:
    """The inputs of a whole graph: of a step that is what the loop holds, and not what a prefix hands on."""
    names = (X_T, TIME) if X_T in program.inputs else tuple(program.inputs)
    return frozenset(program.inputs[name] for name in names)


def _floats(nodes: Iterable[Any], given: Mapping[fx.Node, Any]) -> list[fx.Node]:
    return [n for n in nodes if isinstance(n, fx.Node) and n in given and _is_float(given[n])]


def _is_float(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def _narrow(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    top = torch.finfo(dtype).max
    return value.clamp(-top, top).to(dtype).float()


def _in_int8(value: torch.Tensor) -> torch.Tensor:
    """The values that 256 even steps from the lowest to the highest, 0 among them, have."""
    low, high = value.min().clamp(max=0), value.max().clamp(min=0)
    scale = (high - low).clamp(min=torch.finfo(torch.float32).tiny) / 255
    return ((value - low) / scale).round() * scale + low
