"""Observations as hypothesis draws them, so that a property test of a policy shrinks to the simplest failing.

Each input is at rest but for a stretch of its values, none to all of them, which are at an end of its range
or what a fixture has there; or but for a few values of any kind. Hypothesis shrinks numbers towards 0, and so
the end of the stretch to the last value that matters, its length to one, and what it is of to an end of the
range. Needs hypothesis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
# So many values of any kind an input has beside those at rest: each takes hypothesis time to make simpler.
FEW: Final = 4


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

        def value(idx: int, name: str = spec.name) -> Array:
            return fixture(idx)[name]

        alone = _alone(spec, low, high, value)
        parts[spec.name] = alone.map(lambda array, name=spec.name: {name: array})  # type: ignore[misc]
    order = list(plain)

    def together(found: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
        merged = {name: array for part in found.values() for name, array in part.items()}
        return {name: merged[name] for name in order}

    return st.fixed_dictionaries(parts).map(together)


def _alone(spec: InputSpec, low: Any, high: Any, drawn: Callable[[int], Array]) -> SearchStrategy[Array]:
    from hypothesis import strategies as st

    dtype, still = np.dtype(spec.dtype), rest(spec)
    elements: SearchStrategy[Any] = st.booleans()
    if dtype.kind == "f":
        # Bounds that the dtype itself has: hypothesis takes no others.
        low, high = (float(dtype.type(end)) for end in (low, high))
        elements = st.floats(low, high, width=8 * dtype.itemsize)  # type: ignore[arg-type]
    elif dtype.kind in "iu":
        elements = st.integers(low, high)
    size = math.prod(spec.shape)
    whole = [np.full(spec.shape, end, dtype) for end in (high, low)]

    def stretch(which: int, end: int, more: int) -> Array:
        """At rest but for the values before ``end``: one, and ``more`` before it."""
        array = np.full(spec.shape, still, dtype)
        own = whole[which] if which < len(whole) else drawn(which - len(whole))
        last = min(end, size)
        places = slice(max(0, last - 1 - more), last)
        array.reshape(-1)[places] = own.reshape(-1)[places]
        return array

    def few(values: Sequence[tuple[int, Any]]) -> Array:
        array = np.full(spec.shape, still, dtype)
        for at, value in values:
            array.reshape(-1)[at] = value
        return array

    # Twice as far as there are values, so that as often as not it is all of them.
    stretches = st.builds(
        stretch,
        st.integers(0, len(whole) + _FIXTURES - 1),
        st.integers(0, 2 * size),
        st.integers(0, 2 * size),
    )
    resting = st.builds(lambda: np.full(spec.shape, still, dtype))
    if not size:
        return resting
    return st.one_of(
        resting, stretches, st.lists(st.tuples(st.integers(0, size - 1), elements), max_size=FEW).map(few)
    )
