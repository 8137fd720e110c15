"""Families by their names: the one place where a name becomes a module.

A bundle and a checkpoint say by name which family they are of. The families make bundles, so they stand above
this file, which knows no more of them than their names.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any, Final

from exporters import checkpoints
from pytest_reflex.errors import CheckpointError, MissingPackageError
from pytest_reflex.runners import Runner, TorchRunner

if TYPE_CHECKING:
    from torch import nn

    from exporters.bundle.store import Described
    from exporters.flow.policy import FlowPolicy

FAMILIES: Final = ("groot", "pi0", "pi05", "smolvla")

# What a checkpoint of a family calls itself, where that is not the family's name.
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


def family_named(name: str) -> Any:
    """The module of a family, one of :data:`FAMILIES`."""
    return imported(f"exporters.families.{name}")


def family_of(checkpoint: str | os.PathLike[str], *, revision: str | None = None) -> str:
    """The family of a checkpoint, by what its ``config.json`` says.

    Args:
        checkpoint: a directory or a hub id.
        revision: branch, tag or commit of the hub id.

    Raises:
        CheckpointError: it cannot be had, or its family is not one of :data:`FAMILIES`.
    """
    config = checkpoints.read_config(checkpoints.resolve(checkpoint, revision=revision))
    stated = config.get("model_type") or config.get("type")
    found = _OWN_NAMES.get(str(stated), stated)
    if found not in FAMILIES:
        raise CheckpointError(
            f"{checkpoint} is a checkpoint of {found!r}, expected one of {', '.join(FAMILIES)}; "
            "export any other model from Python with exporters.export"
        )
    return str(found)


def reference_runner(bundle: Described, model: Any) -> Runner:
    """``model``, a policy of the bundle's family or a function that loads one, as its reference."""
    if bundle.family != "module":
        family = family_named(bundle.family)
        runner: Runner = family.reference(model, steps=bundle.manifest["steps"], **bundle.manifest["call"])
        return runner
    if bundle.layout == "single":
        return TorchRunner(model, outputs=bundle.outputs)
    from exporters.flow.policy import flow_runner

    return flow_runner(model, bundle.manifest["steps"], bundle.outputs)


def flow_of(bundle: Described, policy: nn.Module) -> FlowPolicy:
    """The two halves that the bundle's graphs were traced from."""
    from exporters.flow.policy import FlowPolicy

    if isinstance(policy, FlowPolicy):
        return policy
    made: FlowPolicy = family_named(bundle.family).flow(policy, **bundle.manifest["call"])
    return made.eval()
