"""What the graph holds where the policy's operator has a weight: the same numbers, or others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import onnx_ir as ir
import torch
from torch import fx

from exporters.divergence.interpreter import Program
from exporters.divergence.reads import End, constant, maker

__all__ = ["held_otherwise"]

# So much of the largest weight is near.
NEAR: Final = 0.1

Array = np.ndarray[Any, Any]
# ONNX multiplies by a matrix of (in, out), and so do these; PyTorch's linear holds (out, in).
_PRODUCTS: Final = ("mm", "addmm", "matmul", "bmm", "baddbmm")


# Of each gate that PyTorch stacks, in its order, where ONNX has it.
_GATES: Final = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}


def held_otherwise(end: End, program: Program) -> str:
    """How a weight in the graph is not the policy's, in words; empty where each is, or none can be paired.

    A weight is paired with the one that has as many numbers, where that leaves no choice.

    Args:
        end: both sides of the wrong value.
        program: the policy's.
    """
    theirs = list(_stored(end))
    ours: list[tuple[fx.Node, Array]] = []
    for read in maker(end.made).all_input_nodes:
        array = _own(end, read, program)
        if array is None:
            continue
        same = next((place for place, (_, stored) in enumerate(theirs) if _fits(array, stored)), None)
        if same is None:
            ours.append((read, array))
        else:
            theirs.pop(same)
    for read, array in ours:
        alike = [other for other in theirs if other[1].size == array.size]
        if len(alike) == 1 and sum(other.size == array.size for _, other in ours) == 1:
            name = f"`{_name(read, program)}`"
            node, stored = alike[0]
            return f"the graph's {node.op_type} holds {_unlike(array, stored, name, program)}"
    return ""


def _own(end: End, read: fx.Node, program: Program) -> Array | None:
    """What the policy's operator reads there, where that is made of its weights alone."""
    tensor = program.held[read] if read in program.fixed else end.step.given.get(read)
    if not isinstance(tensor, torch.Tensor) or tensor.numel() < 2 or tensor.dtype != torch.float32:
        return None
    return tensor.detach().numpy() if constant(read, program.fixed) else None


def _stored(end: End) -> Iterator[tuple[ir.Node, Array]]:
    """The weights that the graph's nodes read, each as the policy's operator would hold it."""
    for node in end.nodes:
        for place, value in enumerate(node.inputs):
            if value is None or value.const_value is None or value.dtype != ir.DataType.FLOAT:
                continue
            array = value.const_value.numpy()
            if array.size < 2:
                continue
            if node.op_type in _GATES:
                yield from ((node, part) for part in _parts(node.op_type, place, array))
            else:
                yield node, _as_the_policy_holds(end.own.kind, node, place, array)


def _parts(op_type: str, place: int, array: Array) -> Iterator[Array]:
    """The weights that PyTorch holds of an ONNX operator's one: of each direction, and each of two biases."""
    if place not in (1, 2, 3) or array.ndim < 2:
        return
    order = _GATES[op_type]
    for direction in array:
        for half in np.split(direction, 2) if place == 3 else [direction]:
            gates = np.split(half, len(order))
            yield np.concatenate([gates[at] for at in order])


def _as_the_policy_holds(kind: str, node: ir.Node, place: int, array: Array) -> Array:
    if array.ndim < 2 or place != 1 or node.op_type not in ("MatMul", "Gemm"):
        return array
    turned = "transB" in node.attributes and node.attributes["transB"].as_int() == 1
    wanted = kind == "linear"
    if not wanted and kind not in _PRODUCTS:
        return array
    return np.swapaxes(array, -1, -2) if turned != wanted else array


def _fits(ours: Array, theirs: Array) -> bool:
    """Whether both hold the same numbers in one order; a graph may leave out axes of one."""
    if ours.size != theirs.size:
        return False
    return np.array_equal(np.squeeze(ours), np.squeeze(theirs), equal_nan=True)


def _unlike(ours: Array, theirs: Array, name: str, program: Program) -> str:
    if ours.ndim > 1 and _fits(np.swapaxes(ours, -1, -2), theirs):
        return f"{name} transposed"
    # One number over and over, as zeros, is nobody's; and what is near its own was trained on from there, as
    # layers that were cloned from one are.
    telling = (theirs != theirs.flat[0]).any() and not _near(ours, theirs)
    for node, tensor in program.held.items():
        if telling and isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32:
            other = tensor.detach().numpy()
            if _fits(other, theirs) or (other.ndim > 1 and _fits(np.swapaxes(other, -1, -2), theirs)):
                return f"`{program.called[node]}` where the policy has {name}"
    if np.array_equal(np.sort(ours, axis=None), np.sort(theirs, axis=None)):
        return f"the numbers of {name} in another order"
    if np.squeeze(ours).shape != np.squeeze(theirs).shape:
        return f"other numbers than {name}, in another shape"
    apart = np.abs(np.squeeze(ours).astype(np.float64) - np.squeeze(theirs))
    return (
        f"other numbers than {name}: {np.count_nonzero(apart != 0)} of {apart.size:,}, "
        f"by up to {float(apart.max()):.3g}"
    )


def _near(ours: Array, theirs: Array) -> bool:
    """Whether the numbers are off by little of what they are, or most of them not at all, as they stand."""
    if np.squeeze(ours).shape != np.squeeze(theirs).shape:
        return False
    apart = np.abs(np.squeeze(ours).astype(np.float64) - np.squeeze(theirs))
    return np.count_nonzero(apart) <= apart.size / 2 or float(apart.max()) < NEAR * float(np.abs(ours).max())


def _name(read: fx.Node, program: Program) -> str:
    """What the policy calls the one weight that a value is made of; of several, the value itself."""
    waiting, found = [read], set()
    while waiting:
        node = waiting.pop()
        if node in program.fixed:
            found.add(node)
        waiting += node.all_input_nodes
    return program.called[found.pop()] if len(found) == 1 else read.name
