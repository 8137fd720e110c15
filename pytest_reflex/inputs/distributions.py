"""What an input's values stand for, and how a fixture's values are drawn from that.

Plain arithmetic on numpy's PCG64 stream and no sine or cosine, whose last bit differs between
processors: every machine draws the same arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from pytest_reflex.errors import InputError
from pytest_reflex.inputs.spec import Distribution, Draw, InputSpec, require, require_dtype, require_fits

Array = np.ndarray[Any, Any]

_BLOCKS_PER_SIDE: Final = 8
# So many integers are categories, which are drawn one by one; more are a quantity.
MOST_CATEGORIES: Final = 64
# Sets the generator of the categories' order apart from the shared one.
_CATEGORY_TAG: Final = 0xCA7E60
# How far the pixels of a grey image are from 0: a few of 255 steps.
_FAINT: Final = 0.02


def _require_kind(spec: InputSpec, kinds: str) -> None:
    """The meaning's kinds of dtype; the message says what an input of another one may stand for."""
    kind = np.dtype(spec.dtype).kind
    said = {
        "f": "Gaussian() or Uniform(low, high)",
        "b": "Bernoulli(), or PromptMask() of a padded prompt",
    }.get(kind, "Integers(low, high), or Tokens(vocab, mask) of a prompt")
    if spec.dtype == "uint8" and len(spec.shape) >= 3:
        said = "Integers(0, 256), a camera's pixels"
    require_dtype(spec, kinds, f", or for {spec.dtype} meaning={said} (of pytest_reflex.inputs)")


def _require_range(of: Uniform | Integers | ScaledImage) -> None:
    """Refuse an empty range where it is written down, and say so of an end that was left out."""
    try:
        good = of.low < of.high
    except TypeError:  # said with the input's name
        return
    if not good:
        raise InputError(
            f"{of!r} is an empty range: high is {of.high!r}; give both ends, high above low, "
            f"which is {of.low!r}"
        )


@dataclass(frozen=True)
class Gaussian(Distribution):
    """Independent normal values: noise.

    Attributes:
        mean: what they lie around.
        std: their standard deviation, above 0.
    """

    kind: ClassVar[str] = "gaussian"
    mean: float = 0.0
    std: float = 1.0

    def check(self, spec: InputSpec) -> None:
        _require_kind(spec, "f")
        require(math.isfinite(self.mean), spec, "mean", self.mean, "a finite number")
        require(math.isfinite(self.std) and self.std > 0, spec, "std", self.std, "a finite number above 0")

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        return self.mean + self.std * draw.rng.standard_normal(spec.shape)


@dataclass(frozen=True)
class Uniform(Distribution):
    """Independent values between ``low`` and ``high``: a time, a percentage.

    Fixtures 1 and 2 hold both ends: among their first two values, or one each where they have one.

    Attributes:
        low: the least value.
        high: the end of the range, above ``low``.

    Raises:
        InputError: the range is empty.
    """

    kind: ClassVar[str] = "uniform"
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        _require_range(self)

    def check(self, spec: InputSpec) -> None:
        _require_kind(spec, "f")
        require(math.isfinite(self.high - self.low), spec, "high - low", self.high - self.low, "finite")

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        values = np.asarray(self.low + (self.high - self.low) * draw.rng.random(spec.shape))
        if draw.fixture_idx in (1, 2):
            put_ends(values.reshape(-1), (self.low, self.high), draw.fixture_idx)
        return values


@dataclass(frozen=True)
class Integers(Distribution):
    """Independent integers from ``low`` up to and not including ``high``: an embodiment's id.

    Up to 64 are categories: from fixture 1 on, until each was drawn, the first values of a fixture are those
    that were not, both ends first. Of more, fixtures 1 and 2 hold both ends.

    Attributes:
        low: the least value.
        high: one more than the largest, so that ``Integers(0, 256)`` is what a uint8 holds.

    Raises:
        InputError: the range is empty, as of ``Integers(5)``, whose ``low`` is 5 and ``high`` still 2.
    """

    kind: ClassVar[str] = "integers"
    low: int = 0
    high: int = 2

    def __post_init__(self) -> None:
        _require_range(self)

    def check(self, spec: InputSpec) -> None:
        _require_kind(spec, "iu")
        require_fits(spec, "low", self.low)
        require_fits(spec, "high - 1", self.high - 1)

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        values = np.asarray(
            draw.rng.integers(self.low, self.high, spec.shape, dtype=np.dtype(spec.dtype).type)
        )
        flat, fixture_idx = values.reshape(-1), draw.fixture_idx
        if fixture_idx > 0 and flat.size and self.categories():
            few = min(flat.size, len(self.categories()))
            undrawn = self._order(draw.seed)[(fixture_idx - 1) * few : fixture_idx * few]
            flat[: len(undrawn)] = undrawn
        elif fixture_idx in (1, 2):
            put_ends(flat, (self.low, self.high - 1), fixture_idx)
        return values

    def limits(self) -> tuple[int, int]:
        # With 0, which is at rest what is drawn from 1 on, such as a count of what there was so far.
        return min(0, self.low), max(0, self.high - 1)

    def reach(self, spec: InputSpec) -> tuple[Array, Array]:
        return np.asarray(self.low), np.asarray(self.high - 1)

    def categories(self) -> range:
        few = self.high - self.low <= MOST_CATEGORIES
        return range(self.low, self.high) if few else range(0)

    def _order(self, seed: int) -> list[int]:
        between = np.random.default_rng([seed, _CATEGORY_TAG]).permutation(len(self.categories())).tolist()
        last = len(between) - 1
        return [self.low + n for n in dict.fromkeys([0, last, *between])]


