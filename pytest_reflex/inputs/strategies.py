"""Observations as hypothesis draws them, so that a property test of a policy shrinks to the simplest failing.

Each input is at rest, or has a few values that are not, or all of them at an end of its range, or what a
fixture has. Hypothesis shrinks towards the first of these, so that what does not matter comes to rest. Needs
hypothesis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pytest_reflex.errors import MissingPackageError
from pytest_reflex.inputs.fixtures import make_fixture
from pytest_reflex.inputs.ranges import far_ends, groups, rest
from pytest_reflex.inputs.spec import InputSpec, check_specs

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Array = np.ndarray[Any, Any]

__all__ = ["observations", "rest"]

# The fixtures that values are taken from.
_FIXTURES: Final = 256


def observations(inputs: Sequence[InputSpec], *, seed: int = 0) -> SearchStrategy[dict[str, Array]]:
    """A strategy for what a policy is given: arrays by name, in the shapes and dtypes of the specifications.

    Inputs that hang on each other, such as a prompt's tokens and its mask, are those of one fixture.

    Args:
        inputs: the specifications, as a check takes them; free axes have the size of fixture 0.
        seed: what the fixtures that values are taken from are drawn with.

    Raises:
        InputError: the specifications do not fit together.
        MissingPackageError: hypothesis is not installed.
    """
    try:
        from hypothesis import strategies as st
    except ModuleNotFoundError as error:
        said = "observations need hypothesis, which is not installed; pip install hypothesis"
        raise MissingPackageError(said) from error
    check_specs(inputs)

    @lru_cache(maxsize=8)
    def fixture(idx: int) -> Mapping[str, Array]:
        return make_fixture(inputs, seed, idx, 0)

    plain = fixture(0)
    parts: dict[str, SearchStrategy[Any]] = {}
    for group in groups(inputs):
        names = [spec.name for spec in group]

        def taken(idx: int, names: Sequence[str] = names) -> dict[str, Array]:
            return {name: fixture(idx)[name].copy() for name in names}

        drawn = st.integers(0, _FIXTURES - 1).map(taken)
        ends = far_ends(group[0]) if len(group) == 1 else None
        if ends is None:
            parts[names[0]] = drawn
            continue
        spec, low, high = group[0], *ends
        alone = _alone(spec, low, high, drawn.map(lambda found, name=spec.name: found[name]))  # type: ignore[misc]
        parts[spec.name] = alone.map(lambda array, name=spec.name: {name: array})  # type: ignore[misc]
    order = list(plain)

    def together(found: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
        merged = {name: array for part in found.values() for name, array in part.items()}
        return {name: merged[name] for name in order}

    return st.fixed_dictionaries(parts).map(together)


def _alone(spec: InputSpec, low: Any, high: Any, drawn: SearchStrategy[Array]) -> SearchStrategy[Array]:
    from hypothesis import strategies as st
    from hypothesis.extra.numpy import arrays

    dtype, still = np.dtype(spec.dtype), rest(spec)
    elements: SearchStrategy[Any] = st.booleans()
    if dtype.kind == "f":
        # Bounds that the dtype itself has: hypothesis takes no others.
        low, high = (float(dtype.type(end)) for end in (low, high))
        elements = st.floats(low, high, width=8 * dtype.itemsize)  # type: ignore[arg-type]
    elif dtype.kind in "iu":
        elements = st.integers(low, high)
    some = arrays(dtype, spec.shape, elements=elements, fill=st.just(dtype.type(still)))
    ends = st.sampled_from((low, high)).map(lambda end: np.full(spec.shape, end, dtype))
    resting = st.builds(lambda: np.full(spec.shape, still, dtype))
    return st.one_of(resting, some, ends, drawn)
