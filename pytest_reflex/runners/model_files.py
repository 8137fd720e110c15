"""The files that an ONNX model is opened from, its graph and its weights, and which model that is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners.base import RunnerBase
from pytest_reflex.runners.external_data import external_places
from pytest_reflex.runners.opened_files import OpenedFiles
from pytest_reflex.verdict import machine

__all__ = ["FilesRunner", "files_of", "which_model"]

# What a graph in ONNX Runtime's own format has at its fifth byte; its weights are inside.
_ORT_FORMAT: Final = b"ORTM"


class FilesRunner(RunnerBase):
    """A runner that watches the files which it opens.

    Attributes:
        changed: which of them was written to while it was open, in words; known once it is closed, empty when
            none was. No verdict passes that.
    """

    changed: str = ""
    _files: OpenedFiles | None = None

    def digests(self) -> dict[str, str]:
        """SHA-256, in hex, of each file that it was opened from, its graph and the weights beside it.

        Raises:
            RunnerError: it is not open.
        """
        return self._opened(self._files).digests()

    def _watch(self, files: OpenedFiles, unseen: str = "") -> None:
        """Take files that were just read.

        Args:
            files: they.
            unseen: why they may not be all; empty if they are.

        Raises:
            RunnerError: they are not all, or one was written to meanwhile.
        """
        if wrong := unseen or files.changed():
            raise RunnerError(
                f"{self.name} is not taken: {wrong}; save it again, and leave it alone meanwhile"
            )
        self._files, self.changed = files, ""

    def _leave(self) -> None:
        """Look at the files once more, and let them go."""
        if self._files is not None:
            self.changed = self._files.changed()
        self._files = None


def files_of(model: Path | bytes, name: str, home: str | None = None) -> tuple[OpenedFiles, str]:
    """The files that a runtime is about to read; why they may not be all, empty if they are.

    Args:
        model: the graph's file, or its bytes.
        name: what the model is called.
        home: where its weights are, where that is not beside the graph, and of bytes not where the process
            is.

    Raises:
        RunnerError: a file cannot be read, or its weights are not there.
    """
    own = {} if isinstance(model, bytes) else {model.name: model}
    place = Path(home) if home else Path() if isinstance(model, bytes) else model.parent
    try:
        graph = model if isinstance(model, bytes) else model.read_bytes()
        places = set() if graph[4:8] == _ORT_FORMAT else external_places(graph)
        beside = {weights: place / weights for weights in sorted(places)}
        lost = [weights for weights, path in beside.items() if not path.is_file()]
        # A path that leads elsewhere is for the runtime to refuse.
        if lost and not beside[lost[0]].exists() and ".." not in Path(lost[0]).parts:
            raise RunnerError(
                f"{beside[lost[0]]} does not exist, and {name} takes its weights from it; put it "
                "there, where the export wrote it"
            )
        files = OpenedFiles(
            {**{weights: beside[weights] for weights in beside if weights not in lost}, **own}
        )
    except ValueError as error:
        return OpenedFiles(own), f"where its weights are cannot be read ({error})"
    except OSError as error:
        raise RunnerError(f"{name} cannot be read: {error.strerror or error}") from error
    return files, f"it takes weights from {lost[0]!r}, which is no file" if lost else ""


def which_model(model: Path | bytes, digests: Mapping[str, str]) -> str | dict[str, str]:
    """The SHA-256 of its one file, or one for each."""
    # A name that is no UTF-8 must not be what a report cannot be written for.
    found = {machine.as_text(name): digest for name, digest in digests.items()}
    if isinstance(model, bytes):
        found = {"": hashlib.sha256(model).hexdigest(), **found}
    return found if len(found) > 1 else next(iter(found.values()))
