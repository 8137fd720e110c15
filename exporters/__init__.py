"""The makers: how a policy becomes a bundle.

``export``, ``cached`` and ``open_bundle`` are for any ``nn.Module`` and any bundle; each family of
policies has a module of its own with ``load``, ``reference``, ``inputs`` and ``export``. All of them
load on first use: opening a bundle imports neither torch nor onnx.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from exporters.bundle.registry import FAMILIES, family_of
    from exporters.bundle.runner import Policy
    from exporters.bundles import Bundle, Export, locate, open_bundle
    from exporters.caching.cached import cached
    from exporters.exporting import export
    from exporters.exporting.repair import repair
    from exporters.families import (
        act,
        diffusion,
        gaussian_actor,
        groot,
        lerobot,
        multi_task_dit,
        pi0,
        pi0_fast,
        pi05,
        smolvla,
        tdmpc,
        vqbet,
        xvla,
    )
    from exporters.families.one_call import export_policy
    from exporters.flow.policy import FlowPolicy
    from exporters.flow.schedule import EulerSchedule

__all__ = [
    "FAMILIES",
    "Bundle",
    "EulerSchedule",
    "Export",
    "FlowPolicy",
    "Policy",
    "act",
    "cached",
    "diffusion",
    "export",
    "export_policy",
    "family_of",
    "gaussian_actor",
    "groot",
    "lerobot",
    "locate",
    "multi_task_dit",
    "open_bundle",
    "pi0",
    "pi0_fast",
    "pi05",
    "repair",
    "smolvla",
    "tdmpc",
    "vqbet",
    "xvla",
]

# Where a name is that is no family's module.
_HOMES: Final = {
    "FAMILIES": "exporters.bundle.registry",
    "Bundle": "exporters.bundles",
    "EulerSchedule": "exporters.flow.schedule",
    "Export": "exporters.bundles",
    "FlowPolicy": "exporters.flow.policy",
    "Policy": "exporters.bundle.runner",
    "cached": "exporters.caching.cached",
    "export": "exporters.exporting",
    "export_policy": "exporters.families.one_call",
    "family_of": "exporters.bundle.registry",
    "locate": "exporters.bundles",
    "open_bundle": "exporters.bundles",
    "repair": "exporters.exporting.repair",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'exporters' has no attribute {name!r}")
    from exporters.bundle.registry import imported

    module = imported(_HOMES.get(name, f"exporters.families.{name}"))
    value = globals()[name] = getattr(module, name) if name in _HOMES else module
    return value


# What opens, reads and runs bundles; all else makes them, with torch.
_WITHOUT_TORCH: Final = frozenset(
    ("FAMILIES", "Bundle", "EulerSchedule", "Export", "Policy", "family_of", "locate", "open_bundle")
)


def __dir__() -> list[str]:
    """The public names that can be had here: tab completion gets each, and a missing package raises."""
    from importlib.util import find_spec

    try:
        makes = find_spec("torch") is not None
    except ValueError:  # somebody put None in its place
        makes = False
    return sorted(__all__ if makes else _WITHOUT_TORCH)
