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

from exporters.families.base import require_below, set_to
from exporters.families.given_draws import given_draws
from exporters.families.lerobot_features import FeatureFamily
from exporters.families.options import XVLA as OPTIONS
from exporters.flow.diffusion import InterpolationSchedule
from exporters.flow.loop_states import answered_states
from exporters.flow.policy import Context, FlowPolicy
from exporters.flow.update import Operation, X
from pytest_reflex.inputs import Distribution, Gaussian, InputSpec, Integers, ScaledImage, Tokens

__all__ = ["FAMILY", "XVLAFlow", "export", "flow", "inputs", "load", "reference"]

_EMPTY = "observation.images.empty_camera_"


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
        given = self.policy._build_model_inputs(FAMILY.batch(self.policy, observation, self.domain))
        images = given["image_input"]  # [B, V, 3, H, W]
        (batch, views), there = images.shape[:2], sum(name.startswith("image_") for name in observation)
        seen = vlm.get_image_features(images[:, :there].flatten(0, 1)).pooler_output
        seen = seen.unflatten(0, (batch, there))
        seen = torch.nn.functional.pad(seen, (0, 0, 0, 0, 0, views - there))  # [B, V, P, E]
        embeds = torch.cat([seen[:, 0], vlm.get_input_embeddings()(given["input_ids"])], dim=1)
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        return {
            "vlm_features": vlm.language_model.encoder(attention_mask=mask, inputs_embeds=embeds)[0],
            "aux_visual_inputs": seen[:, 1:].flatten(1, 2),
            "domain_id": given["domain_id"],
            "proprio": given["proprio"],
        }

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
    options = OPTIONS
    queued = False
    # lerobot's preprocessing of X-VLA takes ImageNet's statistics, before and besides what this says.
    pixels: ClassVar[Mapping[str, Distribution]] = {"IDENTITY": ScaledImage(-2.118, 2.64)}

    def keys(self, policy: Any) -> dict[str, str]:
        """Without the cameras that are there to be empty."""
        cameras = [key for key in policy.config.image_features if not key.startswith(_EMPTY)]
        state = {"state": "observation.state"} if policy.config.use_proprio else {}
        return {f"image_{index}": key for index, key in enumerate(cameras)} | state

    def inputs(self, policy: Any, *, batch: int = 1, domain: int | None = None) -> list[InputSpec]:
        """What :meth:`FeatureFamily.inputs` says, then ``lang_tokens`` [batch, length], padding included;
        ``domain_id`` [batch], unless ``domain`` bakes one in; ``noise`` [batch, chunk, dim]."""
        specs, config, model = super().inputs(policy, batch=batch), policy.config, policy.model
        require_below(config.num_domains, domain=domain)
        vocabulary = int(model.vlm.get_input_embeddings().num_embeddings)
        prompt = (batch, int(config.tokenizer_max_length))
        specs.append(InputSpec("lang_tokens", prompt, "int64", Tokens(vocab=vocabulary)))
        if domain is None:
            specs.append(InputSpec("domain_id", (batch,), "int64", Integers(0, int(config.num_domains))))
        noise = (batch, int(config.chunk_size), int(model.dim_action))
        return [*specs, InputSpec("noise", noise, meaning=Gaussian())]

    def batch(
        self, policy: Any, named: Mapping[str, torch.Tensor], domain: int | None = None
    ) -> dict[str, torch.Tensor]:
        seen = {key: named[name] for name, key in self.keys(policy).items()}
        tokens = named["lang_tokens"]
        ids = named["domain_id"] if domain is None else torch.full(tokens.shape[:1], domain)
        place = policy.config.domain_feature_key or "domain_id"
        return {**seen, "observation.language.tokens": tokens, place: ids}

    def sample(
        self,
        policy: Any,
        named: Mapping[str, torch.Tensor],
        steps: int | None,
        *,
        domain: int | None = None,
    ) -> torch.Tensor:
        with set_to(policy.config, "num_denoising_steps", steps), given_draws(named["noise"]):
            actions: torch.Tensor = policy.predict_action_chunk(self.batch(policy, named, domain))
            return actions

    def flow(self, policy: Any, *, domain: int | None = None) -> FlowPolicy:
        return XVLAFlow(policy, domain=domain)

    def steps(self, policy: Any) -> int:
        return int(policy.config.num_denoising_steps)

    def states(
        self,
        policy: Any,
        named: Mapping[str, torch.Tensor],
        run: Callable[[], torch.Tensor],
        flow: FlowPolicy,
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
