"""pi0.5: lerobot's ``PI05Policy``.

The reference is the policy's own ``sample_actions``. It has no input for the robot's state: lerobot's
preprocessing writes it into the prompt. The halves are those of pi0; time reaches the action expert
through its adaptive norms, inside of ``denoise_step``.
"""

from __future__ import annotations

from exporters.families.pi0_lerobot import OpenPIFamily

__all__ = ["FAMILY", "export", "flow", "inputs", "load", "reference"]


class PI05(OpenPIFamily):
    """pi0.5 as lerobot has it."""

    name = "pi05"
    module = "lerobot.policies.pi05.modeling_pi05"
    policy = "PI05Policy"
    parts = (
        "paligemma_with_expert.paligemma.model.language_model",
        "paligemma_with_expert.gemma_expert.model",
        "time_mlp_in",
    )
    state = False


FAMILY = PI05()
load, reference, inputs, flow, export = (
    FAMILY.load, FAMILY.reference, FAMILY.inputs, FAMILY.flow, FAMILY.export,
)  # fmt: skip
