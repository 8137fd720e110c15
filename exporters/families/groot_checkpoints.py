"""A GR00T checkpoint -> its action head in float32, without the backbone; and the head of a live policy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from exporters import checkpoints
from exporters.families.lerobot import require_versions
from pytest_reflex.errors import CheckpointError, ReflexError, a_type

# GR00T's own configurations; lerobot's says "groot" and names the checkpoint that it was built on.
N16, N17 = "Gr00tN1d6", "Gr00tN1d7"
FAMILY: Final = "groot"
PREFIX: Final = "action_head."
LEROBOT_PREFIX: Final = "_groot_model."
# Neither of these shows in a weight's shape, or both sizes would be guessed from a default: a checkpoint
# must say them itself.
NEEDED: Final = (
    "action_horizon", "backbone_embedding_dim", "diffusion_model_cfg", "hidden_size", "input_embedding_dim",
    "max_action_dim", "max_num_embodiments", "max_state_dim", "num_inference_timesteps",
    "num_timestep_buckets",
)  # fmt: skip
# Trained with, never read when actions are sampled.
UNUSED: Final = ("mask_token",)
_PARTS: Final = ("get_action", "_encode_features", "model", "state_encoder", "action_encoder",
                 "action_decoder", "vlln", "vl_self_attention", "num_inference_timesteps",
                 "num_timestep_buckets", "action_horizon", "action_dim", "config")  # fmt: skip


def head_of(policy: Any) -> Any:
    """The action head: inside of lerobot's policy, of its model, or given bare.

    Raises:
        ReflexError: it is no GR00T, naming the part that it lacks.
    """
    model = getattr(policy, "_groot_model", policy)
    head = getattr(model, "action_head", model)
    lacking = next((part for part in _PARTS if not hasattr(head, part)), None)
    if lacking is not None:
        raise ReflexError(
            f"{a_type(policy)} was given as {FAMILY}, and it has no {lacking}; "
            "expected lerobot's GrootPolicy, GR00TN17 or GR00TN17ActionHead"
        )
    return head


def load(checkpoint: str | os.PathLike[str], *, revision: str | None = None) -> Any:
    """The action head of a checkpoint, its weights lifted to float32; see :func:`exporters.groot.load`."""
    directory = checkpoints.resolve(checkpoint, revision=revision)
    stated = checkpoints.read_config(directory)
    described = _described(directory, stated)
    files = checkpoints.weight_files(directory)
    head = _head(described, directory)
    stored, dtypes = _stored(files)
    own = head.state_dict()
    missing, unexpected = own.keys() - stored.keys(), stored.keys() - own.keys()
    both = ((PREFIX + k, stored[k].shape, own[k].shape) for k in own.keys() & stored.keys())
    shapes = [(key, there, here) for key, there, here in both if there != here]
    checkpoints.require_fit(
        directory, [PREFIX + k for k in missing], [PREFIX + k for k in unexpected], shapes
    )
    # A float32 weight stays where it is, mapped from its file; what is stored in half is lifted.
    head.load_state_dict({key: value.float() for key, value in stored.items()}, assign=True)
    head.requires_grad_(False)
    checkpoints.remember(head, checkpoint, directory, stored_dtype="+".join(sorted(dtypes)))
    return head.eval()


def _described(directory: Path, stated: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the head's configuration, from the checkpoint or from the one it was built on."""
    found = stated.get("model_type") or stated.get("type")
    if "diffusion_model_cfg" not in stated and found == FAMILY and stated.get("base_model_path"):
        base = stated["base_model_path"]
        try:
            fields = checkpoints.read_config(checkpoints.resolve(base))
        except CheckpointError as error:
            raise CheckpointError(
                f"{directory} was fine-tuned from {base}, whose config.json describes the head: {error}"
            ) from error
        for name in ("num_inference_timesteps", "rtc_ramp_rate"):
            if stated.get(name) is not None:
                fields[name] = stated[name]
        return _complete(Path(base), fields)
    if found not in (FAMILY, N16, N17):
        raise checkpoints.family_error(directory, found, FAMILY)
    return _complete(directory, stated)


def _complete(directory: Path, stated: Mapping[str, Any]) -> dict[str, Any]:
    missing = [name for name in NEEDED if name not in stated]
    if missing:
        raise CheckpointError(
            f"{directory}/config.json does not say {', '.join(missing)}, which differ between releases of "
            "GR00T; give a checkpoint with its whole configuration"
        )
    fields = {name: value for name, value in stated.items() if name != "model_type"}
    if stated.get("model_type") == N16:
        fields.setdefault("vl_self_attention_cfg", {"num_layers": 0})
    return fields


def _head(fields: Mapping[str, Any], directory: Path) -> Any:
    """A head without weights."""
    require_versions()
    try:
        from lerobot.policies.groot.groot_n1_7 import GR00TN17ActionHead, GR00TN17Config
    except ImportError as error:
        raise ReflexError(f"lerobot gives no GR00TN17ActionHead: {error}") from error
    try:
        with torch.device("meta"):
            return GR00TN17ActionHead(GR00TN17Config(**fields))
    except ImportError as error:
        raise ReflexError(f"GR00T's action head needs {error}; install 'diffusers>=0.38,<0.40'") from error
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{directory}/config.json describes no action head: {error}") from error


def _stored(files: list[Path]) -> tuple[dict[str, torch.Tensor], set[str]]:
    """The head's weights by the head's own names, and the floating dtypes that they are stored in."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118  # no mapping
                    name = key.removeprefix(LEROBOT_PREFIX)
                    if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in UNUSED:
                        found[name.removeprefix(PREFIX)] = opened.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} cannot be read: {error}") from error
    return found, {str(t.dtype).removeprefix("torch.") for t in found.values() if t.is_floating_point()}
