"""Where a check's fixtures come from: drawn from input specs, or given as recorded arrays.

A fixture is a pure function of ``(specs, seed, fixture_idx)``, so both sides and every machine get the
same arrays. Fixture 0 is the plain case; the next ones reach what it does not: a masked-out camera, a
one-token prompt, a full one, a state at rest and at its limits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import InputError
from pytest_reflex.inputs.spec import Draw, InputSpec, check_specs, free_sizes

Array = np.ndarray[Any, Any]

# How many fixtures beyond the judged ones may be drawn in search of another value for an input.
_SPARE: Final = 32


@dataclass(frozen=True)
class Fixtures:
    """The fixtures of one check.

    Attributes:
        count: how many are judged, numbered from 0.
        spare: how many more can be made, numbered from ``count``, to probe inputs with.
        seed: what they are drawn with, or None when they were given.
        make: fixture_idx to fresh arrays by name, the same ones at each call.
    """

    count: int
    spare: int
    seed: int | None
    make: Callable[[int], dict[str, Array]]

    @cached_property
    def others(self) -> dict[str, Array]:
        """For each input, a value it does not have in fixture 0, of the same shape and dtype.

        One that it has in another fixture; where there is none, because fixtures were given and no more of
        them can be drawn, one made of its own value. An input that has no other value is left out.
        """
        plain = self.make(0)
        found: dict[str, Array] = {}
        for fixture_idx in range(1, self.count + self.spare):
            if len(found) == len(plain):
                break
            for name, array in self.make(fixture_idx).items():
                same_form = array.shape == plain[name].shape and array.dtype == plain[name].dtype
                if name not in found and same_form and array.tobytes() != plain[name].tobytes():
                    found[name] = array
        if self.seed is None:
            for name in plain.keys() - found.keys():
                other = _other(plain[name])
                if other.tobytes() != plain[name].tobytes():
                    found[name] = other
        return {name: found[name] for name in plain if name in found}


def fixtures_from(inputs: object, count: int, seed: int) -> Fixtures:
    """Fixtures drawn from input specs, or given as recorded inputs.

    Args:
        inputs: a sequence of :class:`InputSpec`, or of mappings from name to array, which are all judged.
        count: how many to draw.
        seed: what to draw them with.

    Raises:
        InputError: it is neither, it is empty, or its parts do not fit together.
    """
    if isinstance(inputs, str | Mapping | InputSpec) or not hasattr(inputs, "__iter__"):
        raise InputError(
            f"inputs is a {type(inputs).__name__}; give a list of InputSpec, or of recorded inputs"
        )
    items = list(inputs)
    if not items:
        raise InputError("inputs is empty; give at least one InputSpec, or at least one recorded fixture")
    if all(isinstance(item, InputSpec) for item in items):
        check_specs(items)
        return Fixtures(count, _SPARE, seed, lambda fixture_idx: make_fixture(items, seed, fixture_idx))
    given = _given(items)
    # Copied at each call: what one side does to its inputs must not reach the other.
    return Fixtures(
        len(given), 0, None, lambda fixture_idx: {n: a.copy() for n, a in given[fixture_idx].items()}
    )


def _other(array: Array) -> Array:
    """Another value, of what this one is made of: the opposite of numbers and masks, ids in another order."""
    if array.dtype.kind == "b":
        return np.logical_not(array)
    if array.dtype.kind == "f" and np.isfinite(array).all():
        return -array if array.any() else np.ones_like(array)
    return np.roll(array.reshape(-1), 1).reshape(array.shape)


def _given(items: Sequence[object]) -> list[dict[str, Array]]:
    fixtures: list[dict[str, Array]] = []
    for i, item in enumerate(items):
        if not isinstance(item, Mapping):
            kind = type(item).__name__
            raise InputError(f"inputs[{i}] is a {kind}; give InputSpecs only, or mappings from name to array")
        fixtures.append({name: _array(i, name, value) for name, value in item.items()})
        names, first = sorted(fixtures[-1]), sorted(fixtures[0])
        if not names or names != first:
            raise InputError(
                f"inputs[{i}] has {names}; every recorded fixture needs the same names, as {first}"
            )
    return fixtures


def _array(i: int, name: object, value: object) -> Array:
    array = np.array(value, order="C")
    if array.dtype.hasobject or not array.size:
        wrong = f"{array.dtype} {list(array.shape)}"
        raise InputError(
            f"inputs[{i}][{name!r}] is {wrong}; give an array of numbers with at least one element"
        )
    return array


def make_fixture(specs: Sequence[InputSpec], seed: int, fixture_idx: int) -> dict[str, Array]:
    """Draw one fixture. Free axes have other sizes from fixture 2 on.

    Args:
        specs: the inputs, in the order in which they are drawn.
        seed: 0 or more.
        fixture_idx: the fixture's number, 0 or more.

    Returns:
        Fresh, writable, C-contiguous arrays by name, in the order of the specs.

    Raises:
        InputError: the specs are bad, or a meaning drew an array of another shape.
    """
    check_specs(specs)
    sizes = _sizes(specs, fixture_idx)
    specs = [spec.sized(sizes) for spec in specs] if sizes else specs
    draw = Draw(seed, fixture_idx, np.random.default_rng([seed, fixture_idx]))
    for spec in specs:
        array = np.asarray(spec.meaning.draw(draw, spec))
        if array.shape != spec.shape:
            drew = f"{spec.meaning.kind} drew shape {list(array.shape)}"
            raise InputError(f"input {spec.name!r}: {drew}; its draw() must give {list(spec.shape)}")
        draw.drawn[spec.name] = np.array(array, dtype=spec.dtype, order="C")
    return draw.drawn


def array_digest(arrays: Mapping[str, Array]) -> str:
    """SHA-256, in hex, of the arrays' names, dtypes, shapes and bytes; their order does not matter."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, array.dtype.name, list(array.shape)]).encode())
        little = array if array.dtype.kind == "V" else array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(little.tobytes())
    return digest.hexdigest()


def _sizes(specs: Sequence[InputSpec], fixture_idx: int) -> dict[str, int]:
    """The sizes of a fixture's free axes: those of fixture 0 twice, then its double, its triple, one, ..."""
    if fixture_idx < 2:
        return free_sizes(specs)
    found = {}
    for place, (name, plain) in enumerate(free_sizes(specs).items()):
        found[name] = (2 * plain, 3 * plain, 1, 5 * plain)[(fixture_idx - 2 + place) % 4]
    return found
