"""One candidate on several runtimes, each to be judged: what opens its graphs there is known by name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pytest_reflex.errors import SettingsError
from pytest_reflex.runners import OnnxRunner
from pytest_reflex.runners.runtimes import DEFAULT, runtime_named
from pytest_reflex.settings import PROVIDERS

__all__ = ["OnRuntimes", "on_runtimes"]


@runtime_checkable
class OnRuntimes(Protocol):
    """A candidate that any runtime opens, as a bundle is."""

    def on(self, runtime: str) -> Any:
        """Itself on that runtime, to be judged."""


def on_runtimes(
    candidate: Any, runtimes: Sequence[str], provider: str = PROVIDERS["cpu"]
) -> Mapping[str, Any]:
    """What can be judged, by the names of the runtimes, in their order.

    Args:
        candidate: a bundle, or the path of an ``.onnx`` file.
        runtimes: their names in full.
        provider: ONNX Runtime's full name of the provider that it is to run on.

    Raises:
        SettingsError: the candidate is on a runtime already, or a provider is asked of another runtime.
        RunnerError: nobody knows a runtime.
    """
    if provider != PROVIDERS["cpu"] and (others := [name for name in runtimes if name != DEFAULT]):
        raise SettingsError(
            f"provider: {provider} is one of ONNX Runtime's, and runtimes has {others[0]} too; leave one out"
        )
    if isinstance(candidate, OnRuntimes):
        return {name: candidate.on(name) for name in runtimes}
    if not isinstance(candidate, str | os.PathLike):
        raise SettingsError(
            f"runtimes: the candidate is a {type(candidate).__name__}, which is on a runtime already; give a "
            "bundle or the path of an .onnx file"
        )
    path = Path(candidate)
    return {
        name: OnnxRunner(path, provider=provider) if name == DEFAULT else runtime_named(name)(path)
        for name in runtimes
    }
