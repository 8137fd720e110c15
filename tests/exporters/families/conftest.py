"""The families' tests export the same few policies in many ways, and trace each of them once."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _traced_once(traced_once: None) -> None:
    pass
