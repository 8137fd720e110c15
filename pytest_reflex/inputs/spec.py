"""What an input of a policy is: its name, shape, dtype and meaning.

What a meaning is, and the registry of those that are known, stand here too, so that a specification can be
read without knowing which there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from itertools import zip_longest
from typing import Any, ClassVar, Final

import numpy as np

from pytest_reflex.errors import InputError, a_type

Array = np.ndarray[Any, Any]

DTYPES: Final = (
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
# What other languages and libraries call some of them.
_MEANT: Final = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "int": "int64",
    "long": "int64",
    "byte": "uint8",
    "boolean": "bool",
}


@dataclass
class Draw:
    """One fixture in the making.

    Attributes:
        seed: what the fixtures are drawn with.
        fixture_idx: the fixture's number.
        rng: the generator that the specs share, in their order.
        drawn: the inputs drawn so far.
    """

    seed: int
    fixture_idx: int
    rng: np.random.Generator
    drawn: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Distribution:
    """What an input's values stand for. Subclasses are frozen dataclasses and are known by their ``kind``.

    A meaning of one's own needs a ``kind`` and :meth:`draw`; the JSON form follows from its fields.

    Attributes:
        shared: whether one value stands for the whole batch, so that a free batch leaves its shape as it is.
    """

    kind: ClassVar[str] = ""
    shared: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        known = DISTRIBUTIONS.setdefault(cls.kind, cls)
        if not cls.kind or known.__qualname__ != cls.__qualname__:
            raise InputError(f"{cls.__name__}.kind: {cls.kind!r} is empty or taken; give it another")
        DISTRIBUTIONS[cls.kind] = cls

    def check(self, spec: InputSpec) -> None:
        """Raise InputError when the meaning's values or the spec's shape and dtype do not fit it."""

    def needs(self) -> tuple[str, ...]:
        """Names of the inputs that must be drawn before this one."""
        return ()

    def check_needs(self, spec: InputSpec, earlier: Mapping[str, InputSpec]) -> None:
        """Raise InputError when an input named by :meth:`needs` does not fit; ``earlier`` has them all."""

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        """Return an array that has, or can be cast to, the spec's dtype, and has its shape."""
        raise NotImplementedError

    def categories(self) -> range:
        """The values that each mean something, where they are few; by default there are none."""
        return range(0)

    def limits(self) -> tuple[int, int] | None:
        """The smallest and the largest value that mean something; by default none is known."""
        return None

    def reach(self, spec: InputSpec) -> tuple[Array, Array] | None:
        """The least and the largest value that each element can be, of the spec's shape or of one that
        broadcasts to it; by default none is known.
        """
        return None


DISTRIBUTIONS: Final[dict[str, type[Distribution]]] = {}


def _plain() -> Distribution:
    """What an input means where nothing is said: noise."""
    return DISTRIBUTIONS["gaussian"]()


