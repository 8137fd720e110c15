"""Replays outputs that were recorded elsewhere: a reference without its framework, weights or machine.

A recording is one safetensors file with the tensors ``fixture{i}.inputs.{name}`` and
``fixture{i}.outputs.{name}``, and the metadata ``format``, ``version``, ``inputs``, ``outputs`` and
``live_inputs``; the last three are JSON lists of names, the first two of them in the model's order.
"""

from __future__ import annotations

import contextlib
import json
import os
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_reflex.errors import RunnerError, lfs_pointer
from pytest_reflex.runners.base import RunnerBase, first_line
from pytest_reflex.runners.opened_files import file_digest
from pytest_reflex.verdict import machine

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Fixture = tuple[dict[str, Array], dict[str, Array]]

FORMAT: Final = "reflex-fixtures"
VERSION: Final = "1"


class RecordedRunner(RunnerBase):
    """Answers the inputs of a recording with the outputs of that recording, and no others.

    Args:
        path: the safetensors file that :func:`save_recording` wrote.
        name: for people; by default the path.
        recorded_on: what is known of the machine that recorded it, as
            :func:`pytest_reflex.verdict.machine.here` says it; by default nothing is.
        digest: the SHA-256, in hex, that the file must have whenever it is read; by default any.

    Attributes:
        live_inputs: the inputs that change the recorded model's outputs; known once open.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        recorded_on: Mapping[str, Any] | None = None,
        digest: str | None = None,
    ) -> None:
        self._path = Path(path)
        self._wanted, self._digest = digest, ""
        self._recorded_on = machine.stated(recorded_on)
        self.name = name or str(path)
        self.live_inputs: tuple[str, ...] = ()
        self._count = 0
        self._outputs: dict[str, dict[str, Array]] | None = None

    def recorded(self) -> list[dict[str, Array]]:
        """The inputs of every fixture, in order; fresh arrays, open or not.

        Raises:
            RunnerError: the file is missing, damaged, no recording, or of another digest.
        """
        return [inputs for inputs, _ in self._read()[0]]

    def open(self) -> None:
        from pytest_reflex.inputs import array_digest

        if self._outputs is None:
            fixtures, self.live_inputs = self._read()
            self._count = len(fixtures)
            self._outputs = {array_digest(inputs): outputs for inputs, outputs in fixtures}

    def _read(self) -> tuple[list[Fixture], tuple[str, ...]]:
        """The fixtures and live inputs of the file, whose digest stays the same from before to after."""
        before = _digest(self._path)
        found = _read(self._path)
        if _digest(self._path) != before or before != (self._wanted or before):
            raise RunnerError(f"{self._path} was written to after its digest was read; open it again")
        self._digest = before
        return found

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        from pytest_reflex.inputs import array_digest

        outputs = self._opened(self._outputs)
        found = outputs.get(array_digest(inputs))
        if found is None:
            known = f"{len(outputs)} others are"
            raise RunnerError(
                f"{self.name}: these inputs are not recorded ({known}); check with its recorded() inputs"
            )
        return {name: array.copy() for name, array in found.items()}

    def close(self) -> None:
        self._outputs = None

    def facts(self) -> dict[str, Any]:
        import safetensors

        self._opened(self._outputs)
        return {
            "kind": "recorded",
            "name": self.name,
            "path": str(self._path),
            "sha256": self._digest,
            "fixtures": self._count,
            "live_inputs": list(self.live_inputs),
            # Not this one: nothing is computed here.
            "machine": dict(self._recorded_on),
            "versions": {"safetensors": str(safetensors.__version__)},
        }


def save_recording(
    path: str | Path,
    fixtures: Sequence[tuple[Mapping[str, Array], Mapping[str, Array]]],
    live_inputs: Sequence[str],
) -> None:
    """Write a recording; the file appears whole or not at all.

    Args:
        path: where to; an existing file is replaced.
        fixtures: ``(inputs, outputs)`` of each fixture, the same names in each.
        live_inputs: the inputs that change the model's outputs. A check refuses a candidate in which one
            of them is dead.

    Raises:
        RunnerError: there is no fixture, names differ between fixtures, ``live_inputs`` names no input,
            or two fixtures have the same inputs and not the same outputs; or it cannot be written.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    if not fixtures:
        raise RunnerError(f"{path}: no fixture to record; give at least one")
    inputs, outputs = (list(side) for side in fixtures[0])
    for i, fixture in enumerate(fixtures):
        for side, names, arrays in zip(("inputs", "outputs"), (inputs, outputs), fixture, strict=True):
            if not names or list(arrays) != names:
                raise RunnerError(f"{path}: {side} of fixture {i} are {list(arrays)}; fixture 0 has {names}")
    for name in live_inputs:
        if name not in inputs:
            raise RunnerError(f"{path}: live input {name!r} is no input; the inputs are {', '.join(inputs)}")
    _require_function(path, fixtures)
    tensors = {
        f"fixture{i}.{side}.{name}": np.array(array, order="C")
        for i, fixture in enumerate(fixtures)
        for side, arrays in zip(("inputs", "outputs"), fixture, strict=True)
        for name, array in arrays.items()
    }
    lists = {"inputs": inputs, "outputs": outputs, "live_inputs": list(live_inputs)}
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        **{key: json.dumps(names) for key, names in lists.items()},
    }
    unfinished = Path(f"{path}.{os.getpid()}.tmp")
    try:
        save_file(tensors, unfinished, metadata)
        os.replace(unfinished, path)
    except (OSError, SafetensorError) as error:
        raise RunnerError(f"{path} could not be written: {first_line(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _read(path: Path) -> tuple[list[Fixture], tuple[str, ...]]:
    from safetensors import safe_open

    if not os.path.isfile(path):  # unlike a path's own, it takes what is too long for a name
        wrong = "is a directory" if os.path.isdir(path) else "does not exist"
        raise RunnerError(f"{path} cannot be read as a recording: it {wrong}; give the path of a recording")
    if said := lfs_pointer(path):
        raise RunnerError(f"{path} is {said}")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # it is no dict
    except Exception as error:
        raise RunnerError(f"{path} cannot be read as a recording: {first_line(error)}") from error
    form = (metadata.get("format"), metadata.get("version"))
    if form != (FORMAT, VERSION):
        raise RunnerError(
            f"{path} is {form[0]!r} version {form[1]!r}; a recording is {FORMAT!r} version {VERSION!r}"
        )
    inputs, outputs, live = (_names(path, metadata, key) for key in ("inputs", "outputs", "live_inputs"))
    found = len(tensors)

    def taken(i: int, side: str, names: Sequence[str]) -> dict[str, Array]:
        return {name: tensors.pop(f"fixture{i}.{side}.{name}") for name in names}

    try:
        count = found // (len(inputs) + len(outputs)) if inputs and outputs else 0
        fixtures = [(taken(i, "inputs", inputs), taken(i, "outputs", outputs)) for i in range(count)]
    except KeyError:
        fixtures = []
    # Each tensor belongs to one fixture, and none is left over.
    if not fixtures or tensors or not set(live) <= set(inputs):
        wrong = f"{found} tensors do not make fixtures of {len(inputs)} inputs and {len(outputs)} outputs"
        raise RunnerError(f"{path} is no whole recording: {wrong}; record it again")
    _require_function(path, fixtures)
    return fixtures, live


def _digest(path: Path) -> str:
    """The file's; empty where it cannot be read, which has words of its own."""
    try:
        return file_digest(path)
    except (OSError, ValueError):
        return ""


def _names(path: Path, metadata: Mapping[str, str], key: str) -> tuple[str, ...]:
    try:
        names = json.loads(metadata[key])
    except (KeyError, ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        # Whoever writes a bomb into it would else have it on the screen.
        found = reprlib.repr(metadata.get(key))
        raise RunnerError(f"{path}: metadata {key!r} is {found}; expected a JSON list of names")
    return tuple(names)


def _require_function(
    path: str | Path, fixtures: Sequence[tuple[Mapping[str, Array], Mapping[str, Array]]]
) -> None:
    """Equal inputs with unequal outputs: only one of the two could be replayed, the other never compared."""
    from pytest_reflex.inputs import array_digest

    answers: dict[str, tuple[int, str]] = {}
    for i, (inputs, outputs) in enumerate(fixtures):
        answer = array_digest(outputs)
        first, known = answers.setdefault(array_digest(inputs), (i, answer))
        if answer != known:
            wrong = f"fixtures {first} and {i} have the same inputs and not the same outputs"
            raise RunnerError(f"{path}: {wrong}; record a model that its inputs determine")
