"""The inner pytest, for whoever tests what pytest shows."""

from plugin_cases import run

__all__ = ["run"]
