"""Recorded observations as fixtures: a LeRobotDataset, or files of arrays, read frame by frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pytest_reflex.errors import InputError, ReflexError, a_type
from pytest_reflex.inputs.episodes.arrays import SUFFIXES, ArrayRecording
from pytest_reflex.inputs.episodes.choice import Place, chosen, distinct, extremes
from pytest_reflex.inputs.episodes.lerobot_dataset import INFO, LeRobotRecording
from pytest_reflex.inputs.episodes.observed import as_read, is_noise, keys_of, numeric
from pytest_reflex.inputs.episodes.recording import Recording, Value, place
from pytest_reflex.inputs.fixtures import Fixtures, make_fixture, mixtures
from pytest_reflex.inputs.spec import InputSpec, specs_of

__all__ = ["Episodes", "episodes"]

Array = np.ndarray[Any, Any]
# What a policy's own preprocessing is: one raw observation in, the policy's inputs out.
Through = Callable[[dict[str, Value]], Mapping[str, Array]]
# So many other frames are asked for a value to swap in.
_OTHERS = 8


@dataclass(frozen=True)
class Episodes:
    """Frames of a recording, to be judged as fixtures; see :func:`episodes`."""

    recording: Recording
    frames: int | None = None
    seed: int | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    inputs: Sequence[InputSpec] = ()
    through: Through | None = None

    @cached_property
    def total(self) -> int:
        """How many frames the recording has."""
        return sum(self.recording.lengths)

    def told(self, count: int, seed: int) -> Episodes:
        """The same, with how many frames and with which seed said once and for all."""
        return replace(self, frames=self.frames or count, seed=seed if self.seed is None else self.seed)

    def places(self, count: int, seed: int, keys: Sequence[str]) -> list[Place]:
        """The frames that are judged, (episode, frame) each, in order.

        Raises:
            InputError: there is none, or a value is not finite.
        """
        if not self.total:
            raise InputError(
                f"{self.recording.called} has no frame, so there is nothing to judge; record one"
            )
        return chosen(self.recording.lengths, count, seed, extremes(self.recording, keys))

    def fixtures(self, specs: Sequence[InputSpec], count: int, seed: int) -> Fixtures:
        """The fixtures of a check: recorded inputs from the recording, noise drawn.

        Args:
            specs: what the policy reads, where these episodes were not told.
            count: how many frames are judged, where these episodes were not told.
            seed: what frames are chosen with and noise is drawn with, where these episodes were not told.

        Raises:
            InputError: nobody says what the policy reads, or the recording does not fit that.
        """
        specs = list(self.inputs or specs)
        count, seed = self.frames or count, seed if self.seed is None else self.seed
        called = self.recording.called
        if not specs and self.through is None:
            raise InputError(
                f"{called}: the candidate does not say what it reads; give episodes(..., "
                "inputs=[InputSpec(...)])"
            )
        if self.through is not None:
            keys, drawn = {key: key for key in self.recording.features}, [s for s in specs if is_noise(s)]
        else:
            keys, drawn = keys_of(self.recording, specs, self.keys)
        if not keys:
            raise InputError(
                f"{called}: none of its keys is an input of the policy; give keys={{INPUT: KEY}}"
            )
        numbers = [key for key in numeric(self.recording.features) if key in keys.values()]
        places = self.places(count, seed, numbers)
        judged = _Judged(self, specs, keys, drawn, seed, places)
        noted = f"; {', '.join(spec.name for spec in drawn)} drawn" if drawn else ""
        said = (
            f"{len(places)} of {self.total} frames of {called} ({_episodes(len(self.recording.lengths))}), "
            f"chosen with seed {seed}{noted}"
        )
        return Fixtures(
            len(places),
            None,
            judged.make,
            specs,
            judged.spares,
            known_distinct=distinct(self.recording, numbers, places),
            notes=(said,),
            label=lambda idx: "frame {1} of episode {0}".format(*places[idx]),
        )


@dataclass
class _Judged:
    """The chosen frames as fixtures; the last one that was made is at hand."""

    episodes: Episodes
    specs: Sequence[InputSpec]
    keys: Mapping[str, str]
    drawn: Sequence[InputSpec]
    seed: int
    places: Sequence[Place]
    last: tuple[int, dict[str, Array]] | None = None

    def make(self, idx: int) -> dict[str, Array]:
        if self.last is None or self.last[0] != idx:
            self.last = idx, self._made(idx)
        return {name: array.copy() for name, array in self.last[1].items()}

    def spares(self, idx: int) -> Iterator[Mapping[str, Array]]:
        others = [i for i in range(len(self.places)) if i != idx]
        few = others[:: max(1, len(others) // _OTHERS)][:_OTHERS]
        return mixtures(self.make(idx), lambda: map(self.make, few))

    def _made(self, idx: int) -> dict[str, Array]:
        episode, index = self.places[idx]
        recording = self.episodes.recording
        where = place(recording.called, episode, index)
        seen = recording.frame(episode, index, list(dict.fromkeys(self.keys.values())))
        noise = make_fixture(self.drawn, self.seed, idx) if self.drawn else {}
        through = self.episodes.through
        if through is None:
            found = {
                spec.name: as_read(spec, self.keys[spec.name], seen[self.keys[spec.name]], where)
                for spec in self.specs
                if spec.name in self.keys
            }
        else:
            found = _through(through, seen, where)
        whole = {**found, **{name: array for name, array in noise.items() if name not in found}}
        order = [spec.name for spec in self.specs] or list(whole)
        if missing := [name for name in order if name not in whole]:
            raise InputError(
                f"{where}: the preprocessing gives no {missing[0]!r}; it gives {', '.join(found)}"
            )
        return {name: whole[name] for name in order}


def _through(through: Through, seen: dict[str, Value], where: str) -> dict[str, Array]:
    try:
        return {name: np.array(array, order="C") for name, array in through(seen).items()}
    except ReflexError as error:
        raise InputError(f"{where}: {error}") from error


def episodes(
    source: str | os.PathLike[str],
    *,
    frames: int | None = None,
    seed: int | None = None,
    keys: Mapping[str, str] | None = None,
    inputs: Sequence[InputSpec] = (),
    through: Through | None = None,
) -> Episodes:
    """What a robot saw, as the inputs of a check: ``check(policy, bundle, inputs=episodes("recording"))``.

    Frames are chosen by seed and spread over the recording; up to half of them are the first and the last
    of its episodes, and those where an element of the state is smallest or largest. They are read one at a
    time, when they are judged. Noise is drawn, as in any fixture.

    Args:
        source: the directory of a LeRobotDataset of version 3; a directory of ``.npz`` or ``.safetensors``
            files, or one of them, each an episode with arrays ``[frames, ...]``; or the repository id of a
            dataset on the hub.
        frames: how many are judged; by default as many as the check draws fixtures.
        seed: what they are chosen with; by default the check's.
        keys: the recording's key of an input, where that has another name than the policy gives it.
        inputs: what the policy reads, where the candidate does not say it.
        through: the policy's own preprocessing: called with a frame's raw values by key, cameras uint8
            [height, width, channels] and the task as text; gives the policy's inputs by name.

    Raises:
        InputError: there is no such recording, or it cannot be read.
    """
    if frames is not None and (not isinstance(frames, int) or isinstance(frames, bool) or frames < 1):
        raise InputError(f"frames is {frames!r}, expected a whole number of at least 1")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or seed < 0):
        raise InputError(f"seed is {seed!r}, expected a whole number of at least 0")
    if keys is not None and not isinstance(keys, Mapping):
        raise InputError(f"keys is {a_type(keys)}, expected the recording's key of an input by its name")
    return Episodes(opened(source), frames, seed, dict(keys or {}), tuple(specs_of(inputs)), through)


def _episodes(count: int) -> str:
    return f"{count} episode{'s' * (count != 1)}"


def opened(source: str | os.PathLike[str]) -> Recording:
    """The recording at a path, or of a repository id.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    path = Path(source)
    if not os.path.exists(path):
        path = _fetched(os.fspath(source))
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise InputError(f"{path} is no recording; give a directory, or a file *{' or *'.join(SUFFIXES)}")
        return ArrayRecording(str(source), [path])
    if (path / INFO).is_file():
        return LeRobotRecording(path)
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not files:
        raise InputError(f"{path} holds no recording: neither {INFO} nor files *{' or *'.join(SUFFIXES)}")
    return ArrayRecording(str(source), files)


def _fetched(name: str) -> Path:
    """A dataset of the hub: where lerobot keeps its own, else downloaded."""
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise InputError(f"no recording at {name}; give a directory, a file, or a dataset's id, OWNER/NAME")
    home = os.environ.get("HF_LEROBOT_HOME") or Path.home() / ".cache/huggingface/lerobot"
    kept = Path(home) / name
    if (kept / INFO).is_file():
        return kept
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, repo_type="dataset"))
    except ImportError:
        raise InputError(
            f"no recording at {name}, and without huggingface-hub none is fetched; install it, or give a "
            "directory"
        ) from None
    except Exception as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"no recording at {name}, and the hub gives no such dataset: {said}") from error
