"""Results as a pandas frame: a row for each output of each fixture. Needs pandas, which nothing else does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from pytest_reflex.errors import MissingPackageError
from pytest_reflex.verdict.results import RunResult

if TYPE_CHECKING:
    import pandas

# Of the figures, those that are one number each.
FIGURES: Final = (
    *("max_abs_diff", "mean_abs_diff", "cos", "max_rel_diff", "rmse", "sqnr_db"),
    *("ulp_p50", "ulp_p99", "ulp_max", "elements", "unequal", "scale"),
)


def frame(results: Iterable[RunResult]) -> pandas.DataFrame:
    """One row for each output of each fixture, in their order; figures that there are none of are missing.

    Args:
        results: results, such as ``[entry.result for entry in read_run("parity.json").results]``.

    Returns:
        A frame with the columns ``name``, ``fixture_idx``, ``output``, ``dtype``, ``shape``, ``passed``,
        ``gate`` (which refused, or missing), ``threshold`` and :data:`FIGURES`.

    Raises:
        MissingPackageError: pandas is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        said = "a frame needs pandas, which is not installed; pip install pandas"
        raise MissingPackageError(said) from error
    rows = [row for result in results for row in _rows(result)]
    columns = ["name", "fixture_idx", "output", "dtype", "shape", "passed", "gate", "threshold", *FIGURES]
    return pandas.DataFrame(rows, columns=columns)


def _rows(result: RunResult) -> Iterable[dict[str, Any]]:
    for fixture in result.fixtures:
        refusal = fixture.refusal
        for output in fixture.outputs:
            figures = {} if output.difference is None else asdict(output.difference)
            yield {
                "name": result.name,
                "fixture_idx": fixture.fixture_idx,
                "output": output.name,
                "dtype": output.dtype,
                "shape": output.shape,
                "passed": fixture.passed,
                "gate": None if refusal is None else refusal.gate,
                "threshold": result.limit_of(output),
                **{name: figures.get(name) for name in FIGURES},
            }
