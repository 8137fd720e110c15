"""The precisions that a bundle can be in, by name; this needs neither onnx nor torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Literal, get_args

__all__ = ["PRECISIONS", "Kept", "Precision"]

# Names of the nodes that stay in float32, by graph.
Kept = Mapping[str, Collection[str]]

Precision = Literal["float32", "float16", "bfloat16", "int8", "int8-dynamic"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)
