"""An export cache keyed by content: a test suite exports each policy once, on all workers, in all runs."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import random
import re
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from filelock import FileLock, Timeout

from exporters.bundle import registry
from exporters.bundle.manifest import MANIFEST
from exporters.bundle.store import sweep
from exporters.bundles import Bundle, open_bundle
from exporters.caching.fingerprint import Fingerprint, Unstable, surroundings
from exporters.exporting import PACKAGES
from exporters.flow.policy import flow_runner
from pytest_reflex.errors import BundleError, ReflexError, RunnerError, SettingsError
from pytest_reflex.inputs import InputSpec, array_digest, free_sizes, make_fixture
from pytest_reflex.inputs.spec import specs_of
from pytest_reflex.runners import Runner, TorchRunner

__all__ = ["cached"]

# Part of every key: another number, and nothing that is there is found again.
_FORMAT: Final = 3
_UNUSED_S: Final = 30 * 24 * 3600.0
# These change nothing of what is written.
_ASIDE: Final = ("progress",)
# What the cache itself has made; whatever else lies in its directory is somebody else's.
_KEY: Final = re.compile(r"[0-9a-f]{64}")
# What the spare fixture is drawn with: no seed that a check is likely to be given.
_SPARE_SEED: Final = 0x5BA7E


def cached(
    export: Callable[..., Bundle],
    reference: Any,
    *,
    cache: str | os.PathLike[str] | None = None,
    processors: Any = None,
    **options: Any,
) -> Bundle:
    """The bundle that ``export(reference, ..., **options)`` makes, made once and then found again.

    It is found by the content of all that goes into it: every weight and attribute of the model, hooks
    included, its classes as they are loaded and the files they came from, the helpers that their code
    names, the export function, the options, the versions of what takes part, and this project's own source;
    and by what the reference answers now, to the bit, when it is asked a spare fixture that no check judges.
    So whatever it reaches in other ways counts as far as it changes that answer: ``getattr``, a registry, a
    global object, a file, an environment variable, PyTorch's default dtype. That costs one run of the
    reference, on a hit too, and one more of a ``flow`` that is given beside it. The bits depend on the
    processor and on PyTorch's number of threads, so each of those has keys of its own. An attribute without
    a stable form, such as a lock, is seen by its type. What is found was proven when it was made, its
    digests are checked each time, and a parity test still judges it against the policy as it is now; so a
    hit saves the export and decides nothing.

    One process exports, others that want the same wait for it; it may be killed. What was not used for 30
    days is removed when something new is exported.

    Args:
        export: an export function of this package: :func:`exporters.export`, ``exporters.pi0.export``, ...;
            or one that calls them. Where neither it nor ``inputs`` says what the reference reads, a bundle
            that is found says it: the reference has to answer its first recorded fixture as it did then.
        reference: the policy, module or runner that it takes.
        processors: what lerobot runs around the policy, put in too, as ``export_policy`` takes it; by default
            what its checkpoint holds, where that can be put in. Their statistics and their configuration are
            part of what a bundle is found by.
        cache: the directory; by default the environment's ``REFLEX_CACHE``, else ``pytest-reflex`` in the
            user's cache directory.
        options: what else the function takes, without ``out_dir``.

    Returns:
        The bundle, in the cache: not to be written to.

    Raises:
        SettingsError: the cache cannot be written to; ``verify=False``, or the function proves nothing; the
            reference has still to be loaded; or an option, such as an open file, cannot be told from another
            of its type.
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
    content, answers = _key(export, reference, options), _answers(export, reference, options)
    given, around = _with_processors(export, reference, processors, options)
    key = Fingerprint().add((content, answers, around)).hexdigest()
    place = root / key
    with _locked(root, key):
        found = _found(place)
        if found is not None and (answers or _as_recorded(found, reference)):
            return found
        _tidy(root, key)
        export(reference, place, **given)
        made = open_bundle(place)
        if not _proven(made):
            _remove(place)
            raise SettingsError(
                f"{_name(export)} made a bundle without a check that passed, and the cache keeps proven "
                "bundles alone; call the export function itself"
            )
        return made


