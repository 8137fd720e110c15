"""DecodingPolicy: a policy that says its actions in tokens, one after the other.

It reads the observation once (the *prefill*), and with it comes the first token; then it says one more for
as long as it has more to say (the *step*). What grows while it speaks, its cache and its tokens, has its full
size from the start, so that a graph can hold it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

import torch
from torch import nn

from exporters.flow.policy import Context

# The state that says whether there is one more step, a bool without a shape.
GOING: Final = "going"


class DecodingPolicy(nn.Module, ABC):
    """A policy's own submodules, called in two halves, which are what is traced.

    Attributes:
        output: name of the state that is what the policy says.
        steps: how many steps there are at most, whatever ``going`` says: no wrong graph goes on for ever.
    """

    output: str = "tokens"
    steps: int

    @abstractmethod
    def prefill(self, **inputs: torch.Tensor) -> Context:
        """What is held after the first token, by name: the states, ``going`` among them, and what else the
        steps read."""

    @abstractmethod
    def step(self, **held: torch.Tensor) -> Context:
        """The states, ``going`` among them, after one more token, of the dtypes and shapes that they had.

        Called with all that :meth:`prefill` gave, but ``going``, the states as the step before left them.
        """

    def forward(self, **inputs: torch.Tensor) -> Context:
        """The whole policy in PyTorch: ``{output: tokens}`` for the named inputs."""
        held = self.prefill(**inputs)
        for _ in range(self.steps):
            if not bool(held.pop(GOING)):
                break
            held |= self.step(**held)
        return {self.output: held[self.output]}
