"""The multi-task diffusion transformer: lerobot's ``MultiTaskDiTPolicy``, by diffusion or by flow matching.

The reference is the policy's own ``predict_action_chunk``, which draws all its noise itself: what it starts
from, and for DDPM that of each step. Both are inputs. The prefix is its ``observation_encoder``, the step its
``noise_predictor``. Flow matching counts its time as ``torch.linspace`` does, so that it is a table too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from exporters.families.base import require_set
from exporters.families.diffusion import Diffusion, kept_actions
from exporters.flow.diffusion import DiffusionSchedule, GridSchedule
from exporters.flow.policy import Context, FlowPolicy
from pytest_reflex.inputs import InputSpec

__all__ = ["FAMILY", "MultiTaskDiTFlow", "export", "flow", "inputs", "load", "reference"]


class MultiTaskDiTFlow(FlowPolicy):
    """The two halves of lerobot's multi-task diffusion transformer.

    Raises:
        SettingsError: its solver asks the network several times a step.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__()
        config = policy.config
        self.policy, self.steps = policy, FAMILY.steps(policy)
        if config.is_diffusion:
            self.schedule = DiffusionSchedule(policy.objective.noise_scheduler)
        else:
            why = "which asks the network several times a step"
            require_set(config, "integration_method", "euler", why)
            self.schedule = GridSchedule()
        self.epilogue = kept_actions(config)

    def prefix(self, **observation: torch.Tensor) -> Context:
        batch = FAMILY.batch(self.policy, observation)
        return {"conditioning": self.policy.observation_encoder.encode(batch)}

    def velocity(  # type: ignore[override]
        self, x_t: torch.Tensor, time: torch.Tensor, conditioning: torch.Tensor
    ) -> torch.Tensor:
        predicted: torch.Tensor = self.policy.noise_predictor(x_t, time, conditioning_vec=conditioning)
        return predicted


class MultiTaskDiT(Diffusion):
    """The multi-task diffusion transformer as lerobot has it."""

    name = "multi_task_dit"
    module = "lerobot.policies.multi_task_dit.modeling_multi_task_dit"
    policy = "MultiTaskDiTPolicy"
    parts = ("observation_encoder.text_encoder", "noise_predictor", "objective")
    halves = MultiTaskDiTFlow

    def observation(self, policy: Any, batch: int) -> list[InputSpec]:
        """And the prompt, as ``lang_masks`` and ``lang_tokens`` [batch, length]."""
        text = policy.observation_encoder.text_encoder.text_encoder
        words = text.get_input_embeddings()
        # CLIP reads its prompt where the first end stands, which its tokenizer closes and pads it with. At
        # another place neither all words nor the whole mask say anything. Configurations of old say 2, and
        # there the largest id is the end.
        end = text.config.eos_token_id
        end = int(words.num_embeddings) - 1 if end in (None, 2) else int(end)
        return [*super().observation(policy, batch), *self.prompt(policy, batch, words, masked=True, end=end)]

    def sample(self, policy: Any, named: Mapping[str, torch.Tensor], steps: int | None) -> torch.Tensor:
        drawn = (named["noise"], *(named["step_noise"].unbind(1) if "step_noise" in named else ()))
        with self.seen(policy, named) as batch:
            return self.chunk(policy, batch, steps, *drawn)

    def counted(self, policy: Any) -> tuple[Any, str]:
        if policy.config.is_diffusion:
            return policy.objective, "num_inference_steps"
        return policy.config, "num_integration_steps"

    def reader(self, policy: Any) -> torch.nn.Module:
        reader: torch.nn.Module = policy.noise_predictor
        return reader


FAMILY = MultiTaskDiT()
load, reference, inputs, flow, export = (
    FAMILY.load, FAMILY.reference, FAMILY.inputs, FAMILY.flow, FAMILY.export,
)  # fmt: skip