def _key(export: Callable[..., Any], reference: Any, options: Mapping[str, Any]) -> str:
    if isinstance(reference, TorchRunner) and reference.model is None:
        raise SettingsError(
            f"{reference.name} has still to be loaded, so its weights are unknown; open it first"
        )
    whole = Fingerprint().add(surroundings(PACKAGES)).add(_FORMAT)
    with _told("the model"):
        whole.add(export).add(reference)
    for name in sorted(options.keys() - set(_ASIDE)):
        with _told(name):
            whole.add(name).add(Fingerprint(strict=True).add(options[name]).hexdigest())
    return whole.hexdigest()


def _answers(export: Callable[..., Any], reference: Any, options: Mapping[str, Any]) -> list[Any]:
    """What the reference, and a flow beside it, answer to the spare fixture; nothing if none can be made."""
    runners, specs = _asked(export, reference, options)
    if not runners:
        return []
    sizes = free_sizes(specs)
    # The plain one of a seed of its own: no camera is masked, so that most of the policy takes part.
    inputs = make_fixture([spec.sized(sizes) for spec in specs], _SPARE_SEED, 0)
    return [_answer(runner, inputs) for runner in runners]


def _asked(
    export: Callable[..., Any], reference: Any, options: Mapping[str, Any]
) -> tuple[list[TorchRunner], list[InputSpec]]:
    """Who is asked, and what they read, as the export function will have it; nobody where it does not say."""
    function, options = _unwrapped(export, options)
    of_family = getattr(getattr(function, "__self__", None), "asked", None)
    if of_family is not None:
        of_family.__self__.require_sound(cached)
        runner, specs = of_family(reference, **options)
        return [runner], specs
    if options.get("inputs") is None:
        return [], []
    steps, flow = options.get("steps"), options.get("flow")
    if not isinstance(reference, TorchRunner):
        reference = flow_runner(reference, steps, options.get("outputs"))
    beside = [] if flow is None else [flow_runner(flow, steps)]
    return [reference, *beside], specs_of(options["inputs"])


