"""Bundles on disk: staged beside their place, renamed into it when proven, opened with their digests checked.

A bundle is a directory::

    model.onnx  model.onnx.data      unrolled and loop
    encoder.onnx[.data] step.onnx[.data]      stepwise
    fixtures.safetensors             the fixtures of its check: inputs and reference outputs
    reflex.json                      the manifest

This file needs neither torch nor onnx to open a bundle; a robot that only runs one has neither.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_reflex.errors import BundleError
from pytest_reflex.inputs import InputSpec

if TYPE_CHECKING:
    from exporters.policy import Policy
    from pytest_reflex.runners import RecordedRunner, Runner
    from pytest_reflex.verdict import ParityResult

FORMAT = "reflex-bundle"
FORMAT_VERSION = 1
MANIFEST = "reflex.json"
FIXTURES = "fixtures.safetensors"
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Bundle:
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

    @property
    def family(self) -> str:
        """Which policy family it was made from; ``module`` for any other ``nn.Module``."""
        return str(self.manifest["family"])

    @property
    def layout(self) -> str:
        """``single``, ``unrolled``, ``loop`` or ``stepwise``."""
        return str(self.manifest["layout"])

    @property
    def inputs(self) -> list[InputSpec]:
        """What the bundle reads, in order, with the meaning that fixtures are drawn from."""
        return [InputSpec.from_json(spec) for spec in self.manifest["inputs"]]

    @property
    def outputs(self) -> list[str]:
        """The names of what it gives."""
        return [str(output["name"]) for output in self.manifest["outputs"]]

    def runner(self, provider: str = "cpu") -> Policy:
        """The bundle as a runner, whatever its layout."""
        from exporters.policy import Policy

        return Policy(self, provider=provider)

    def reference_runner(self, model: Any) -> Runner:
        """``model``, a policy of this bundle's family or a function that loads one, as the reference."""
        from pytest_reflex.runners import TorchRunner

        if self.family == "module":
            return TorchRunner(model, outputs=self.outputs)
        import exporters

        runner: Runner = getattr(exporters, self.family).reference(
            model, steps=self.manifest["steps"], **self.manifest["call"]
        )
        return runner

    def recording(self) -> RecordedRunner:
        """The recorded fixtures of its check, as a reference that needs no torch."""
        from pytest_reflex.runners import RecordedRunner

        return RecordedRunner(self.path / FIXTURES)


@dataclass(frozen=True)
class Export(Bundle):
    """A bundle just made, with the verdict it was made under.

    Attributes:
        result: the verdict, or None when it was made with ``verify=False``.
    """

    result: ParityResult | None = None

    def _repr_html_(self) -> str:
        from html import escape

        facts = f"{self.family}, {self.layout}, {self.manifest['steps'] or 'no'} steps"
        head = f"<p><code>{escape(str(self.path))}</code>: {escape(facts)}</p>"
        return head + (self.result._repr_html_() if self.result else "<p>not verified</p>")


