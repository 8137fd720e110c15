"""What the policy's operator reads, beside what the graph's nodes in its place are fed with."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
import torch
from torch import fx

from exporters.divergence.alignment import MOVING, Alignment
from exporters.divergence.interpreter import Step
from exporters.divergence.scopes import Origin, origin_in_program, origin_of

Array = np.ndarray[Any, Any]
# What a normalisation behind can be folded into.
_LINEAR: Final = ("conv", "linear", "addmm", "mm")
# So many of the policy's operators are named.
_NAMED: Final = 6


@dataclass(frozen=True)
class End:
    """The wrong value, and what it is made of on both sides."""

    node: ir.Node
    step: Step
    made: fx.Node
    own: Origin
    alignment: Alignment
    nodes: Sequence[ir.Node]
    front: Sequence[ir.Value]


def unread(
    end: End,
    paired: Mapping[ir.Value, str],
    fixed: frozenset[fx.Node],
    given: Callable[[ir.Value], Array | None],
) -> Iterator[fx.Node]:
    """What the policy's operator is made of and the graph's nodes are not fed with.

    Args:
        end: both sides of the wrong value.
        paired: what the policy calls the graph's values that have counterparts.
        fixed: the policy's weights and constants.
        given: what an input of the nodes was fed with; None where that is no longer known.
    """
    names = {paired[v] for v in end.front if v in paired}
    arrays = [array for v in end.front if (array := given(v)) is not None]
    inside = {end.alignment.pairs.get(o.name) for n in end.nodes if (o := origin_of(n)) is not None}
    was = origin_of(end.node)
    # What is counterpart to another operator may be made of several that the graph has none of.
    other = was is not None and was.kind != end.own.kind
    fold = folded(end)
    seen: set[fx.Node] = set()
    waiting = list(end.made.all_input_nodes)
    while waiting:
        read = waiting.pop(0)
        if read in seen or read in fixed or read.name in names:
            continue
        seen.add(read)
        tensor = end.step.given.get(read)
        if isinstance(tensor, torch.Tensor) and any(_same(tensor, array) for array in arrays):
            continue
        kind = origin_in_program(read).kind
        if read.op == "placeholder":
            # What a flow's half is given may be a constant of the graph, as the time of an unrolled step.
            if tensor is not None and end.step.key.half == "model":
                yield read
        elif (
            read.name in inside
            or kind in MOVING
            or (read.name not in end.alignment.found and (other or (fold and kind.startswith(_LINEAR))))
        ):
            waiting += read.all_input_nodes
        elif not constant(read, fixed):
            yield read


def folded(end: End) -> bool:
    """Whether the graph has a normalisation in the weights of the operator before it; torch.onnx does so."""
    return "batch_norm" in end.own.kind and end.node.op_type != "BatchNormalization"


def maker(node: fx.Node) -> fx.Node:
    """The operator that a value comes from; of one that gives several, each is taken by an operator more."""
    return node.all_input_nodes[0] if node.target is operator.getitem else node


def theirs(end: End) -> list[Origin]:
    """What the policy computes between the same values by operators that the graph has none for."""
    was = origin_of(end.node)
    found = [end.own] if was is not None and was.kind != end.own.kind else []
    node = maker(end.made)
    waiting, seen = list(node.all_input_nodes), {node}
    while waiting:
        read = waiting.pop(0)
        if read in seen or read.op == "placeholder" or read.name in end.alignment.found:
            continue
        seen.add(read)
        waiting += read.all_input_nodes
        origin = origin_in_program(read)
        if origin.kind not in MOVING:
            found.append(origin)
    return found[:_NAMED][::-1]


def _same(tensor: torch.Tensor, array: Array) -> bool:
    """Whether both hold the same numbers, in any order: a graph moves values elsewhere than PyTorch."""
    if tensor.numel() != array.size:
        return False
    flat, other = tensor.detach().numpy().reshape(-1), array.reshape(-1)
    return bool(np.array_equal(np.sort(flat), np.sort(other), equal_nan=flat.dtype.kind == "f"))


def constant(node: fx.Node, fixed: frozenset[fx.Node]) -> bool:
    """Whether it is made of weights and constants alone, as what a graph has as one."""
    waiting, seen = [node], set()
    while waiting:
        read = waiting.pop()
        if read in seen or read in fixed:
            continue
        if read.op == "placeholder":
            return False
        seen.add(read)
        waiting += read.all_input_nodes
    return True
