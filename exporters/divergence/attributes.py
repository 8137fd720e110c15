"""What one operator is told on the two sides, such as an epsilon: the same operator, told another thing."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx_ir as ir
from torch import fx

__all__ = ["told_otherwise"]

# ONNX operator: its attribute, what ONNX takes where it has none, and the argument of PyTorch's operator.
_EPSILON: Final = ("epsilon", 1e-5, "eps")
_ATTRIBUTES: Final = {
    "Gelu": ("approximate", "none", "approximate"),
    "LayerNormalization": _EPSILON,
    "RMSNormalization": _EPSILON,
    "GroupNormalization": _EPSILON,
    "InstanceNormalization": _EPSILON,
    "BatchNormalization": _EPSILON,
    "LeakyRelu": ("alpha", 0.01, "negative_slope"),
    "Elu": ("alpha", 1.0, "alpha"),
}
# With one number of the program's text.
_SCALED: Final = ("Add", "Sub", "Mul", "Div", "Pow")


def told_otherwise(node: ir.Node, own: fx.Node) -> str:
    """What the graph's node and the policy's operator are told, where that is not the same; else empty."""
    if node.op_type in _SCALED:
        return _by_another(node, own)
    if node.op_type not in _ATTRIBUTES:
        return ""
    attribute, default, argument = _ATTRIBUTES[node.op_type]
    theirs = node.attributes[attribute].value if attribute in node.attributes else default
    ours = _argument(own, argument)
    if ours is None or type(theirs) is not type(ours) or _same(theirs, ours):
        return ""
    has = f"the graph's {node.op_type} has {attribute} {_shown(theirs)}"
    return f"{has}, the policy's {_called(own)} {argument} {_shown(ours)}"


def _by_another(node: ir.Node, own: fx.Node) -> str:
    """Of an operator that both sides give one number of their text, where it is not the same number."""
    theirs = [
        float(value.const_value.numpy().item())
        for value in node.inputs
        if value is not None and value.const_value is not None and value.const_value.size == 1
    ]
    ours = [float(one) for one in own.args if isinstance(one, int | float) and not isinstance(one, bool)]
    scaled = own.kwargs.get("alpha", 1) != 1
    if scaled or len(theirs) != 1 or len(ours) != 1 or _same(theirs[0], ours[0]):
        return ""
    return (
        f"the graph's {node.op_type} has {_shown(theirs[0])}, the policy's {_called(own)} {_shown(ours[0])}"
    )


def _called(own: fx.Node) -> str:
    return str(getattr(own.target, "__name__", own.target)).partition(".")[0]


def _argument(own: fx.Node, name: str) -> Any:
    """What PyTorch's operator is given; None where it has no such argument, or is given nothing."""
    schema = getattr(own.target, "_schema", None)
    for place, argument in enumerate(schema.arguments if schema is not None else ()):
        if argument.name == name:
            if place < len(own.args):
                return own.args[place]
            return own.kwargs.get(name, argument.default_value)
    return None


def _same(theirs: Any, ours: Any) -> bool:
    # An attribute of floats is a float32.
    return bool(np.float32(theirs) == np.float32(ours)) if isinstance(ours, float) else bool(theirs == ours)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
