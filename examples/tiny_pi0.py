"""A pi0 policy of transformers' own classes, small enough to try things on: seeded weights, real arithmetic.

``python examples/tiny_pi0.py DIRECTORY`` writes it as a checkpoint, in the format of ``save_pretrained``.
"""

from __future__ import annotations

import sys

import torch
from transformers import PI0Config, PI0ForConditionalGeneration


def tiny_pi0(
    *,
    depth: tuple[int, int, int] = (2, 2, 2),
    attention: str = "sdpa",
    steps: int = 10,
    chunk: int = 6,
    seed: int = 0,
) -> PI0ForConditionalGeneration:
    """A seeded policy.

    Args:
        depth: layers of the vision tower, of the language model and of the action expert; the
            published policy has (27, 18, 18).
        attention: ``sdpa`` or ``eager``.
        steps: denoising steps that its configuration asks for.
        chunk: actions per chunk.
        seed: what the weights are drawn with.
    """
    vision, language, expert = depth
    vocab = 512
    heads = {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 16}
    config = PI0Config(
        vlm_config={
            "model_type": "paligemma",
            "projection_dim": 64,
            "image_token_id": vocab,
            "text_config": {
                "model_type": "gemma",
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": language,
                "vocab_size": vocab,
                **heads,
            },
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 24,
                "intermediate_size": 48,
                "num_hidden_layers": vision,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 14,
                "vision_use_head": False,
                "hidden_act": "gelu_pytorch_tanh",
            },
        },
        dit_config={
            "model_type": "gemma",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": expert,
            "vocab_size": vocab,
            **heads,
        },
        chunk_size=chunk,
        max_state_dim=8,
        max_action_dim=8,
        num_inference_steps=steps,
    )
    policy = PI0ForConditionalGeneration(config).eval()
    policy.set_attn_implementation(attention)
    scatter(policy, seed)
    return policy


@torch.no_grad()
def scatter(policy: torch.nn.Module, seed: int) -> None:
    """Draw every weight anew, so that none is a constant that a wrong export could leave out unseen."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(policy.named_parameters()):
        drawn = torch.randn(weight.shape, generator=generator)
        if weight.ndim > 1:
            weight.copy_(drawn / weight.shape[-1] ** 0.5)
        else:
            # Scales sit around 1, except where the model itself adds the 1; biases around 0.
            scale = name.endswith("weight") and "vision" in name
            weight.copy_(0.1 * drawn + float(scale))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/tiny_pi0.py DIRECTORY")
    tiny_pi0().save_pretrained(sys.argv[1])
    print(f"checkpoint: {sys.argv[1]}")