def _unwrapped(export: Any, options: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """An export function without what was said of it before, and all options."""
    while isinstance(export, functools.partial):
        export, options = export.func, {**export.keywords, **options}
    return export, options


def _with_processors(
    export: Callable[..., Any], reference: Any, asked: Any, options: Mapping[str, Any]
) -> tuple[Mapping[str, Any], object]:
    """The options with what puts a policy's processors in, and what those are: part of the key."""
    function, all_of_it = _unwrapped(export, options)
    family, given = getattr(function, "__self__", None), options
    if hasattr(family, "asked"):
        if not isinstance(reference, torch.nn.Module):
            return options, None
        given = registry.with_processors(family, reference, asked, all_of_it)
    elif "processors" in _words(function):
        given = {**options, "processors": asked}
    elif asked is not None:
        raise SettingsError(f"processors is given, and {_name(function)} takes none; leave it out")
    with _told("processors"):
        return given, Fingerprint().add(registry.processors_of(reference, asked)).hexdigest()


def _words(function: Any) -> Collection[str]:
    """The keywords of an export function; none of what does not say them."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return ()


def _answer(runner: Runner, inputs: Mapping[str, np.ndarray]) -> tuple[list[str], str]:
    """Names and digest of what it gives; whatever it draws is the same each time, and leaves no trace."""
    python, legacy = random.getstate(), np.random.get_state()
    with _open(runner), torch.random.fork_rng():
        try:
            for seed in (random.seed, np.random.seed, torch.manual_seed):
                seed(0)
            outputs = runner.run(inputs)
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
    return list(outputs), array_digest(outputs)


def _as_recorded(found: Bundle, reference: Any) -> bool:
    """Whether the reference still answers the first fixture of its check as it did then."""
    try:
        runner = reference if isinstance(reference, TorchRunner) else found.reference_runner(reference)
        with found.recording() as recording:
            inputs = recording.recorded()[0]
            recorded = recording.run(inputs)
        return _answer(runner, inputs) == (list(recorded), array_digest(recorded))
    except ReflexError:  # it cannot be asked, so nothing says that it is the same
        return False


@contextlib.contextmanager
def _open(runner: Runner) -> Iterator[None]:
    """Open meanwhile; a runner that was so before stays so."""
    try:
        runner.facts()
    except RunnerError:
        try:
            runner.open()
            yield
        finally:
            runner.close()
    else:
        yield


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except (Unstable, RecursionError) as error:
        what = "too deep a nest" if isinstance(error, RecursionError) else str(error)
        raise SettingsError(
            f"{name} holds {what}, which cannot be told by its content; call the export function itself"
        ) from error


def _name(export: Callable[..., Any]) -> str:
    return str(getattr(export, "__qualname__", type(export).__qualname__))


def _root(cache: str | os.PathLike[str] | None) -> Path:
    given = cache or os.environ.get("REFLEX_CACHE")
    # Unlike a path's own method this raises nothing where nobody has a home.
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    root = Path(os.path.expanduser(given or os.path.join(home, "pytest-reflex")))
    with _writing(root):
        root.mkdir(parents=True, exist_ok=True)
        (root / ".writable").touch()
        return root.resolve()


@contextlib.contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        yield
    except Timeout:
        raise
    except (OSError, NotImplementedError) as error:  # the second where a file system has no locks
        why = getattr(error, "strerror", None) or error
        raise SettingsError(
            f"the export cache {root} cannot be written to: {why}; "
            "give another directory with cache= or REFLEX_CACHE"
        ) from error


@contextlib.contextmanager
def _locked(root: Path, key: str, *, wait: bool = True) -> Iterator[None]:
    """Alone with a key; the lock goes with the process that holds it.

    Raises:
        Timeout: another has it, and ``wait`` is false.
    """
    lock = FileLock(root / f"{key}.lock")
    with _writing(root):
        lock.acquire(timeout=-1 if wait else 0)
    try:
        yield
    finally:
        lock.release()


def _found(place: Path) -> Bundle | None:
    """The bundle there, whole and proven; what is neither makes room for a new one."""
    if not os.path.lexists(place):
        return None
    try:
        bundle = open_bundle(place)
    except BundleError:
        bundle = None
    if bundle is None or not _proven(bundle):
        _remove(place)
        return None
    with contextlib.suppress(OSError):  # another user's, in a cache that is shared
        os.utime(place / MANIFEST)  # used today
    return bundle


def _proven(bundle: Bundle) -> bool:
    return bundle.proof is not None


def _remove(place: Path) -> None:
    """Take a bundle away at once: one that is half gone has another name, which the next tidying knows."""
    with _writing(place.parent):
        if place.is_symlink() or not place.is_dir():
            return place.unlink()
        aside = place.with_name(f".{place.name}.reflex-{os.getpid()}-{uuid.uuid4().hex}")
        place.rename(aside)
    return shutil.rmtree(aside, ignore_errors=True)


def _tidy(root: Path, key: str) -> None:
    """Remove what killed exports left behind, and bundles that nobody used for long."""
    for leftover in root.glob(".*.reflex-*-*"):
        of = leftover.name[1:].partition(".reflex-")[0]
        if _KEY.fullmatch(of):
            sweep(root / of)
    for manifest in root.glob(f"*/{MANIFEST}"):
        place = manifest.parent
        if place.name == key or not _KEY.fullmatch(place.name):
            continue
        with contextlib.suppress(OSError, Timeout, SettingsError):
            if time.time() - manifest.stat().st_mtime < _UNUSED_S:
                continue
            with _locked(root, place.name, wait=False):
                # Taken meanwhile, it is used again.
                if time.time() - manifest.stat().st_mtime >= _UNUSED_S:
                    _remove(place)
