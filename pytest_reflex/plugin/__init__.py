"""The pytest plugin: hooks and the ``parity`` fixture. Imports nothing heavy."""

from pytest_reflex.plugin.hooks import (
    parity,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_make_collect_report,
    pytest_runtest_makereport,
)

__all__ = [
    "parity",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_make_collect_report",
    "pytest_runtest_makereport",
]
