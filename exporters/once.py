"""An export cache keyed by content: a test suite exports each policy once, on all workers, in all runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from exporters.bundle import Bundle, open_bundle, sweep
from exporters.digest import Digest, Unstable, surroundings
from exporters.manifest import MANIFEST
from exporters.pipeline import PACKAGES
from pytest_reflex.errors import BundleError, SettingsError

__all__ = ["cached"]

# Part of every key: another number, and nothing that is there is found again.
_FORMAT: Final = 1
_UNUSED_S: Final = 30 * 24 * 3600.0
# These change nothing of what is written.
_ASIDE: Final = ("progress",)


def cached(
    export: Callable[..., Bundle],
    reference: Any,
    *,
    cache: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Bundle:
    """The bundle that ``export(reference, ..., **options)`` makes, made once and then found again.

    It is found by the content of all that goes into it: every weight and attribute of the model, hooks
    included, the source of its classes, the export function, the options, the versions of what takes part,
    and this project's own source. The source of helpers in other files is not seen. What is found was
    proven when it was made, its digests are checked each time, and a parity test still judges it against the
    policy as it is now; so a hit saves the export and decides nothing.

    One process exports, others that want the same wait for it; it may be killed. What was not used for 30
    days is removed when something new is exported.

    Args:
        export: an export function of this package: :func:`exporters.export`, ``exporters.pi0.export``, ...
        reference: the policy, module or runner that it takes.
        cache: the directory; by default the environment's ``REFLEX_CACHE``, else ``pytest-reflex`` in the
            user's cache directory.
        options: what else the function takes, without ``out_dir``.

    Returns:
        The bundle, in the cache: not to be written to.

    Raises:
        SettingsError: the cache cannot be written to; ``verify=False``; or an option, such as an open file,
            cannot be told from another of its type.
        ParityError: as of ``export``. Nothing is kept.
        ReflexError: as of ``export``.
    """
    if options.get("verify", True) is not True:
        raise SettingsError(
            "verify=False: the cache keeps proven bundles alone; call the export function itself"
        )
    if "out_dir" in options:
        raise SettingsError("out_dir is the cache's own; give cache=, or call the export function itself")
    root = _root(cache)
    key = _key(export, reference, options)
    place = root / key
    with _locked(root, key):
        found = _found(place)
        if found is not None:
            return found
        _tidy(root, key)
        export(reference, place, **options)
        return open_bundle(place)


def _key(export: Callable[..., Any], reference: Any, options: dict[str, Any]) -> str:
    model = Digest().add(surroundings(PACKAGES)).add(_FORMAT)
    try:
        model.add(export).add(reference)
    except Unstable as error:
        raise SettingsError(
            f"the model holds {error}, which cannot be told by its content; call the export function itself"
        ) from error
    for name in sorted(options.keys() - set(_ASIDE)):
        try:
            said = Digest(strict=True).add(options[name]).hexdigest()
        except Unstable as error:
            raise SettingsError(
                f"{name} holds {error}, which cannot be told by its content; call the export function itself"
            ) from error
        model.add(name).add(said)
    return model.hexdigest()


def _root(cache: str | os.PathLike[str] | None) -> Path:
    given = cache or os.environ.get("REFLEX_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    root = Path(given) if given else Path(home) / "pytest-reflex"
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / ".writable").touch()
    except OSError as error:
        raise SettingsError(
            f"the export cache {root} cannot be written to: {error.strerror or error}; "
            "give another directory with cache= or REFLEX_CACHE"
        ) from error
    return root.resolve()


@contextlib.contextmanager
def _locked(root: Path, key: str, *, wait: bool = True) -> Iterator[None]:
    """Alone with a key; the lock goes with the process that holds it.

    Raises:
        Timeout: another has it, and ``wait`` is false.
    """
    with FileLock(root / f"{key}.lock", timeout=-1 if wait else 0):
        yield


def _found(place: Path) -> Bundle | None:
    """The bundle there, whole and proven; what is neither makes room for a new one."""
    if not place.exists():
        return None
    try:
        bundle = open_bundle(place)
    except BundleError:
        bundle = None
    if bundle is None or not bundle.manifest["check"] or bundle.manifest["check"]["passed"] is not True:
        shutil.rmtree(place)
        return None
    os.utime(place / MANIFEST)  # used today
    return bundle


def _tidy(root: Path, key: str) -> None:
    """Remove what killed exports left behind, and bundles that nobody used for long."""
    for leftover in root.glob(".*.reflex-*-*"):
        sweep(root / leftover.name[1:].partition(".reflex-")[0])
    for manifest in root.glob(f"*/{MANIFEST}"):
        place = manifest.parent
        with contextlib.suppress(OSError, Timeout):
            if place.name == key or time.time() - manifest.stat().st_mtime < _UNUSED_S:
                continue
            with _locked(root, place.name, wait=False):
                # Taken meanwhile, it is used again.
                if time.time() - manifest.stat().st_mtime >= _UNUSED_S:
                    shutil.rmtree(place)
