"""Reads a graph to look into it: its local functions inlined, weights that lie beside it left there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["inlined"]


def inlined(model: onnx.ModelProto | str | Path | bytes) -> onnx.ModelProto:
    """A model without local functions.

    Args:
        model: the model, the path of its file, or its bytes.

    Raises:
        ImportError: onnx is not installed.
        Exception: whatever onnx says of what is no model.
    """
    import onnx
    from onnx import inliner

    if isinstance(model, bytes):
        model = onnx.load_model_from_string(model)
    elif not isinstance(model, onnx.ModelProto):
        model = onnx.load(model, load_external_data=False)
    if not model.functions:
        return model
    made: onnx.ModelProto = inliner.inline_local_functions(model)
    return made
