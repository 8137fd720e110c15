"""The repository's own pytest configuration."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def plugin_args() -> list[str]:
    """What an inner pytest needs to have the plugin: nothing where its entry point is installed."""
    installed = any(entry.name == "reflex" for entry in entry_points(group="pytest11"))
    return [] if installed else ["-p", "pytest_reflex.plugin"]
