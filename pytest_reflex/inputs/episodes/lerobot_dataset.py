"""A LeRobotDataset of version 3 on disk, read through pyarrow and PyAV alone: no lerobot, no torch.

    meta/info.json  meta/tasks.parquet  meta/episodes/chunk-*/file-*.parquet
    data/chunk-*/file-*.parquet         one row a frame
    videos/KEY/chunk-*/file-*.mp4       one file, several episodes

What a file holds is read when a frame of it is asked for, one row group and one video at a time.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import InputError
from pytest_reflex.inputs.episodes.recording import PLACES, Feature, Value, place, why_unread
from pytest_reflex.inputs.episodes.video import Video, VideoError, picture
from pytest_reflex.verdict.units import UNITS, unit_named

Array = np.ndarray[Any, Any]

INFO: Final = "meta/info.json"
_VERSION: Final = "v3."
_TASK: Final = "task"
# What a row says of itself: whose it is, and where in it.
_IN_EPISODE: Final = ("episode_index", "frame_index")
# What has to be counted of an episode, to find its rows.
_COUNTS: Final = ("episode_index", "length", "data/chunk_index", "data/file_index", "dataset_from_index")
_DATA: Final = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO: Final = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


class LeRobotRecording:
    """One such dataset.

    Args:
        root: its directory.

    Attributes:
        called: what messages call it.
        info: the contents of ``meta/info.json``.
        features: its keys, ``task`` among them.
        lengths: how many frames each episode has.

    Raises:
        InputError: it is of another version, has no frame, or cannot be read; or pyarrow is not installed.
    """

    def __init__(self, root: Path) -> None:
        self.called = str(root)
        self._root = root
        self._parquet = _parquet(self.called)
        self.info = _info(root)
        self._data, self._video = _patterns(self.info, self.called)
        self._episodes = self._read_episodes()
        self.lengths = [int(one["length"]) for one in self._episodes]
        self.features = {**_features(self.info, self.called), _TASK: Feature((), "str")}
        self._file: tuple[Path, Any, list[int]] | None = None
        self._rows: tuple[tuple[Path, int, tuple[str, ...]], Any] | None = None
        self._videos: dict[str, Video] = {}

    @cached_property
    def tasks(self) -> dict[int, str]:
        """The task of each ``task_index``, in words."""
        file, found = self._root / "meta/tasks.parquet", dict[int, str]()
        for row in self._read(file).to_pylist():
            words = row[_TASK] if _TASK in row else row.get("__index_level_0__")
            if not isinstance(words, str):  # an empty one is a task
                raise InputError(f"{file}: the task of {row['task_index']!r} is {words!r}, expected text")
            found[int(row["task_index"])] = words
        return found

    def columns(self, keys: Sequence[str]) -> Iterator[Mapping[str, Array]]:
        for episode, length in enumerate(self.lengths):
            found: dict[str, list[Array]] = {key: [] for key in keys}
            at = 0
            while at < length:
                table, row = self._row_group(episode, at, keys)
                many = min(table.num_rows - row, length - at)
                self._require_rows(table, row, many, episode, at)
                try:
                    for key in keys:
                        found[key].append(_numbers(table[key].slice(row, many), self.features[key]))
                except (ValueError, TypeError):
                    for index in range(at, at + many):
                        self.frame(episode, index, keys)  # which says where
                    raise
                at += many
            yield {key: np.concatenate(parts) for key, parts in found.items() if parts}

    def frame(self, episode: int, index: int, keys: Sequence[str]) -> dict[str, Value]:
        where = place(self.called, episode, index)
        videos = [key for key in keys if self.features[key].camera and self._is_video(key)]
        stored = [key for key in keys if key not in videos and key != _TASK]
        table, row = self._row_group(episode, index, (*stored, "timestamp", "task_index"))
        self._require_rows(table, row, 1, episode, index)
        found: dict[str, Value] = {}
        for key in keys:
            try:
                if key == _TASK:
                    found[key] = self._task(int(table["task_index"][row].as_py()))
                elif key in videos:
                    found[key] = self._seen(key, episode, float(table["timestamp"][row].as_py()))
                elif self.features[key].camera:
                    found[key] = picture(self._image(table[key][row].as_py()))
                else:
                    found[key] = _numbers(table[key].slice(row, 1), self.features[key])[0]
            except (VideoError, OSError, ValueError, KeyError, TypeError) as error:
                said = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
                raise InputError(f"{where}: {key}: {said}") from error
        return found

    def _task(self, index: int) -> str:
        if index not in self.tasks:
            raise ValueError(f"its task_index is {index}, which meta/tasks.parquet does not have")
        return self.tasks[index]

    def _is_video(self, key: str) -> bool:
        return bool(self.info["features"][key]["dtype"] == "video")

    def _seen(self, key: str, episode: int, moment: float) -> Array:
        said = self._episodes[episode]
        stated = self.info["features"][key].get("info") or {}
        if stated.get("is_depth_map") or stated.get("video.is_depth_map"):
            raise VideoError("it is a depth map, which no camera's pixels stand for; leave it out")
        chunk, number = (int(said[f"videos/{key}/{what}_index"]) for what in ("chunk", "file"))
        path = self._root / self._video.format(video_key=key, chunk_index=chunk, file_index=number)
        known = self._videos.get(key)
        if known is None or known.path != path:
            if known is not None:
                known.close()
                del self._videos[key]
            try:
                self._videos[key] = known = Video(path)
            except VideoError as error:
                raise VideoError(why_unread(path, error)) from error
        return known.frame(float(said[f"videos/{key}/from_timestamp"]) + moment)

    def _image(self, stored: Any) -> bytes:
        found = stored if isinstance(stored, dict) else {}
        if found.get("bytes") is not None:
            return bytes(found["bytes"])
        if found.get("path") is None:
            raise VideoError("the row holds no image, neither its bytes nor a path")
        return Path(self._root, found["path"]).read_bytes()

    def _row_group(self, episode: int, index: int, keys: Sequence[str]) -> tuple[Any, int]:
        """The row group that has a frame, of it these keys, and the frame's row in it."""
        said, where = self._episodes[episode], place(self.called, episode, index)
        path = self._file_of(said)
        keys = (*keys, *_IN_EPISODE)
        try:
            file, starts = self._opened(path)
            row = int(said["dataset_from_index"]) - self._first_index(path) + index
            group = bisect_right(starts, row) - 1
            if not 0 <= row < file.metadata.num_rows:
                raise InputError(
                    f"{where}: {path.name} has {file.metadata.num_rows} rows and not the frame's"
                )
            wanted = (path, group, tuple(keys))
            if self._rows is None or self._rows[0] != wanted:
                self._rows = None  # let go of it before the next is read
                self._rows = wanted, file.read_row_group(group, columns=list(dict.fromkeys(keys)))
        except (OSError, ValueError) as error:
            raise InputError(f"{where}: {path} cannot be read: {why_unread(path, error)}") from error
        missing = [key for key in keys if key not in self._rows[1].column_names]
        if missing:
            raise InputError(f"{where}: {path.name} has no {missing[0]}; the recording is not whole")
        return self._rows[1], row - starts[group]

    def _require_rows(self, table: Any, row: int, many: int, episode: int, index: int) -> None:
        """Refuse rows that say of themselves that they are other frames than those that were looked for.

        Raises:
            InputError: naming the first, which would stand beside another frame's pictures.
        """
        number = int(self._episodes[episode]["episode_index"])
        said = zip(*(table[key].slice(row, many).to_pylist() for key in _IN_EPISODE), strict=True)
        for at, found in enumerate(said, index):
            if found != (number, at):
                raise InputError(
                    f"{place(self.called, episode, at)}: its row says that it is frame {found[1]} of episode "
                    f"{found[0]}; the recording's rows are not in its own order"
                )

    def _file_of(self, said: Mapping[str, Any]) -> Path:
        """The data file of an episode."""
        return self._root / self._data.format(
            chunk_index=int(said["data/chunk_index"]), file_index=int(said["data/file_index"])
        )

    def _opened(self, path: Path) -> tuple[Any, list[int]]:
        if self._file is None or self._file[0] != path:
            file = self._parquet.ParquetFile(path)
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            self._file = path, file, [0, *accumulate(sizes)][: len(sizes)]
        return self._file[1], self._file[2]

    def _first_index(self, path: Path) -> int:
        """The number that the first frame of a data file has in the whole dataset."""
        return self._starts[path.parent.name, path.stem]

    @cached_property
    def _starts(self) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for one in self._episodes:
            named = self._file_of(one)
            key, start = (named.parent.name, named.stem), int(one["dataset_from_index"])
            found[key] = min(found.get(key, start), start)
        return found

    def _read_episodes(self) -> list[dict[str, Any]]:
        files = sorted((self._root / "meta/episodes").glob("chunk-*/file-*.parquet"))
        found: list[dict[str, Any]] = []
        for file in files:
            names = [n for n in self._schema(file) if not n.startswith("stats/") and n != "tasks"]
            found += self._read(file, names).to_pylist()
        for one in found:
            wrong = next((key for key in _COUNTS if not isinstance(one.get(key), int) or one[key] < 0), None)
            if wrong is not None:
                raise InputError(
                    f"{self.called}: meta/episodes says {wrong} {one.get(wrong)!r} of episode "
                    f"{one.get('episode_index')!r}, expected a whole number of at least 0"
                )
        found.sort(key=lambda one: one["episode_index"])
        if not found or not sum(int(one["length"]) for one in found):
            raise InputError(f"{self.called} has no frame: meta/episodes names none; give a recording")
        return found

    def _schema(self, path: Path) -> list[str]:
        try:
            return list(self._parquet.read_schema(path).names)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {why_unread(path, error)}") from error

    def _read(self, path: Path, names: Sequence[str] | None = None) -> Any:
        try:
            return self._parquet.read_table(path, columns=None if names is None else list(names))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {why_unread(path, error)}") from error


