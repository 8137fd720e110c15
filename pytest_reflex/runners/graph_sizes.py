"""Which values of an ONNX graph no input can change, and which have one size whatever the inputs are.

A size hangs on values where an operator leaves out or repeats what it reads (``NonZero``, ``Compress``),
where what it is told by is computed (``Range``, ``Expand``), and where something comes out of a loop. Needs
onnx.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import onnx

__all__ = ["STANDARD", "Sizes", "is_random", "shape_of"]

# The names of the standard operators' domain.
STANDARD: Final = frozenset({"", "ai.onnx"})
# Each run gives something else; so does Dropout where it trains.
_RANDOM: Final = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
# They look at sizes alone.
_SIZES: Final = frozenset({"Shape", "Size"})
# How large what they give is hangs on the values that they read.
_LOOSE: Final = frozenset(
    {
        *("NonZero", "Compress", "Unique", "NonMaxSuppression", "StringSplit", "ImageDecoder", "MaxUnpool"),
        *("SplitToSequence", "SequenceAt", "SequenceErase", "SequenceInsert", "SequenceConstruct"),
        *("SequenceEmpty", "SequenceMap", "ConcatFromSequence", "Optional", "OptionalGetElement"),
        *("StringNormalizer", "TfIdfVectorizer", "Loop", "Scan", "If"),
    }
)
# How large what they give is hangs on the values of their inputs from this one on.
_TOLD: Final = {
    **dict.fromkeys(("Range", "ConstantOfShape", "MelWeightMatrix"), 0),
    **dict.fromkeys(("BlackmanWindow", "HannWindow", "HammingWindow"), 0),
    **dict.fromkeys(("Reshape", "Expand", "Slice", "Tile", "TopK", "Pad", "Resize", "Upsample"), 1),
    **dict.fromkeys(("OneHot", "Squeeze", "Unsqueeze", "Split", "CenterCropPad", "AffineGrid"), 1),
    **dict.fromkeys(("Col2Im", "DFT", "STFT"), 1),
}


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """The sizes of a value as they are written down; None where they are not, or one is open."""
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(dim.HasField("dim_value") for dim in kind.shape.dim):
        return None
    return tuple(dim.dim_value for dim in kind.shape.dim)


def is_random(node: onnx.NodeProto) -> bool:
    """Whether what a node gives is drawn, or may be."""
    if node.op_type == "Dropout":  # its third input says that it trains
        return len(node.input) > 2 and bool(node.input[2])
    return node.op_type in _RANDOM


class Sizes:
    """What is fixed in one graph, read node by node.

    Args:
        fixed: the constants that are known; it is added to.
        sized: the values of one size that are known; it is added to.
    """

    def __init__(self, fixed: Collection[str], sized: Collection[str]) -> None:
        self.fixed, self.sized = set(fixed), {*sized, *fixed}

    def read(self, node: onnx.NodeProto) -> None:
        """Note what a node gives; what it reads has been noted."""
        if self._fixed(node):
            self.fixed.update(node.output)
        if self.fixed.issuperset(node.output) or self._sized(node):
            self.sized.update(node.output)

    def _fixed(self, node: onnx.NodeProto) -> bool:
        """Whether nothing changes what it gives: no input, and no chance."""
        if (
            node.domain not in STANDARD
            or is_random(node)
            or any(a.HasField("g") or a.graphs for a in node.attribute)
        ):
            return False
        if node.op_type in _SIZES and node.input[0] in self.sized:
            return True
        return self.fixed.issuperset(filter(None, node.input))

    def _sized(self, node: onnx.NodeProto) -> bool:
        op = node.op_type
        if node.domain not in STANDARD or op in _LOOSE or not self.sized.issuperset(filter(None, node.input)):
            return False
        # The axes of a sum are an input too.
        told = 1 if op.startswith("Reduce") else _TOLD.get(op)
        return told is None or self.fixed.issuperset(filter(None, node.input[told:]))
