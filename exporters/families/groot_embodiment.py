"""GR00T's action head for one embodiment: its weights alone, in place of a table of all embodiments'."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class OneEmbodiment(nn.Module):
    """``CategorySpecificLinear`` for one category: ``x @ W + b``, with no table to look up.

    Args:
        table: the layer whose ``W`` [categories, in, out] and ``b`` [categories, out] are shared.
        embodiment: which category.
    """

    def __init__(self, table: Any, embodiment: int) -> None:
        super().__init__()
        self.W = nn.Parameter(table.W.detach()[embodiment], requires_grad=False)
        self.b = nn.Parameter(table.b.detach()[embodiment], requires_grad=False)

    def forward(self, x: torch.Tensor, cat_ids: torch.Tensor | None = None) -> torch.Tensor:
        return torch.matmul(x, self.W) + self.b


def one_embodiment(head: nn.Module, embodiment: int) -> nn.Module:
    """A twin of ``head`` that shares its weights and knows one embodiment only; ``head`` stays as it is."""
    from lerobot.policies.groot.groot_n1_7 import CategorySpecificLinear

    # What the memo holds is taken for a copy already made: no weight is copied.
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*head.parameters(), *head.buffers())}
    for layer in head.modules():
        if isinstance(layer, CategorySpecificLinear):
            memo[id(layer)] = OneEmbodiment(layer, embodiment)
    twin: nn.Module = copy.deepcopy(head, memo)
    return twin.eval()
