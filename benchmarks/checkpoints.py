"""Seeded checkpoints of the published sizes, written tensor by tensor: no policy is ever whole in memory.

The classes, the configurations and the key names are the upstream's; only the values are ours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]


def write_checkpoint(
    directory: Path,
    config: Mapping[str, Any] | None,
    shapes: Mapping[str, Any],
    fan_in: Mapping[str, int] | None = None,
) -> None:
    """``config.json`` and a ``model.safetensors`` of float32 tensors drawn one after the other.

    ``fan_in`` says how many values each of a tensor's sums has, where its shape does not.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (directory / "config.json").write_text(json.dumps(config, indent=2))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        size = 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    generator = torch.Generator().manual_seed(0)
    with (directory / "model.safetensors").open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            values = drawn(name, torch.Size(shape), generator)
            if fan_in is not None and name in fan_in:
                values *= (shape[-1] / fan_in[name]) ** 0.5
            out.write(values.numpy().tobytes())
    print(f"{offset / 4e6:.1f} M parameters")


def drawn(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Values that keep activations near 1: what adds a 1 itself is around 0, other norms around 1."""
    values = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        # A table of embodiments' weights is [categories, in, out]; all others are [out, ..., in].
        return values / shape[-2 if name.endswith(".W") else -1] ** 0.5
    # Florence-2's language model is BART, whose norms add none.
    of_bart = "layer_norm" in name or "layernorm_embedding" in name
    adds_one = any(part in name for part in ("language_model", "gemma", ".dit.")) and not of_bart
    is_scale = "norm" in name and name.endswith("weight") and not adds_one
    return 0.1 * values + float(is_scale)


def own_shapes(policy: nn.Module) -> dict[str, Any]:
    """Names and shapes of a policy's weights, those that share their memory once."""
    seen: dict[int, str] = {}
    return {
        name: tuple(value.shape)
        for name, value in policy.state_dict().items()
        if seen.setdefault(value.data_ptr(), name) == name
    }


def unfilled(make: Callable[[], nn.Module]) -> nn.Module:
    """The policy that ``make`` makes, with weights that were never written to and so take no memory."""
    from transformers.initialization import no_init_weights

    with no_init_weights():
        return make()


def make_smolvla(work: Path) -> None:
    """450 M parameters: SmolVLM2-500M's sizes and lerobot's default configuration."""
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
    from tiny_lerobot import tiny_tokenizer
    from transformers import SmolVLMConfig, SmolVLMProcessor
    from transformers.models.smolvlm.image_processing_smolvlm import SmolVLMImageProcessor
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    base = work / "smolvlm2-500m"
    SmolVLMConfig(
        image_token_id=49190,
        scale_factor=4,
        text_config={
            "model_type": "llama",
            "hidden_size": 960,
            "intermediate_size": 2560,
            "num_hidden_layers": 32,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
            "head_dim": 64,
            "vocab_size": 49280,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 8192,
        },
        vision_config={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 512,
            "patch_size": 16,
            "layer_norm_eps": 1e-6,
            "hidden_act": "gelu_pytorch_tanh",
        },
    ).save_pretrained(base)
    SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(),
        tokenizer=tiny_tokenizer(),
        video_processor=SmolVLMVideoProcessor(),
    ).save_pretrained(base)
    config = SmolVLAConfig(vlm_model_name=str(base), load_vlm_weights=False, device="cpu")
    policy = unfilled(lambda: SmolVLAPolicy(config).float())
    config.save_pretrained(work / "checkpoint")
    write_checkpoint(work / "checkpoint", None, own_shapes(policy))


def make_pi0(work: Path) -> None:
    """3,501 M parameters: transformers' own default configuration."""
    from transformers import PI0Config, PI0ForConditionalGeneration

    policy = unfilled(lambda: PI0ForConditionalGeneration(PI0Config()))
    policy.config.dtype = "float32"
    policy.config.save_pretrained(work / "checkpoint")
    write_checkpoint(work / "checkpoint", None, own_shapes(policy))


def make_pi0_lerobot(work: Path) -> None:
    """lerobot's own pi0, its default configuration."""
    from lerobot.policies.pi0.configuration_pi0 import PI0Config
    from lerobot.policies.pi0.modeling_pi0 import PI0Policy

    config = PI0Config(device="cpu", dtype="float32")
    policy = unfilled(lambda: PI0Policy(config))
    config.save_pretrained(work / "checkpoint")
    write_checkpoint(work / "checkpoint", None, own_shapes(policy))


def make_pi05(work: Path) -> None:
    """lerobot's pi0.5, its default configuration."""
    from lerobot.policies.pi05.configuration_pi05 import PI05Config
    from lerobot.policies.pi05.modeling_pi05 import PI05Policy

    config = PI05Config(device="cpu", dtype="float32")
    policy = unfilled(lambda: PI05Policy(config))
    config.save_pretrained(work / "checkpoint")
    write_checkpoint(work / "checkpoint", None, own_shapes(policy))


