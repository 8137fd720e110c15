"""Bundles on disk: staged beside their place, renamed into it when proven, opened with their digests checked.

A bundle is a directory::

    model.onnx  model.onnx.data      unrolled and loop
    encoder.onnx[.data] step.onnx[.data]      stepwise
    fixtures.safetensors             the fixtures of its check: inputs and reference outputs
    episodes.safetensors             the same of frames that a robot recorded, where they are kept
    preprocess.onnx  postprocess.onnx  tokenizer.json     what stands around the policy, where it does
    raw.safetensors                  raw observations of its check, and the robot's actions for them
    reflex.json                      the manifest

This file needs neither torch nor onnx to open a bundle; a robot that only runs one has neither.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.bundle.manifest import MANIFEST, Manifest, read_manifest
from pytest_reflex.errors import BundleError, lfs_pointer
from pytest_reflex.inputs import InputSpec
from pytest_reflex.runners import RecordedRunner
from pytest_reflex.runners.external_data import FileFacts, external_files
from pytest_reflex.runners.opened_files import file_digest
from pytest_reflex.verdict.naming import near_path

FIXTURES = "fixtures.safetensors"
EPISODES = "episodes.safetensors"
RAW = "raw.safetensors"
# What the earlier bundle is called while it changes places where two names cannot change hands at once.
_ASIDE = "-old"


@dataclass(frozen=True)
class StoredBundle:
    """A bundle on disk.

    Attributes:
        path: the directory.
        manifest: the contents of ``reflex.json``.
        shown: what reports call it; by default its path.
        changed: what was changed since its check, in words; empty when every digest holds. A verdict
            refuses a bundle with anything here, whatever its figures.
    """

    path: Path
    manifest: Mapping[str, Any]
    shown: str = ""
    changed: str = ""

    @functools.cached_property
    def called(self) -> str:
        return self.shown or str(self.path)

    @functools.cached_property
    def stated(self) -> Manifest:
        """What :attr:`manifest` means."""
        return Manifest.from_json(self.manifest)

    @property
    def family(self) -> str:
        """Which policy family it was made from; ``module`` for any other ``nn.Module``."""
        return self.stated.family

    @property
    def proof(self) -> Mapping[str, Any] | None:
        """The verdict that it was made under, as JSON, where that is a pass against the policy; else None."""
        check = self.stated.check
        # Another graph proves nothing of a policy; what is silent is older than such verdicts.
        asked = check is not None and check.get("against", "policy") == "policy"
        return check if asked and check is not None and check.get("passed") is True else None

    @property
    def layout(self) -> str:
        """``single``, ``unrolled``, ``loop`` or ``stepwise``."""
        return self.stated.layout

    @property
    def has_processors(self) -> bool:
        """Whether a pre- and a postprocessor stand around the policy in it."""
        return self.stated.processors is not None

    @property
    def inputs(self) -> list[InputSpec]:
        """What the bundle reads, in order, with the meaning that fixtures are drawn from."""
        return list(self.stated.inputs)

    @property
    def outputs(self) -> list[str]:
        """The names of what it gives."""
        return self.stated.output_names

    def recording(self, file: str = FIXTURES) -> RecordedRunner:
        """The recorded fixtures of its check, as a reference that needs no torch.

        Args:
            file: another recording of the bundle, such as :data:`EPISODES`, the frames that are kept in it.
        """
        # Made on the machine of the reference in its check; without a check, on that of the export.
        reference = (self.stated.check or {}).get("reference")
        recorded_on = (reference if isinstance(reference, dict) else self.stated.origin).get("machine")
        facts = None if self.changed else self.stated.files.get(file)
        digest = None if facts is None else facts["sha256"]
        return RecordedRunner(self.path / file, recorded_on=recorded_on, digest=digest)


def verified(
    directory: str | os.PathLike[str], *, to_judge: bool = False
) -> tuple[Path, Mapping[str, Any], str]:
    """The bundle at ``directory``, every file of it checked against the manifest.

    Args:
        directory: the bundle.
        to_judge: open it also when its weights or fixtures were changed since its check, so that a verdict
            can say by how much it is wrong; :attr:`StoredBundle.changed` then names the file and the verdict
            is a fail. A graph that was changed is nothing to run.

    Returns:
        Its path, its manifest, and what was changed since its check, in words.

    Raises:
        BundleError: the directory, the manifest or a file is missing, unreadable, of another size or
            digest than the manifest says, or of a format this version does not know; or a graph takes
            weights from a file that is none of the bundle's.
    """
    path = Path(directory)
    # Unlike a path's own methods these take what is too long for a name.
    if not os.path.isdir(path):
        raise BundleError(f"no bundle at {path}{near_path(path)}: expected a directory that holds {MANIFEST}")
    manifest, stated = read_manifest(path)
    around = stated.processors
    graphs = {*stated.graphs.values(), *(around.graphs.values() if around is not None else ())}
    changed = []
    for name, facts in stated.files.items():
        said = _check_file(path, name, facts)
        if said and (name in graphs or not to_judge):
            raise BundleError(f"{said}; export the bundle again")
        changed += [said] if said else []
    for name in sorted(graphs):
        _require_own_weights(path / name, stated.files)
    return path, manifest, "; ".join(changed)


def _require_own_weights(graph: Path, files: Mapping[str, Any]) -> None:
    """Refuse a graph whose weights lie where no digest looks."""
    try:
        places = external_files(graph)
    except (OSError, ValueError) as error:
        raise BundleError(f"{graph} is no ONNX graph: {error}; export the bundle again") from error
    foreign = sorted(place for place in places if place not in files)
    if foreign:
        raise BundleError(
            f"{graph} takes weights from {foreign[0]!r}, which is no file of its bundle; export it again"
        )
    # Newer ONNX Runtimes refuse such a link, older ones follow it; who asks must not depend on which.
    home = graph.parent.resolve()
    outside = sorted(place for place in places if (home / place).resolve().parent != home)
    if outside:
        raise BundleError(
            f"{graph} takes weights from {outside[0]!r}, a link that leads out of its bundle; "
            "put the file itself there"
        )


def _check_file(path: Path, name: str, facts: Any) -> str:
    """What of a file's contents is not as its manifest says, in words; empty when all is."""
    file = path / name
    if not os.path.isfile(file):
        raise BundleError(f"{file} is missing; export the bundle again")
    size = file.stat().st_size
    if size != facts.get("size"):
        if said := lfs_pointer(file):
            raise BundleError(f"{file} is {said}")
        raise BundleError(
            f"{file} has {size} bytes, its manifest says {facts.get('size')}: it is truncated or was "
            "written over; export the bundle again"
        )
    try:
        found = file_digest(file)
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror or error}") from error
    if found != facts["sha256"]:
        wanted = facts["sha256"]
        return f"{file} was changed after its check (SHA-256 {found[:12]}, manifest {wanted[:12]})"
    return ""


