"""TD-MPC: the policy head of lerobot's ``TDMPCPolicy``.

The reference is the policy's own ``predict_action_chunk`` with ``use_mpc`` off, which is its encoder and its
learnt head, whole, and that is what is traced. With it on the policy plans: it searches, from where its last
search ended, so that what it gives is no function of what it sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from exporters.families.base import require_set
from exporters.families.lerobot_features import FeatureFamily
from pytest_reflex.errors import SettingsError
from pytest_reflex.inputs import InputSpec

# The one name of a camera that upstream works with.
_IMAGE = "observation.image"

__all__ = ["FAMILY", "export", "inputs", "load", "reference"]


class TDMPC(FeatureFamily):
    """TD-MPC's policy head as lerobot has it."""

    name = "tdmpc"
    module = "lerobot.policies.tdmpc.modeling_tdmpc"
    policy = "TDMPCPolicy"
    parts = ("model._pi", "model._encoder")
    looped = False

    def inputs(self, policy: Any, *, batch: int = 1) -> list[InputSpec]:
        specs = super().inputs(policy, batch=batch)
        wrong = [key for key in policy.config.image_features if key != _IMAGE]
        if wrong:
            raise SettingsError(
                f"its camera is {wrong[0]!r}, and lerobot's TDMPCPolicy reads its queue by {_IMAGE!r} and "
                "its encoder by the camera's name: it runs with that name alone"
            )
        why = "and a plan starts from the plan before it, which is no function of what the policy sees"
        require_set(policy.config, "use_mpc", False, f"{why} (its policy head alone is one)")
        return specs

    def sample(self, policy: Any, named: Mapping[str, torch.Tensor], steps: int | None) -> torch.Tensor:
        with self.seen(policy, named) as batch:
            actions: torch.Tensor = policy.predict_action_chunk(batch)  # [1, B, D]
            return actions.transpose(0, 1)


FAMILY = TDMPC()
load, reference, inputs, export = FAMILY.load, FAMILY.reference, FAMILY.inputs, FAMILY.export
