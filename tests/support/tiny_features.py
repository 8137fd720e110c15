"""lerobot's policies that read features, live and tiny: real code, seeded weights, small tensors."""

from __future__ import annotations

import contextlib
import functools
import math
import re
import tempfile
from pathlib import Path
from typing import Any, Final

import torch
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.policies.factory import get_policy_class
from torch import nn

from exporters.bundle.registry import family_named
from exporters.families.given_draws import given_draws

FAMILIES: Final = ("act", "diffusion", "gaussian_actor", "multi_task_dit", "tdmpc", "vqbet", "xvla")
_RESNET: Final = {"vision_backbone": "resnet18", "pretrained_backbone_weights": None}
# What their configurations allow.
_FEATURES: Final[dict[str, dict[str, Any]]] = {
    "gaussian_actor": {"cameras": 1, "size": (64, 64), "environment": 0, "name": "observation.images.top"},
    "multi_task_dit": {"environment": 0},
    "tdmpc": {"cameras": 1, "size": (64, 64)},
    "vqbet": {"cameras": 1, "environment": 0},
    "xvla": {"size": (24, 32), "environment": 0},
}
_SIZES: Final[dict[str, dict[str, Any]]] = {
    "act": {
        **_RESNET, "chunk_size": 8, "n_action_steps": 5, "dim_model": 16, "n_heads": 2, "dim_feedforward": 24,
        "n_encoder_layers": 1, "n_decoder_layers": 1, "n_vae_encoder_layers": 1, "latent_dim": 4,
    },
    "diffusion": {
        **_RESNET, "use_group_norm": True, "horizon": 16, "n_action_steps": 12, "down_dims": (8, 16),
        "n_groups": 4, "kernel_size": 3, "diffusion_step_embed_dim": 8, "spatial_softmax_num_keypoints": 4,
        "num_inference_steps": 5, "crop_shape": (64, 64), "use_separate_rgb_encoder_per_camera": False,
    },
    "gaussian_actor": {
        "image_encoder_hidden_dim": 8, "shared_encoder": True, "latent_dim": 16,
    },
    "multi_task_dit": {
        "horizon": 16, "n_action_steps": 12, "num_inference_steps": 5, "num_integration_steps": 5,
        "hidden_dim": 16, "num_layers": 2, "num_heads": 2, "timestep_embed_dim": 8, "tokenizer_max_length": 6,
        "image_crop_shape": (32, 32),
    },
    "tdmpc": {
        "use_mpc": False, "latent_dim": 12, "q_ensemble_size": 2, "mlp_dim": 16,
        "image_encoder_hidden_dim": 8, "state_encoder_hidden_dim": 12,
    },
    "vqbet": {
        **_RESNET, "use_group_norm": True, "n_obs_steps": 2, "n_action_pred_token": 2, "action_chunk_size": 8,
        "crop_shape": (64, 64), "spatial_softmax_num_keypoints": 4, "vqvae_n_embed": 4,
        "vqvae_embedding_dim": 8, "vqvae_enc_hidden_dim": 8, "gpt_block_size": 24, "gpt_input_dim": 16,
        "gpt_output_dim": 16, "bet_softmax_temperature": 5.0, "gpt_n_layer": 1, "gpt_n_head": 2,
        "gpt_hidden_dim": 16,
    },
    # Of three views one is empty, and images are resized on the way, as the published policies have it.
    "xvla": {
        "florence_config": {
            "vision_config": {
                "depths": [1, 1], "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1],
                "patch_prenorm": [False, True], "embed_dim": [8, 16], "num_heads": [2, 2],
                "num_groups": [2, 2], "window_size": 3, "projection_dim": 16, "max_position_embeddings": 8,
                "max_temporal_embeddings": 4, "drop_path_rate": 0.0,
            },
            "text_config": {
                "vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
                "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24,
                "decoder_ffn_dim": 24, "max_position_embeddings": 32,
            },
        },
        "num_image_views": 3, "resize_imgs_with_padding": (32, 32), "tokenizer_max_length": 6,
        "chunk_size": 8, "n_action_steps": 5, "num_denoising_steps": 5, "max_state_dim": 20,
        "hidden_size": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0, "num_domains": 3,
        "len_soft_prompts": 2, "dim_time": 8, "max_len_seq": 80,
    },
}  # fmt: skip


