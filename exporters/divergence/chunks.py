"""The graphs' nodes, cut into runs whose values fit in a budget of memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from exporters.divergence.parts import Names, Part


class Chunk:
    """Nodes that are compared together.

    Attributes:
        part: the part that they are in.
        nodes: in order.
        made: the values that they give.
        keys: which of PyTorch's values these are, as far as it has them.
    """

    def __init__(self, part: Part, nodes: Sequence[ir.Node], names: Names) -> None:
        self.part, self.nodes = part, nodes
        self.made = [v for node in nodes for v in node.outputs if v.name]
        self.keys = {v: key for v in self.made if (key := names.key(v, part.step)) is not None}


def chunks_of(parts: Sequence[Part], names: Names, budget_bytes: int) -> Iterator[Chunk]:
    """All nodes of all parts, in order; a chunk ends with the node that takes it beyond the budget."""
    for part in parts:
        nodes: list[ir.Node] = []
        size = 0
        for node in part.nodes:
            nodes.append(node)
            size += sum(_size(value) for value in node.outputs)
            if size > budget_bytes:
                yield Chunk(part, nodes, names)
                nodes, size = [], 0
        if nodes:
            yield Chunk(part, nodes, names)


def _size(value: ir.Value) -> int:
    if value.shape is None or value.dtype is None:
        return 0
    return math.prod(n if isinstance(n, int) else 64 for n in value.shape) * max(1, int(value.dtype.itemsize))
