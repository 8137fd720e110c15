"""Which constants of an ONNX graph are finite, and those whose values are looked at. Needs onnx."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pytest_reflex.runners.graph_stated import graphs_inside

if TYPE_CHECKING:
    import onnx

    Array = np.ndarray[Any, Any]

__all__ = ["MOST", "finite_constant", "finite_weights", "held"]

# What is larger is a table of weights, which decides nothing; and so are more floats.
MOST: Final = 1 << 22
_MOST_FLOATS: Final = 64
_WEIGHTED: Final = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose"})


def finite_weights(graph: onnx.GraphProto, place: Path | None) -> set[str]:
    """Which of its weights are finite; large ones that are multiplied alone are taken to be.

    Args:
        graph: the graph; those inside of it may read its weights too.
        place: where weights lie that are not in the graph.
    """
    read = {*_read(graph)}
    return {
        tensor.name
        for tensor in graph.initializer
        if (tensor.name not in read and np.prod([*tensor.dims], dtype=float) > MOST)
        or _is_finite(tensor, place)
    }


def _read(graph: onnx.GraphProto) -> Iterator[str]:
    """What a graph and those inside of it hand on, or read and do more with than to multiply."""
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from (node.input if node.op_type not in _WEIGHTED else ())
        for inner in graphs_inside(node):
            yield from _read(inner)


def finite_constant(node: onnx.NodeProto) -> bool:
    """Whether what a ``Constant`` or ``ConstantOfShape`` holds is finite."""
    for attribute in node.attribute:
        if attribute.HasField("t") and not _is_finite(attribute.t, None):
            return False
        if not np.isfinite([attribute.f, *attribute.floats]).all():
            return False
    return not any(attribute.HasField("sparse_tensor") for attribute in node.attribute)


def _is_finite(tensor: onnx.TensorProto, place: Path | None) -> bool:
    from onnx import numpy_helper

    try:
        array = numpy_helper.to_array(tensor, str(place or ""))
        if array.dtype.kind in "biu":
            return True
        return bool(np.isfinite(array if array.dtype.kind == "f" else array.astype(np.float64)).all())
    except Exception:  # strings, and what is not beside the file
        return False


def held(tensor: onnx.TensorProto, place: Path | None) -> Array | None:
    """A tensor of whole numbers or booleans, or of a few floats; None of any other."""
    from onnx import TensorProto, numpy_helper

    whole = (TensorProto.BOOL, TensorProto.INT32, TensorProto.INT64)
    most = MOST if tensor.data_type in whole else _MOST_FLOATS
    if np.prod([*tensor.dims], dtype=float) > most:
        return None
    try:
        array: Array = numpy_helper.to_array(tensor, str(place or ""))
    except Exception:
        return None
    return array if array.dtype.kind in "biuf" else None
