"""What opens a graph: the runtimes by name, this package's own and those that other distributions bring."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, Final

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners.base import Runner
from pytest_reflex.settings import RUNTIMES
from pytest_reflex.verdict.naming import did_you_mean

__all__ = [
    "DEFAULT",
    "GRAPH",
    "GROUP",
    "POLICY",
    "full_name",
    "graph_runtime",
    "runtime_named",
    "runtimes",
    "usual",
    "what_it_opens",
]

# Where another distribution names what opens a graph, as ``name = module:callable``.
GROUP: Final = "pytest_reflex.runners"
DEFAULT: Final = "onnxruntime"
GRAPH: Final = "graph"
POLICY: Final = "policy"
_OWN: Final = {
    "onnxruntime": "pytest_reflex.runners.onnx:OnnxRunner",
    "openvino": "pytest_reflex.runners.openvino:OpenVinoRunner",
    "evaluator": "pytest_reflex.runners.evaluator:EvaluatorRunner",
    "torch.compile": "pytest_reflex.runners.compiled:CompiledRunner",
    "aotinductor": "pytest_reflex.runners.packaged:AotInductorRunner",
    "executorch": "pytest_reflex.runners.packaged:ExecuTorchRunner",
}
# Those that are asked where nobody says which, each by the package that it needs.
_USUAL: Final = {DEFAULT: "onnxruntime", "openvino": "openvino"}


def runtimes() -> tuple[str, ...]:
    """The names of all of them; whether one can run here is known when it opens a graph."""
    return (*_OWN, *sorted({entry.name for entry in entry_points(group=GROUP)} - _OWN.keys()))


def usual() -> tuple[list[str], list[str]]:
    """Those that are asked where nobody says which: the names of the installed ones, then of the others."""
    there = {name: find_spec(package) is not None for name, package in _USUAL.items()}
    return [name for name in there if there[name]], [name for name in there if not there[name]]


def full_name(name: str) -> str:
    """The name of a runtime in full: ``ort`` is ``onnxruntime``."""
    return RUNTIMES.get(name, name)


def _installed(name: str) -> str:
    """Where another distribution says that its runtime is."""
    found = sorted({entry.value for entry in entry_points(group=GROUP) if entry.name == name})
    if not found:
        known = runtimes()
        there = ", ".join(known)
        raise RunnerError(f"no runtime is named {name!r}{did_you_mean(name, known)}; there is {there}")
    if len(found) > 1:
        raise RunnerError(f"the runtime {name!r} is installed twice, {' and '.join(found)}; uninstall one")
    return found[0]


def what_it_opens(opener: Callable[..., Runner]) -> str:
    """``graph``, an ONNX graph; ``policy``, a :class:`~pytest_reflex.runners.TorchRunner` of the policy
    itself; or the suffix of files that it opens and that no bundle has, such as ``.pte``."""
    return str(getattr(opener, "OPENS", GRAPH))


def graph_runtime(name: str) -> Callable[..., Runner]:
    """What makes a runner of the path of a graph, with the keywords ``name`` and ``threads``.

    Raises:
        RunnerError: as of :func:`runtime_named`, or it opens no graphs.
    """
    opener = runtime_named(name)
    opens = what_it_opens(opener)
    if opens == POLICY:
        raise RunnerError(
            f"the runtime {name!r} runs the policy itself, and no graph; ask for it beside others, by "
            "reflex matrix or by runtimes of a parity test"
        )
    if opens != GRAPH:
        raise RunnerError(
            f"the runtime {name!r} opens a {opens}, and no graph; say which, as {name}=FILE{opens}, by "
            "reflex matrix or by runtimes of a parity test"
        )
    return opener


def runtime_named(name: str) -> Callable[..., Runner]:
    """What makes a runner of what it opens (:func:`what_it_opens`), with the keyword ``name``.

    Raises:
        RunnerError: nobody has that name, more than one has, or what has it cannot be imported.
    """
    # What is installed is read only for a name that is none of this package's: every bundle comes by here.
    where = _OWN.get(full_name(name)) or _installed(name)
    module, _, attribute = where.partition(":")
    try:
        made: Any = getattr(import_module(module), attribute)
    except Exception as error:
        raise RunnerError(
            f"the runtime {name!r} is {where}, which cannot be imported ({type(error).__name__}: {error})"
        ) from error
    if not callable(made):
        raise RunnerError(f"the runtime {name!r} is {where}, which cannot be called with what it opens")
    opener: Callable[..., Runner] = made
    return opener