def _parquet(called: str) -> Any:
    try:
        import av  # noqa: F401  # said now, and not at the first frame
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise InputError(
            f"{called} is read with pyarrow and av ({error}); install 'pytest-reflex[episodes]'"
        ) from None
    return parquet


def _info(root: Path) -> dict[str, Any]:
    try:
        info = json.loads((root / INFO).read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
        if not isinstance(info["features"], dict):
            raise TypeError("features is no JSON object")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{root / INFO} cannot be read as a LeRobotDataset's: {error}") from error
    if not version.startswith(_VERSION):
        raise InputError(
            f"{root} is a LeRobotDataset of version {version}, expected v3; convert it with lerobot's "
            "convert_dataset_v21_to_v30"
        )
    return dict(info)


def _features(info: Mapping[str, Any], called: str) -> dict[str, Feature]:
    found = {}
    for key, said in info["features"].items():
        try:
            camera = said["dtype"] in ("video", "image")
            names = said.get("names")
            named = tuple(map(str, names)) if isinstance(names, list) and not camera else ()
            shape, dtype = tuple(int(n) for n in said["shape"]), "uint8" if camera else str(said["dtype"])
            found[key] = Feature(shape, dtype, camera, named, _units(said, shape))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{called}: {INFO} says of {key!r} what cannot be read ({error})") from error
    return {key: feature for key, feature in found.items() if key not in PLACES}


def _units(said: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[str, ...]:
    """The ``units`` of a feature, one for each element or one for all; nothing where it has none."""
    stated = said.get("units", said.get("unit"))
    if stated is None or len(shape) != 1:
        return ()
    every = [stated] * shape[0] if isinstance(stated, str) else list(stated)
    found = [unit_named(one) for one in every]
    if len(found) != shape[0] or None in found:
        raise ValueError(f"its units are {stated!r}, expected one of {', '.join(UNITS)} for each element")
    return tuple(one for one in found if one is not None)


def _patterns(info: Mapping[str, Any], called: str) -> tuple[str, str]:
    """Where data files and videos lie, as ``meta/info.json`` says it.

    Raises:
        InputError: it says what is no place.
    """
    found = []
    for key, default in (("data_path", _DATA), ("video_path", _VIDEO)):
        pattern = info.get(key) or default
        try:
            pattern.format(video_key="", chunk_index=0, file_index=0)
        except (AttributeError, KeyError, IndexError, ValueError, TypeError) as error:
            raise InputError(
                f"{called}: {INFO} says {key} {pattern!r}, expected a place such as {default!r}"
            ) from error
        found.append(str(pattern))
    return found[0], found[1]


def _numbers(column: Any, feature: Feature) -> Array:
    """A column's values, ``[rows, *shape]``.

    Raises:
        ValueError: they are not as many as ``meta/info.json`` says, no numbers, or would be changed by
            becoming what it says.
    """
    rows, dtype = column.to_pylist(), np.dtype(feature.dtype)
    size = len(rows) * math.prod(feature.shape)
    try:
        found = np.asarray(rows)
    except ValueError:  # rows of different lengths, or none
        found = np.empty(0, object)
    if found.dtype.kind not in "fiub" or found.size != size:
        there = f"{list(found.shape[1:])}" if found.dtype.kind in "fiub" else "none"
        raise ValueError(f"{INFO} says {list(feature.shape)} numbers, and there are {there}")
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is said where it is used
        cast = found.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(cast, found):
        raise ValueError(f"it holds {found.dtype.name}, and {INFO} says {dtype.name}, which changes it")
    return cast.reshape(len(rows), *feature.shape)
