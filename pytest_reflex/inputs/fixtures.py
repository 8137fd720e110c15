"""Where a check's fixtures come from: drawn from input specs, or given as recorded arrays.

A fixture is a pure function of ``(specs, seed, fixture_idx)``, so both sides and every machine get the
same arrays. Fixture 0 is the plain case; the next ones reach what it does not: masked-out cameras, one and
all, a one-token prompt, a full one, both ends of the vocabulary and of a range, a state at rest and at its
limits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, Protocol, runtime_checkable

import numpy as np

from pytest_reflex.errors import InputError, a_type
from pytest_reflex.inputs.near_copies import distinct_count
from pytest_reflex.inputs.ranges import made
from pytest_reflex.inputs.spec import Draw, InputSpec, check_specs, free_sizes, listed
from pytest_reflex.verdict.results import FIRST_MADE
from pytest_reflex.verdict.summaries import summary_of

Array = np.ndarray[Any, Any]

# How many fixtures beyond the judged ones may be drawn in search of another value for an input, and how many
# where there is one already that some fixture was judged with.
_SPARE: Final = 32
_FEW: Final = 4


class Made(Sequence[dict[str, Array]]):
    """Fixtures as a sequence, each made when it is looked at."""

    def __init__(self, fixtures: Fixtures) -> None:
        self._fixtures = fixtures

    def __len__(self) -> int:
        return self._fixtures.count

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return self._fixtures.make(at % len(self))


@dataclass(frozen=True)
class Fixtures:
    """The fixtures of one check.

    Attributes:
        count: how many are judged, numbered from 0.
        seed: what they are drawn with, or None when they were given.
        make: fixture_idx to fresh arrays by name, the same ones at each call.
        specs: what they are drawn from; of given ones, what they are known to stand for.
        spares: fixture_idx to arrays in the sizes of that fixture that inputs can be swapped for, one set
            after the other, whether they were judged or not.
        given: the arrays of given ones, which nobody may write to; nothing where they are drawn.
        known_distinct: how many differ, where that was found without :attr:`given`.
        derived: whether they are made of drawn ones, which have the seed.
        notes: what a report says of them.
        label: what a fixture is called besides its number, such as the frame that it was.
    """

    count: int
    seed: int | None
    make: Callable[[int], dict[str, Array]]
    specs: Sequence[InputSpec]
    spares: Callable[[int], Iterator[Mapping[str, Array]]]
    given: Sequence[Mapping[str, Array]] = ()
    known_distinct: int | None = None
    derived: bool = False
    notes: tuple[str, ...] = ()
    label: Callable[[int], str] | None = None

    @property
    def probed(self) -> tuple[int, ...]:
        """The fixtures that inputs are swapped in: the plain one, and one of other sizes with all cameras."""
        return tuple(dict.fromkeys((0, min(2, self.count - 1))))

    @property
    def source(self) -> Literal["drawn", "derived", "recorded"]:
        """Where they come from, as a :class:`~pytest_reflex.verdict.claim.Claim` of them says it."""
        return "derived" if self.derived else "recorded" if self.seed is None else "drawn"

    @cached_property
    def distinct(self) -> int:
        """How many differ from each other by more than rounding."""
        if self.known_distinct is not None:
            return self.known_distinct
        return distinct_count(self.given) or self.count

    def others(self, fixture_idx: int, judged: Mapping[str, Collection[str]]) -> dict[str, Array]:
        """For each input another value than it has in a fixture, of the same shape and dtype.

        It is one that no fixture was judged with, or where none is found, as for a single bool, one that it
        has in another fixture. An input that has no other value, or no element, is left out.

        Args:
            fixture_idx: the fixture.
            judged: the digests of each input's values in all of them, as summaries give them.
        """
        plain = {name: array for name, array in self.make(fixture_idx).items() if array.size}
        found: dict[str, Array] = {}
        known: dict[str, Array] = {}
        for tries, arrays in enumerate(self.spares(fixture_idx)):
            if len(found) == len(plain) or (tries >= _FEW and len(found | known) == len(plain)):
                break
            for name in plain.keys() - found.keys():
                array = arrays.get(name)
                if array is None or not _differs(array, plain[name]):
                    continue
                (known if summary_of(name, array).digest in judged[name] else found).setdefault(name, array)
        return {name: (known | found)[name] for name in plain if name in found or name in known}


@runtime_checkable
class MakesFixtures(Protocol):
    """Inputs that are read when they are judged, as :class:`~pytest_reflex.inputs.episodes.Episodes` are."""

    def fixtures(self, specs: Sequence[InputSpec], count: int, seed: int) -> Fixtures:
        """The fixtures of a check, by what the policy reads, how many are asked for and the seed."""
        ...

    def told(self, count: int, seed: int) -> MakesFixtures:
        """The same with how many and the seed said already, where it did not say them itself."""
        ...


def fixtures_from(inputs: object, count: int, seed: int, known: Sequence[InputSpec] = ()) -> Fixtures:
    """Fixtures drawn from input specs, or given as recorded inputs.

    Args:
        inputs: a sequence of :class:`InputSpec`, or of mappings from name to array, which are all judged.
        count: how many to draw.
        seed: what to draw them with.
        known: what recorded inputs stand for, where that is known.

    Raises:
        InputError: it is neither, it is empty, or its parts do not fit together.
    """
    if isinstance(inputs, MakesFixtures):
        return inputs.fixtures(known, count, seed)
    items = listed(inputs)
    if not items:
        raise InputError("inputs is empty; give at least one InputSpec, or at least one recorded fixture")
    if all(isinstance(item, InputSpec) for item in items):
        check_specs(items)

        def spares(fixture_idx: int) -> Iterator[Mapping[str, Array]]:
            # Drawn as others are, in this one's sizes. Of what one fixture alone has, as of the mask of an
            # only camera, there is no other value but in the first.
            numbers = (*range(count, count + _SPARE), *range(min(count, _SPARE)))
            return (make_fixture(items, seed, idx, fixture_idx) for idx in numbers)

        return Fixtures(count, seed, lambda idx: make_fixture(items, seed, idx), items, spares)
    given = _given(items)
    # Copied at each call: what one side does to its inputs must not reach the other.
    return Fixtures(
        len(given),
        None,
        lambda idx: {n: a.copy() for n, a in given[idx].items()},
        known,
        lambda idx: mixtures(given[idx], lambda: (f for i, f in enumerate(given) if i != idx)),
        given,
    )


def mixtures(
    plain: Mapping[str, Array], others: Callable[[], Iterator[Mapping[str, Array]]]
) -> Iterator[Mapping[str, Array]]:
    """Masks turned round, then values between those that were given, which nobody judged; then theirs.

    What lies between two masks or two rows of ids has every other place of each. A policy that reads a few
    of a mask's places would be asked with these as they were, so all of it is turned round first.

    Args:
        plain: one fixture.
        others: gives the others, as often as it is called.
    """
    if masks := {name: _other(array) for name, array in plain.items() if array.dtype.kind == "b"}:
        yield masks
    for other in others():
        yield {n: _between(a, other[n]) for n, a in plain.items() if _same_form(a, other[n])}
    yield {name: _other(array) for name, array in plain.items()}
    yield from others()


def _between(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f" and np.isfinite(a).all() and np.isfinite(b).all():
        return np.asarray(a / 2 + b / 2, a.dtype)
    own = np.arange(a.size).reshape(a.shape) % 2 == 0
    return np.where(own, a, b)


def _same_form(a: Array, b: Array) -> bool:
    return bool(a.shape == b.shape and a.dtype == b.dtype)


def _differs(a: Array, b: Array) -> bool:
    return _same_form(a, b) and a.tobytes() != b.tobytes()


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
            what = a_type(item)
            raise InputError(f"inputs[{i}] is {what}; give InputSpecs only, or mappings from name to array")
        fixtures.append({name: _array(i, name, value) for name, value in item.items()})
        names, first = sorted(fixtures[-1]), sorted(fixtures[0])
        if not names or names != first:
            raise InputError(
                f"inputs[{i}] has {names}; every recorded fixture needs the same names, as {first}"
            )
    return fixtures


def _array(i: int, name: object, value: object) -> Array:
    detach = getattr(value, "detach", None)
    if callable(detach):  # a tensor of torch's, whose copy by numpy alone is deprecated
        try:
            value = detach().cpu().numpy()
        except TypeError as error:  # numpy has no such type, as bfloat16
            raise InputError(f"inputs[{i}][{name!r}]: {error}; give an array of numpy's") from error
    array = np.array(value, order="C")
    if array.dtype.hasobject:
        raise InputError(
            f"inputs[{i}][{name!r}] is {array.dtype} {list(array.shape)}; give an array of numbers"
        )
    return array


def make_fixture(
    specs: Sequence[InputSpec], seed: int, fixture_idx: int, sizes_of: int | None = None
) -> dict[str, Array]:
    """Draw one fixture. Free axes have other sizes from fixture 2 on.

    From :data:`~pytest_reflex.verdict.results.FIRST_MADE` on they are corners and swaps, which nobody draws.

    Args:
        specs: the inputs, in the order in which they are drawn.
        seed: 0 or more.
        fixture_idx: the fixture's number, 0 or more.
        sizes_of: the fixture whose sizes the free axes have; by default its own.

    Returns:
        Fresh, writable, C-contiguous arrays by name, in the order of the specs.

    Raises:
        InputError: the specs are bad, or a meaning drew an array of another shape.
    """
    if fixture_idx >= FIRST_MADE:
        return made(specs, seed, fixture_idx, lambda idx: make_fixture(specs, seed, idx, sizes_of or 0))
    check_specs(specs)
    sizes = _sizes(specs, fixture_idx if sizes_of is None else sizes_of)
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
