"""Whose fault it is: the graph's, the split's, ONNX Runtime's, or nobody's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from exporters.bundle import Bundle
    from exporters.locate.walk import Walked
    from pytest_reflex.located import Cause

Array = np.ndarray[Any, Any]


def explain(
    bundle: Bundle, walked: Walked, fixture: Mapping[str, Array], expected: Array
) -> tuple[Cause, str]:
    place = walked.place
    if place is not None:
        return "graph", f"{place.where}: {place.operator} {place.value} is {place.error:.1e} off by itself"
    return "rounding", "nothing"
