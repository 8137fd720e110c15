"""What a recording is, whatever it lies in: episodes of frames, each frame a mapping from key to value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pytest_reflex.errors import lfs_pointer

Array = np.ndarray[Any, Any]
# What one key of a frame holds: numbers, or the task in words.
Value = Array | str

# Keys that a reader adds to say where a frame is, and none that a policy reads.
PLACES = frozenset({"timestamp", "frame_index", "episode_index", "index", "task_index"})


@dataclass(frozen=True)
class Feature:
    """What a recording says of one key.

    Attributes:
        shape: the shape of one frame's value; of a camera height, width, channels.
        dtype: its numpy name; ``str`` for words.
        camera: whether it is an image, uint8 with its channels last.
        names: what each element is called, such as a joint; empty where nobody says.
        units: the unit of each element, as the recording says it; empty where it does not.
    """

    shape: tuple[int, ...]
    dtype: str
    camera: bool = False
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()


class Recording(Protocol):
    """A recording that is read frame by frame."""

    @property
    def called(self) -> str:
        """What messages call it."""

    @property
    def features(self) -> Mapping[str, Feature]:
        """Its keys, in its own order."""

    @property
    def lengths(self) -> Sequence[int]:
        """How many frames each episode has."""

    def columns(self, keys: Sequence[str]) -> Iterator[Mapping[str, Array]]:
        """Episode by episode the values of keys that hold numbers and no images, ``[frames, ...]``.

        Raises:
            InputError: one cannot be read.
        """

    def frame(self, episode: int, index: int, keys: Sequence[str]) -> dict[str, Value]:
        """What one frame holds under these keys.

        Raises:
            InputError: one cannot be read; the message names the episode and the frame.
        """


def place(called: str, episode: int, index: int) -> str:
    """Where a frame is, as every message says it."""
    return f"{called}: episode {episode}, frame {index}"


def why_unread(file: Path, error: Exception) -> str:
    """Why a file of a recording cannot be read, in a line."""
    return f"it is {said}" if (said := lfs_pointer(file)) else str(error).splitlines()[0]
