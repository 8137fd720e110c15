"""A directory or hub id -> a local directory, its configuration and digest; and keys that must fit."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import re
import sys
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pytest_reflex.errors import CheckpointError, a_type, lfs_pointer
from pytest_reflex.runners.base import first_line
from pytest_reflex.verdict.naming import near_path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# What a policy is made of. Pickled weights are not fetched, and never loaded.
_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt"]

# What PEFT's ``save_pretrained`` writes.
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")

_sources: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()


def resolve(checkpoint: str | os.PathLike[str], *, revision: str | None = None) -> Path:
    """The local directory of a checkpoint: the one given, or a hub id's, fetched or from the local cache.

    Raises:
        CheckpointError: there is no such directory, and it is no hub id that can be had.
    """
    path, name = Path(checkpoint), str(checkpoint)
    if name and os.path.isdir(path):
        return _trained(path)
    if name and os.path.exists(path):
        raise CheckpointError(
            f"{name} is a file; expected a checkpoint directory or a hub id such as lerobot/pi0_base"
        )
    if not _HUB_ID.fullmatch(name):
        raise CheckpointError(
            f"no checkpoint directory {name!r}{near_path(path)}, and it is no hub id (owner/name)"
        )
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"no checkpoint directory {name!r}, and a hub id needs huggingface_hub, which is not installed; "
            "pip install 'pytest-reflex[export]'"
        ) from error

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_PATTERNS))
    except LocalEntryNotFoundError:
        raise CheckpointError(
            f"no directory {name!r}{near_path(path)}, and as a hub id it is neither in the local hub cache "
            f"nor can the hub be reached; fetch it where there is network (`hf download {name}`) or give a "
            "directory"
        ) from None
    except HFValidationError as error:
        raise CheckpointError(f"no checkpoint directory {name!r}, and it is no hub id: {error}") from None
    except (HfHubHTTPError, OSError) as error:
        raise CheckpointError(f"hub id {name!r} could not be fetched: {said(error)}") from None


def _trained(directory: Path) -> Path:
    """A checkpoint's directory; of a training of lerobot's that of its last one, of a step that inside of it.

    Raises:
        CheckpointError: it is a training without a last checkpoint.
    """
    if (directory / "config.json").exists():
        return directory
    inside = directory / "pretrained_model"
    if (inside / "config.json").exists():
        return inside
    steps = directory if directory.name == "checkpoints" else directory / "checkpoints"
    last = steps / "last" / "pretrained_model"
    if (last / "config.json").exists():
        return last
    found = sorted(step.parent.parent.name for step in steps.glob("*/pretrained_model/config.json"))
    if found:
        raise CheckpointError(
            f"{directory} is a training of lerobot's without a last checkpoint; give one of "
            f"{', '.join(found)}, such as {steps / found[-1] / 'pretrained_model'}"
        )
    return directory


def require_no_pointer(file: Path) -> None:
    """Refuse what Git LFS leaves in place of a file that it has not fetched.

    Raises:
        CheckpointError: naming the file.
    """
    if said := lfs_pointer(file):
        raise CheckpointError(f"{file} is {said}")


def require_no_adapter(directory: Path) -> None:
    """Refuse the adapter of a policy that was trained with PEFT: beside its base it is left out in silence.

    Raises:
        CheckpointError: the directory holds one.
    """
    found = next((name for name in _ADAPTER if (directory / name).exists()), None)
    if found is not None:
        raise CheckpointError(
            f"{directory} holds a PEFT adapter ({found}), which is not the whole policy; merge it into its "
            "base (merge_and_unload) and save that"
        )


def read_config(directory: Path) -> dict[str, Any]:
    """``config.json`` of a checkpoint directory.

    Raises:
        CheckpointError: it is missing or no JSON object.
    """
    file = directory / "config.json"
    try:
        require_no_pointer(file)
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (directory / "reflex.json").is_file():
            raise CheckpointError(
                f"{directory} is a bundle, and no checkpoint directory; give the policy that it was made from"
            ) from None
        require_no_adapter(directory)
        raise CheckpointError(f"no config.json in {directory}: it is no checkpoint directory") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} holds {a_type(config)}, expected a JSON object")
    return config


def said(error: BaseException) -> str:
    """The first line of what an upstream says, to be quoted in a one-line message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def family_error(directory: object, found: object, family: str) -> CheckpointError:
    """What to say of a checkpoint of another family."""
    return CheckpointError(f"{directory} is a checkpoint of {found!r}, expected type {family!r}")


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint directory, in order.

    Raises:
        CheckpointError: there are none, or an adapter's; pickled weights are named and refused.
    """
    require_no_adapter(directory)
    files = sorted(directory.glob("*.safetensors"))
    pickled = _pickled_shards(directory)
    if files and not pickled:
        for file in files:
            require_no_pointer(file)
        return files
    pickled += sorted(
        p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in directory.glob(pattern)
    )
    if pickled:
        raise CheckpointError(
            f"{directory} holds pickled weights ({pickled[0]}), which run code when they are loaded; "
            "convert them to safetensors"
        )
    raise CheckpointError(f"no *.safetensors in {directory}: it holds no weights")


def _pickled_shards(directory: Path) -> list[str]:
    """What an index of safetensors names that is no safetensors file: a loader would follow it.

    Raises:
        CheckpointError: an index is no index.
    """
    found: set[str] = set()
    for index in sorted(directory.glob("*.safetensors.index.json")):
        try:
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            found |= {str(name) for name in shards if not str(name).endswith(".safetensors")}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{index} is no index of weights: {first_line(error)}") from error
    return sorted(found)


def require_fit(
    directory: Path,
    missing: Iterable[str],
    unexpected: Iterable[str],
    shapes: Iterable[tuple[str, Sequence[int], Sequence[int]]],
) -> None:
    """Refuse a checkpoint whose weights are not its model's.

    Args:
        directory: the checkpoint.
        missing: keys that the model alone has.
        unexpected: keys that the checkpoint alone has.
        shapes: keys whose shapes differ, with that in the checkpoint and that in the model.

    Raises:
        CheckpointError: naming the first keys that do not fit, with the nearest key of the other side; or
            the first whose shape does not.
    """
    lost, stray = sorted(missing), sorted(unexpected)
    if not lost and not stray:
        for key, stored, wanted in sorted(shapes):
            raise CheckpointError(f"{directory}: {key} is {list(stored)} there, the model has {list(wanted)}")
        return
    parts = []
    if lost:
        parts.append(f"lacks {_named(lost, stray)}")
    if stray:
        parts.append(f"has unknown {_named(stray, lost)}")
    raise CheckpointError(f"checkpoint {directory} does not fit its model: it {'; it '.join(parts)}")


def _named(keys: list[str], others: list[str]) -> str:
    near = difflib.get_close_matches(keys[0], others, n=1, cutoff=0.6)
    text = repr(keys[0]) + (f" (nearest: {near[0]!r})" if near else "")
    return text + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")


def digest(directory: Path) -> str:
    """SHA-256 over the configuration and the weights of a checkpoint: names, sizes and contents."""
    whole = hashlib.sha256()
    for file in [directory / "config.json", *weight_files(directory)]:
        whole.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                whole.update(chunk)
    return whole.hexdigest()


@contextlib.contextmanager
def quiet_upstream() -> Iterator[None]:
    """Keep transformers' progress bars, advice and table of ill-fitting keys out of logs; restores all.

    Keys that do not fit are for :func:`require_fit` to name; its advice is for those who call it anew.
    """
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def remember(policy: Any, checkpoint: str | os.PathLike[str], directory: Path, **facts: Any) -> None:
    """Note where ``policy`` was loaded from, for the manifest of its exports."""
    _sources[policy] = {
        "kind": "checkpoint",
        "checkpoint": os.path.basename(os.path.normpath(checkpoint))
        if Path(checkpoint).exists()
        else str(checkpoint),
        "directory": directory,
        **facts,
    }


def directory_of(policy: Any) -> Path | None:
    """The directory that ``policy`` was loaded from; None of a live one."""
    found: Path | None = _sources.get(policy, {}).get("directory")
    return found


def source_of(policy: Any) -> dict[str, Any]:
    """What is known of where ``policy`` came from, ready for a manifest.

    A checkpoint is named by its directory's last part or hub id and by the digest of its files; a
    live object by its class alone (the digest of its exported weights stands with the files).
    """
    known = dict(_sources.get(policy, {"kind": "live"}))
    directory = known.pop("directory", None)
    if directory is not None:
        known["sha256"] = digest(directory)
    cls = type(policy)
    return {**known, "class": f"{cls.__module__}.{cls.__qualname__}"}