def open_bundle(directory: str | os.PathLike[str], *, to_judge: bool = False) -> Bundle:
    """Open a bundle after checking every file against the manifest.

    Args:
        directory: the bundle.
        to_judge: open it also when a file was changed since its check, so that a verdict can say by how
            much it is wrong; :attr:`Bundle.changed` then names the file and the verdict is a fail.

    Raises:
        BundleError: the directory, the manifest or a file is missing, unreadable, of another size or
            digest than the manifest says, or of a format this version does not know.
    """
    path = Path(directory)
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}: expected a directory that holds {MANIFEST}")
    manifest = read_manifest(path)
    changed = [said for name, facts in manifest["files"].items() if (said := _check_file(path, name, facts))]
    if changed and not to_judge:
        raise BundleError(f"{changed[0]}; export the bundle again")
    return Bundle(path, manifest, changed="; ".join(changed))


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the bundle at ``path``, complete but with its files unchecked."""
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"no {MANIFEST} in {path}: it is not a bundle; make one with `reflex export`"
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} cannot be read: {error}; export the bundle again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(f"{file} is no bundle manifest: its format is not {FORMAT!r}")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise BundleError(
            f"{file} has format version {manifest.get('format_version')!r}, this pytest-reflex reads "
            f"{FORMAT_VERSION}; export the bundle again or install the version that made it"
        )
    wanted = {
        "family": str, "layout": str, "graphs": dict, "call": dict,
        "inputs": list, "outputs": list, "files": dict,
    }  # fmt: skip
    for key, kind in wanted.items():
        if not isinstance(manifest.get(key), kind):
            raise BundleError(f"{file} lacks {key!r}, or it is no {kind.__name__}; export the bundle again")
    unlisted = [name for name in manifest["graphs"].values() if name not in manifest["files"]]
    if unlisted:
        raise BundleError(f"{file} gives no digest for {unlisted[0]!r}; export the bundle again")
    return manifest


def _check_file(path: Path, name: str, facts: Any) -> str:
    """What of a file's contents is not as its manifest says, in words; empty when all is."""
    file = path / name
    if Path(name).name != name:
        raise BundleError(f"{path / MANIFEST} names a file outside of the bundle: {name!r}")
    if not isinstance(facts, dict) or not isinstance(facts.get("sha256"), str):
        raise BundleError(f"{path / MANIFEST} gives no digest for {name!r}; export the bundle again")
    if not file.is_file():
        raise BundleError(f"{file} is missing; export the bundle again")
    size = file.stat().st_size
    if size != facts.get("size"):
        raise BundleError(
            f"{file} has {size} bytes, its manifest says {facts.get('size')}: it is truncated or was "
            "written over; export the bundle again"
        )
    if (found := sha256_file(file)) != facts["sha256"]:
        wanted = facts["sha256"]
        return f"{file} was changed after its check (SHA-256 {found[:12]}, manifest {wanted[:12]})"
    return ""


def write_manifest(
    path: Path, manifest: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Write ``reflex.json``; ``files`` gives size and SHA-256 of every other file of the bundle."""
    whole = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **manifest,
        "files": {name: dict(files[name]) for name in sorted(files)},
    }
    text = json.dumps(whole, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    (path / MANIFEST).write_text(text, encoding="utf-8")
    return whole


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def staged(destination: str | os.PathLike[str]) -> Iterator[Path]:
    """A directory beside ``destination`` that takes its place when the block ends well.

    The block's directory is fsynced and renamed, so that a reader finds the earlier bundle whole or
    the new one whole. When the block raises, it is removed and ``destination`` stays as it was.

    Raises:
        BundleError: the destination exists and is no bundle, or cannot be written.
    """
    target = Path(os.path.abspath(destination))
    if target.exists() and not (
        target.is_dir() and ((target / MANIFEST).is_file() or not any(target.iterdir()))
    ):
        raise BundleError(
            f"{destination} exists and is no bundle: it will not be replaced; give another directory"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.reflex-{os.getpid()}-", dir=target.parent))
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
        _exchange(stage, target)
    finally:
        # After the exchange this is the earlier bundle, before it the unfinished one.
        shutil.rmtree(stage, ignore_errors=True)


def _sweep(target: Path) -> None:
    """Remove what exports to ``target`` that were killed have left behind."""
    for leftover in target.parent.glob(f".{glob_escape(target.name)}.reflex-*-*"):
        pid = leftover.name.rpartition(".reflex-")[2].partition("-")[0]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)


def glob_escape(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _exchange(stage: Path, target: Path) -> None:
    """Put ``stage`` where ``target`` is; if there was something, it is then where ``stage`` was."""
    if not target.exists():
        os.rename(stage, target)
    elif not _swap(stage, target):
        # Without the system call there is an instant in which the earlier bundle is only under another name.
        aside = stage.with_name(stage.name + "-old")
        os.rename(target, aside)
        os.rename(stage, target)
        os.rename(aside, stage)
    _fsync(target.parent)


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


def file_facts(path: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of files of ``path``."""
    return {
        name: {"size": (path / name).stat().st_size, "sha256": sha256_file(path / name)} for name in names
    }