def put_ends(flat: Array, ends: Sequence[float], fixture_idx: int) -> None:
    """Put the ends of a range in a fixture's first values: all of them, or from another on each time."""
    for place in range(min(flat.size, len(ends))):
        flat[place] = ends[(fixture_idx - 1 + place) % len(ends)]


@dataclass(frozen=True)
class Bernoulli(Distribution):
    """Independent booleans, true with probability ``p``.

    Attributes:
        p: above 0 and below 1.
    """

    kind: ClassVar[str] = "bernoulli"
    p: float = 0.5

    def check(self, spec: InputSpec) -> None:
        _require_kind(spec, "b")
        require(0 < self.p < 1, spec, "p", self.p, "between 0 and 1")

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        return draw.rng.random(spec.shape) < self.p

    def reach(self, spec: InputSpec) -> tuple[Array, Array]:
        return np.asarray(False), np.asarray(True)


@dataclass(frozen=True)
class Image(Distribution):
    """Pixels in [-1, 1], shape [..., H, W]: noise, smooth gradients, saturated blocks, plain grey in turn.

    Grey is 0 but for a faint noise: the less an image varies, the more a normalization makes of it, and of
    whatever is wrong there.
    """

    kind: ClassVar[str] = "image"

    def check(self, spec: InputSpec) -> None:
        _require_kind(spec, "f")
        require(len(spec.shape) >= 2, spec, "shape", list(spec.shape), "[..., height, width]")

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        *planes, height, width = spec.shape
        style = draw.fixture_idx % 4
        if style == 0:
            return np.asarray(draw.rng.uniform(-1.0, 1.0, spec.shape))
        if style == 3:
            return np.asarray(draw.rng.uniform(-_FAINT, _FAINT, spec.shape))
        if style == 1:  # each plane interpolates between four corners of its own
            corner = draw.rng.uniform(-1.0, 1.0, (4, *planes, 1, 1))
            y = (np.arange(height) / max(height - 1, 1))[:, None]
            x = np.arange(width) / max(width - 1, 1)
            top = corner[0] + (corner[1] - corner[0]) * x
            bottom = corner[2] + (corner[3] - corner[2]) * x
            return np.asarray(np.clip(top + (bottom - top) * y, -1.0, 1.0))
        sign = 2.0 * draw.rng.integers(0, 2, (*planes, _BLOCKS_PER_SIDE, _BLOCKS_PER_SIDE)) - 1.0
        row = np.arange(height) * _BLOCKS_PER_SIDE // height
        column = np.arange(width) * _BLOCKS_PER_SIDE // width
        return np.asarray(sign[..., row[:, None], column])


@dataclass(frozen=True)
class ScaledImage(Image):
    """The same from ``low`` to ``high``: pixels as another normalisation leaves them.

    Attributes:
        low: what black is.
        high: what white is, above ``low``.

    Raises:
        InputError: the range is empty.
    """

    kind: ClassVar[str] = "scaled_image"
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        _require_range(self)

    def check(self, spec: InputSpec) -> None:
        super().check(spec)
        require(math.isfinite(self.high - self.low), spec, "high - low", self.high - self.low, "finite")

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        return self.low + (self.high - self.low) * (super().draw(draw, spec) + 1.0) / 2.0


@dataclass(frozen=True)
class Joints(Distribution):
    """A robot's joints in its own units, each between its own ends; fixtures 1 and 2 hold them all.

    Attributes:
        low: the least value of each element of the last axis.
        high: the largest; the same as ``low`` of an element that never varies.
    """

    kind: ClassVar[str] = "joints"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("low", "high"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def check(self, spec: InputSpec) -> None:
        _require_kind(spec, "f")
        count = spec.shape[-1] if spec.shape else 0
        for name, ends in (("low", self.low), ("high", self.high)):
            require(len(ends) == count > 0, spec, name, ends, f"{count} numbers, one for each element")
        good = all(-math.inf < low <= high < math.inf for low, high in zip(self.low, self.high, strict=True))
        require(good, spec, "high", self.high, f"finite numbers, none below its own of {self.low}")

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        low, high = np.array(self.low), np.array(self.high)
        if draw.fixture_idx in (1, 2):
            place = np.arange(math.prod(spec.shape)).reshape(spec.shape)
            return np.where((place + draw.fixture_idx) % 2, low, high)
        return np.asarray(low + (high - low) * draw.rng.random(spec.shape))


@dataclass(frozen=True)
class State(Distribution):
    """A robot's normalised state: gaussian, at rest (0), at its limits (-1 or 1), then clipped gaussian."""

    kind: ClassVar[str] = "state"

    def check(self, spec: InputSpec) -> None:
        _require_kind(spec, "f")

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        values = draw.rng.standard_normal(spec.shape)
        if draw.fixture_idx == 0:
            return values
        if draw.fixture_idx == 1:
            return np.zeros(spec.shape)
        if draw.fixture_idx == 2:
            return np.where(values < 0, -1.0, 1.0)
        return np.clip(values, -1.0, 1.0)
