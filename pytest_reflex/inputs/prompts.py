"""What cameras and prompts mean: masks, token ids, and prompts that open with image tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from pytest_reflex.inputs.distributions import put_ends
from pytest_reflex.inputs.spec import Distribution, Draw, InputSpec, require, require_dtype, require_fits

Array = np.ndarray[Any, Any]

# Sets the cameras' generator apart from the shared one, whatever else a policy draws.
CAMERA_TAG: Final = 0xCA3E7A


@dataclass(frozen=True)
class CameraMask(Distribution):
    """Which cameras are present, bool: [B, cameras], or [B] for the one camera numbered ``camera``.

    All are present in fixtures 0 and 2, all but the last in fixture 1, all but the first in fixture 3 (an
    only one is in every second row), none in fixture 4, all but the second of three or more in fixture 5, at
    least one in the others. Both forms follow one pattern per ``(seed, fixture_idx)``, so they can be mixed
    and compared.
    """

    kind: ClassVar[str] = "camera_mask"
    camera: int | None = None
    cameras: int | None = None

    def check(self, spec: InputSpec) -> None:
        require_dtype(spec, "b")
        rank = 2 if self.camera is None else 1
        form = "[batch, cameras] (or give camera)" if self.camera is None else "[batch] for one camera"
        require(len(spec.shape) == rank, spec, "shape", list(spec.shape), form)
        if self.camera is None:
            count = spec.shape[1]
            require(count > 0, spec, "shape", list(spec.shape), form)
            require(self.cameras in (None, count), spec, "cameras", self.cameras, f"{count} as in shape")
        else:
            require(_is_count(self.cameras), spec, "cameras", self.cameras, "how many cameras there are")
            numbers = range(self.cameras or 0)
            require(self.camera in numbers, spec, "camera", self.camera, f"a number below {self.cameras}")

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        cameras = spec.shape[1] if self.camera is None else self.cameras or 0
        present = self._pattern(draw, spec.shape[0], cameras)  # [B, cameras]
        return present if self.camera is None else present[:, self.camera]

    @staticmethod
    def _pattern(draw: Draw, batch: int, cameras: int) -> Array:
        present = np.ones((batch, cameras), dtype=bool)
        if draw.fixture_idx == 1 and cameras > 1:
            present[:, -1] = False
        if draw.fixture_idx == 3:
            # Of an only camera every second row, so that rows are told apart.
            present[:, 0] &= cameras == 1 and np.arange(batch) % 2 == 0
        if draw.fixture_idx == 4:
            present[:] = False
        if draw.fixture_idx == 5 and cameras > 2:
            present[:, 1] = False
        elif draw.fixture_idx > 4:
            rng = np.random.default_rng([draw.seed, draw.fixture_idx, CAMERA_TAG])
            present = rng.random((batch, cameras)) < 0.5
            present[np.arange(batch), rng.integers(0, cameras, batch)] = True
        return present


@dataclass(frozen=True)
class PromptMask(Distribution):
    """True for n tokens, [B, L]: n is 3/4 of L in fixture 0, then 1, then L, then 2, then any.

    They are the first n, or the last where ``padding`` is ``"left"``.
    """

    kind: ClassVar[str] = "prompt_mask"
    padding: str = "right"

    def check(self, spec: InputSpec) -> None:
        require_dtype(spec, "biu")
        good = len(spec.shape) == 2 and spec.shape[1] > 0
        require(good, spec, "shape", list(spec.shape), "[batch, length]")
        require(self.padding in ("left", "right"), spec, "padding", self.padding, "'left' or 'right'")

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        batch, length = spec.shape
        mask = np.arange(length) < _text_lengths(draw, batch, length)[:, None]
        return mask if self.padding == "right" else mask[:, ::-1]

    def reach(self, spec: InputSpec) -> tuple[Array, Array]:
        # One token is always there.
        place = np.arange(spec.shape[1])
        return place == (0 if self.padding == "right" else spec.shape[1] - 1), np.asarray(True)


@dataclass(frozen=True)
class ImageTokenMask(Distribution):
    """True for the tokens that stand for an image, bool [B, L].

    The middle half of the prompt in fixture 0, none in fixture 1, all in fixture 2, then any.
    """

    kind: ClassVar[str] = "image_token_mask"

    def check(self, spec: InputSpec) -> None:
        require_dtype(spec, "b")
        require(len(spec.shape) == 2, spec, "shape", list(spec.shape), "[batch, length]")

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        place = np.broadcast_to(np.arange(spec.shape[1]), spec.shape)
        if draw.fixture_idx == 0:
            return (place >= spec.shape[1] // 4) & (place < 3 * spec.shape[1] // 4)
        if draw.fixture_idx in (1, 2):
            return np.full(spec.shape, draw.fixture_idx == 2)
        return draw.rng.random(spec.shape) < 0.5


@dataclass(frozen=True)
class Tokens(Distribution):
    """Token ids below ``vocab``, and ``pad`` where the earlier input named ``mask`` is false.

    The first tokens of fixtures 1 to 4 are the last id and 0, 1, 2, each first in one of them.

    Attributes:
        vocab: how many ids there are.
        mask: the name of the input, before this one, that says where words are.
        pad: the id where there are none.
        end: the id that each prompt's last word is, and no other of its words; by default none ends it.
    """

    kind: ClassVar[str] = "tokens"
    vocab: int
    mask: str | None = None
    pad: int = 0
    end: int | None = None

    def check(self, spec: InputSpec) -> None:
        require_dtype(spec, "iu")
        require(_is_count(self.vocab), spec, "vocab", self.vocab, "a whole number above 0")
        require_fits(spec, "vocab - 1", self.vocab - 1)
        require_fits(spec, "pad", self.pad)
        if self.end is not None:
            require_fits(spec, "end", self.end)
            good = len(spec.shape) == 2 and spec.shape[1] > 0
            require(good, spec, "shape", list(spec.shape), "[batch, length] where prompts have an end")
            require((self.vocab, self.end) != (1, 0), spec, "end", self.end, "another id than the only one")

    def limits(self) -> tuple[int, int]:
        said = (0, self.vocab - 1, self.pad, *(() if self.end is None else (self.end,)))
        return min(said), max(said)

    def reach(self, spec: InputSpec) -> tuple[Array, Array]:
        low, high = self.limits()
        return np.asarray(low), np.asarray(high)

    def needs(self) -> tuple[str, ...]:
        return () if self.mask is None else (self.mask,)

    def check_needs(self, spec: InputSpec, earlier: Mapping[str, InputSpec]) -> None:
        if self.mask is not None:
            _require_same_shape(spec, earlier[self.mask])

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        ids = draw.rng.integers(0, self.vocab, spec.shape)
        mask = np.ones(spec.shape, bool) if self.mask is None else draw.drawn[self.mask].astype(bool)
        ids = _with_ends(ids, mask, self.vocab, draw.fixture_idx)
        return np.where(mask, ids if self.end is None else self._ended(ids, mask, self.end), self.pad)

    def _ended(self, ids: Array, mask: Array, end: int) -> Array:
        """The ids with ``end`` for the last word of each row, and a neighbour of it for the others."""
        ids = np.where(ids == end, end - 1 if end > 0 else 1, ids)
        last = mask & (np.cumsum(mask, axis=1) == mask.sum(axis=1, keepdims=True))
        return np.where(last, end, ids)


@dataclass(frozen=True)
class ImagePromptMask(Distribution):
    """Prefix mask [B, L] of a prompt that opens with image tokens, those of absent cameras left out.

    True for the first ``present cameras * tokens_per_image + n`` places, with n as in
    :class:`PromptMask` over the L - cameras * tokens_per_image places that text can take.
    """

    kind: ClassVar[str] = "image_prompt_mask"
    cameras: str = "pixel_attention_mask"
    tokens_per_image: int = 256

    def check(self, spec: InputSpec) -> None:
        require_dtype(spec, "biu")
        require(len(spec.shape) == 2, spec, "shape", list(spec.shape), "[batch, length]")
        _require_tokens_per_image(spec, self.tokens_per_image)

    def needs(self) -> tuple[str, ...]:
        return (self.cameras,)

    def check_needs(self, spec: InputSpec, earlier: Mapping[str, InputSpec]) -> None:
        _require_camera_mask(spec, earlier[self.cameras])
        least = earlier[self.cameras].shape[1] * self.tokens_per_image + 1
        require(spec.shape[1] >= least, spec, "length", spec.shape[1], f"{least} or more, to hold any text")

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        batch, length = spec.shape
        present = draw.drawn[self.cameras].astype(bool)  # [B, cameras]
        places = length - present.shape[1] * self.tokens_per_image
        ends = present.sum(axis=1) * self.tokens_per_image + _text_lengths(draw, batch, places)
        return np.asarray(np.arange(length) < ends[:, None])

    def reach(self, spec: InputSpec) -> tuple[Array, Array]:
        return np.arange(spec.shape[1]) == 0, np.asarray(True)


@dataclass(frozen=True)
class ImagePromptTokens(Distribution):
    """Token ids [B, L]: ``image_token`` for each present camera, text, then ``pad`` where ``mask`` is false.

    Text ids are below ``vocab`` and never ``image_token``; their ends are where those of :class:`Tokens` are.
    """

    kind: ClassVar[str] = "image_prompt_tokens"
    vocab: int
    image_token: int
    tokens_per_image: int
    cameras: str
    mask: str
    pad: int = 0

    def check(self, spec: InputSpec) -> None:
        require_dtype(spec, "iu")
        require(len(spec.shape) == 2, spec, "shape", list(spec.shape), "[batch, length]")
        good = _is_count(self.vocab) and self.vocab > 1
        require(good, spec, "vocab", self.vocab, "a whole number above 1")
        require_fits(spec, "vocab - 1", self.vocab - 1)
        require_fits(spec, "image_token", self.image_token)
        require_fits(spec, "pad", self.pad)
        require(self.pad != self.image_token, spec, "pad", self.pad, "another id than image_token")
        _require_tokens_per_image(spec, self.tokens_per_image)

    def needs(self) -> tuple[str, ...]:
        return (self.cameras, self.mask)

    def check_needs(self, spec: InputSpec, earlier: Mapping[str, InputSpec]) -> None:
        _require_camera_mask(spec, earlier[self.cameras])
        _require_same_shape(spec, earlier[self.mask])

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        if 0 <= self.image_token < self.vocab:
            text = draw.rng.integers(0, self.vocab - 1, spec.shape)
            text += text >= self.image_token  # steps over image_token, every other id equally likely
        else:
            text = draw.rng.integers(0, self.vocab, spec.shape)
        images = draw.drawn[self.cameras].astype(bool).sum(axis=1) * self.tokens_per_image  # [B]
        is_image = np.arange(spec.shape[1]) < images[:, None]
        mask = draw.drawn[self.mask].astype(bool)
        text = _with_ends(text, mask & ~is_image, self.vocab, draw.fixture_idx, self.image_token)
        return np.where(mask, np.where(is_image, self.image_token, text), self.pad)

    def reach(self, spec: InputSpec) -> tuple[Array, Array]:
        said = (0, self.vocab - 1, self.image_token, self.pad)
        return np.asarray(min(said)), np.asarray(max(said))


def _with_ends(ids: Array, mask: Array, vocab: int, fixture_idx: int, but: int = -1) -> Array:
    """The ids with both ends of the vocabulary among the first that are text; ``but`` is no text."""
    ends = [n for n in dict.fromkeys([vocab - 1, 0, 1, 2]) if n < vocab and n != but]
    if 0 < fixture_idx <= 4 and ends:
        text = ids[mask]
        put_ends(text, ends, fixture_idx)
        ids[mask] = text
    return ids


def _text_lengths(draw: Draw, batch: int, places: int) -> Array:
    """How many of ``places`` the text takes in each row, [B], each from 1 to ``places``."""
    if draw.fixture_idx > 3:
        return draw.rng.integers(1, places + 1, batch)
    plain = -(-3 * places // 4)
    # Two tokens leave what the images say to be seen, and are still a prompt of more than one.
    return np.full(batch, (plain, 1, places, min(2, places))[draw.fixture_idx])


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _require_tokens_per_image(spec: InputSpec, value: object) -> None:
    require(_is_count(value), spec, "tokens_per_image", value, "a whole number above 0")


def _require_same_shape(spec: InputSpec, other: InputSpec) -> None:
    expected = f"{list(other.shape)}, as {other.name!r} has"
    require(spec.shape == other.shape, spec, "shape", list(spec.shape), expected)


def _require_camera_mask(spec: InputSpec, cameras: InputSpec) -> None:
    good = len(cameras.shape) == 2 and cameras.shape[0] == spec.shape[0]
    form = f"[{spec.shape[0]}, cameras]"
    require(good, spec, f"shape of {cameras.name!r}", list(cameras.shape), form)


@dataclass(frozen=True)
class Text(Distribution):
    """Words as the bytes of their UTF-8, for whoever tokenises them: a task."""

    kind: ClassVar[str] = "text"

    def check(self, spec: InputSpec) -> None:
        require(
            spec.dtype == "uint8" and len(spec.shape) == 1, spec, "the input", spec.dtype, "uint8 [bytes]"
        )

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        # From the second on whatever a keyboard has.
        plain = b"abcdefghijklmnopqrstuvwxyz  "
        letters = np.frombuffer(plain if draw.fixture_idx == 0 else bytes(range(32, 127)) + b"\n", np.uint8)
        return letters[draw.rng.integers(0, len(letters), spec.shape)]
