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
        outputs: names of the states that are what the policy says.
        steps: how many steps there are at most, whatever ``going`` says: no wrong graph goes on for ever.
    """

    outputs: tuple[str, ...] = ("tokens",)
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
        """The whole policy in PyTorch: its outputs by name, for the named inputs."""
        held = self.prefill(**inputs)
        for _ in range(self.steps):
            if not bool(held.pop(GOING)):
                break
            held |= self.step(**held)
        return {name: held[name] for name in self.outputs}


class CachedDecoding(DecodingPolicy):
    """One that decodes greedily, with a cache of keys and values which has room for all tokens.

    Beside its ``tokens`` it gives their ``scores``, the logit of each: a wrong value moves a logit long
    before it makes another token the largest, so that equal tokens alone would let many a wrong graph pass.

    Attributes:
        count: how many tokens there are room for.
        end: the token after which a row has no more to say.
    """

    outputs = ("tokens", "scores")
    count: int
    end: int

    @abstractmethod
    def prompt(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The observation embedded, [B, S, E]; what of it sees what, [B, S, S] bool; what of it is there and
        no padding, [B, S] bool."""

    @abstractmethod
    def embedded(self, token: torch.Tensor) -> torch.Tensor:
        """A token, [B, 1], as it is read: [B, 1, E]."""

    @abstractmethod
    def said(
        self,
        embeds: torch.Tensor,
        seen: torch.Tensor,
        positions: torch.Tensor,
        cache: Context,
        here: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Context]:
        """The logits of the token after these, [B, vocabulary], and the cache of all before it.

        Args:
            embeds: [B, N, E].
            seen: what each of them sees, [B, N, S + count - 1] bool; of a prompt [B, S, S].
            positions: [B, N].
            cache: keys and values by name, each [B, heads, S + count - 1, D]; none before the prompt.
            here: which place of the cache is the token's, [S + count - 1, 1] bool; none of a prompt.
        """

    def prefill(self, **inputs: torch.Tensor) -> Context:
        embeds, seen, pad_masks = self.prompt(**inputs)
        logits, cache = self.said(embeds, seen, torch.cumsum(pad_masks, dim=1) - 1, {})
        room = (0, 0, 0, self.count - 1)
        held = {name: torch.nn.functional.pad(value, room) for name, value in cache.items()}
        score, token = logits.max(dim=-1, keepdim=True)
        said = {
            "tokens": torch.nn.functional.pad(token, (0, self.count - 1)),
            "scores": torch.nn.functional.pad(score, (0, self.count - 1)),
        }
        place = torch.ones((), dtype=torch.long)
        return {**held, "pad_masks": pad_masks, **said, **self._states(place, token, token < 0)}

    def step(  # type: ignore[override]
        self,
        *,
        place: torch.Tensor,  # [] how many tokens there are
        token: torch.Tensor,  # [B, 1] the last of them
        tokens: torch.Tensor,  # [B, T]
        scores: torch.Tensor,  # [B, T] the logit of each
        finished: torch.Tensor,  # [B, 1] bool
        pad_masks: torch.Tensor,  # [B, S] bool
        **cache: torch.Tensor,
    ) -> Context:
        there = torch.arange(self.count - 1) < place  # the last one's keys are about to be
        seen = torch.cat([pad_masks, there.expand(pad_masks.shape[0], -1)], dim=1)
        here = torch.arange(seen.shape[1]) == pad_masks.shape[1] + place - 1
        positions = torch.sum(seen, dim=1, keepdim=True) - 1
        logits, cache = self.said(self.embedded(token), seen[:, None], positions, cache, here[:, None])
        score, token = logits.max(dim=-1, keepdim=True)
        now = torch.arange(self.count) == place
        said = {"tokens": torch.where(now, token, tokens), "scores": torch.where(now, score, scores)}
        return {**cache, **said, **self._states(place + 1, token, finished)}

    def _states(self, place: torch.Tensor, token: torch.Tensor, finished: torch.Tensor) -> Context:
        finished = finished | (token == self.end)
        return {"place": place, "token": token, "finished": finished, GOING: ~finished.all()}
