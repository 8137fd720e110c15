"""SAC's actor: lerobot's ``GaussianActorPolicy``, which draws its action.

The reference is the policy's own ``select_action``, and what it draws is the input ``noise``: with zeros the
bundle gives the mean. What is traced is the actor's own submodules: torch's distribution, which the policy
draws from, checks values while it runs and takes the root of a matrix that ONNX has no operator for. The
matrix is diagonal, so that its root is that of each deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from exporters.families.given_draws import given_draws
from exporters.families.lerobot_features import FeatureFamily
from pytest_reflex.errors import SettingsError
from pytest_reflex.inputs import Gaussian, InputSpec

__all__ = ["FAMILY", "export", "inputs", "load", "reference"]


class Actor(nn.Module):
    """The actor's own submodules, with the noise that its distribution would draw."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, *, noise: torch.Tensor, **observation: torch.Tensor) -> dict[str, torch.Tensor]:
        actor, batch = self.policy.actor, FAMILY.batch(self.policy, observation)
        shared = self.policy.shared_encoder and actor.encoder.has_images
        cached = actor.encoder.get_cached_image_features(batch) if shared else None
        outputs = actor.network(actor.encoder(batch, cache=cached, detach=actor.encoder_is_shared))
        means = actor.mean_layer(outputs)
        if actor.fixed_std is None:
            std = torch.exp(actor.std_layer(outputs)).clamp(actor.std_min, actor.std_max)
        else:
            std = actor.fixed_std.expand_as(means)
        # Upstream gives the deviation as a covariance.
        return {"actions": torch.tanh(means + std.sqrt() * noise)}


class GaussianActor(FeatureFamily):
    """SAC's actor as lerobot has it."""

    name = "gaussian_actor"
    module = "lerobot.policies.gaussian_actor.modeling_gaussian_actor"
    policy = "GaussianActorPolicy"
    parts = ("actor.network", "actor.mean_layer")
    judged_by = "its `select_action`"
    looped = False
    queued = False

    def inputs(self, policy: Any, *, batch: int = 1) -> list[InputSpec]:
        """What :meth:`FeatureFamily.inputs` says, then ``noise`` [batch, dim]."""
        specs = super().inputs(policy, batch=batch)
        if policy.config.num_discrete_actions is not None:
            raise SettingsError(
                f"num_discrete_actions is {policy.config.num_discrete_actions}, whose critic chooses beside "
                "the actor; this version exports actors alone"
            )
        shape = (batch, int(policy.config.action_feature.shape[0]))
        return [*specs, InputSpec("noise", shape, meaning=Gaussian())]

    def sample(self, policy: Any, named: Mapping[str, torch.Tensor], steps: int | None) -> torch.Tensor:
        with given_draws(named["noise"]):
            actions: torch.Tensor = policy.select_action(self.batch(policy, named))
            return actions

    def whole(self, policy: Any) -> nn.Module:
        return Actor(policy)


FAMILY = GaussianActor()
load, reference, inputs, export = FAMILY.load, FAMILY.reference, FAMILY.inputs, FAMILY.export
