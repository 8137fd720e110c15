"""X-VLA: lerobot's ``XVLAPolicy``, a Florence-2 that sees and a transformer that denoises.

The reference is the policy's own ``predict_action_chunk``, whole; what it draws is the input ``noise``. The
step is its ``transformer``, with what its action space does before and after. The prefix calls the
submodules that ``forward_vlm`` calls. That one picks the views that are there by a mask, whose sum decides a
shape, so that no trace can follow it; the policy knows beforehand which they are: the first, its cameras.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import torch

from exporters.families.base import embodiment_specs
from exporters.families.lerobot_features import FeatureFamily, Named, noise_spec
from exporters.families.options import XVLA as OPTIONS
from exporters.flow.diffusion import InterpolationSchedule
from exporters.flow.loop_states import answered_states
from exporters.flow.policy import Context, FlowPolicy
from exporters.flow.update import Operation, X
from pytest_reflex.inputs import Distribution, InputSpec, ScaledImage

__all__ = ["FAMILY", "XVLAFlow", "export", "flow", "inputs", "load", "reference"]


class XVLAFlow(FlowPolicy):
    """The two halves of lerobot's X-VLA; ``domain`` is the one that is baked in."""

    schedule = InterpolationSchedule()

    def __init__(self, policy: Any, *, domain: int | None = None) -> None:
        super().__init__()
        self.policy, self.domain, self.steps = policy, domain, FAMILY.steps(policy)
        space = policy.model.action_space
        kept = space.postprocess(torch.zeros(1, 1, space.dim_action)).shape[-1]
        self.epilogue = (Operation("Slice", "kept", (X, 2, 0, kept)),) if kept < space.dim_action else ()

    def prefix(self, **observation: torch.Tensor) -> Context:
        vlm = self.policy.model.vlm
        given = self.policy._build_model_inputs(FAMILY.given(self.policy, observation, self.domain))
        images = given["image_input"]  # [B, V, 3, H, W]
        (batch, views), there = images.shape[:2], sum(name.startswith("image_") for name in observation)
        seen = vlm.get_image_features(images[:, :there].flatten(0, 1)).pooler_output
        seen = seen.unflatten(0, (batch, there))
        seen = torch.nn.functional.pad(seen, (0, 0, 0, 0, 0, views - there))  # [B, V, P, E]
        embeds = torch.cat([seen[:, 0], vlm.get_input_embeddings()(given["input_ids"])], dim=1)
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        features = vlm.language_model.encoder(attention_mask=mask, inputs_embeds=embeds)[0]
        held = {name: given[name] for name in ("domain_id", "proprio")}
        return {"vlm_features": features, "aux_visual_inputs": seen[:, 1:].flatten(1, 2), **held}

    def velocity(  # type: ignore[override]
        self, x_t: torch.Tensor, time: torch.Tensor, proprio: torch.Tensor, **context: torch.Tensor
    ) -> torch.Tensor:
        model = self.policy.model
        proprio, x_t = model.action_space.preprocess(proprio, x_t)
        return self.done(model.transformer(action_with_noise=x_t, proprio=proprio, t=time, **context))

    def done(self, said: torch.Tensor) -> torch.Tensor:
        """What the action space makes of an answer of the network, and what it cuts off of that.

        Upstream does so after the last step alone. What is turned into something else, the grippers, it takes
        out of ``x`` before it shows it to the network, so that no step tells the difference.
        """
        made: torch.Tensor = self.policy.model.action_space.postprocess(said.clone())
        return torch.cat([made, said[..., made.shape[-1] :]], dim=-1) if self.epilogue else made


class XVLA(FeatureFamily):
    """X-VLA as lerobot has it."""

    name = "xvla"
    module = "lerobot.policies.xvla.modeling_xvla"
    policy = "XVLAPolicy"
    parts = ("model.vlm.language_model.encoder", "model.transformer", "model.action_space")
    options, halves = OPTIONS, XVLAFlow
    queued = stacked = False
    # lerobot's preprocessing of X-VLA takes ImageNet's statistics, before and besides what this says.
    pixels: ClassVar[Mapping[str, Distribution]] = {"IDENTITY": ScaledImage(-2.118, 2.64)}

    def keys(self, policy: Any) -> dict[str, str]:
        keys = super().keys(policy)
        return {n: key for n, key in keys.items() if n != "state" or policy.config.use_proprio}

    def inputs(self, policy: Any, *, batch: int = 1, domain: int | None = None) -> list[InputSpec]:
        """What :meth:`FeatureFamily.inputs` says, then ``lang_tokens`` [batch, length], padding included;
        ``domain_id`` [batch], unless ``domain`` bakes one in; ``noise`` [batch, chunk, dim]."""
        specs, config, model = super().inputs(policy, batch=batch), policy.config, policy.model
        specs += self.prompt(policy, batch, model.vlm.get_input_embeddings())
        specs += embodiment_specs("domain_id", batch, int(config.num_domains), domain=domain)
        return [*specs, noise_spec(batch, config.chunk_size, model.dim_action)]

    def given(self, policy: Any, named: Named, domain: int | None) -> dict[str, torch.Tensor]:
        """The observation, and which embodiment it is of."""
        ids = named["domain_id"] if domain is None else torch.full(named["lang_tokens"].shape[:1], domain)
        return self.batch(policy, named) | {policy.config.domain_feature_key or "domain_id": ids}

    def sample(
        self, policy: Any, named: Named, steps: int | None, *, domain: int | None = None
    ) -> torch.Tensor:
        return self.chunk(policy, self.given(policy, named, domain), steps, named["noise"])

    def counted(self, policy: Any) -> tuple[Any, str]:
        return policy.config, "num_denoising_steps"

    def states(
        self, policy: Any, named: Named, run: Callable[[], torch.Tensor], flow: FlowPolicy
    ) -> list[torch.Tensor]:
        """Made of what its network says: that is shown ``x`` without the grippers, padded to its own size."""
        space = policy.model.action_space

        def shown(given: Mapping[str, torch.Tensor], x: torch.Tensor) -> bool:
            return torch.equal(space.preprocess(given["proprio"], x)[1], given["action_with_noise"])

        done = cast("XVLAFlow", flow).done
        return answered_states(policy.model.transformer, run, named["noise"], flow.loop, done, shown)


FAMILY = XVLA()
load, reference, inputs, flow, export = (
    FAMILY.load, FAMILY.reference, FAMILY.inputs, FAMILY.flow, FAMILY.export,
)  # fmt: skip