@dataclass(frozen=True)
class InputSpec:
    """One input of a policy.

    Attributes:
        name: its name, the same on both sides.
        shape: its shape, every dimension fixed; ``()`` is a scalar, and a dimension of 0 an input without
            values.
        dtype: its numpy name, such as ``"float32"``; numpy's and torch's own are taken by theirs.
        meaning: what its values stand for, which decides how they are drawn.
        free: for each axis the name of its size where that may be another in every run (``batch``,
            ``tokens``), else None; ``()`` when the whole shape is fixed. Axes of one name, of one input or
            of several, have one size at a time; ``shape`` is what fixture 0 has.

    Raises:
        InputError: a value is not one of these, or the meaning does not fit the shape or dtype.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    meaning: Distribution = field(default_factory=_plain)
    free: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"input name {self.name!r} is no name; give a string that is not empty")
        object.__setattr__(self, "shape", _shape(self.name, self.shape))
        object.__setattr__(self, "free", _free(self.name, self.free, self.shape))
        object.__setattr__(self, "dtype", _dtype(self.name, self.dtype))
        if not isinstance(self.meaning, Distribution):
            kind = isinstance(self.meaning, type) and issubclass(self.meaning, Distribution)
            how = f"give one of it, {self.meaning.__name__}(...)" if kind else "give one such as Gaussian()"
            raise InputError(f"input {self.name!r}: meaning is {self.meaning!r}; {how}")
        try:
            self.meaning.check(self)
        except TypeError as error:
            raise InputError(f"input {self.name!r}: {self.meaning!r} holds a wrong type ({error})") from error

    def to_json(self) -> dict[str, Any]:
        """The spec as builtins; :meth:`from_json` gives an equal one back."""
        meaning = {"kind": self.meaning.kind, **asdict(self.meaning)}
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "meaning": meaning,
            "free": list(self.free),
        }

    def sized(self, sizes: Mapping[str, int]) -> InputSpec:
        """The same input with other sizes on its free axes, by their names."""
        pairs = zip_longest(self.shape, self.free)
        return replace(self, shape=tuple(sizes.get(name, n) if name else n for n, name in pairs))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputSpec:
        """The spec that :meth:`to_json` wrote.

        Raises:
            InputError: a key is missing or unknown, the kind is unknown, or a value is bad.
        """
        given = dict(_fitting(cls, data, "input"))
        meaning = given.get("meaning")
        if meaning is not None:
            name = given["name"]
            kind = meaning.get("kind") if isinstance(meaning, Mapping) else meaning
            if not isinstance(kind, str) or kind not in DISTRIBUTIONS:
                good = ", ".join(sorted(DISTRIBUTIONS))
                raise InputError(f"input {name!r}: meaning kind {kind!r} is unknown; give one of {good}")
            values = {key: value for key, value in meaning.items() if key != "kind"}
            made = DISTRIBUTIONS[kind]
            given["meaning"] = made(**_fitting(made, values, f"input {name!r}, {kind}"))
        return cls(**given)


def _other_axis(spec: InputSpec, name: str, size: int) -> tuple[str | None, ...]:
    """``free`` with a name at the axis that has its size, where one has; else at none."""
    at = next((i for i, n in enumerate(spec.shape) if n == size), None)
    return tuple(name if i == at else None for i in range(len(spec.shape)))


def free_sizes(specs: Sequence[InputSpec]) -> dict[str, int]:
    """The names of the free axes, in order, with the size that each has in fixture 0.

    Raises:
        InputError: two axes of one name have different sizes.
    """
    sizes: dict[str, int] = {}
    for spec in specs:
        for n, name in zip_longest(spec.shape, spec.free):
            if name and sizes.setdefault(name, n) != n:
                raise InputError(
                    f"input {spec.name!r}: {name} is {n}, and {sizes[name]} in an earlier input; say in each "
                    f"InputSpec which axis it is, such as free={_other_axis(spec, name, sizes[name])}"
                )
    return sizes


def listed(inputs: object, recorded: str = ", or of recorded inputs") -> list[Any]:
    """What was given as ``inputs``, once it is sure to be several things, whatever they are.

    Raises:
        InputError: it is one thing, or things by name; the message says what was meant.
    """
    if isinstance(inputs, Mapping):
        raise InputError(f"inputs is {a_type(inputs)}; {_instead_of(inputs)}")
    if isinstance(inputs, InputSpec):
        raise InputError("inputs is one InputSpec; give a list of them, inputs=[spec]")
    try:
        if isinstance(inputs, str):
            raise TypeError(inputs)
        return list(inputs)  # type: ignore[call-overload, no-any-return]
    except TypeError:  # an array without axes says that it can be gone through
        raise InputError(f"inputs is {a_type(inputs)}; give a list of InputSpec{recorded}") from None


def _instead_of(inputs: Mapping[Any, object]) -> str:
    """What was meant by one mapping: a fixture, specs by name, or shapes by name."""
    if inputs and all(isinstance(value, InputSpec) for value in inputs.values()):
        return "give its values, inputs=list(inputs.values())"
    if inputs and all(isinstance(value, tuple | list) for value in inputs.values()):
        name, shape = next(iter(inputs.items()))
        return f"give a list of InputSpec, such as InputSpec({name!r}, {shape!r}) for each"
    return "one recorded fixture is a list of one, inputs=[inputs]; else give a list of InputSpec"


def specs_of(inputs: object) -> list[InputSpec]:
    """What was given as ``inputs`` where specifications alone will do, as for an export.

    Raises:
        InputError: it is no list of them; the message says what it is.
    """
    items = listed(inputs, "")
    for i, item in enumerate(items):
        if not isinstance(item, InputSpec):
            what = "recorded arrays, which say no meaning" if isinstance(item, Mapping) else "no InputSpec"
            raise InputError(
                f"inputs[{i}] is {a_type(item)}, {what}; give a list of InputSpec, each with a name "
                "and a shape, such as InputSpec('x', (1, 7))"
            )
    return items


def check_specs(specs: Sequence[InputSpec]) -> None:
    """Check that the specs can be drawn together, in their order.

    Raises:
        InputError: there is none, two share a name, or one needs an input that does not come before it
            or does not fit it; or one name of a free axis has two sizes.
    """
    specs = specs_of(specs)
    if not specs:
        raise InputError("no inputs: give at least one InputSpec")
    earlier: dict[str, InputSpec] = {}
    for spec in specs:
        if spec.name in earlier:
            raise InputError(f"input {spec.name!r} is given twice; give each input a name of its own")
        for needed in spec.meaning.needs():
            if needed not in earlier:
                before = ", ".join(map(repr, earlier)) or "nothing"
                raise InputError(f"input {spec.name!r} needs {needed!r} before it; before it comes {before}")
        spec.meaning.check_needs(spec, earlier)
        earlier[spec.name] = spec


def _dtype(name: str, dtype: Any) -> str:
    """A dtype by its numpy name, also where numpy's or torch's own is given."""
    said = str(getattr(dtype, "__name__", dtype)).removeprefix("torch.")
    if said in DTYPES and not isinstance(dtype, Distribution):
        return said
    how = f"give one of {', '.join(DTYPES)}"
    if isinstance(dtype, Distribution):
        how = f"did you mean meaning={dtype!r}?"
    elif said in _MEANT:
        how = f"did you mean {_MEANT[said]!r}?"
    raise InputError(f"input {name!r}: dtype is {dtype!r}; {how}")


def _shape(name: str, shape: object) -> tuple[int, ...]:
    try:
        return tuple(_dimension(n) for n in shape)  # type: ignore[attr-defined]
    except (TypeError, AttributeError, ValueError):
        said = f"input {name!r}: shape is {shape!r}; give whole numbers, 0 or more"
        raise InputError(f"{said}{_with_free(name, shape)}") from None


def _with_free(name: str, shape: object) -> str:
    """How to write a shape in which an axis is left open, as other libraries write it; empty of any other."""
    axes = list(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else []
    is_open = [n is None or n == -1 or isinstance(n, str) for n in axes]
    if not any(is_open):
        return ""
    sizes = tuple(2 if free else n for n, free in zip(axes, is_open, strict=True))
    names = tuple(
        (n if isinstance(n, str) and n else f"axis_{at}") if free else None
        for at, (n, free) in enumerate(zip(axes, is_open, strict=True))
    )
    return (
        f", those of fixture 0, and name what may be another: InputSpec({name!r}, {sizes!r}, free={names!r})"
    )


def _free(name: str, free: object, shape: tuple[int, ...]) -> tuple[str | None, ...]:
    names = tuple(free) if isinstance(free, Sequence) and not isinstance(free, str) else None
    good = names is not None and all(n is None or (isinstance(n, str) and n) for n in names)
    if names is None or not good or len(names) not in (0, len(shape)):
        raise InputError(
            f"input {name!r}: free is {free!r}; give a name or None for each of {len(shape)} axes, or ()"
        )
    if any(axis and n == 0 for axis, n in zip(names, shape, strict=False)):
        raise InputError(
            f"input {name!r}: an axis of {list(shape)} is free and 0; give the size of fixture 0"
        )
    return names if any(names) else ()


def _dimension(n: Any) -> int:
    whole: int = n.__index__()
    if isinstance(n, bool) or whole < 0:
        raise ValueError(n)
    return whole


def _fitting(made: type, data: object, what: str) -> Mapping[str, Any]:
    """``data``, once it is sure to hold every key that the dataclass ``made`` needs, and no other."""
    if not isinstance(data, Mapping):
        raise InputError(f"{what}: {data!r} is no JSON object")
    known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(made)}
    wrong = [repr(key) for key in data if key not in known]
    wrong += [f"no {name!r}" for name, needed in known.items() if needed and name not in data]
    if wrong:
        raise InputError(f"{what}: it has {', '.join(wrong)}; its keys are {', '.join(known) or 'none'}")
    return data


def require(good: bool, spec: InputSpec, what: str, value: object, expected: str) -> None:
    if not good:
        raise InputError(f"input {spec.name!r}, {spec.meaning.kind}: {what} is {value!r}; give {expected}")


def require_dtype(spec: InputSpec, kinds: str, instead: str = "") -> None:
    words = {"f": "float", "b": "bool", "i": "int", "u": "uint"}
    expected = "one of kind " + ", ".join(words[kind] for kind in kinds)
    require(np.dtype(spec.dtype).kind in kinds, spec, "dtype", spec.dtype, expected + instead)


def require_fits(spec: InputSpec, what: str, value: object) -> None:
    limits = np.iinfo(spec.dtype)
    whole = isinstance(value, int) and not isinstance(value, bool)
    good = whole and limits.min <= value <= limits.max  # type: ignore[operator]
    require(good, spec, what, value, f"a whole number that {spec.dtype} can hold")
