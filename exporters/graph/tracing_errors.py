"""What torch says when it cannot trace or convert a module, in three lines: cause, place and way out."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import fx

from pytest_reflex.errors import TracingError

# Frames of these are how a module is called, and say nothing of what it does.
_OURS = Path(__file__).resolve().parents[1]
_CALLERS = tuple(
    str(path) for path in (Path(torch.__file__).parent, _OURS / "graph", _OURS.parent / "pytest_reflex")
)
Told = tuple[str, str]


def tracing_error(what: str, error: Exception, nodes: Iterable[fx.Node] = ()) -> TracingError:
    """The error to raise for one of torch's.

    Args:
        what: what was tried, in words.
        error: what torch raised.
        nodes: of the program that was converted, which say what line of the model they come from.

    Returns:
        An error of at most three lines: what was tried and why it failed, the model's own line, and the way
        out, as far as each is known.
    """
    causes = list(_chain(error))
    cause, way_out = _told(causes)
    place = _place(error) or _place_of_node(str(error), nodes)
    lines = [f"{what}: {cause}", f"at {place}" if place else "", way_out]
    return TracingError("\n  ".join(line for line in lines if line))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)


def _told(causes: list[BaseException]) -> Told:
    for error in causes:
        text = str(error)
        for pattern, tell in _KINDS:
            if found := re.search(pattern, text, re.DOTALL):
                return tell(found, text)
    # Of a chain, the error that began it says most, but for torch's remark on how it was reached.
    root = causes[-1] if str(causes[0]).startswith("Error when translating") else causes[0]
    first = next((line.strip() for line in str(root).splitlines() if line.strip()), "")
    return (f"{type(root).__name__}: {first}".removesuffix(": "), "")


def _branch(found: re.Match[str], text: str) -> Told:
    checks = re.findall(r"^\s*\d+\. (torch\._check\(.*\))\s*$", text, re.MULTILINE)
    if checks:
        return (
            f"what it does next depends on a size that is known only when it runs ({found[1]})",
            f"say before it which it is: {' or '.join(checks)}",
        )
    if re.search(r"[<>]|Ne\(|Eq\(u\d+, [^1)]", found[1]):
        return (
            f"what it does next depends on a size that is known only when it runs ({found[1]})",
            "do without the branch, or say before it which way it goes with torch._check(...)",
        )
    return (
        "what it does next depends on the values of a tensor, and a graph has one way",
        "write a branch with torch.where or torch.cond, and a loop with a fixed count; leave out an assert",
    )


def _size(found: re.Match[str], text: str) -> Told:
    return (
        f"a size or a count depends on the values of a tensor ({found[1]})",
        "take it from shapes, or take the largest and mask what is too much",
    )


def _numpy(found: re.Match[str], text: str) -> Told:
    return (
        "it leaves torch for numpy, where nothing can be traced",
        "write it with torch's operators; what depends on no input can be a buffer",
    )


def _fixed(found: re.Match[str], text: str) -> Told:
    reason = re.search(r"inferred to be a constant \((\d+)\)", text)
    limits = re.search(r"guard (\d+) <= .*? <= (\d+)$", text, re.MULTILINE)
    only = reason[1] if reason else limits[1] if limits and limits[1] == limits[2] else None
    advice = re.search(r"Suggested fixes:\s*\n((?:\s+.+\n?)+)", text)
    fixes = "; ".join(line.strip() for line in advice[1].splitlines() if line.strip()) if advice else ""
    return (
        f"the size of {found[1]} is free, and the model "
        + (f"fixes it to {only}" if only else "restricts it"),
        "write x.shape[0] or -1 where it has a number, or leave the axis fixed"
        + (f" (torch suggests {fixes})" if fixes and not only else ""),
    )


def _no_fake(found: re.Match[str], text: str) -> Told:
    return (
        f"torch does not know what shape the custom operator {found[1]} gives",
        f"register it: {found[2]}" if found[2] else "register a fake implementation of it",
    )


def _no_operator(found: re.Match[str], text: str) -> Told:
    return (
        f"torch.onnx has no translation of {found[1]}.{found[2]}".removesuffix(".default"),
        "compute it by other operators there",
    )


def _constant(found: re.Match[str], text: str) -> Told:
    return (
        "it takes a gradient, or keeps a tensor from another trace",
        "compute the gradient in closed form, and keep no tensors of a run as attributes",
    )


_KINDS: list[tuple[str, Callable[[re.Match[str], str], Told]]] = [
    (r"Could not guard on data-dependent expression (zuf?\d+)(?= )", _size),
    (r"Could not guard on data-dependent expression (.+?) \(unhinted", _branch),
    (r"Could not extract specialized integer from data-dependent expression (.+?) \(unhinted", _size),
    (r"\.numpy\(\) is not supported", _numpy),
    (r"Constraints violated \((.+?)\)", _fixed),
    (r"no fake impl registered for <CustomOpDef\((.+?)\)>(?:.*?Please use `(.+?)`)?", _no_fake),
    (r"No ONNX function found for <OpOverload\(op='(.+?)', overload='(.+?)'\)>", _no_operator),
    (r"found a fake tensor in the exported program constant's list", _constant),
]


def _place(error: BaseException) -> str | None:
    """The innermost line of the traceback that is the model's own."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith((*_CALLERS, "<"))]
    return _shown(own[-1]) if own else None


def _shown(frame: traceback.FrameSummary) -> str:
    return _line(frame.filename, frame.lineno, frame.name, frame.line or "")


def _line(file: str, number: object, function: str, source: str) -> str:
    return f"{file}:{number}, in {function}: {source.strip()}".removesuffix(": ")


def _place_of_node(text: str, nodes: Iterable[fx.Node]) -> str | None:
    named = re.search(r"translating node %(\w+) ", text)
    node = next((node for node in nodes if named and node.name == named[1]), None)
    stack = str(node.meta.get("stack_trace") or "") if node is not None else ""
    frames = re.findall(r'File "(.+?)", line (\d+), in (.+?)\n\s*(.*)', stack)
    own = [f for f in frames if not f[0].startswith((*_CALLERS, "<"))]
    if not own:
        return None
    return _line(*own[-1])
