"""A policy or a checkpoint -> a bundle, whichever family it is of."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from exporters.bundle.registry import family_named, family_of, known_families
from pytest_reflex.errors import InputError, ReflexError
from pytest_reflex.inputs import InputSpec

if TYPE_CHECKING:
    from torch import nn

    from exporters.bundles import Export
    from exporters.families.base import Family

__all__ = ["export_policy", "family_of_policy"]


def family_of_policy(policy: object) -> Family | None:
    """The family of a live policy, by its class; None where none knows it."""
    names = {kind.__name__ for kind in type(policy).__mro__}
    for name in known_families():
        # One of another distribution that cannot be imported stands in nobody's way.
        with contextlib.suppress(ReflexError):
            family: Family = family_named(name)
            if names.intersection(family.policies):
                return family
    return None


def export_policy(
    policy: nn.Module | str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    inputs: Sequence[InputSpec] | None = None,
    revision: str | None = None,
    **options: Any,
) -> Export:
    """Export a policy as a bundle, proven against itself: of a family, or one's own.

    Args:
        policy: a checkpoint directory, a training of lerobot's, a hub id, a live policy of a family, or any
            module.
        out_dir: where the bundle goes.
        inputs: what a policy of no family reads; one of a family says that itself.
        revision: branch, tag or commit of the hub id.
        **options: the family's own options, and what :func:`exporters.export` takes.

    Raises:
        ParityError: the export misses the threshold; nothing is written.
        InputError: the policy is of no family and nobody says what it reads, or both say it.
        ReflexError: it could not be found, loaded, made or judged; nothing is written.
    """
    family: Family | None
    if isinstance(policy, (str, os.PathLike)):
        family = family_named(family_of(policy, revision=revision))
        live = family.load(policy, revision=revision)
    else:
        live, family = policy, family_of_policy(policy)
    if family is None:
        from exporters.exporting import export

        if inputs is None:
            raise InputError(
                f"a {type(live).__name__} is of none of the families {', '.join(known_families())}; "
                "say what it reads, inputs=[InputSpec(...), ...]"
            )
        return export(live, out_dir, inputs=inputs, **options)
    if inputs is not None:
        raise InputError(f"inputs is given, and a policy of {family.name} says itself what it reads")
    return family.export(live, out_dir, **options)