def features(
    cameras: int = 2, size: tuple[int, int] = (66, 72), environment: int = 3, name: str = "observation.image"
) -> dict[str, dict[str, PolicyFeature]]:
    """What the policies read and give: small cameras, a state of five joints, actions of four."""
    visual = {
        name if cameras == 1 else f"observation.images.camera_{index}": PolicyFeature(
            FeatureType.VISUAL, (3, *size)
        )
        for index in range(cameras)
    }
    told = {"observation.environment_state": PolicyFeature(FeatureType.ENV, (environment,))}
    state = {"observation.state": PolicyFeature(FeatureType.STATE, (5,))}
    return {
        "input_features": {**visual, **state, **(told if environment else {})},
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (4,))},
    }


def tiny_policy(family: str, *, seed: int = 0, **overrides: Any) -> Any:
    """A policy with seeded weights; ``overrides`` are fields of its configuration."""
    fields = {"device": "cpu", **features(**_FEATURES.get(family, {})), **_SIZES[family], **overrides}
    if family == "multi_task_dit":
        fields |= dict.fromkeys(("vision_encoder_name", "text_encoder_name"), clip_directory())
    config = PreTrainedConfig.get_choice_class(family)(**fields)
    policy = get_policy_class(family)(config)
    scatter(policy, seed)
    return policy.float().eval()


@functools.cache
def clip_directory() -> str:
    """A CLIP in a directory, with weights: lerobot reads those before the checkpoint's own."""
    from transformers import CLIPConfig, CLIPModel

    place = Path(tempfile.mkdtemp()) / "tiny-clip"
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 40, "max_position_embeddings": 8, "eos_token_id": 2, "projection_dim": 16}
    vision = {**sizes, "image_size": 32, "patch_size": 16, "projection_dim": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision)).save_pretrained(place)
    return str(place)


def save_checkpoint(family: str, directory: Path, **overrides: Any) -> Path:
    """A tiny policy as lerobot's ``save_pretrained`` writes it."""
    tiny_policy(family, **overrides).save_pretrained(directory)
    return directory


def normalised(family: str, mode: str) -> dict[str, Any]:
    """The override that has images normalised in another way."""
    kinds = dict.fromkeys(("STATE", "ACTION"), NormalizationMode.MEAN_STD)
    return {"normalization_mapping": {**kinds, "VISUAL": NormalizationMode(mode)}}


def scatter(policy: nn.Module, seed: int) -> None:
    """Draw every weight anew, as large as its own inputs want it, so that none is a constant."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(policy.named_parameters()):
            drawn = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                # A network that answers loudly would have its loop amplify every last bit.
                loud = {"final_conv.1": 0.3, "output_proj": 0.1}
                gain = next((one for part, one in loud.items() if part in name), 1.0)
                # A table of whole matrices has rows that are far longer than what they are multiplied with.
                gain = 2.0 if re.search(r"action_(en|de)coder\.fc", name) else gain
                weight.copy_(gain * drawn / math.sqrt(weight[0].numel()))
            else:
                weight.copy_(0.1 * drawn + float(name.endswith("weight")))


def queued_actions(
    policy: Any, family: str, named: dict[str, torch.Tensor], count: int
) -> list[torch.Tensor]:
    """What ``select_action`` gives in a row, the observations arriving one after the other."""
    found = family_named(family)
    noise = {"noise": named["noise"]} if "noise" in named else {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if found.queued:
            last = stack.enter_context(found.seen(policy, named))
            # The observation that arrives now is the last of the queue.
            for queue in policy._queues.values():
                if queue:
                    queue.appendleft(queue.pop())
        else:
            policy.reset()
            last = found.batch(policy, named)
        drawn = named["step_noise"].unbind(1) if "step_noise" in named else ()
        stack.enter_context(given_draws(*drawn, *((named["noise"],) if family == "xvla" else ())))
        return [policy.select_action(dict(last), **noise) for _ in range(count)]