def make_groot(work: Path) -> None:
    """The action head of N1.7, lerobot's defaults, which are the published sizes."""
    from lerobot.policies.groot.groot_n1_7 import GR00T_N1_7_DEFAULTS, GR00TN17ActionHead, GR00TN17Config

    with torch.device("meta"):
        head = GR00TN17ActionHead(GR00TN17Config())
    shapes = {f"action_head.{name}": tuple(value.shape) for name, value in head.state_dict().items()}
    write_checkpoint(work / "checkpoint", {"model_type": "Gr00tN1d7", **GR00T_N1_7_DEFAULTS}, shapes)


def make_xvla(work: Path) -> None:
    """X-VLA's published sizes: Florence-2 large, lerobot's defaults for most else, the third view empty."""
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.xvla.configuration_xvla import XVLAConfig
    from lerobot.policies.xvla.modeling_xvla import XVLAPolicy

    text = {"d_model": 1024, "encoder_layers": 12, "encoder_attention_heads": 16, "encoder_ffn_dim": 4096}
    decoder = {"decoder_layers": 12, "decoder_attention_heads": 16, "decoder_ffn_dim": 4096}
    vision = {
        "embed_dim": [256, 512, 1024, 2048], "num_heads": [8, 16, 32, 64], "num_groups": [8, 16, 32, 64],
        "depths": [1, 1, 9, 1], "projection_dim": 1024,
    }  # fmt: skip
    cameras = ("observation.images.image", "observation.images.image2")
    seen = {key: PolicyFeature(FeatureType.VISUAL, (3, 256, 256)) for key in cameras}
    config = XVLAConfig(
        florence_config={
            "vision_config": vision,
            "text_config": {**text, **decoder, "vocab_size": 51289, "max_position_embeddings": 4096},
        },
        input_features={**seen, "observation.state": PolicyFeature(FeatureType.STATE, (20,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (20,))},
        resize_imgs_with_padding=(224, 224),
        num_image_views=3,
        max_state_dim=20,
        chunk_size=30,
        n_action_steps=30,
        device="cpu",
    )
    policy = unfilled(lambda: XVLAPolicy(config))
    config.save_pretrained(work / "checkpoint")
    # Each domain's matrix is one row of a table, [in * out].
    fan_in = {
        f"model.transformer.{layer}.fc.weight": getattr(policy.model.transformer, layer).input_size
        for layer in ("action_encoder", "action_decoder")
    }
    write_checkpoint(work / "checkpoint", None, own_shapes(policy), fan_in)


def make_act(work: Path) -> None:
    """ACT's published sizes, lerobot's defaults, as ALOHA has it: one camera and fourteen joints."""
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    config = ACTConfig(**_seen((480, 640), 14), pretrained_backbone_weights=None, device="cpu")
    _save_seeded(lambda: ACTPolicy(config), work)


def make_diffusion(work: Path) -> None:
    """Diffusion Policy's published sizes, lerobot's defaults, as PushT has it: a hundred steps of DDPM."""
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    config = DiffusionConfig(**_seen((96, 96), 2), pretrained_backbone_weights=None, device="cpu")
    _save_seeded(lambda: DiffusionPolicy(config), work)


def _seen(size: tuple[int, int], joints: int) -> dict[str, Any]:
    """The features of a policy that sees one camera and its joints, and moves these."""
    from lerobot.configs import FeatureType, PolicyFeature

    image = PolicyFeature(FeatureType.VISUAL, (3, *size))
    state = PolicyFeature(FeatureType.STATE, (joints,))
    action = PolicyFeature(FeatureType.ACTION, (joints,))
    seen = {"observation.images.top": image, "observation.state": state}
    return {"input_features": seen, "output_features": {"action": action}}


def _save_seeded(make: Callable[[], Any], work: Path) -> None:
    """A policy as its own constructor draws it, with norms that hold statistics; small enough to be held."""
    torch.manual_seed(0)
    make().eval().save_pretrained(work / "checkpoint")


# What a run is called -> the family that exports it, and who makes its checkpoint.
MAKERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "act": ("act", make_act),
    "diffusion": ("diffusion", make_diffusion),
    "groot": ("groot", make_groot),
    "pi0": ("pi0", make_pi0),
    "pi0-lerobot": ("pi0", make_pi0_lerobot),
    "pi05": ("pi05", make_pi05),
    "smolvla": ("smolvla", make_smolvla),
    "xvla": ("xvla", make_xvla),
}
# What a run bakes in: three fixtures cannot draw every one of thirty domains.
BAKED: dict[str, dict[str, int]] = {"xvla": {"domain": 0}}
