"""FlowPolicy: a flow-matching policy as two halves and a schedule.

A policy of this kind looks at the observation once (the *prefix*) and then walks noise to actions
along a learnt velocity (the *step*, N times). Whoever wraps a policy says what the halves are;
everything else, the loop included, is done here and in :mod:`exporters.compose`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from exporters.schedule import EulerSchedule, Schedule

Context = dict[str, torch.Tensor]


class FlowPolicy(nn.Module, ABC):
    """A policy's own submodules, called in two halves.

    Subclasses hold the upstream policy as a submodule and write :meth:`prefix` and
    :meth:`velocity` with its parts. They are what is traced; what is *true* remains the upstream
    policy, whole, and the split is judged against it like any other export.

    A policy that has no other implementation is its own reference: called as a module, it runs the
    loop in PyTorch.

    Attributes:
        steps: how many steps the loop takes.
        schedule: how the loop counts its time.
        noise: name of the input that holds the initial ``x``.
        output: name of what the loop gives.
    """

    steps: int = 10
    schedule: Schedule = EulerSchedule()
    noise: str = "noise"
    output: str = "actions"

    @abstractmethod
    def prefix(self, **observation: torch.Tensor) -> Context:
        """What every step needs of the observation, by name: keys, values, masks, the state.

        Called with every input except the noise, by keyword.
        """

    @abstractmethod
    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, **context: torch.Tensor) -> torch.Tensor:
        """The velocity, shaped like ``x_t`` ``[batch, chunk, dim]``, at ``time`` ``[batch]`` float32."""

    def forward(self, **inputs: torch.Tensor) -> Context:
        """The whole policy in PyTorch: ``{output: actions}`` for the named inputs, noise included."""
        x = inputs.pop(self.noise)
        context = self.prefix(**inputs)
        dt = self.schedule.dt(self.steps)
        for index in range(self.steps):
            now = self.schedule.time(index, self.steps)
            time = torch.full(x.shape[:1], now, dtype=torch.float32, device=x.device)
            x = x + dt * self.velocity(x, time, **context)
        return {self.output: x}
