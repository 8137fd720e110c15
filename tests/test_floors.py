"""The tests' own measure in floors: what is wrong is never within it for want of a look."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from floors import ROUNDING, floors, multiples

from pytest_reflex import InputSpec, TorchRunner, check

TRUTH = np.arange(1.0, 5.0)
GOOD = np.float32(TRUTH) * np.float32(1 + 2**-22)


def bad(value: float) -> np.ndarray[Any, Any]:
    return np.array([1, 2, value, 4], np.float32)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("side", ["candidate", "reference", "truth", "more"])
def test_what_is_not_finite_in_any_fixture_is_refused(side: str, value: float) -> None:
    for place in (0, 1):
        sides = {name: [GOOD, GOOD] for name in ("candidate", "reference", "more")} | {
            "truth": [TRUTH, TRUTH]
        }
        sides[side][place] = bad(value)
        more = [(r, TRUTH) for r in sides["more"]]
        with pytest.raises(AssertionError, match="not finite"):
            floors(sides["candidate"], sides["reference"], sides["truth"], more)


@pytest.mark.parametrize("shape", [(), (1,), (1, 4), (4, 1)])
def test_what_would_be_stretched_is_refused(shape: tuple[int, ...]) -> None:
    ones = np.ones(4, np.float32)
    with pytest.raises(AssertionError, match="shapes"):
        floors([np.ones(shape, np.float32)], [ones], [np.ones(4)])


def test_a_fixture_without_a_floor_is_refused() -> None:
    sides = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    sides[1].load_state_dict(sides[0].state_dict())
    candidate, reference = (TorchRunner(side.eval(), outputs=["y"]) for side in sides)
    specs = [InputSpec("input", (2, 4), "float32")]
    result = check(reference, candidate, inputs=specs, fixtures=2, floor=True)
    assert multiples(result)["y"] < ROUNDING
    first, last = result.fixtures
    output = replace(last.outputs[0], floor=None)
    for outputs in ((output,), ()):
        with pytest.raises(AssertionError, match="not measured in every fixture"):
            multiples(replace(result, fixtures=(first, replace(last, outputs=outputs))))
