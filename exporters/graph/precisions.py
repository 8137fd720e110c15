"""The precisions that a bundle can be in, by name; this needs neither onnx nor torch."""

from __future__ import annotations

from typing import Final, Literal, get_args

__all__ = ["PRECISIONS", "Precision"]

Precision = Literal["float32", "float16", "bfloat16", "int8", "int8-dynamic"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)
