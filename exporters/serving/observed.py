"""What a robot's client sends, as the raw observation that a bundle with processors reads.

openpi's clients say ``observation/image``, ``observation/state`` and ``prompt`` where lerobot's features are
``observation.images.image``, ``observation.state`` and ``task``; some put their cameras into a map of their
own. Images are taken as they are: nothing is resized here, for that is the policy's preprocessing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from exporters.bundle.processors import TASK, Processors
from pytest_reflex.errors import InputError, a_type

__all__ = ["is_raw", "raw_observation"]

_PROMPT: Final = "prompt"
_STATE: Final = "observation.state"
_IMAGES: Final = "observation.images."


def is_raw(found: Mapping[str, Any], inputs: Mapping[str, Any]) -> bool:
    """Whether a message is what a robot sees, and not the policy's own ``inputs``; an empty one is."""
    return not found or not found.keys() <= inputs.keys()


def raw_observation(
    found: Mapping[str, Any], said: Processors, noises: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A message's fields under the policy's own feature names, and what of the noise it gives.

    Args:
        found: the message.
        said: what the manifest says of the processors.
        noises: the policy's inputs that are drawn where they are not given.

    Raises:
        InputError: a field is none of the robot's, or two are the same.
    """
    names = [spec.name for spec in said.raw]
    raw: dict[str, Any] = {}
    given: dict[str, Any] = {}
    for field, value in _flat(found):
        if field in noises:
            given[field] = value
            continue
        name = _named(field, names)
        if name is None:
            raise InputError(f"input {field!r} is not known; the policy sees {', '.join(names)}")
        if name in raw:
            raise InputError(f"input {field!r} is {name!r}, which is given twice; send one")
        if not isinstance(value, np.ndarray | np.generic) and not (name == TASK and isinstance(value, str)):
            wanted = "as text" if name == TASK else "as an array"
            raise InputError(f"input {field!r} is {a_type(value)}; send it {wanted}")
        raw[name] = value
    return raw, given


def _flat(found: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every field, those of a map under both names, ``images/cam_high``."""
    for name, value in found.items():
        if not isinstance(name, str):
            raise InputError(f"field {name!r}: a name is text, not bytes")
        if isinstance(value, dict) and not above:
            yield from _flat(value, f"{name}/")
        else:
            yield above + name, value


def _named(field: str, names: list[str]) -> str | None:
    """The robot's name of a field."""
    dotted = field.replace("/", ".")
    last = dotted.rpartition(".")[2]
    cameras = [name for name in names if name.startswith(_IMAGES)]
    guesses = [field, dotted, f"observation.{dotted}", f"{_IMAGES}{last}"]
    guesses += [TASK] if field == _PROMPT else []
    guesses += [_STATE] if last == "state" else []
    guesses += cameras if last == "image" and len(cameras) == 1 else []
    return next((guess for guess in guesses if guess in names), None)
