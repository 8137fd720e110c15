"""GR00T N1.7 and N1.6: the action head of lerobot's GR00T, one denoising step at a time.

The vision-language backbone stays in PyTorch; what is exported is the head that turns its features into
actions. The reference is the head's own ``get_action``, in float32. It draws its noise itself: the noise
of a fixture is handed to that one draw, and nothing else is touched.

The prefix is the head's own ``_encode_features``; the step makes the calls of the loop's body in
``get_action_with_features``. What the step asks of the observation alone (cross-attention's keys and
values, the embodiment's weights) is moved behind the prefix by the composer.

N1.6 is the same classes without self-attention over the vision-language features.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import torch

from exporters.families import groot_checkpoints
from exporters.families.base import Family, embodiment_specs, require_counts, set_to
from exporters.families.given_draws import given_draws
from exporters.families.groot_backbone import Grid, GrootBackbone, backbone_of, model_of
from exporters.families.groot_checkpoints import head_of
from exporters.families.groot_embodiment import one_embodiment
from exporters.families.options import GROOT, GROOT_WHOLE
from exporters.flow.policy import Context, FlowPolicy
from exporters.flow.schedule import BucketedSchedule
from pytest_reflex.inputs import (
    Gaussian,
    Image,
    ImageTokenMask,
    InputSpec,
    PromptMask,
    State,
    VisionPromptMask,
    VisionPromptTokens,
)

__all__ = ["FAMILY", "GrootFlow", "export", "flow", "inputs", "load", "reference"]

# How many tokens fixture 0 has where their number is free: one camera of 64 and some text.
TOKENS: Final = 96
# How many tokens of text the whole model's prompt has room for, besides what its images need.
TEXT: Final = 32
_SEEN: Final = ("backbone_features", "backbone_attention_mask", "image_mask")


class GrootFlow(FlowPolicy):
    """The two halves of GR00T's action head.

    Where a prompt holds no image, or nothing but images, the cross-attention of every other block has
    all its keys masked. torch gives zeros there, and so does the graph
    (:mod:`exporters.graph.program_passes`).

    Args:
        policy: a live policy, model or action head.
        embodiment: the one to bake in; by default it is an input.
    """

    def __init__(self, policy: Any, *, embodiment: int | None = None) -> None:
        super().__init__()
        head = head_of(policy)
        self.head: Any = head if embodiment is None else one_embodiment(head, embodiment)
        self.steps = int(head.num_inference_timesteps)
        self.schedule = BucketedSchedule(int(head.num_timestep_buckets))

    def prefix(  # type: ignore[override]
        self,
        *,
        backbone_features: torch.Tensor,  # [B, S, E]
        backbone_attention_mask: torch.Tensor,  # [B, S] bool
        image_mask: torch.Tensor,  # [B, S] bool
        state: torch.Tensor,  # [B, history, D]
        embodiment_id: torch.Tensor | None = None,  # [B] int64
    ) -> Context:
        features = self.head._encode_features(
            _batch(backbone_features=backbone_features), _batch(state=state, embodiment_id=embodiment_id)
        )
        context = {
            "vl_embeds": features.backbone_features,
            "state_features": features.state_features,
            "image_mask": image_mask,
            "backbone_attention_mask": backbone_attention_mask,
        }
        return context if embodiment_id is None else {**context, "embodiment_id": embodiment_id}

    def velocity(  # type: ignore[override]
        self,
        x_t: torch.Tensor,  # [B, T, D]
        time: torch.Tensor,  # [B], whole numbers below the schedule's buckets
        vl_embeds: torch.Tensor,  # [B, S, E]
        state_features: torch.Tensor,  # [B, 1, W]
        image_mask: torch.Tensor,  # [B, S] bool
        backbone_attention_mask: torch.Tensor,  # [B, S] bool
        embodiment_id: torch.Tensor | None = None,  # [B] int64
    ) -> torch.Tensor:
        head = self.head
        bucket = time.long()
        actions = head.action_encoder(x_t, bucket, embodiment_id)  # [B, T, W]
        if head.config.add_pos_embed:
            places = torch.arange(actions.shape[1], dtype=torch.long, device=x_t.device)
            actions = actions + head.position_embedding(places).unsqueeze(0)
        masks = {"image_mask": image_mask, "backbone_attention_mask": backbone_attention_mask}
        hidden = head.model(
            hidden_states=torch.cat((state_features, actions), dim=1),  # [B, 1 + T, W]
            encoder_hidden_states=vl_embeds,
            timestep=bucket,
            **(masks if head.config.use_alternate_vl_dit else {}),
        )
        velocity: torch.Tensor = head.action_decoder(hidden, embodiment_id)[:, -head.action_horizon :]
        return velocity


class WholeGrootFlow(GrootFlow):
    """The same with the vision-language backbone in the first half: from patches and tokens to actions.

    Args:
        policy: a live policy, or its model.
        images: how many images a prompt has.
        embodiment: the one to bake in; by default it is an input.
    """

    features = _SEEN

    def __init__(self, policy: Any, images: int, *, embodiment: int | None = None) -> None:
        super().__init__(policy, embodiment=embodiment)
        model = model_of(policy)
        self.backbone = GrootBackbone(backbone_of(model), Grid(model, images))

    def prefix(  # type: ignore[override]
        self,
        *,
        input_ids: torch.Tensor,  # [B, S] int64
        attention_mask: torch.Tensor,  # [B, S] int64
        pixel_values: torch.Tensor,  # [B * images * patches, values]
        state: torch.Tensor,  # [B, history, D]
        embodiment_id: torch.Tensor | None = None,  # [B] int64
    ) -> Context:
        features = self.backbone(input_ids, attention_mask, pixel_values)
        context = super().prefix(**features, state=state, embodiment_id=embodiment_id)
        return {**features, **context}

    def velocity(  # type: ignore[override]
        self,
        x_t: torch.Tensor,
        time: torch.Tensor,
        backbone_features: torch.Tensor,  # where the backbone ends; the head has made its own of them
        **context: torch.Tensor,
    ) -> torch.Tensor:
        return super().velocity(x_t, time, **context)


def _batch(**fields: Any) -> Any:
    from transformers.feature_extraction_utils import BatchFeature

    return BatchFeature(data=fields)


def _seen(policy: Any, named: Mapping[str, torch.Tensor], images: int) -> Any:
    """What the backbone's own ``forward`` gives; what it remembers of the prompt is put back."""
    model = model_of(policy)
    backbone = backbone_of(model)
    rows = Grid(model, images).rows(images * named["input_ids"].shape[0])
    with set_to(backbone.model.model, "rope_deltas", None):
        return backbone(
            _batch(
                input_ids=named["input_ids"],
                attention_mask=named["attention_mask"],
                pixel_values=named["pixel_values"],
                image_grid_thw=rows,
            )
        )


