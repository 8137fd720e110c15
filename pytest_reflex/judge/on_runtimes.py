"""One candidate on several runtimes, each to be judged: what opens it there is known by name."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pytest_reflex.errors import SettingsError, a_type
from pytest_reflex.inputs import InputSpec
from pytest_reflex.judge.sides import Candidate, reference_runner
from pytest_reflex.runners import OnnxRunner, Runner, TorchRunner
from pytest_reflex.runners.runtimes import DEFAULT, GRAPH, POLICY, graph_runtime, runtime_named, what_it_opens
from pytest_reflex.settings import PROVIDERS

__all__ = ["OnRuntimes", "on_runtimes"]


@runtime_checkable
class OnRuntimes(Candidate, Protocol):
    """A candidate whose graphs any runtime opens, as a bundle is."""

    def on(self, runtime: str) -> Any:
        """Itself on that runtime, to be judged."""


@dataclass(frozen=True)
class _Beside:
    """What is judged beside a bundle, as that is: the policy itself, or a file that somebody made of it."""

    bundle: Candidate
    made: Runner

    @property
    def inputs(self) -> Sequence[InputSpec]:
        return self.bundle.inputs

    def runner(self, provider: str) -> Runner:
        return self.made

    def reference_runner(self, model: Any) -> Runner:
        return self.bundle.reference_runner(model)


def on_runtimes(
    candidate: Any, runtimes: Sequence[str], reference: Any, provider: str = PROVIDERS["cpu"]
) -> Mapping[str, Any]:
    """What can be judged, by the names of the runtimes, in their order.

    Args:
        candidate: a bundle, or the path of an ``.onnx`` file.
        runtimes: their names in full; ``NAME=FILE`` is a file of that runtime's own.
        reference: what is judged against, which a runtime that compiles the policy itself is made of.
        provider: ONNX Runtime's full name of the provider that it is to run on.

    Raises:
        SettingsError: the candidate is on a runtime already, no runtime opens it, a provider is asked of
            another runtime, or there is no policy to compile.
        RunnerError: nobody knows a runtime, or it opens something else.
    """
    if provider != PROVIDERS["cpu"] and (others := [name for name in runtimes if name != DEFAULT]):
        raise SettingsError(
            f"provider: {provider} is one of ONNX Runtime's, and runtimes has {others[0]} too; leave one out"
        )
    if not isinstance(candidate, OnRuntimes | str | os.PathLike):
        raise SettingsError(
            f"runtimes: the candidate is {a_type(candidate)}, which is on a runtime already; give a "
            "bundle or the path of an .onnx file"
        )
    if not any(_opens_it(name) for name in runtimes):
        raise SettingsError(
            f"runtimes: none of {', '.join(runtimes)} opens the candidate; name one that does, such as ort"
        )
    opened = functools.partial(_opened, candidate, reference, provider)
    return {name: opened(name) for name in runtimes}


def _opens_it(name: str) -> bool:
    """Whether a runtime opens the candidate's own graphs."""
    called, file, _ = name.partition("=")
    return not file and what_it_opens(runtime_named(called)) != POLICY


def _opened(candidate: Any, reference: Any, provider: str, name: str) -> Any:
    """The candidate on one runtime."""
    called, given, file = name.partition("=")
    opener = runtime_named(called)
    opens = what_it_opens(opener)
    if not given and opens != POLICY:
        if isinstance(candidate, OnRuntimes):
            return candidate.on(called)
        path = Path(candidate)
        return OnnxRunner(path, provider=provider) if called == DEFAULT else graph_runtime(called)(path)
    made = (
        _compiled(opener, candidate, reference, name)
        if opens == POLICY
        else _of_file(opener, candidate, file)
    )
    return _Beside(candidate, made) if isinstance(candidate, OnRuntimes) else made


def _of_file(opener: Callable[..., Runner], candidate: Any, file: str) -> Runner:
    opens = what_it_opens(opener)
    if opens == GRAPH:
        return opener(file)
    # A program has no names for what it gives.
    return opener(file, outputs=getattr(candidate, "outputs", None))


def _compiled(opener: Callable[..., Runner], candidate: Any, reference: Any, name: str) -> Runner:
    if "=" in name:
        raise SettingsError(
            f"runtimes: {name!r} names a file, and that runtime runs the policy; leave it out"
        )
    truth = reference_runner(reference, candidate)
    if not isinstance(truth, TorchRunner):
        raise SettingsError(
            f"runtimes: {name} compiles the policy itself, and the reference is {truth.name}, which is none; "
            "give the policy, or leave it out"
        )
    return opener(truth)
