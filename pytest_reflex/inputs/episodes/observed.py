"""From what a recording holds to what a policy reads: which key is which input, and in which form.

A camera's uint8 [height, width, channels] becomes the input's channels and range, numbers its dtype, and one
frame a batch of one. Nothing is resized, cut or padded: that is the work of a policy's preprocessing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import InputError
from pytest_reflex.inputs.distributions import Gaussian, Image, ScaledImage
from pytest_reflex.inputs.episodes.recording import PLACES, Feature, Recording, Value
from pytest_reflex.inputs.prompts import Text
from pytest_reflex.inputs.spec import InputSpec
from pytest_reflex.verdict.naming import did_you_mean

Array = np.ndarray[Any, Any]

_PREFIXES: Final = ("", "observation.", "observation.images.")


def numeric(features: Mapping[str, Feature]) -> list[str]:
    """The keys of what a policy may read that hold numbers and no image; actions are none of them."""
    return [
        key
        for key, feature in features.items()
        if not feature.camera and feature.dtype.startswith(("float", "int", "uint", "bool"))
        if key not in PLACES and not key.startswith(("action", "next."))
    ]


def is_noise(spec: InputSpec) -> bool:
    """Whether an input is noise by its name and meaning, which no robot records."""
    return isinstance(spec.meaning, Gaussian) and "noise" in spec.name


def keys_of(
    recording: Recording, specs: Sequence[InputSpec], given: Mapping[str, str]
) -> tuple[dict[str, str], list[InputSpec]]:
    """The recording's key of each input, and the inputs that are drawn because they are noise.

    An input is found under the key that was given for it, else under its own name, also behind
    ``observation.`` or ``observation.images.``; ``image_0``, ``image_1`` and so on are the recording's
    cameras in its own order where it has as many.

    Raises:
        InputError: an input is in no frame, or a key that was given is not there.
    """
    features = recording.features
    for name, key in given.items():
        if name not in {spec.name for spec in specs}:
            near = did_you_mean(name, [spec.name for spec in specs])
            raise InputError(f"keys: the policy reads no {name!r}{near}")
        if key not in features:
            raise InputError(
                f"{_first(recording)}: it has no {key!r}{did_you_mean(key, features)}; "
                f"it has {', '.join(features)}"
            )
    found, drawn = dict(given), list[InputSpec]()
    numbered = _numbered(specs, features)
    for spec in specs:
        named = (prefix + spec.name for prefix in _PREFIXES if prefix + spec.name in features)
        if at := given.get(spec.name) or next(named, numbered.get(spec.name, "")):
            found[spec.name] = at
        elif is_noise(spec):
            drawn.append(spec)
        else:
            raise InputError(
                f"{_first(recording)}: no key is the policy's input {spec.name!r}; "
                f"it has {', '.join(features)}: "
                f"give keys={{{spec.name!r}: KEY}}, or through=, the policy's own preprocessing"
            )
    return {spec.name: found[spec.name] for spec in specs if spec.name in found}, drawn


def _first(recording: Recording) -> str:
    return f"{recording.called}: episode 0, frame 0"


def _numbered(specs: Sequence[InputSpec], features: Mapping[str, Feature]) -> dict[str, str]:
    cameras = [key for key, feature in features.items() if feature.camera]
    names = [spec.name for spec in specs if spec.name.startswith("image_") and spec.name[6:].isdigit()]
    if len(cameras) == 1 and not names:
        names = [spec.name for spec in specs if spec.name == "image"]
    return dict(zip(names, cameras, strict=True)) if len(names) == len(cameras) else {}


def as_read(spec: InputSpec, key: str, value: Value, where: str) -> Array:
    """A recorded value as the policy reads it.

    Raises:
        InputError: it does not fit; the message begins with ``where``.
    """
    if isinstance(value, str) and isinstance(spec.meaning, Text):
        return np.frombuffer(value.encode(), np.uint8).copy()
    if isinstance(value, str):
        raise InputError(
            f"{where}: {key} is text, and the policy's {spec.name!r} is {spec.dtype}; tokenise it"
        )
    array, dtype = value, np.dtype(spec.dtype)
    is_text = isinstance(spec.meaning, Text)
    if array.dtype.kind not in "fiub" or (is_text and array.dtype != np.uint8):
        wanted = "text" if is_text else spec.dtype
        raise InputError(f"{where}: {key} is {array.dtype}, and the policy's {spec.name!r} is {wanted}")
    if array.dtype == np.uint8 and array.ndim == 3 and dtype.kind == "f":
        array = _pixels(array, spec)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        at = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise InputError(f"{where}: {key}{at} is {array[tuple(at)]}; every value must be finite")
    array = array if array.ndim >= len(spec.shape) else array[None]
    if not _fits(array.shape, spec):
        raise InputError(
            f"{where}: {key} is {list(value.shape)}, and {spec.name!r} takes {list(spec.shape)}; "
            "nothing is resized here: give through=, the policy's own preprocessing"
        )
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(cast).all():
        at = [int(i) for i in np.argwhere(~np.isfinite(cast))[0]]
        raise InputError(
            f"{where}: {key} is {array[tuple(at)]} at {at}, which {spec.dtype}, that the policy reads, does "
            "not reach"
        )
    if dtype.kind != "f" and not np.array_equal(cast, array):
        raise InputError(
            f"{where}: {key} is {array.dtype}, and the policy's {spec.name!r} takes {spec.dtype}"
        )
    return np.ascontiguousarray(cast)


def _pixels(array: Array, spec: InputSpec) -> Array:
    """uint8 [height, width, channels] -> float32 [channels, height, width] in the input's own range."""
    scaled = np.moveaxis(array, -1, 0).astype(np.float32) / np.float32(255)
    if isinstance(spec.meaning, ScaledImage):  # first, for it is an Image too
        low, high = np.float32(spec.meaning.low), np.float32(spec.meaning.high)
        return low + scaled * (high - low)
    if isinstance(spec.meaning, Image):
        return scaled * np.float32(2) - np.float32(1)
    return scaled


def _fits(shape: tuple[int, ...], spec: InputSpec) -> bool:
    pairs = zip_longest(shape, spec.shape, spec.free)
    return len(shape) == len(spec.shape) and all(n == want or (name and n) for n, want, name in pairs)
