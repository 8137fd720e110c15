"""What a manifest says of its policy, beside what that says itself: the first decides what is asked of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pytest_reflex.errors import ReflexError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.verdict.results import READS

if TYPE_CHECKING:
    from exporters.bundle.manifest import Manifest

_MEANT = "; where that is meant,"
_INPUTS = f"{_MEANT} give inputs=, on the command line a recording as --model"


_AGAIN = "; export it again, or have the file say what the bundle reads"


def differences(
    stated: Manifest,
    family: Any,
    steps: int | None,
    model: Any,
    specs: Sequence[InputSpec],
    *,
    read: Sequence[InputSpec] = (),
) -> list[str]:
    """Each difference in words that name both sides.

    Args:
        stated: the manifest.
        family: the policy's family; None for a module, which says no more than it is.
        steps: how many steps are meant, where the caller has said it.
        model: the policy.
        specs: what fixtures are drawn from, as the manifest has it; nothing where somebody else says that.
        read: what the file of a module says that it reads; nothing where it says nothing.
    """
    of_inputs = _of_inputs(stated, family, model, specs) if family else _of_file(specs, read)
    return [*_of_loop(stated, family, steps, model), *of_inputs]


def _of_loop(stated: Manifest, family: Any, steps: int | None, model: Any) -> Iterator[str]:
    from exporters.flow.policy import FlowPolicy, unasked

    if family and not family.looped:
        return
    flow = family.flow(model, **stated.call) if family else model
    if not isinstance(flow, FlowPolicy):
        return
    if not family:
        yield from unasked(flow)
    if stated.steps is None:
        yield f"the bundle has no loop, and the policy one of {flow.steps} steps; export it again"
        return
    own = family.steps(model) if family else flow.steps
    if stated.steps not in (own, steps):
        how = "give a reference of so many steps" if family else "set the policy's steps"
        how += f", on the command line --steps {stated.steps}"
        yield f"the bundle takes {stated.steps} steps and the policy itself {own}{_MEANT} {how}"
    if stated.loop is None:  # a served one, whose loop is the server's
        return
    expected = flow.loop(stated.steps)
    for what in ("schedule", "noise", "output", "epilogue"):
        theirs, ours = getattr(stated.loop, what), getattr(expected, what)
        if theirs != ours:
            yield f"the bundle's loop has {what} {theirs!r} and the policy's {ours!r}; export it again"


def _of_inputs(stated: Manifest, family: Any, model: Any, specs: Sequence[InputSpec]) -> Iterator[str]:
    if not specs:
        return
    batch = next((spec.shape[0] for spec in specs if spec.shape), 1)
    try:
        own = family.read(model, stated.steps, batch=batch, **stated.options)
    except (ReflexError, TypeError) as error:
        yield f"the bundle's options {dict(stated.options)} are none of {family.name}'s ({error})"
        return
    names, wanted = [spec.name for spec in specs], [spec.name for spec in own]
    if names != wanted:
        yield f"{READS}{', '.join(names)} and the policy {', '.join(wanted)}{_INPUTS}"
        return
    for spec, want in zip(specs, own, strict=True):
        if not _same(spec, want):
            yield f"{READS}{_words(spec)} and the policy {_words(want)}{_INPUTS}"


def _of_file(specs: Sequence[InputSpec], read: Sequence[InputSpec]) -> Iterator[str]:
    """What a file says of inputs that are in the bundle too, in whatever order; of others a run says more."""
    own = {spec.name: spec for spec in read}
    for spec in specs:
        want = own.get(spec.name, spec)
        if not _same(spec, want):
            yield f"{READS}{_words(spec)} and the policy's file says {_words(want)}{_AGAIN}"


def _same(spec: InputSpec, want: InputSpec) -> bool:
    """Whether the two are alike but for axes that the bundle leaves free, which is more and not less."""
    free = spec.free or (None,) * len(spec.shape)
    if len(spec.shape) != len(want.shape) or (spec.dtype, spec.meaning) != (want.dtype, want.meaning):
        return False
    return all(name or n == m for name, n, m in zip(free, spec.shape, want.shape, strict=True))


def _words(spec: InputSpec) -> str:
    return f"{spec.name!r} {spec.dtype} {list(spec.shape)} {spec.meaning!r}"
