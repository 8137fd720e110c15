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
    from exporters.families import groot, lerobot, pi0, pi05, smolvla
    from exporters.flow.policy import FlowPolicy
    from exporters.flow.schedule import EulerSchedule

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
    "lerobot",
    "locate",
    "open_bundle",
    "pi0",
    "pi05",
    "repair",
    "smolvla",
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


def __dir__() -> list[str]:
    return sorted(__all__)
