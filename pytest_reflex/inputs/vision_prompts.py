"""Prompts with images in the midst of their text: as many image tokens as each image takes, in one run each.

Before, between and after the images there is text of one token at least, and padding comes before it all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pytest_reflex.inputs.distributions import put_ends
from pytest_reflex.inputs.spec import Distribution, Draw, InputSpec, require, require_dtype, require_fits

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class VisionPromptMask(Distribution):
    """True for the images and n tokens of text, the last of the prompt, [B, L].

    n is most of what there is room for in fixture 0, as little as can be in fixture 1, all of it in fixture
    2.
    """

    kind: ClassVar[str] = "vision_prompt_mask"
    images: int
    tokens_per_image: int

    @property
    def least(self) -> int:
        """How many tokens there are at least."""
        return self.images * (self.tokens_per_image + 1) + 1

    def check(self, spec: InputSpec) -> None:
        require_dtype(spec, "biu")
        for name in ("images", "tokens_per_image"):
            value = getattr(self, name)
            require(type(value) is int and value > 0, spec, name, value, "a whole number above 0")
        good = len(spec.shape) == 2 and spec.shape[1] >= self.least
        require(
            good, spec, "shape", list(spec.shape), f"[batch, length] with a length of {self.least} or more"
        )

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        batch, length = spec.shape
        room = length - self.least
        plain = (room - room // 4, 0, room)
        drawn = draw.rng.integers(0, room + 1, batch)
        text = np.full(batch, plain[draw.fixture_idx]) if draw.fixture_idx < len(plain) else drawn
        return np.asarray(np.arange(length) >= (length - self.least - text)[:, None])

    def reach(self, spec: InputSpec) -> tuple[Array, Array]:
        return np.arange(spec.shape[1]) >= spec.shape[1] - self.least, np.asarray(True)


@dataclass(frozen=True)
class VisionPromptTokens(VisionPromptMask):
    """Token ids [B, L]: ``image_token`` for each image's tokens, text below ``vocab``, ``pad`` before it all.

    What text is more than the least stands before, between and after the images as it is drawn.
    """

    kind: ClassVar[str] = "vision_prompt_tokens"
    vocab: int
    image_token: int
    mask: str
    pad: int = 0

    def check(self, spec: InputSpec) -> None:
        super().check(spec)
        require_dtype(spec, "iu")
        require(self.vocab > 1, spec, "vocab", self.vocab, "a whole number above 1")
        for name in ("vocab", "image_token", "pad"):
            require_fits(spec, name, getattr(self, name))
        good = self.image_token not in range(self.vocab) and self.pad != self.image_token
        require(good, spec, "image_token", self.image_token, "an id that is neither text nor padding")

    def needs(self) -> tuple[str, ...]:
        return (self.mask,)

    def check_needs(self, spec: InputSpec, earlier: Mapping[str, InputSpec]) -> None:
        other = earlier[self.mask]
        meant = VisionPromptMask(self.images, self.tokens_per_image)
        good = other.meaning == meant and other.shape == spec.shape
        require(good, spec, f"meaning of {self.mask!r}", other.meaning, f"{meant!r}, of the same shape")

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        mask = draw.drawn[self.mask].astype(bool)
        ids = draw.rng.integers(0, self.vocab, spec.shape)
        first, ends = ids[mask], (self.vocab - 1, 0)
        if draw.fixture_idx in (1, 2):
            put_ends(first, ends, draw.fixture_idx)
            ids[mask] = first
        ids[~mask] = self.pad
        for row, seen in zip(ids, mask, strict=True):
            self._place(draw, row[seen.argmax() :])
        return ids

    def reach(self, spec: InputSpec) -> tuple[Array, Array]:
        said = (0, self.vocab - 1, self.image_token, self.pad)
        return np.asarray(min(said)), np.asarray(max(said))

    def _place(self, draw: Draw, row: Array) -> None:
        """Put the images into a row without padding."""
        more = draw.rng.multinomial(len(row) - self.least, [1 / (self.images + 1)] * (self.images + 1))
        at = 0
        for text in more[:-1] + 1:
            row[at + text : at + text + self.tokens_per_image] = self.image_token
            at += text + self.tokens_per_image
