"""Where in the policy's code a value of the graph comes from, by what torch wrote on its node."""

from __future__ import annotations

import ast

import onnx_ir as ir
from torch import fx

from exporters.divergence.interpreter import Step

_SCOPES = "pkg.torch.onnx.name_scopes"
_STACK = "pkg.torch.onnx.stack_trace"


def module_of(value: ir.Value, step: Step) -> str:
    """Dotted path of the module that the value is computed in."""
    if step.key.half == "loop":
        return f"the loop's {step.key.name}"
    node = value.producer()
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]")) if node else []
    named = [scope for scope in scopes[:-1] if scope]
    if not named and isinstance(step.node, fx.Node):
        stack = step.node.meta.get("nn_module_stack") or {}
        named = [path for path, _ in stack.values() if path]
    if not named:
        return "the policy itself"
    return str(named[-1]).removeprefix("owner.")


def layer_of(module: str) -> str:
    """The module up to its last number: ``model.layers.3`` for ``model.layers.3.mlp.up_proj``."""
    words = module.split(".")
    last = max((i for i, word in enumerate(words) if word.isdigit()), default=None)
    return ".".join(words[: last + 1]) if last is not None else module


def source_of(value: ir.Value) -> str:
    """``modeling.py:88 in forward``, the innermost frame that torch wrote; empty when it wrote none."""
    node = value.producer()
    frames = node.metadata_props.get(_STACK, "").splitlines() if node else []
    # The tracer's own frame is all that torch writes of code outside of any submodule.
    own = [frame for frame in frames if not frame.startswith(("torch/", "tracing.py:", "exporters/"))]
    frame = (own or [""])[-1]
    return frame.partition(" in ")[0]
