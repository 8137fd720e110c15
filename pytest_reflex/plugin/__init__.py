"""The pytest plugin: hooks and the ``parity`` fixture. Imports nothing heavy."""

from pytest_reflex.plugin.hooks import (
    parity,
    pytest_addoption,
    pytest_cmdline_main,
    pytest_collection_finish,
    pytest_configure,
    pytest_html_results_table_header,
    pytest_html_results_table_row,
    pytest_load_initial_conftests,
    pytest_make_collect_report,
    pytest_runtest_makereport,
    pytest_runtest_setup,
    pytest_sessionfinish,
)

__all__ = [
    "parity",
    "pytest_addoption",
    "pytest_cmdline_main",
    "pytest_collection_finish",
    "pytest_configure",
    "pytest_html_results_table_header",
    "pytest_html_results_table_row",
    "pytest_load_initial_conftests",
    "pytest_make_collect_report",
    "pytest_runtest_makereport",
    "pytest_runtest_setup",
    "pytest_sessionfinish",
]
