"""Where in the policy's code a value comes from, by what torch wrote on its node."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import fx

from exporters.divergence.interpreter import Step
from pytest_reflex.runners.graph_origin import line_in, line_of

_SCOPES = "pkg.torch.onnx.name_scopes"
_CLASSES = "pkg.torch.onnx.class_hierarchy"


@dataclass(frozen=True)
class Origin:
    """The operator of a traced program that a node is, or was made of.

    Attributes:
        name: its name in the program.
        kind: what it computes, without its overload: ``gelu``.
        module: dotted path of the module that calls it; empty outside of any.
        made: the class of that module; empty outside of any.
    """

    name: str
    kind: str
    module: str
    made: str


def origin_of(node: ir.Node) -> Origin | None:
    """What a node of the graph was made of at its export; None where torch wrote nothing on it."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    classes = ast.literal_eval(node.metadata_props.get(_CLASSES, "[]"))
    if not scopes or len(scopes) != len(classes):
        return None
    return _origin(str(scopes[-1]), str(classes[-1]), list(zip(scopes[:-1], classes[:-1], strict=True)))


def origin_in_program(node: fx.Node) -> Origin:
    """The same of a node of the policy's own program."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    # An operator of torch's is written with its namespace and overload, a function by its name.
    operator = isinstance(node.target, (str, torch._ops.OpOverload))
    called = str(node.target) if operator else str(getattr(node.target, "__name__", node.target))
    return _origin(node.name, called, [(path, str(getattr(c, "__name__", c))) for path, c in stack])


def _origin(name: str, target: str, stack: list[tuple[str, str]]) -> Origin:
    words = target.split(".")
    kind = words[1] if len(words) > 1 else target
    module, made = next(((p, c) for p, c in reversed(stack) if p), ("", ""))
    if module in ("", "owner"):
        return Origin(name, kind, "", "")
    return Origin(name, kind, module.removeprefix("owner."), made.rpartition(".")[2])


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


def source_of(node: ir.Node | None) -> str:
    """``modeling.py:88``, the innermost frame that torch wrote at the export; empty when it wrote none."""
    return line_of(node.metadata_props) if node else ""


def source_in_program(node: fx.Node | None) -> str:
    """The same of a node of the policy's program: of the file as it is now, not as it was exported."""
    return line_in(str(node.meta.get("stack_trace") or "")) if node is not None else ""