@contextlib.contextmanager
def staged(destination: str | os.PathLike[str]) -> Iterator[Path]:
    """A directory beside ``destination`` that takes its place when the block ends well.

    The block's directory is fsynced and renamed, so that a reader finds the earlier bundle whole or
    the new one whole. When the block raises, it is removed and ``destination`` stays as it was. Where
    ``destination`` is a link, what it leads to is replaced.

    Raises:
        BundleError: the destination exists and is no bundle, is called as a graph's file, or cannot be
            written.
    """
    target = Path(os.path.realpath(destination))
    if target.suffix.lower() == ".onnx" and not target.is_dir():
        raise BundleError(
            f"{destination} is the name of a file, and a bundle is a directory; give "
            f"{os.fspath(destination)[: -len(target.suffix)]}, whose graph is then model.onnx in it"
        )
    require_replaceable(destination)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target)
        stage, lock = _locked_stage(target)
    except OSError as error:
        raise BundleError(f"cannot write beside {destination}: {error.strerror or error}") from error
    try:
        yield stage
        mask = os.umask(0)
        os.umask(mask)
        for file in stage.iterdir():
            file.chmod(0o666 & ~mask)
            _fsync(file)
        stage.chmod(0o777 & ~mask)
        _fsync(stage)
        # What came there while the export ran is nobody's to remove.
        require_replaceable(destination)
        _exchange(stage, target)
    except OSError as error:
        if not target.parent.is_dir() or not stage.is_dir():
            raise BundleError(
                f"{destination} was not written: its directory was removed meanwhile"
            ) from error
        if error.errno in _UNWRITABLE:
            raise BundleError(f"{destination} was not written: {error.strerror}") from error
        raise
    finally:
        # After the exchange this is the earlier bundle, before it the unfinished one.
        shutil.rmtree(stage, ignore_errors=True)
        os.close(lock)


