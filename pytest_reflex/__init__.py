"""Proves in pytest that an exported ONNX policy computes what the PyTorch policy computes.

The public names load on first use, so that ``import pytest_reflex`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack

from pytest_reflex._version import __version__

if TYPE_CHECKING:
    from pytest_reflex.errors import ParityError, ReflexError
    from pytest_reflex.inputs import InputSpec
    from pytest_reflex.inputs.episodes import episodes
    from pytest_reflex.inputs.strategies import observations
    from pytest_reflex.judge.check import check
    from pytest_reflex.judge.matrix import matrix
    from pytest_reflex.judge.rollout.closed_loop import closed_loop
    from pytest_reflex.judge.sequence import check_sequence
    from pytest_reflex.result import ParityResult
    from pytest_reflex.runners import (
        FunctionRunner,
        OnnxReference,
        OnnxRunner,
        RecordedRunner,
        TorchRunner,
    )
    from pytest_reflex.settings import CallOptions

_T = TypeVar("_T")

__all__ = [
    "FunctionRunner",
    "InputSpec",
    "OnnxReference",
    "OnnxRunner",
    "ParityError",
    "ParityResult",
    "RecordedRunner",
    "ReflexError",
    "TorchRunner",
    "__version__",
    "check",
    "check_sequence",
    "closed_loop",
    "episodes",
    "matrix",
    "observations",
    "parity",
]

_HOMES: Final = {
    "FunctionRunner": "pytest_reflex.runners",
    "InputSpec": "pytest_reflex.inputs",
    "OnnxReference": "pytest_reflex.runners",
    "OnnxRunner": "pytest_reflex.runners",
    "ParityError": "pytest_reflex.errors",
    "ParityResult": "pytest_reflex.result",
    "RecordedRunner": "pytest_reflex.runners",
    "ReflexError": "pytest_reflex.errors",
    "TorchRunner": "pytest_reflex.runners",
    "check": "pytest_reflex.judge.check",
    "check_sequence": "pytest_reflex.judge.sequence",
    "closed_loop": "pytest_reflex.judge.rollout.closed_loop",
    "matrix": "pytest_reflex.judge.matrix",
    "episodes": "pytest_reflex.inputs.episodes",
    "observations": "pytest_reflex.inputs.strategies",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pytest_reflex' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Parity(list[Any]):
    """The marks ``parity(...)`` puts on a test; a list, so that ``pytestmark = parity(...)`` works too."""

    def __call__(self, test: _T) -> _T:
        for mark in self:
            test = mark(test)
        return test


def parity(
    function: Any = None,
    /,
    **options: Unpack[CallOptions],
) -> Any:
    """Mark a test, a class or a module (``pytestmark``) as a parity test.

    It is ``pytest.mark.parity`` together with ``usefixtures("parity")``: with the plugin off such a test is
    an error and never a pass. A keyword or a value that is none fails the tests that it marks, and no others.

    Args:
        **options: ``threshold``, ``fixtures`` and so on, the keywords of
            :class:`~pytest_reflex.settings.CallOptions`.

    Returns:
        A decorator; or the test itself when used bare, as ``@reflex.parity``.
    """
    import pytest

    bare = callable(function)
    positional = () if bare or function is None else (function,)
    given = {name: value for name, value in options.items() if value is not None}
    marks = _Parity([pytest.mark.usefixtures("parity"), pytest.mark.parity(*positional, **given)])
    return marks(function) if bare else marks
