"""A lerobot checkpoint -> a float32 policy, through lerobot's own loader, and sure that it was loaded.

lerobot's loaders for pi0 and pi0.5 print what goes wrong and return the policy with random weights.
Here the policy itself notes what it was given, so that nothing is believed that did not happen.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from exporters import checkpoints
from pytest_reflex.errors import CheckpointError

WEIGHTS: Final = "model.safetensors"
_DTYPES: Final = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def load(
    checkpoint: str | os.PathLike[str],
    family: str,
    policy_class: Callable[[], Any],
    *,
    revision: str | None = None,
) -> Any:
    """Load a policy in float32 and eval mode, on the CPU.

    Its weights are those that the file stores: what is stored in half precision is lifted, and what is
    stored in float32 is not narrowed by a configuration that asks for bfloat16.

    Raises:
        CheckpointError: it cannot be had or read, is of another family, or its keys do not fit.
        ReflexError: lerobot is not installed, or is of an unsupported version.
    """
    directory = checkpoints.resolve(checkpoint, revision=revision)
    stated = checkpoints.read_config(directory)
    if stated.get("type") != family:
        raise checkpoints.family_error(directory, stated.get("type") or stated.get("model_type"), family)
    cls = policy_class()
    from transformers.initialization import no_init_weights

    found = [file.name for file in checkpoints.weight_files(directory)]
    if WEIGHTS not in found:
        raise CheckpointError(
            f"{directory} holds {found[0]} and no {WEIGHTS}, the one file that lerobot loads; "
            "merge its weights into that"
        )
    stored_dtype = _stored_dtype(directory / WEIGHTS)
    said = io.StringIO()
    with checkpoints.quiet_upstream(), _quiet(said):
        config = _config(directory)
        fit: dict[str, Any] = {}
        try:
            # Without drawing weights that the checkpoint replaces: modules take no memory until used.
            with no_init_weights():
                policy = _noting(cls, fit).from_pretrained(str(directory), config=config, strict=True)
        except Exception as error:
            # Keys that do not fit are named below, better than by whoever stumbled over them.
            if "missing" not in fit:
                raise _unmade(directory, config, error) from error
    if "missing" not in fit:
        raise CheckpointError(f"{directory} was not loaded: {_last_line(said)}")
    checkpoints.require_fit(directory, fit["missing"], fit["unexpected"], fit["shapes"])
    if not fit.get("loaded"):
        raise CheckpointError(f"{directory} was not loaded: {_last_line(said)}")
    policy.__class__ = cls
    checkpoints.remember(policy, checkpoint, directory, stored_dtype=stored_dtype)
    return policy.eval()


def _config(directory: Path) -> Any:
    """lerobot's own reading of ``config.json``, for the CPU and without what a check has no use for."""
    from lerobot.configs import PreTrainedConfig

    try:
        config = PreTrainedConfig.from_pretrained(str(directory))
    except Exception as error:
        raise CheckpointError(
            f"{directory}/config.json is not as lerobot wants it: {checkpoints.said(error)}"
        ) from error
    config.device = "cpu"
    config.compile_model = False
    if hasattr(config, "dtype"):
        # What is made in half precision would be lifted again, whole, in memory.
        config.dtype = "float32"
    if hasattr(config, "load_vlm_weights"):
        # The checkpoint holds them all; the hub's would be fetched to be written over.
        config.load_vlm_weights = False
    if hasattr(config, "pretrained_backbone_weights"):
        config.pretrained_backbone_weights = None
    return config


def _noting(cls: Any, fit: dict[str, Any]) -> Any:
    """``cls`` as a subclass that notes in ``fit`` what its loader gives it, and that it took it."""

    class Noting(cls):
        def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
            own = self.state_dict()
            # Of weights that share their memory a file need store but one.
            given = {own[key].data_ptr(): key for key in own if key in state_dict}
            tied = {k: given.get(own[k].data_ptr()) for k in own if k not in state_dict}
            fit["missing"] = [key for key, source in tied.items() if source is None]
            # A loader may give both of them what the file stores once.
            stored: dict[int, str] = {}
            for key, value in state_dict.items():
                first = stored.setdefault(value.data_ptr(), key)
                if key in own and value.numel() and first != key:
                    tied[key] = first
            fit["unexpected"] = [key for key in state_dict if key not in own]
            both = ((key, value.shape, own[key].shape) for key, value in state_dict.items() if key in own)
            fit["shapes"] = [(key, there, here) for key, there, here in both if there != here]
            # Assigned, a float32 weight stays where it is, mapped from its file, and is read when it is used;
            # what is stored in half is lifted, and nothing is narrowed to what the policy was made as.
            lifted = {k: v.float() if v.is_floating_point() else v for k, v in state_dict.items()}
            result = super().load_state_dict(lifted, *args, **{**options, "assign": True})
            for key, source in tied.items():
                if source is not None:
                    place, _, name = key.rpartition(".")
                    setattr(self.get_submodule(place), name, self.get_parameter(source))
            self.float()
            fit["loaded"] = True
            return result

    return Noting


def _unmade(directory: Path, config: Any, error: Exception) -> CheckpointError:
    base = getattr(config, "vlm_model_name", None)
    if base is not None and isinstance(error, OSError):
        return CheckpointError(
            f"{directory} is built on {base}, whose configuration and processor lerobot takes from the hub: "
            "they are neither in the local hub cache nor can they be fetched; where there is network, run "
            f"`hf download {base} --include '*.json' --include '*.txt'` (no weights are needed)"
        )
    tokenizers = [getattr(config, f"{kind}_tokenizer_name", None) for kind in ("text", "action")]
    if all(tokenizers) and isinstance(error, RuntimeError) and "tokenizers" in str(error):
        return CheckpointError(
            f"{directory} takes its tokenizers from {' and '.join(map(str, tokenizers))}, which are neither "
            "in the local hub cache nor can be fetched; where there is network, run `hf download` for each"
        )
    return CheckpointError(f"{directory} cannot be loaded: {checkpoints.said(error)}")


def _stored_dtype(file: Path) -> str:
    """The floating dtypes that a safetensors file stores, read from its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            kinds = {opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read: {checkpoints.said(error)}") from error
    return "+".join(sorted(_DTYPES[kind] for kind in kinds if kind in _DTYPES))


@contextlib.contextmanager
def _quiet(said: io.StringIO) -> Iterator[None]:
    """Collect what lerobot prints and keep its warnings out of logs; restores both, and the random state."""
    level, state = logging.root.manager.disable, torch.random.get_rng_state()
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(said):
            yield
    finally:
        logging.disable(level)
        torch.random.set_rng_state(state)


def _last_line(said: io.StringIO) -> str:
    lines = [line.strip() for line in said.getvalue().splitlines() if "not load" in line]
    return lines[-1] if lines else "lerobot gave no reason"