# What a disk says that takes no more.
_UNWRITABLE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}
)


def require_replaceable(destination: str | os.PathLike[str]) -> None:
    """Refuse to put a bundle where something else is.

    Raises:
        BundleError: the destination exists and is no bundle, or cannot be looked into.
    """
    target = Path(os.path.realpath(destination))
    try:
        good = not target.exists() or (
            target.is_dir() and ((target / MANIFEST).is_file() or not any(target.iterdir()))
        )
    except OSError as error:
        raise BundleError(f"{destination} cannot be looked into: {error.strerror or error}") from error
    if not good:
        raise BundleError(
            f"{destination} exists and is no bundle: it will not be replaced; give another directory"
        )


def _locked_stage(target: Path) -> tuple[Path, int]:
    """A new directory beside ``target``, and the lock on it, which lives as long as this process."""
    while True:
        stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.reflex-{os.getpid()}-", dir=target.parent))
        try:
            lock = os.open(stage, os.O_RDONLY)
        except FileNotFoundError:
            continue  # swept before it could be locked
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue  # it is being swept
        except OSError:
            pass  # a file system without locks; then nothing there is swept either
        if stage.is_dir():
            return stage, lock
        os.close(lock)


def sweep(target: Path) -> None:
    """Remove what exports to ``target`` that were killed have left behind: what nobody holds a lock on.

    A lock tells the living from the dead also where their process ids mean nothing to each other, as in
    two containers that share a volume.
    """
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.reflex-*-*"):
        try:
            lock = os.open(leftover, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if leftover.name.endswith(_ASIDE) and not target.exists():
                # Killed in the instant in which the earlier bundle was only here: it is nobody's to remove.
                os.rename(leftover, target)
            else:
                shutil.rmtree(leftover, ignore_errors=True)
        except OSError:
            pass
        finally:
            os.close(lock)


def _exchange(stage: Path, target: Path) -> None:
    """Put ``stage`` where ``target`` is; if there was something, it is then where ``stage`` was."""
    if not _moved(stage, target) and not _swap(stage, target):
        # Without the system call there is an instant in which the earlier bundle is only under another name.
        aside = stage.with_name(stage.name + _ASIDE)
        os.rename(target, aside)
        try:
            os.rename(stage, target)
        except OSError:
            os.rename(aside, target)
            raise
        os.rename(aside, stage)
    _fsync(target.parent)


def _moved(stage: Path, target: Path) -> bool:
    """Rename ``stage`` where nothing stands in the way; False where something does, if since an instant."""
    if target.exists():
        return False
    try:
        os.rename(stage, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _swap(first: Path, second: Path) -> bool:
    """Linux' ``renameat2(RENAME_EXCHANGE)``: both names change hands at once. False where there is none."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2
    return bool(renameat2(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_facts(path: Path, names: Sequence[str]) -> dict[str, FileFacts]:
    """Size and SHA-256 of files of ``path``."""
    return {
        name: {"size": (path / name).stat().st_size, "sha256": file_digest(path / name)} for name in names
    }


def manifest_digest(bundle: StoredBundle) -> str:
    """SHA-256, in hex, over names and digests of all files of the bundle but the manifest."""
    files = sorted((name, facts["sha256"]) for name, facts in bundle.stated.files.items())
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()
