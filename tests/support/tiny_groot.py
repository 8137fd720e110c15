"""GR00T action heads at the sizes of ``tests/golden/groot``, from checkpoint directories made on the spot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).parents[1] / "golden" / "groot"
EMBODIMENTS = 4


def weights() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "model.safetensors")


def config(**changes: Any) -> dict[str, Any]:
    """GR00T's own ``config.json``; a change to None takes the field out."""
    fields = json.loads((GOLDEN / "config.json").read_text())
    del fields["type"]
    fields = {"model_type": "Gr00tN1d7", **fields, **changes}
    return {name: value for name, value in fields.items() if name not in changes or value is not None}


def write_checkpoint(
    directory: Path, fields: Mapping[str, Any], *shards: Mapping[str, torch.Tensor], name: str = "model"
) -> Path:
    """A checkpoint directory with the given ``config.json`` and one safetensors file per shard."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(fields))
    for number, shard in enumerate(shards, start=1):
        part = f"-{number:05}-of-{len(shards):05}" if len(shards) > 1 else ""
        save_file(dict(shard), directory / f"{name}{part}.safetensors")
    return directory


def n16_checkpoint(directory: Path) -> Path:
    """N1.6: no self-attention over the features, and a token that only training reads."""
    kept = {key: value for key, value in weights().items() if ".vl_self_attention." not in key}
    kept["action_head.mask_token"] = torch.ones(1, 1, 48)
    return write_checkpoint(directory, config(model_type="Gr00tN1d6", vl_self_attention_cfg=None), kept)


def cases() -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """The recorded cases: inputs and actions."""
    stored = load_arrays(GOLDEN / "cases.safetensors")
    return [
        (
            {k.partition(".inputs.")[2]: a for k, a in stored.items() if k.startswith(f"case{n}.inputs.")},
            stored[f"case{n}.outputs.actions"],
        )
        for n in range(4)
    ]
