"""A matrix of runtimes as builtins, for machines."""

from __future__ import annotations

from typing import Any

from pytest_reflex._version import __version__
from pytest_reflex.report.json.results import result_to_json
from pytest_reflex.report.json.values import plain
from pytest_reflex.verdict.matrix import Matrix

__all__ = ["matrix_to_json"]


def matrix_to_json(made: Matrix) -> dict[str, Any]:
    """``passed``, ``exit_code``, ``odd``; of each of ``runtimes`` its result as in a run's document, or why
    there is none, its seconds and bytes of memory; ``apart``, each pair with its largest difference."""
    return {
        "tool": "pytest-reflex",
        "kind": "matrix",
        "version": __version__,
        "name": made.name,
        "passed": made.passed,
        "exit_code": made.exit_code,
        "odd": list(made.odd),
        "runtimes": [
            {
                "runtime": column.runtime,
                "passed": column.passed,
                "error": column.error or None,
                "opened_s": column.opened_s,
                "run_s": column.run_s,
                "taken_bytes": column.taken_bytes,
                "result": None if column.result is None else result_to_json(column.result),
            }
            for column in made.columns
        ],
        "apart": [
            {"one": one, "other": other, "max_abs_diff": plain(apart)}
            for (one, other), apart in made.apart.items()
        ],
    }
