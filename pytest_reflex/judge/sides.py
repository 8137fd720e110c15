"""Who is judged against whom: what a caller holds, as two runners, one provider and the inputs for both."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pytest_reflex.errors import InputError, ReflexError, RunnerError, SettingsError, a_type
from pytest_reflex.inputs import InputSpec
from pytest_reflex.runners import OnnxReference, OnnxRunner, RecordedRunner, Runner
from pytest_reflex.runners.base import said_by
from pytest_reflex.runners.torch import forward_runner
from pytest_reflex.settings import PROVIDERS
from pytest_reflex.verdict.naming import near_path


@runtime_checkable
class Candidate(Protocol):
    """What can be judged besides a runner: it knows its inputs and makes its runner, as a bundle does."""

    @property
    def inputs(self) -> Sequence[InputSpec]:
        """What it reads."""

    def runner(self, provider: str) -> Runner:
        """Itself as a runner on that execution provider (ONNX Runtime's full name)."""

    def reference_runner(self, model: Any) -> Runner:
        """The model it was made from, as a runner that is called the way the candidate is."""


@runtime_checkable
class HasRunner(Protocol):
    """A reference that knows how it is asked, where the candidate does not: a policy in two halves."""

    def own_runner(self) -> Runner:
        """Itself as a runner."""


@runtime_checkable
class Sealed(Protocol):
    """A candidate whose files have a manifest, or a runner that watches those that it opened."""

    @property
    def changed(self) -> str:
        """What of its files is not as its manifest says, or was written to since; empty where none is.

        No verdict passes that.
        """
        ...


@runtime_checkable
class AroundPolicy(Protocol):
    """A candidate, or a runner, that may have processors around the policy that it runs."""

    @property
    def has_processors(self) -> bool:
        """Whether it has; a run of the policy alone does not run them."""
        ...


@dataclass(frozen=True)
class Sides:
    """What is judged, against what.

    Attributes:
        reference: its runner.
        candidate: its runner, never the reference's.
        provider: the provider that the verdict insists on, or "" where the candidate has none.
        inputs: what both are given: specs, or recorded inputs.
    """

    reference: Runner
    candidate: Runner
    provider: str
    inputs: object


def sides_of(reference: Any, candidate: Any, inputs: object, provider: str) -> Sides:
    """Both sides of a check, from whatever its caller holds.

    Args:
        reference: a runner, a :class:`HasRunner`, an ``nn.Module``, or what the candidate knows how to call.
        candidate: a runner, the path of an ``.onnx`` file, or a :class:`Candidate`.
        inputs: the inputs that were given, or None.
        provider: ONNX Runtime's full name of the provider asked for.

    Raises:
        ReflexError: a side is nothing that can be judged, or both are the same runner.
        SettingsError: the candidate was made for another provider.
        InputError: nobody knows the inputs.
    """
    torch = sys.modules.get("torch")
    path = f"the path {os.fspath(reference)}" if isinstance(reference, str | os.PathLike) else ""
    export = path or ("a bundle" if isinstance(reference, Candidate) else "")
    if export and torch and isinstance(candidate, torch.nn.Module):
        raise ReflexError(
            f"candidate is {_said(candidate)} and reference {export}; the reference, the policy, comes first"
        )
    tested = candidate_runner(candidate, provider)
    truth = reference_runner(reference, candidate)
    if truth is tested:
        raise ReflexError(f"{truth.name} is given as both reference and candidate; give two runners")
    asked = provider_asked(tested, provider)
    return Sides(truth, tested, asked, inputs_for(inputs, truth, candidate))


def candidate_runner(candidate: Any, provider: str) -> Runner:
    """The candidate as a runner, on the provider (full name) unless it is a runner already."""
    if isinstance(candidate, OnnxReference):
        raise ReflexError(
            f"{candidate.name} is given as candidate and is said to be a reference; give the path"
        )
    if isinstance(candidate, Runner):
        return candidate
    if isinstance(candidate, Candidate):
        return candidate.runner(provider)
    if isinstance(candidate, str | os.PathLike):
        path = Path(candidate)
        if path.is_dir():
            raise ReflexError(
                f"candidate {path} is a directory; open it with exporters.open_bundle({str(path)!r})"
            )
        if not path.is_file():  # said before the reference has run for an hour
            raise RunnerError(
                f"candidate {path} does not exist{near_path(path)}; give the path of an .onnx file"
            )
        return OnnxRunner(path, provider=provider)
    raise ReflexError(
        f"candidate is {_said(candidate)}; give a runner, the path of an .onnx file, or a bundle"
    )


def reference_runner(reference: Any, candidate: Any, *, apart: bool = False) -> Runner:
    """The reference as a runner; the candidate knows best how to call the model it was made from.

    One that does not know leaves it to the model. ``apart`` is as for
    :class:`~pytest_reflex.runners.TorchRunner`.
    """
    if isinstance(reference, Runner):
        return reference
    if isinstance(candidate, Candidate):
        return candidate.reference_runner(reference)
    if isinstance(reference, HasRunner) and not isinstance(reference, type):
        return reference.own_runner()
    torch = sys.modules.get("torch")  # no module is given by someone who has not imported it
    if torch is not None and isinstance(reference, torch.nn.Module):
        return forward_runner(reference, apart=apart)
    if isinstance(reference, str | os.PathLike):
        raise ReflexError(
            f"reference is the path {os.fspath(reference)}, expected a runner or an nn.Module; where an ONNX "
            "graph is to be the judge, and PyTorch not, give OnnxReference(path)"
        )
    called = f"{reference.__name__}(), what it gives, or " if _wants_nothing(reference) else ""
    raise ReflexError(
        f"reference is {_said(reference)}; give {called}an nn.Module, a runner, or FunctionRunner(f) for a "
        "function of named inputs"
    )


def _wants_nothing(given: object) -> bool:
    """Whether it is a function that can be called with nothing, such as one that loads a policy."""
    if not inspect.isfunction(given) or given.__name__ == "<lambda>":
        return False
    parameters = inspect.signature(given).parameters.values()
    return all(p.default is not p.empty for p in parameters)


def _said(given: object) -> str:
    """What was given, in words: a class is named as one, and a function by its name."""
    if isinstance(given, type):
        return f"the class {given.__name__}, not one of it"
    return f"the function {given.__name__}" if inspect.isroutine(given) else a_type(given)


def provider_asked(runner: Runner, provider: str) -> str:
    """The provider that the verdict insists on, or "" where the candidate has none."""
    made_for = said_by(runner, "provider_asked", None)
    if made_for is None:
        # No ONNX Runtime session, so nothing to fall back from; but what was asked for must still be met.
        return "" if provider == PROVIDERS["cpu"] else provider
    if made_for not in PROVIDERS.values() and provider == PROVIDERS["cpu"]:
        return str(made_for)  # another runtime's, on what it was made for
    if made_for != provider:
        raise SettingsError(
            f"provider: {provider} is asked for and {runner.name} was made for {made_for}; give one"
        )
    return str(made_for)


def inputs_for(inputs: object, reference: Runner, candidate: Any) -> object:
    """The inputs that were given, else the recorded reference's, else the candidate's own, else the
    reference's."""
    if inputs is not None:
        return inputs
    if isinstance(reference, RecordedRunner):
        return reference.recorded()  # it can answer no others
    if isinstance(candidate, Candidate):
        return candidate.inputs
    if isinstance(reference, OnnxReference) and reference.inputs is not None:
        return reference.inputs
    if isinstance(candidate, str | os.PathLike):
        raise InputError(
            f"inputs is None, and {os.fspath(candidate)} says only this of them: {_stated(candidate)}; give "
            "that, with what each stands for, such as meaning=State() or Image() of pytest_reflex.inputs"
        )
    raise InputError("inputs is None and the candidate does not know its own; give a list of InputSpec")


def _stated(candidate: str | os.PathLike[str]) -> str:
    """The argument to write for a plain file, by what its graph states."""
    from pytest_reflex.runners.graph_inputs import graph_inputs

    specs = ", ".join(
        f"InputSpec({spec.name!r}, {spec.shape}{'' if spec.dtype == 'float32' else f', {spec.dtype!r}'})"
        for spec in graph_inputs(OnnxRunner(os.fspath(candidate)))
    )
    return f"inputs=[{specs}]"


def known_inputs(candidate: Any) -> Sequence[InputSpec]:
    """What the candidate says its inputs stand for, when recorded ones are given; often nothing."""
    return list(candidate.inputs) if isinstance(candidate, Candidate) else ()


def changed(candidate: Any, runner: Runner) -> list[str]:
    """What of the candidate's files is not as its manifest says or as its runner opened it; often nothing."""
    holders = (candidate, runner) if isinstance(candidate, Candidate) else (runner,)
    return list(dict.fromkeys(said for holder in holders if (said := _changes(holder))))


def has_processors(candidate: Any, runner: Runner) -> bool:
    """Whether processors stand around the candidate's policy, which its runner leaves out."""
    return any(said_by(holder, "has_processors", False) is True for holder in (candidate, runner))


def _changes(holder: object) -> str:
    what = said_by(holder, "changed", "")
    if isinstance(what, str):
        return str.__str__(what)  # a text whose truth is another says something, too
    return f"changed of the {type(holder).__name__} is {what!r}, expected text, empty for no change"
