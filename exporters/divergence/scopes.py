"""Where in the policy's code a value of the graph comes from, by what torch wrote on its node."""

from __future__ import annotations

import ast
from collections.abc import Callable

import onnx_ir as ir
from torch import fx

from exporters.divergence.interpreter import Step

_SCOPES = "pkg.torch.onnx.name_scopes"
_STACK = "pkg.torch.onnx.stack_trace"
# Files of torch and of this package, by how torch shortens their paths.
_NOT_THEIRS = ("torch/", "exporters/", "pytest_reflex/", "torch.py:", "tracing.py:", "traced_halves.py:")


def module_of(value: ir.Value, step: Step, code: Callable[[str], str]) -> str:
    """Dotted path of the module that the value is computed in; outside of any, ``code`` of the half."""
    if step.key.half in ("loop", "epilogue"):  # no program of the user's
        return f"the {step.key.half}'s {step.key.name or 'output'}"
    node = value.producer()
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]")) if node else []
    named = [scope for scope in scopes[:-1] if scope]
    if not named and isinstance(step.node, fx.Node):
        stack = step.node.meta.get("nn_module_stack") or {}
        named = [path for path, _ in stack.values() if path]
    if not named or named[-1] == "owner":
        return code(step.key.half)
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
    # Without lines of the policy's own there are those of its caller and of torch.
    own = [frame for frame in frames if not frame.startswith(_NOT_THEIRS)]
    frame = (own or [""])[-1]
    return frame.partition(" in ")[0]
