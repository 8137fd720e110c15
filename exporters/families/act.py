"""ACT: lerobot's ``ACTPolicy``, whose actions come at once.

The reference is the policy's own ``predict_action_chunk``, whole, and that is what is traced: in eval mode
its latent is zeros, and nothing is drawn. Its chunk is what ``select_action`` takes ``n_action_steps`` of,
one after the other; averaging over chunks in time is :mod:`exporters.families.temporal_ensemble`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from exporters.families.lerobot_features import FeatureFamily

__all__ = ["FAMILY", "export", "inputs", "load", "reference"]


class ACT(FeatureFamily):
    """ACT as lerobot has it."""

    name = "act"
    module = "lerobot.policies.act.modeling_act"
    policy = "ACTPolicy"
    parts = ("model.encoder", "model.decoder", "model.action_head")
    looped = False
    queued = False
    # It reads its cameras one by one, for they may be of different sizes.
    stacked = False

    def sample(self, policy: Any, named: Mapping[str, torch.Tensor], steps: int | None) -> torch.Tensor:
        actions: torch.Tensor = policy.predict_action_chunk(self.batch(policy, named))
        return actions


FAMILY = ACT()
load, reference, inputs, export = FAMILY.load, FAMILY.reference, FAMILY.inputs, FAMILY.export
