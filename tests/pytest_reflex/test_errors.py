"""How messages name what somebody gave."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pytest_reflex.errors import a_type

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (3, "an int"),
        (3.0, "a float"),
        (None, "None"),
        (object(), "an object"),
        (np.zeros(2), "an ndarray"),
        (np.uint8(3), "a uint8"),
        (torch.nn.Linear(1, 1), "a Linear"),
        (torch.nn.Identity(), "an Identity"),
        (torch.nn.LSTM(1, 1), "an LSTM"),
        (torch.nn.GRU(1, 1), "a GRU"),
        (torch.nn.ReLU(), "a ReLU"),
        (torch.nn.Unfold(1), "an Unfold"),
    ],
)
def test_a_type_is_named_with_its_article(value: object, said: str) -> None:
    assert a_type(value) == said
