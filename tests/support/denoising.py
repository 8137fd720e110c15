"""A small policy around a scheduler of diffusers': its own sampler is the loop that the library documents."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from exporters import FlowPolicy
from exporters.families.given_draws import given_draws
from exporters.flow.diffusion import DiffusionSchedule
from pytest_reflex.inputs import Gaussian, InputSpec, State

CHUNK, DIM = 6, 3


class Painter(FlowPolicy):
    """Its halves; :meth:`sample_actions` is what they are judged against, and asks the scheduler alone."""

    def __init__(self, scheduler: Any, steps: int, *, eta: float = 0.0, kept: slice | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scheduler, self.eta, self.kept, self.steps = scheduler, eta, kept, steps
        self.schedule = DiffusionSchedule(scheduler, eta=eta)
        self.see, self.read = nn.Linear(4, 16), nn.Linear(DIM, 16)
        self.say = nn.Sequential(nn.Tanh(), nn.Linear(16, DIM))

    def prefix(self, state: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"seen": self.see(state)}

    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        when = torch.sin(time[:, None, None] * 0.37)
        return 2.0 * self.say(self.read(x_t) + seen[:, None] + when)

    def sample_actions(
        self, state: torch.Tensor, noise: torch.Tensor, step_noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.walked(state, noise, step_noise)[-1]

    def walked(
        self, state: torch.Tensor, noise: torch.Tensor, step_noise: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """``x`` after each step of the library's own loop."""
        context, x, states = self.prefix(state), noise, []
        self.scheduler.set_timesteps(self.steps)
        more = {"eta": self.eta} if self.eta else {}
        with given_draws(*(step_noise.unbind(1) if step_noise is not None else ())):
            for t in self.scheduler.timesteps:
                said = self.velocity(x, torch.full(x.shape[:1], t, dtype=torch.long), **context)
                x = self.scheduler.step(said, t, x, **more).prev_sample
                states.append(x if self.kept is None else x[:, self.kept])
        return states


def inputs(painter: Painter, batch: int = 2) -> list[InputSpec]:
    draws = painter.loop().schedule.draws
    shapes = {"noise": (batch, CHUNK, DIM), "step_noise": (batch, draws, CHUNK, DIM)}
    drawn = [InputSpec(name, shape, meaning=Gaussian()) for name, shape in shapes.items() if all(shape)]
    return [InputSpec("state", (batch, 4), meaning=State()), *drawn]
