"""Results as a pandas frame; pandas is nobody's but its."""

from __future__ import annotations

import subprocess
import sys

import pytest
from report_cases import FAILING, PASSING, STRUCTURE

from pytest_reflex.errors import MissingPackageError
from pytest_reflex.report.frame import FIGURES, frame

pandas = pytest.importorskip("pandas")


def test_a_row_for_each_output_of_each_fixture() -> None:
    made = FAILING.to_frame()
    assert list(made.columns) == [
        *("name", "fixture_idx", "output", "dtype", "shape", "passed", "gate", "threshold"),
        *FIGURES,
    ]
    assert made["fixture_idx"].tolist() == [0, 1, 2]
    assert made["passed"].tolist() == [True, False, True]
    assert made["gate"].dropna().tolist() == ["threshold"]
    # Whole, not rounded.
    assert made["max_abs_diff"].tolist() == [f.max_abs_diff for f in FAILING.fixtures]
    assert made.groupby("output")["ulp_max"].max().to_dict() == {"actions": 158729}


def test_several_results_and_what_has_no_figures() -> None:
    made = frame([PASSING, STRUCTURE])
    assert len(made) == 2 + 5
    assert made["max_abs_diff"].isna().tolist() == [False] * 2 + [True] * 5
    assert set(made["gate"].dropna()) == {"structure"}
    assert len(frame([])) == 0


def test_pandas_is_asked_for_only_here() -> None:
    code = """
import sys
sys.modules["pandas"] = None
from pytest_reflex.errors import MissingPackageError
from pytest_reflex.report.frame import frame
import pytest_reflex.result
try:
    frame([])
except MissingPackageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "a frame needs pandas, which is not installed; pip install pandas\n", done.stderr
    assert issubclass(MissingPackageError, ImportError)
