"""VQ-BeT: lerobot's ``VQBeTPolicy``, which draws the codes of its actions.

The reference is the policy's own ``predict_action_chunk``, whole, and that is what is traced. Where it draws
a code, torch divides each code's probability by an exponential number and takes the largest: these numbers
are an input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from exporters.families.given_draws import given_draws
from exporters.families.lerobot_features import FeatureFamily
from pytest_reflex.errors import SettingsError
from pytest_reflex.inputs import InputSpec, Uniform

__all__ = ["FAMILY", "export", "inputs", "load", "reference"]


class VQBeT(FeatureFamily):
    """VQ-BeT as lerobot has it."""

    name = "vqbet"
    module = "lerobot.policies.vqbet.modeling_vqbet"
    policy = "VQBeTPolicy"
    parts = ("vqbet.policy", "vqbet.action_head.vqvae_model")
    looped = False

    def inputs(self, policy: Any, *, batch: int = 1) -> list[InputSpec]:
        """What :meth:`FeatureFamily.inputs` says, then ``code_noise`` [batch, tokens, 2, codes], above 0."""
        specs, config = super().inputs(policy, batch=batch), policy.config
        if config.sequentially_select:
            raise SettingsError(
                "sequentially_select is True, and the second code is drawn by the first; this version "
                "exports policies that draw both at once"
            )
        tokens = int(config.n_obs_steps + config.n_action_pred_token - 1)
        layers = int(policy.vqbet.action_head.vqvae_model.vqvae_num_layers)
        shape = (batch, tokens, layers, int(config.vqvae_n_embed))
        return [*specs, InputSpec("code_noise", shape, meaning=Uniform(0.001, 3.0))]

    def sample(self, policy: Any, named: Mapping[str, torch.Tensor], steps: int | None) -> torch.Tensor:
        drawn = named["code_noise"].flatten(0, 2)
        with self.seen(policy, named) as batch, given_draws(drawn):
            actions: torch.Tensor = policy.predict_action_chunk(batch)
            return actions


FAMILY = VQBeT()
load, reference, inputs, export = FAMILY.load, FAMILY.reference, FAMILY.inputs, FAMILY.export