def _action_inputs(head: Any, batch: int, embodiment: int | None) -> list[InputSpec]:
    """What the action head reads besides the backbone's features."""
    config = head.config
    state = (batch, int(config.state_history_length), int(config.max_state_dim))
    specs = [InputSpec("state", state, "float32", State())]
    count = int(config.max_num_embodiments)
    specs += embodiment_specs("embodiment_id", batch, count, embodiment=embodiment)
    noise = (batch, int(head.action_horizon), int(head.action_dim))
    return [*specs, InputSpec("noise", noise, "float32", Gaussian())]


class Groot(Family):
    """GR00T's action head."""

    name = "groot"
    options = (*GROOT, *GROOT_WHOLE)
    policies = ("GrootPolicy", "GR00TN17", "GR00TN17ActionHead")
    about = "the action head of lerobot's `GrootPolicy`, N1.7 and N1.6, or with `images` N1.7 whole"
    judged_by = "its `get_action`"
    layout = "stepwise"

    def load(self, checkpoint: str | os.PathLike[str], *, revision: str | None = None) -> Any:
        """Load the action head of a policy in float32 and eval mode, on the CPU.

        Args:
            checkpoint: a directory or a hub id: of GR00T itself, as ``nvidia/GR00T-N1.7-3B``, or of a policy
                that lerobot fine-tuned, whose head is described by the checkpoint that it was built on.
            revision: branch, tag or commit of the hub id.

        Returns:
            lerobot's ``GR00TN17ActionHead``. The backbone's weights are not read.

        Raises:
            CheckpointError: it cannot be had or read, is of another family, or its keys do not fit.
            ReflexError: lerobot or diffusers is not installed, or is of an unsupported version.
        """
        return groot_checkpoints.load(checkpoint, revision=revision)

    def inputs(
        self,
        policy: Any,
        *,
        tokens: int | None = None,
        batch: int = 1,
        embodiment: int | None = None,
        images: int | None = None,
    ) -> list[InputSpec]:
        """What the action head reads, or with ``images`` the whole model.

        ``backbone_features`` [batch, tokens, E] as the backbone's last layer gives them,
        ``backbone_attention_mask`` and ``image_mask`` [batch, tokens], true for tokens that are no padding
        and for those that stand for an image; ``state`` [batch, history, max_state_dim]; ``embodiment_id``
        [batch]; ``noise`` [batch, horizon, max_action_dim].

        The whole model has what its processor gives in place of the first three: ``pixel_values`` [batch *
        images * patches, values of a patch], ``attention_mask`` and ``input_ids`` [batch, tokens], padded on
        the left.

        Args:
            policy: a live policy, model or action head.
            tokens: how many, padding included. By default their number is free: self-attention looks at
                padding too, so more of it is another answer, and a bundle must take what the backbone gives.
                Of the whole model they are as many as the images take and 32 besides.
            batch: the batch size.
            embodiment: the one to bake in, which is then no input.
            images: how many a prompt has, for the whole model; by default the action head alone is taken.

        Raises:
            InputError: a size is no whole number of at least 1, there is no such embodiment, or the prompt
                has no room for the images.
            ReflexError: the images of an action head without a backbone are asked for.
        """
        if images is not None:
            return self._whole_inputs(
                policy, tokens=tokens, batch=batch, embodiment=embodiment, images=images
            )
        head = head_of(policy)
        config = head.config
        require_counts(tokens=tokens if tokens is not None else TOKENS, batch=batch)
        free = (None, "tokens") if tokens is None else ()
        prompt = (batch, tokens if tokens is not None else TOKENS)
        features = (*prompt, int(config.backbone_embedding_dim))
        return [
            InputSpec("backbone_features", features, "float32", Gaussian(), free and (*free, None)),
            InputSpec("backbone_attention_mask", prompt, "bool", PromptMask(padding="left"), free),
            InputSpec("image_mask", prompt, "bool", ImageTokenMask(), free),
            *_action_inputs(head, batch, embodiment),
        ]

    def _whole_inputs(
        self, policy: Any, *, tokens: int | None, batch: int, embodiment: int | None, images: int
    ) -> list[InputSpec]:
        require_counts(images=images, batch=batch)
        model, head = model_of(policy), head_of(policy)
        grid, ids = Grid(model, images), backbone_of(model).model.config
        seen = VisionPromptMask(images, grid.tokens)
        tokens = tokens if tokens is not None else seen.least + TEXT
        require_counts(tokens=tokens)
        special = (ids.image_token_id, ids.video_token_id, ids.vision_start_token_id, ids.vision_end_token_id)
        text = VisionPromptTokens(images, grid.tokens, min(special), ids.image_token_id, "attention_mask")
        patches = (batch * images * grid.patches, grid.values)
        return [
            InputSpec("pixel_values", patches, "float32", Image()),
            InputSpec("attention_mask", (batch, tokens), "int64", seen),
            InputSpec("input_ids", (batch, tokens), "int64", text),
            *_action_inputs(head, batch, embodiment),
        ]

    def sample(
        self,
        policy: Any,
        named: Mapping[str, torch.Tensor],
        steps: int | None,
        *,
        embodiment: int | None = None,
        images: int | None = None,
    ) -> torch.Tensor:
        """``get_action`` of the head, whole, with its noise and its number of steps as asked for.

        With ``images`` on what the backbone's own ``forward`` gives, as in the model's own ``get_action``,
        which asks for a package besides to move its inputs to their device.
        """
        head = head_of(policy)
        batch = named["noise"].shape[0]
        ids = named["embodiment_id"] if embodiment is None else torch.full((batch,), embodiment)
        with set_to(head, "num_inference_timesteps", steps):
            seen = (
                _seen(policy, named, images) if images is not None else _batch(**{n: named[n] for n in _SEEN})
            )
            with given_draws(named["noise"]):
                action = head.get_action(seen, _batch(state=named["state"], embodiment_id=ids))
        actions: torch.Tensor = action["action_pred"]
        return actions

    def flow(self, policy: Any, *, embodiment: int | None = None, images: int | None = None) -> FlowPolicy:
        """The action head's two halves, or the whole model's; ``embodiment`` is the one that is baked in."""
        if images is not None:
            return WholeGrootFlow(policy, images, embodiment=embodiment)
        return GrootFlow(policy, embodiment=embodiment)

    def own_call(self, policy: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        whole = options.get("images") is not None
        return {name: value for name, value in options.items() if whole or name != "images"}

    def held(self, policy: torch.nn.Module, **kept: Any) -> torch.nn.Module:
        if kept.get("images") is None:
            return self.owner(policy)
        backbone_of(policy)  # said before anything is run
        model: torch.nn.Module = model_of(policy)
        return model

    def steps(self, policy: Any) -> int:
        return int(head_of(policy).num_inference_timesteps)

    def reader(self, policy: Any) -> torch.nn.Module:
        reader: torch.nn.Module = head_of(policy).action_encoder
        return reader

    def owner(self, policy: torch.nn.Module) -> torch.nn.Module:
        head: torch.nn.Module = head_of(policy)
        return head


FAMILY = Groot()
load, reference, inputs, flow, export = (
    FAMILY.load, FAMILY.reference, FAMILY.inputs, FAMILY.flow, FAMILY.export,
)  # fmt: skip
