"""Families by their names: the one place where a name becomes a family.

A bundle and a checkpoint say by name which family they are of. The families make bundles, so they stand above
this file, which knows no more of them than their names.
"""

from __future__ import annotations

import functools
import importlib
import os
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final

from exporters import checkpoints
from exporters.bundle.differences import differences
from pytest_reflex.errors import BundleError, CheckpointError, MissingPackageError, ReflexError
from pytest_reflex.runners import Runner, TorchRunner

if TYPE_CHECKING:
    from torch import nn

    from exporters.bundle.manifest import Manifest
    from exporters.flow.policy import FlowPolicy

# Where another distribution names its families.
GROUP: Final = "pytest_reflex.families"
FAMILIES: Final = (
    "act", "diffusion", "groot", "multi_task_dit", "pi0", "pi05", "smolvla", "tdmpc", "vqbet",
)  # fmt: skip

# What a checkpoint of a family calls itself, where that is not the family's name: known without torch.
_OWN_NAMES: Final = {"Gr00tN1d6": "groot", "Gr00tN1d7": "groot"}


def imported(module: str) -> Any:
    """A module of this package.

    Raises:
        MissingPackageError: a package that it needs is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("exporters", "pytest_reflex"):
            raise
        raise MissingPackageError(
            f"{module} needs {error.name}, which is not installed; pip install 'pytest-reflex[export]'"
        ) from error


def _installed() -> dict[str, EntryPoint]:
    """The families of other distributions, by their names.

    Raises:
        ReflexError: two are of one name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in FAMILIES or entry.name in found:
            other = f"by {found[entry.name].value}" if entry.name in found else "in this package"
            raise ReflexError(
                f"two installed families are named {entry.name!r}: {entry.value}, and one {other}; "
                "uninstall the distribution of one"
            )
        found[entry.name] = entry
    return found


def known_families(*, built_in: bool = True) -> tuple[str, ...]:
    """The names of all families: :data:`FAMILIES`, then those of other distributions."""
    return (*(FAMILIES if built_in else ()), *sorted(_installed()))


def family_named(name: str) -> Any:
    """A family, an ``exporters.families.base.Family``, by one of the names of :func:`known_families`.

    Raises:
        MissingPackageError: a package that it needs is not installed.
        BundleError: nobody knows the name.
        ReflexError: what is installed under it cannot be imported, or is no family of that name.
    """
    entry = _installed().get(name)
    if entry is None and name not in FAMILIES:
        raise BundleError(f"no family is named {name!r}, expected one of {', '.join(known_families())}")
    if entry is None:
        return imported(f"exporters.families.{name}").FAMILY
    try:
        family = entry.load()
    except (Exception, SystemExit) as error:
        raise ReflexError(
            f"the family {name!r} cannot be imported from {entry.value}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(family, imported("exporters.families.base").Family) or family.name != name:
        raise ReflexError(
            f"{entry.value} is installed as the family {name!r} and is no exporters.families.base.Family "
            "of that name"
        )
    return family


def family_of(checkpoint: str | os.PathLike[str], *, revision: str | None = None) -> str:
    """The family of a checkpoint, by what its ``config.json`` says.

    Args:
        checkpoint: a directory or a hub id.
        revision: branch, tag or commit of the hub id.

    Raises:
        CheckpointError: it cannot be had, or its family is none of :func:`known_families`.
    """
    config = checkpoints.read_config(checkpoints.resolve(checkpoint, revision=revision))
    stated = config.get("model_type") or config.get("type")
    found = _OWN_NAMES.get(str(stated), stated)
    known = known_families()
    if found not in known:
        others = [name for name in known_families(built_in=False) if stated in family_named(name).own_names]
        if len(others) > 1:
            raise CheckpointError(
                f"{checkpoint} is a checkpoint of {stated!r}, which {' and '.join(others)} say is theirs; "
                "uninstall one, or export with the family itself"
            )
        found = others[0] if others else found
    if found not in known:
        raise CheckpointError(
            f"{checkpoint} is a checkpoint of {found!r}, expected one of {', '.join(known)}; "
            "export any other model from Python with exporters.export"
        )
    return str(found)


def reference_runner(stated: Manifest, model: Any) -> Runner:
    """``model``, a policy of the bundle's family or a function that loads one, as its reference.

    It is asked what the manifest says, and doubts it where the policy says otherwise.

    Raises:
        BundleError: the manifest tells it what no reference of the family can be told.
    """
    family = family_named(stated.family) if stated.family != "module" else None
    runner: Runner
    if family is not None:
        kept = [option.name for option in family.options if option.kept]
        if unknown := sorted(stated.call.keys() - set(kept)):
            raise BundleError(
                f"its manifest tells the reference {unknown[0]!r}, and {family.name}'s takes "
                f"{', '.join(kept) or 'nothing'} besides the steps; export the bundle again"
            )
        runner = family.reference(model, steps=stated.steps, **stated.call)
    else:
        from exporters.flow.policy import flow_runner

        looped = stated.layout != "single"
        runner = flow_runner(model, stated.steps, stated.output_names, looped=looped)
    if isinstance(runner, TorchRunner):
        runner.doubted_by = functools.partial(differences, stated, family)
    return runner


def flow_of(stated: Manifest, policy: nn.Module) -> FlowPolicy:
    """The two halves that the bundle's graphs were traced from."""
    from exporters.flow.policy import FlowPolicy

    if isinstance(policy, FlowPolicy):
        return policy
    made: FlowPolicy = family_named(stated.family).flow(policy, **stated.call)
    return made.eval()
