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


def whole_policy(work: Path, *, n16: bool = False, seed: int = 0) -> Any:
    """lerobot's ``GR00TN17`` with a Qwen3-VL of its own kind, tiny: real classes, seeded weights.

    The action head is that of the golden cases, or with ``n16`` that of N1.6, without self-attention.
    N1.6's own backbone is in no package.
    """
    from lerobot.policies.groot.groot_n1_7 import GR00TN17, GR00TN17Config

    fields = config(
        model_name=str(qwen_directory(work)), select_layer=4, image_target_size=[16, 16],
        backbone_trainable_params_fp32=False, load_bf16=False,
        **({"vl_self_attention_cfg": {"num_layers": 0}} if n16 else {}),
    )  # fmt: skip
    del fields["model_type"]
    model = GR00TN17(GR00TN17Config(**fields), load_backbone_weights=False).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.backbone.named_parameters()):
            drawn = torch.randn(weight.shape, generator=generator)
            norm = weight.ndim == 1 and name.endswith("weight")
            scale = 0.1 if weight.ndim == 1 else weight[0].numel() ** -0.5
            weight.copy_(scale * drawn + float(norm))
    stored = {k.removeprefix("action_head."): v for k, v in weights().items()}
    own = model.action_head.state_dict()
    model.action_head.load_state_dict({name: stored[name] for name in own})
    return model


def qwen_directory(work: Path) -> Path:
    """The configuration of a small Qwen3-VL, as ``AutoConfig`` reads it."""
    from transformers import Qwen3VLConfig

    directory = work / "tiny-qwen3-vl"
    if (directory / "config.json").is_file():
        return directory
    text = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 5, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 80, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 256,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 5000000, "mrope_interleaved": True,
            "mrope_section": [4, 2, 2],
        },
    }  # fmt: skip
    vision = {
        "depth": 3, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
        "temporal_patch_size": 2, "spatial_merge_size": 2, "in_channels": 3, "out_hidden_size": 32,
        "num_position_embeddings": 25, "deepstack_visual_indexes": [0, 1, 2],
    }  # fmt: skip
    special = {
        "image_token_id": 70, "video_token_id": 71, "vision_start_token_id": 72, "vision_end_token_id": 73,
    }  # fmt: skip
    Qwen3VLConfig(text_config=text, vision_config=vision, **special).save_pretrained(directory)
    return directory
