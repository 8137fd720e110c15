"""An update is data: numpy, torch and a manifest say the same of it, and what is none is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from floors import ulps

from exporters.flow.schedule import EulerSchedule, Loop, TableSchedule, loop_from_json, schedule_from_json
from exporters.flow.update import EULER, Operation, finished, updated
from pytest_reflex.errors import BundleError, SettingsError

UPDATE = (Operation("Mul", "part", ("a", "x")), Operation("Add", "x_next", ("part", "velocity")))
TABLE = TableSchedule((3, 1), UPDATE, {"a": (0.5, 2.0)}, "int64")


def test_euler_is_an_update_like_any_other() -> None:
    assert EulerSchedule().update == EULER
    x = np.float32([[1.5, -2.0]])
    loop = Loop(EulerSchedule(), 3, "noise", "actions")
    (first, *_) = loop.states(x, lambda index, x: x * 2)
    assert np.array_equal(first, x + np.float32(-1 / 3) * (x * 2))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_a_table_gives_each_step_its_own_numbers(kind: Any) -> None:
    x = kind(np.float32([[4.0]]))
    states = list(Loop(TABLE, 2, "noise", "actions").states(x, lambda index, x: x + index))
    assert [float(state[0, 0]) for state in states] == [6.0, 19.0]


def test_thresholding_is_torchs_quantile() -> None:
    drawn = np.random.default_rng(0).normal(size=(3, 7, 5)).astype(np.float32) * 2
    for ratio in (0.5, 0.9, 0.995, 1.0):
        update = (Operation("Threshold", "x_next", ("x", ratio, 1.7)),)
        ((_, ours),) = updated(update, {"x": drawn})
        ((_, theirs),) = updated(update, {"x": torch.from_numpy(drawn)})
        flat = torch.from_numpy(drawn).reshape(3, -1)
        bound = torch.quantile(flat.abs(), ratio, dim=1).clamp(1, 1.7)[:, None]
        expected = (flat.clamp(-bound, bound) / bound).reshape(3, 7, 5)
        assert ulps(ours, expected) <= 2
        assert ulps(theirs, expected) <= 2


def test_an_epilogue_cuts_clips_and_squeezes() -> None:
    x = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    epilogue = (
        Operation("Slice", "kept", ("x", 1, 1, 2)),
        Operation("Clip", "held", ("kept", 0.0, 2.5)),
        Operation("Squeeze", "first", ("held", 1)),
    )
    for got in (finished(epilogue, x), finished(epilogue, torch.from_numpy(x)).numpy()):
        assert np.array_equal(got, [[2.0, 2.5]])
    loop = Loop(TABLE, 2, "noise", "actions", epilogue=epilogue)
    assert loop_from_json(loop.to_json(), 2) == loop


@pytest.mark.parametrize(
    ("stored", "error"),
    [
        ({"update": [["Pow", "x_next", "x", "a"]]}, BundleError),
        ({"update": [["Mul", "x_next", "x", "b"]]}, BundleError),
        ({"update": [["Mul", "x", "x", "a"]]}, BundleError),
        ({"update": [["Clip", "x_next", "x", "a", "a"]]}, BundleError),
        ({"update": [["Mul", "part", "x", "a"]]}, SettingsError),
        ({"update": [["Mul", "x_next", "x", "noise"]]}, SettingsError),
        ({"table": {"a": [1.0]}}, SettingsError),
        ({"dtype": "float16"}, SettingsError),
        ({"earlier": "nothing"}, SettingsError),
        ({"draws": 3}, SettingsError),
    ],
)
def test_what_is_no_schedule_is_refused(stored: dict[str, Any], error: type[Exception]) -> None:
    assert schedule_from_json(TABLE.to_json()) == TABLE
    with pytest.raises(error, match=r"operation|schedule"):
        schedule_from_json({**TABLE.to_json(), **stored})


def test_a_manifest_that_gives_no_finite_number_is_refused() -> None:
    said = Loop(TABLE, 2, "noise", "actions").to_json()
    with pytest.raises(BundleError, match="no finite numbers"):
        loop_from_json({**said, "schedule": {**TABLE.to_json(), "table": {"a": [1.0, float("inf")]}}}, 2)
    with pytest.raises(SettingsError, match="steps is 3, and the schedule is a table of 2"):
        loop_from_json(said, 3)
