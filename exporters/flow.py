"""FlowPolicy: a flow-matching policy as two halves and a schedule.

A policy of this kind looks at the observation once (the *prefix*) and then walks noise to actions
along a learnt velocity (the *step*, N times). Whoever wraps a policy says what the halves are;
everything else, the loop included, is done here and in :mod:`exporters.compose`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

Context = dict[str, torch.Tensor]


@dataclass(frozen=True)
class EulerSchedule:
    """Equal Euler steps from ``start`` to ``end``: ``x += dt * velocity(x, t)`` with ``t = start + i * dt``.

    ``dt = (end - start) / steps`` and ``t`` are counted in Python floats and rounded once, to
    float32, where a tensor is made of them. That is how lerobot's ``euler_integrate`` and
    transformers' ``PI0ForConditionalGeneration.sample_actions`` count; adding ``dt`` up in float32
    gives other last bits.

    Attributes:
        start: time of the first step, where ``x`` is noise.
        end: time after the last step, where ``x`` is actions.
    """

    start: float = 1.0
    end: float = 0.0

    kind = "euler"

    def dt(self, steps: int) -> float:
        """The step's length, a float64."""
        return (self.end - self.start) / steps

    def time(self, index: int, steps: int) -> float:
        """The time of step ``index``, a float64 that the policy sees as float32."""
        return self.start + index * self.dt(steps)

    def to_json(self) -> dict[str, object]:
        return {"kind": self.kind, "start": self.start, "end": self.end}

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> EulerSchedule:
        if stored.get("kind") != cls.kind:
            raise ValueError(f"schedule kind is {stored.get('kind')!r}, expected {cls.kind!r}")
        return cls(start=float(stored["start"]), end=float(stored["end"]))  # type: ignore[arg-type]


class FlowPolicy(nn.Module, ABC):
    """A policy's own submodules, called in two halves.

    Subclasses hold the upstream policy as a submodule and write :meth:`prefix` and
    :meth:`velocity` with its parts. They are what is traced; what is *true* remains the upstream
    policy, whole, and the split is judged against it like any other export.

    Attributes:
        schedule: how the loop counts its time.
        noise: name of the input that holds the initial ``x``.
        output: name of what the loop gives.
    """

    schedule: EulerSchedule = EulerSchedule()
    noise: str = "noise"
    output: str = "actions"

    @abstractmethod
    def prefix(self, **observation: torch.Tensor) -> Context:
        """What every step needs of the observation, by name: keys, values, masks, the state.

        Called with every input except the noise, by keyword.
        """

    @abstractmethod
    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, **context: torch.Tensor) -> torch.Tensor:
        """The velocity at ``x_t`` ``[batch, chunk, dim]`` and ``time`` ``[batch]`` float32, shaped like ``x_t``."""
