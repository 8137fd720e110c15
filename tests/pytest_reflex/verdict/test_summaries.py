"""What a result keeps for its pictures: the largest error of each block, and what each input held."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from pytest_reflex.verdict.gates import Evidence, judge_fixture
from pytest_reflex.verdict.results import keep_worst_grids
from pytest_reflex.verdict.summaries import error_grid, summary_of


@pytest.mark.parametrize(
    ("shape", "rows", "columns", "block"),
    [
        ((), 1, 1, (1, 1)),
        ((7,), 1, 7, (1, 1)),
        ((2, 3, 50, 32), 50, 32, (1, 1)),
        ((64, 64), 64, 64, (1, 1)),
        ((17, 241), 17, 241, (1, 4)),  # one cell more than is kept whole
        ((3, 700, 130), 700, 130, (11, 3)),
        ((2, 3, 40_000), 3, 40_000, (1, 625)),  # a row is more than what is measured at a time
    ],
    ids=str,
)
def test_a_cell_is_the_largest_error_of_its_block(
    shape: tuple[int, ...], rows: int, columns: int, block: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    reference, candidate = rng.standard_normal((2, *shape))
    reference, candidate = np.asarray(reference), np.asarray(candidate)
    grid = error_grid(reference, candidate)
    assert (grid.rows, grid.columns, grid.block) == (rows, columns, block)
    errors = np.abs(reference - candidate).reshape(-1, rows, columns).max(axis=0)
    for i, row in enumerate(grid.cells):
        for j, cell in enumerate(row):
            assert cell == errors[i * block[0] :, j * block[1] :][: block[0], : block[1]].max()
    assert (len(grid.cells), len(grid.cells[0])) == (-(-rows // block[0]), -(-columns // block[1]))


def test_an_input_is_told_by_its_ends_and_known_by_sixteen_digits() -> None:
    array = np.array([[3, 0, -2]], np.int32)
    held = summary_of("ids", array)
    assert (held.name, held.dtype, held.shape) == ("ids", "int32", (1, 3))
    assert (held.low, held.high, held.nonzero) == (-2, 3, 2)
    whole = hashlib.sha256(b"int32(1, 3)" + array.tobytes()).hexdigest()
    assert held.digest == whole[:16]


def test_what_has_no_order_has_no_ends() -> None:
    for array in (np.zeros((0, 3), np.float32), np.array([1j]), np.array(["a"])):
        held = summary_of("x", array)
        assert (held.low, held.high) == (None, None)


@pytest.mark.parametrize(
    ("errors", "kept"),
    [([1.0, 3.0, 2.0], 1), ([3.0, 3.0], 0), ([3.0, np.nan, np.nan], 1), ([np.nan, 5.0], 0), ([0.0, 0.0], 0)],
    ids=str,
)
def test_a_grid_is_kept_of_the_fixture_in_which_its_output_differs_most(
    errors: list[float], kept: int
) -> None:
    zero = np.zeros(2)
    results = [
        judge_fixture(idx, Evidence({"y": zero}, {"y": zero + error}, 1e-4, "", ()))
        for idx, error in enumerate(errors)
    ]
    found = keep_worst_grids(results)
    assert [idx for idx, fixture in enumerate(found) if fixture.outputs[0].grid is not None] == [kept]
    assert found[kept] == results[kept]
    bare = [replace(fixture, outputs=(replace(fixture.outputs[0], grid=None),)) for fixture in results]
    assert [f for i, f in enumerate(found) if i != kept] == [f for i, f in enumerate(bare) if i != kept]
