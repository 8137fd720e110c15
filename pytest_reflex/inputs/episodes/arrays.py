"""Recordings in files of arrays, ``.npz`` or ``.safetensors``: each file an episode.

Each array is ``[frames, ...]``. An array without axes, or a word, holds for the whole episode. Rows are read
one at a time.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import InputError
from pytest_reflex.inputs.episodes.recording import PLACES, Feature, Value, place, why_unread

Array = np.ndarray[Any, Any]
Rows = Callable[[int, int], Array]

SUFFIXES: Final = (".npz", ".safetensors")
_BUNDLES: Final = "reflex-fixtures"


class ArrayRecording:
    """Files of arrays, in the order of their names.

    Args:
        called: what messages call it.
        files: one for each episode.

    Raises:
        InputError: one cannot be read, its arrays have not one number of frames, or its keys are not the
            first one's.
    """

    def __init__(self, called: str, files: Sequence[Path]) -> None:
        self.called = called
        self._files = list(files)
        self._open: tuple[int, _Arrays] | None = None
        self.lengths: list[int] = []
        self.features: dict[str, Feature] = {}
        for episode, file in enumerate(self._files):
            arrays = self._arrays(episode)
            self.lengths.append(arrays.length)
            said = {key: _feature(key, dtype, shape) for key, (dtype, shape, _) in arrays.rows.items()}
            known = {key: feature for key, feature in said.items() if key not in PLACES}
            if episode and known.keys() != self.features.keys():
                odd = sorted(known.keys() ^ self.features.keys())[0]
                side = "has no" if odd in self.features else "alone has"
                raise InputError(
                    f"{called}: episode {episode} ({file.name}) {side} {odd!r}; give each the same"
                )
            self.features = self.features or known

    def columns(self, keys: Sequence[str]) -> Iterator[Mapping[str, Array]]:
        for episode, length in enumerate(self.lengths):
            arrays = self._arrays(episode)
            yield {key: arrays.read(key, 0, length) for key in keys}

    def frame(self, episode: int, index: int, keys: Sequence[str]) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for key in keys:
            try:
                value = self._arrays(episode).read(key, index, index + 1)[0]
                value = value.decode() if np.asarray(value).dtype.kind == "S" else value
            except (OSError, ValueError, EOFError, KeyError) as error:
                said = str(error).splitlines()[0] if str(error) else type(error).__name__
                where = place(self.called, episode, index)
                raise InputError(f"{where}: {key}: {self._files[episode].name}: {said}") from error
            is_text = isinstance(value, str) or np.asarray(value).dtype.kind == "U"
            found[key] = str(value) if is_text else np.asarray(value)
        return found

    def _arrays(self, episode: int) -> _Arrays:
        if self._open is None or self._open[0] != episode:
            self._open = episode, _Arrays(self.called, self._files[episode])
        return self._open[1]


class _Arrays:
    """One file: dtype and shape of each array, and how its rows are read."""

    def __init__(self, called: str, file: Path) -> None:
        try:
            self.rows = _of_npz(file) if file.suffix == ".npz" else _of_safetensors(file)
        except InputError:
            raise
        except Exception as error:  # whatever a damaged file leads to
            raise InputError(f"{file} cannot be read as a recording: {why_unread(file, error)}") from error
        lengths = {key: shape[0] for key, (_, shape, _) in self.rows.items() if shape}
        if len(set(lengths.values())) != 1:
            raise InputError(
                f"{file} has arrays of {lengths or 'no'} frames; each is [frames, ...], one number of them"
            )
        self.length = next(iter(lengths.values()))

    def read(self, key: str, start: int, stop: int) -> Array:
        _, shape, rows = self.rows[key]
        return rows(start, stop) if shape else np.broadcast_to(rows(0, 1), (stop - start,))


_Said = dict[str, tuple[np.dtype[Any], tuple[int, ...], Rows]]


def _of_npz(file: Path) -> _Said:
    archive = zipfile.ZipFile(file)
    return {name.removesuffix(".npy"): _member(archive, name) for name in archive.namelist()}


def _member(archive: zipfile.ZipFile, name: str) -> tuple[np.dtype[Any], tuple[int, ...], Rows]:
    """An array of an archive, read row by row: numpy itself would hold all of it."""
    stream = archive.open(name)
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(stream)
    if dtype.hasobject or (fortran and len(shape) > 1):
        raise ValueError(
            f"{name} holds {'objects' if dtype.hasobject else 'columns first'}; save it in C order"
        )
    begin = stream.tell()
    size = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))

    def rows(start: int, stop: int) -> Array:
        nonlocal stream
        at = begin + start * size
        if stream.tell() > at:
            stream = archive.open(name)
        while stream.tell() < at:  # some versions of Python lose their place when they are to seek
            if not stream.read(min(at - stream.tell(), 1 << 20)):
                break
        data = stream.read((stop - start) * size)
        if len(data) != (stop - start) * size:
            raise ValueError(f"{name} ends before row {stop - 1}: it is truncated")
        return np.frombuffer(data, dtype).reshape(stop - start, *shape[1:])

    return dtype, shape, rows


def _of_safetensors(file: Path) -> _Said:
    from safetensors import safe_open

    opened: Any = safe_open(file, framework="np")
    if (opened.metadata() or {}).get("format") == _BUNDLES:
        raise InputError(
            f"{file} holds a bundle's recorded fixtures; give it as the reference, --model {file}"
        )
    found: _Said = {}
    for key in opened.keys():  # noqa: SIM118  # it is no dict
        part = opened.get_slice(key)
        shape = tuple(part.get_shape())
        one = part[0:1] if shape else opened.get_tensor(key)

        def rows(start: int, stop: int, part: Any = part, shape: Any = shape, one: Any = one) -> Array:
            return np.asarray(part[start:stop]) if shape else np.asarray(one).reshape(1)

        found[key] = np.asarray(one).dtype, shape, rows
    return found


def _feature(key: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Feature:
    each = shape[1:]
    camera = dtype == np.uint8 and len(each) == 3 and each[-1] in (1, 3)
    return Feature(each, "str" if dtype.kind in "US" else dtype.name, camera)
