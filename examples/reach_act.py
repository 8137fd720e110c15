"""lerobot's ACT learns to reach: behaviour cloning of the scripted reach of ``reach.py`` on a Panda.

``python examples/reach_act.py DIRECTORY`` trains a small ACT (Zhao et al., 2023) in minutes on two
cores, says how often it succeeds, and writes the checkpoint ``act`` and the bundle ``bundle`` there, for

    reflex rollout DIRECTORY/bundle --model DIRECTORY/act --env panda-reach

Needs the extras lerobot and sim. Where the block lies is what lerobot calls the environment's state.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from reach import CHUNK, EXECUTE, SECONDS, STATES, demonstrations, share_done

from exporters import act

ENV = "panda-reach"
WHOLE, OWN = STATES[ENV]  # all that is known, and what of it is the arm's
ACTIONS = 8


def untrained(seed: int = 0) -> Any:
    """lerobot's policy with seeded weights: no variational encoder, no dropout, a transformer of width 64."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    torch.manual_seed(seed)
    config = ACTConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (OWN,)),
            "observation.environment_state": PolicyFeature(FeatureType.ENV, (WHOLE,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTIONS,))},
        chunk_size=CHUNK, n_action_steps=EXECUTE, dim_model=64, n_heads=4, dim_feedforward=256,
        n_encoder_layers=2, n_decoder_layers=1, use_vae=False, dropout=0.0,
        pretrained_backbone_weights=None, device="cpu",
    )  # fmt: skip
    return ACTPolicy(config)


def trained(*, starts: int = 200, epochs: int = 40, seed: int = 0) -> Any:
    """An ACT that reaches, from the same seed the same one on the same machine: lerobot's own loss."""
    _, states, chunks = demonstrations(ENV, False, starts, seed)
    policy = untrained(seed).train()
    batches = -(-len(states) // 256)
    optimizer = torch.optim.AdamW(policy.parameters(), 1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * batches)
    for _ in range(epochs):
        for batch in torch.randperm(len(states)).split(256):
            loss, _ = policy.forward(
                {
                    "observation.state": states[batch, :OWN],
                    "observation.environment_state": states[batch],
                    "action": chunks[batch],
                    "action_is_pad": torch.zeros(len(batch), CHUNK, dtype=torch.bool),
                }
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return policy.eval()


def succeeds(policy: Any, starts: int = 20, seconds: float = SECONDS) -> float:
    """In what share of starts that it never saw it does the job."""
    return share_done(act.reference(policy), act.inputs(policy), ENV, starts, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--starts", type=int, default=200, help="demonstrations")
    parser.add_argument("--epochs", type=int, default=40)
    told = parser.parse_args()
    learned = trained(starts=told.starts, epochs=told.epochs)
    learned.save_pretrained(told.directory / "act")
    print(f"it succeeds in {succeeds(learned):.0%} of 20 starts")
    act.export(learned, told.directory / "bundle")
