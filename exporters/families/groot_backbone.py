"""GR00T N1.7's vision-language backbone, as lerobot has it: Qwen3-VL up to the layer that the head reads.

lerobot's ``Qwen3Backbone`` decides by the values of its inputs how large its images are and where they stand
in the prompt, which no graph can. How large they are is fixed by an export; where they stand is counted from
the mask of image tokens. All that computes with weights are the model's own submodules, in the order in
which its own ``forward`` calls them, and the whole is judged against that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from pytest_reflex.errors import InputError, ReflexError, a_type

__all__ = ["Grid", "GrootBackbone", "backbone_of", "model_of"]


class Grid:
    """How each image of a prompt is cut into patches; all are of the size that the model's processor makes.

    Args:
        model: lerobot's ``GR00TN17``.
        images: how many images a prompt has.

    Raises:
        InputError: the configuration's ``image_target_size`` is not cut into whole merged patches.
    """

    def __init__(self, model: Any, images: int) -> None:
        vision = backbone_of(model).visual.config
        self.images, self.merge = images, int(vision.spatial_merge_size)
        sides = [int(side) for side in model.config.image_target_size]
        whole = int(vision.patch_size) * self.merge
        if any(side % whole for side in sides):
            raise InputError(
                f"image_target_size is {sides}, expected multiples of {whole}, a merged patch; "
                "set it in the model's configuration"
            )
        self.height, self.width = (side // int(vision.patch_size) for side in sides)
        self.patches = self.height * self.width
        self.tokens = self.patches // self.merge**2
        self.values = int(vision.in_channels * vision.temporal_patch_size * vision.patch_size**2)

    def rows(self, images: int) -> torch.Tensor:
        """``image_grid_thw`` of so many images, [images, 3]."""
        return torch.tensor([[1, self.height, self.width]] * images)


def model_of(policy: Any) -> Any:
    """lerobot's ``GR00TN17``: inside of its policy, or given as it is."""
    return getattr(policy, "_groot_model", policy)


def backbone_of(policy: Any) -> Any:
    """lerobot's ``Qwen3Backbone``: inside of its policy, or of its model.

    Raises:
        ReflexError: there is none, as in an action head alone.
    """
    backbone = getattr(model_of(policy), "backbone", None)
    if backbone is None or not hasattr(backbone, "language_model"):
        raise ReflexError(
            f"{a_type(policy)} has no vision-language backbone; give lerobot's GrootPolicy or "
            "GR00TN17, or leave the images out and export the action head alone"
        )
    return backbone


class GrootBackbone(nn.Module):
    """Tokens and patches in, features out.

    Args:
        backbone: lerobot's ``Qwen3Backbone``.
        grid: how its images are cut.
    """

    places: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, backbone: Any, grid: Grid) -> None:
        super().__init__()
        self.backbone = backbone
        self.grid = grid
        # Of an image's size alone: the model's own functions, asked once.
        rows = grid.rows(1)
        with torch.no_grad():
            places = backbone.visual.fast_pos_embed_interpolate(rows)
            angles = backbone.visual.rot_pos_emb(rows).reshape(len(places), -1)
            angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("places", places.detach().clone(), persistent=False)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(
        self,
        input_ids: torch.Tensor,  # [B, S] int64
        attention_mask: torch.Tensor,  # [B, S] int64
        pixel_values: torch.Tensor,  # [B * images * patches, values]
    ) -> dict[str, torch.Tensor]:
        model = self.backbone.model.model
        image = input_ids == self.backbone.model.config.image_token_id
        seen = attention_mask == 1
        merged, deep = self._pictures(pixel_values)
        # The n-th image token of all rows is the n-th merged patch.
        rank = image.flatten().long().cumsum(0).reshape(image.shape) - 1
        rank = rank.clamp(min=0)
        hidden = torch.where(image[..., None], merged[rank], model.get_input_embeddings()(input_ids))
        hidden = self._read(
            hidden, attention_mask, self.positions(image, seen), image, [d[rank] for d in deep]
        )
        return {"backbone_features": hidden, "backbone_attention_mask": seen, "image_mask": image}

    def _pictures(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """``Qwen3VLVisionModel.forward``: the merged patches, and those that deeper layers add."""
        visual: Any = self.backbone.visual
        images = pixel_values.shape[0] // self.grid.patches
        tables: tuple[torch.Tensor, ...] = (self.places, self.cos, self.sin)
        places, *angles = (table.repeat(images, 1) for table in tables)
        # numpy's integers: the blocks split by them, so that they have to be known while they are traced.
        ends = np.arange(images + 1, dtype=np.int32) * self.grid.patches
        hidden = visual.patch_embed(pixel_values) + places
        deep = []
        for number, block in enumerate(visual.blocks):
            hidden = block(hidden, cu_seqlens=ends, position_embeddings=tuple(angles))
            if number in visual.deepstack_visual_indexes:
                merger = visual.deepstack_merger_list[visual.deepstack_visual_indexes.index(number)]
                deep.append(merger(hidden))
        return visual.merger(hidden), deep

    def _read(
        self,
        hidden: torch.Tensor,
        attention_mask: torch.Tensor,
        positions: torch.Tensor,
        image: torch.Tensor,
        deep: list[torch.Tensor],
    ) -> torch.Tensor:
        """``Qwen3VLTextModel.forward`` up to what its last layer gives, before the final norm."""
        from transformers.masking_utils import create_causal_mask

        text = self.backbone.language_model
        mask = create_causal_mask(
            config=text.config, inputs_embeds=hidden, attention_mask=attention_mask, past_key_values=None,
            position_ids=positions[0],
        )  # fmt: skip
        rotary = text.rotary_emb(hidden, positions)
        for number, layer in enumerate(text.layers):
            if 0 < number <= len(deep):
                hidden = torch.where(image[..., None], hidden + deep[number - 1], hidden)
            hidden = layer(
                hidden, attention_mask=mask, position_ids=positions[0], past_key_values=None,
                position_embeddings=rotary,
            )  # fmt: skip
        return hidden

    def positions(self, image: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Where each token stands in time, height and width, [3, B, S]: ``Qwen3VLModel.get_rope_index``.

        A text token is one further than what is before it; an image is a square of places that begin there
        together, and what comes after it begins beyond its longer side. Padding is at 0.
        """
        grid = self.grid
        high, wide = grid.height // grid.merge, grid.width // grid.merge
        text = (seen & ~image).long()
        before = text.cumsum(1) - text
        rank = image.long().cumsum(1) - image.long()
        whole = rank.div(grid.tokens, rounding_mode="floor")
        begin = before + whole * max(high, wide)
        inside = rank - whole * grid.tokens
        row = inside.div(wide, rounding_mode="floor")
        found = [begin, begin + image * row, begin + image * (inside - row * wide)]
        return torch.stack(found) * seen
