"""Proves in pytest that an exported ONNX policy computes what the PyTorch policy computes.

The public names load on first use, so that ``import pytest_reflex`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final, Never, TypeVar

from pytest_reflex._version import __version__

if TYPE_CHECKING:
    from pytest_reflex.errors import ParityError, ReflexError
    from pytest_reflex.inputs import InputSpec
    from pytest_reflex.judge.check import check
    from pytest_reflex.result import ParityResult
    from pytest_reflex.runners import OnnxRunner, RecordedRunner, TorchRunner

_T = TypeVar("_T")

__all__ = [
    "InputSpec",
    "OnnxRunner",
    "ParityError",
    "ParityResult",
    "RecordedRunner",
    "ReflexError",
    "TorchRunner",
    "__version__",
    "check",
    "parity",
]

_HOMES: Final = {
    "InputSpec": "pytest_reflex.inputs",
    "OnnxRunner": "pytest_reflex.runners",
    "ParityError": "pytest_reflex.errors",
    "ParityResult": "pytest_reflex.result",
    "RecordedRunner": "pytest_reflex.runners",
    "ReflexError": "pytest_reflex.errors",
    "TorchRunner": "pytest_reflex.runners",
    "check": "pytest_reflex.judge.check",
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
    *,
    threshold: float | str | None = None,
    fixtures: int | None = None,
    seed: int | None = None,
    provider: str | None = None,
    floor: bool | float | None = None,
    trajectory: bool | None = None,
    **unknown: Never,
) -> Any:
    """Mark a test, a class or a module (``pytestmark``) as a parity test.

    It is ``pytest.mark.parity`` with its keywords checked where they are written, together with
    ``usefixtures("parity")``: with the plugin off such a test is an error and never a pass.

    Args:
        threshold: pass is ``max_abs_diff`` strictly below it, in the outputs' own unit (default 1e-4); or
            ``"2x floor"``, a multiple of PyTorch's own error against float64.
        fixtures: how many fixtures are drawn (default 5).
        seed: what they are drawn with (default 0).
        provider: the execution provider the candidate must run on (default ``cpu``).
        floor: run the reference in float64 too, and say what is rounding and what a bug.
        trajectory: see the error after each denoising step too (by default where the verdict is fail or a
            report is written).

    Returns:
        A decorator; or the test itself when used bare, as ``@reflex.parity``.

    Raises:
        SettingsError: an unknown keyword, a positional argument or a bad value.
    """
    import pytest

    from pytest_reflex import settings

    values = {
        "threshold": threshold,
        "fixtures": fixtures,
        "seed": seed,
        "provider": provider,
        "floor": floor,
        "trajectory": trajectory,
    }
    bare = callable(function)
    positional = () if bare or function is None else (function,)
    settings.resolve(settings.marker({**values, **unknown}, positional))
    given = {name: value for name, value in values.items() if value is not None}
    marks = _Parity([pytest.mark.usefixtures("parity"), pytest.mark.parity(**given)])
    return marks(function) if bare else marks
