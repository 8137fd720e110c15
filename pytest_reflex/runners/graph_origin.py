"""Where in a policy's code a node of a graph comes from, by what torch's exporter wrote on it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import onnx

_SCOPES: Final = "pkg.torch.onnx.name_scopes"
_STACK: Final = "pkg.torch.onnx.stack_trace"
# Frames as torch writes them, and as a bundle keeps them, with paths that name no machine.
_WHOLE: Final = re.compile(r'^\s*File "([^"]+)", line (\d+)', re.MULTILINE)
_SHORT: Final = re.compile(r"^([^\s:]+):(\d+) in ", re.MULTILINE)
# Files of torch and of these packages: installed, as they lie here, and as bundles name them.
_INSTALLED: Final = ("torch/", "pytest_reflex/", "exporters/")
_ROOT: Final = Path(__file__).parents[2].as_posix()
_HERE: Final = (f"{_ROOT}/pytest_reflex/", f"{_ROOT}/exporters/")
_NAMED: Final = ("torch.py", "tracing.py", "traced_halves.py")


def said_of(node: onnx.NodeProto) -> dict[str, str]:
    """What stands on a node, by its key."""
    return {entry.key: entry.value for entry in node.metadata_props}


def module_of(said: Mapping[str, str]) -> str:
    """The dotted path of the module that a node is of; empty where it is the policy itself, or unknown."""
    try:
        scopes = [str(scope) for scope in ast.literal_eval(said.get(_SCOPES, "[]"))[:-1] if scope]
    except (ValueError, SyntaxError, TypeError):
        return ""
    module = scopes[-1] if scopes else "owner"
    return "" if module == "owner" else module.removeprefix("owner.")


def line_of(said: Mapping[str, str]) -> str:
    """``modeling.py:88``, the innermost line of the policy's own; empty where torch wrote none."""
    return line_in(said.get(_STACK, ""))


def line_in(stack: str) -> str:
    """The same of a printed stack, whose innermost frame is the last."""
    for path, line in reversed(_WHOLE.findall(stack) or _SHORT.findall(stack)):
        whole = path.replace("\\", "/")
        short = whole.rpartition("/site-packages/")[2]
        # Without lines of the policy's own there are those of its caller and of torch.
        if not (whole.startswith(_HERE) or short.startswith(_INSTALLED) or short in _NAMED):
            return f"{short.rpartition('/')[2] if _is_whole(short) else short}:{line}"
    return ""


def _is_whole(path: str) -> bool:
    """Whether a path begins at a root, and so names a machine."""
    return path.startswith("/") or ":" in path
