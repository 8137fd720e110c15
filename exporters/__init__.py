"""The makers: how a policy becomes a bundle.

``export``, ``cached`` and ``open_bundle`` are for any ``nn.Module`` and any bundle; each family of
policies has a module of its own with ``load``, ``reference``, ``inputs`` and ``export``. All of them
load on first use: opening a bundle imports neither torch nor onnx.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any, Final

from pytest_reflex.errors import CheckpointError, MissingPackageError

if TYPE_CHECKING:
    from exporters import groot, pi0, pi05, smolvla
    from exporters.bundle import Bundle, Export, open_bundle
    from exporters.flow import FlowPolicy
    from exporters.once import cached
    from exporters.pipeline import export
    from exporters.policy import Policy
    from exporters.schedule import EulerSchedule

__all__ = [
    "FAMILIES",
    "Bundle",
    "EulerSchedule",
    "Export",
    "FlowPolicy",
    "Policy",
    "cached",
    "export",
    "family_of",
    "groot",
    "open_bundle",
    "pi0",
    "pi05",
    "smolvla",
]

FAMILIES: Final = ("groot", "pi0", "pi05", "smolvla")

# What a checkpoint of a family calls itself, where that is not the family's name.
_OWN_NAMES: Final = {"Gr00tN1d6": "groot", "Gr00tN1d7": "groot"}

_HOMES: Final = {
    "Bundle": "exporters.bundle",
    "EulerSchedule": "exporters.schedule",
    "Export": "exporters.bundle",
    "FlowPolicy": "exporters.flow",
    "Policy": "exporters.policy",
    "cached": "exporters.once",
    "export": "exporters.pipeline",
    "open_bundle": "exporters.bundle",
}


def __getattr__(name: str) -> Any:
    if name in FAMILIES:
        return _import(f"exporters.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'exporters' has no attribute {name!r}")
    value = getattr(_import(_HOMES[name]), name)
    globals()[name] = value
    return value


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("exporters", "pytest_reflex"):
            raise
        raise MissingPackageError(
            f"{module} needs {error.name}, which is not installed; pip install 'pytest-reflex[export]'"
        ) from error


def family_of(checkpoint: str | os.PathLike[str], *, revision: str | None = None) -> str:
    """The family of a checkpoint, by what its ``config.json`` says.

    Args:
        checkpoint: a directory or a hub id.
        revision: branch, tag or commit of the hub id.

    Raises:
        CheckpointError: it cannot be had, or its family is not one of :data:`FAMILIES`.
    """
    from exporters import checkpoints

    config = checkpoints.read_config(checkpoints.resolve(checkpoint, revision=revision))
    stated = config.get("model_type") or config.get("type")
    found = _OWN_NAMES.get(str(stated), stated)
    if found not in FAMILIES:
        raise CheckpointError(
            f"{checkpoint} is a checkpoint of {found!r}, expected one of {', '.join(FAMILIES)}; "
            "export any other model from Python with exporters.export"
        )
    return str(found)
