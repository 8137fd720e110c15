"""A small flow policy that learns to reach: behaviour cloning of a scripted reach on a simulated Panda.

``python examples/reach.py DIRECTORY`` trains it in minutes on two cores, says how often it succeeds, and
writes ``reach.safetensors`` and the bundle ``reach`` there. With ``--camera`` it is told nothing of where
the block lies and has to see it. ``--env aloha-reach`` learns the other arm.
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from exporters import FlowPolicy, export
from pytest_reflex.inputs import Gaussian, Image, InputSpec, State
from pytest_reflex.judge.rollout.environments import environment_named

# The share of what is left of the way that the script goes, a second.
GAIN = 4.0
CHUNK, HZ, SECONDS, EXECUTE, PIXELS = 16, 30.0, 5.0, 8, 32
# Of each arm: how many values its whole state has, and where in it the place of what is reached for begins.
STATES = {"panda-reach": (21, 18), "aloha-reach": (32, 29)}
ACTIONS = {"panda-reach": 8, "aloha-reach": 14}
# How hard the script is pushed about, in parts of an action.
PUSHES = {"panda-reach": 0.3, "aloha-reach": 0.03}


class Reach(FlowPolicy):
    """State, or state and one camera, in; a chunk of 16 actions out."""

    def __init__(self, env: str = "panda-reach", camera: bool = False, width: int = 256) -> None:
        super().__init__()
        self.env, self.camera = env, camera
        told, place = STATES[env]
        self.reads, actions = place if camera else told, ACTIONS[env]
        if camera:
            self.see = nn.Sequential(
                nn.Conv2d(3, 16, 4, stride=2), nn.SiLU(), nn.Conv2d(16, 32, 4, stride=2), nn.SiLU(),
                nn.Flatten(), nn.Linear(32 * 6 * 6, width),
            )  # fmt: skip
        self.feel = nn.Sequential(nn.Linear(self.reads, width), nn.SiLU(), nn.Linear(width, width))
        self.embed = nn.Linear(CHUNK * actions + 1, width)
        self.head = nn.Sequential(
            nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, CHUNK * actions)
        )

    @property
    def inputs(self) -> list[InputSpec]:
        """What it reads."""
        image = [InputSpec("image", (1, 3, PIXELS, PIXELS), meaning=Image())] if self.camera else []
        noise = InputSpec("noise", (1, CHUNK, ACTIONS[self.env]), meaning=Gaussian())
        return [*image, InputSpec("state", (1, self.reads), meaning=State()), noise]

    def prefix(self, state: torch.Tensor, image: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        seen = self.feel(state)  # [B, width]
        return {"seen": seen if image is None else seen + self.see(image)}

    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        # On a straight way the velocity follows from where it ends, which is what the network says: the last
        # step then leaves nothing of the noise, for an arm that holds still must not shiver.
        return (x_t - self.actions(x_t, time, seen)) / time[:, None, None]

    def actions(self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """The actions that are meant, as far as they can be seen through the noise, [B, T, D]."""
        flat = torch.cat([x_t.flatten(1), time[:, None]], dim=-1)  # [B, T * D + 1]
        return self.head(self.embed(flat) + seen).reshape(x_t.shape)


def script(arm: Any) -> np.ndarray:
    """The action of who knows where the block is: damped least squares towards it, by the arm's Jacobian."""
    import mujoco

    places = np.zeros((3, arm.model.nv))
    if arm.name == "panda-reach":
        tip = arm.model.site("pinch").id
        mujoco.mj_jacSite(arm.model, arm.data, places, None, tip)
        away, columns = arm.goal() - arm.data.site_xpos[tip], arm.speed_at
    else:
        hand = arm.model.body("vx300s_right/left_finger_link").id
        mujoco.mj_jacBody(arm.model, arm.data, places, None, hand)
        away, columns = arm.goal() - arm.pose()["tip"][3:] / 1e3, arm.speed_at[6:]
    jacobian = places[:, columns]
    away = away * min(1.0, 0.25 / (math.hypot(*away) + 1e-9))  # no faster than from a quarter of a metre
    turn = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-3 * np.eye(3), away)
    if arm.name == "panda-reach":
        return np.concatenate([np.clip(GAIN * turn / 1.5, -1, 1), [-1.0]])
    now = arm.hold()
    now[7:13] = np.clip(now[7:13] + GAIN * turn / HZ, -1, 1)
    return now


def demonstrations(env: str, camera: bool, starts: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Images, states and chunks of the script, which is pushed about so that it has to come back."""
    arm = environment_named(env)(HZ)
    rng = np.random.default_rng(seed)
    images, states, chunks = [], [], []
    for start in range(starts):
        arm.reset(10_000 + start)
        seen, felt, did = [], [], []
        for step in range(round(SECONDS * HZ)):
            action = script(arm)
            if step % 4 == 0:
                felt.append(np.asarray(arm.state(), np.float32))
                if camera:
                    seen.append(arm.image(arm.cameras[0], PIXELS, PIXELS))
            did.append(action)
            pushed = rng.normal(0, PUSHES[env], len(action)) if start % 2 and step // 15 % 2 else 0.0
            arm.step(action + pushed)
        for at in range(0, len(did) - CHUNK, 4):
            states.append(felt[at // 4])
            chunks.append(did[at : at + CHUNK])
            if camera:
                images.append(seen[at // 4])
    arm.close()
    pixels = np.stack(images).transpose(0, 3, 1, 2) if camera else np.zeros(0)
    pictures = pixels.astype(np.float32) / 127.5 - 1
    return tuple(torch.tensor(np.asarray(a, np.float32)) for a in (pictures, states, chunks))


def trained(env: str = "panda-reach", camera: bool = False, *, starts: int = 200, epochs: int = 40,
            seed: int = 0) -> Reach:  # fmt: skip
    """A policy that reaches, from the same seed the same one on the same machine.

    Flow matching as in Lipman et al., 2023, on a straight way from the actions, at time 0, to noise, at 1;
    what is learned is the way's end, from which the velocity follows.
    """
    images, states, chunks = demonstrations(env, camera, starts, seed)
    torch.manual_seed(seed)
    policy = Reach(env, camera)
    states = states[:, : policy.reads]
    optimizer = torch.optim.AdamW(policy.parameters(), 1e-3, weight_decay=1e-4)
    batches = -(-len(states) // 256)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * batches)
    for _ in range(epochs):
        for batch in torch.randperm(len(states)).split(256):
            actions, noise = chunks[batch], torch.randn(chunks[batch].shape)
            time = torch.rand(len(batch))
            x_t = time[:, None, None] * noise + (1 - time[:, None, None]) * actions
            shown = {"image": images[batch]} if camera else {}
            meant = policy.actions(x_t, time, **policy.prefix(states[batch], **shown))
            loss = ((meant - actions) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return policy.eval()


def succeeds(policy: Reach, starts: int = 20, seconds: float = SECONDS) -> float:
    """In what share of starts that it never saw it does the job."""
    return share_done(policy.own_runner(), policy.inputs, policy.env, starts, seconds)


def share_done(runner: Any, inputs: list[InputSpec], env: str, starts: int, seconds: float) -> float:
    """The same of what runs any policy that reads these."""
    from pytest_reflex.judge.rollout.driving import Terms, drive
    from pytest_reflex.judge.rollout.observing import Observing

    arm, observing = environment_named(env)(HZ), Observing(inputs, 0)
    terms = Terms(seconds, HZ, EXECUTE, 0)
    with runner:
        done = [
            drive("policy", runner.run, arm, observing, terms, start).succeeded for start in range(starts)
        ]
    arm.close()
    return sum(map(bool, done)) / starts


def policy() -> Reach:
    """The policy of ``REACH``, the directory that was written; for ``reflex rollout --model``."""
    place = Path(os.environ["REACH"])
    weights = load_file(place / "reach.safetensors")
    env = "panda-reach" if weights["head.3.bias"].numel() == CHUNK * 8 else "aloha-reach"
    made = Reach(env, "see.0.weight" in weights)
    made.load_state_dict(weights)
    return made.eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--env", choices=sorted(STATES), default="panda-reach")
    parser.add_argument("--camera", action="store_true")
    parser.add_argument("--starts", type=int, default=200, help="demonstrations")
    parser.add_argument("--epochs", type=int, default=40)
    told = parser.parse_args()
    learned = trained(told.env, told.camera, starts=told.starts, epochs=told.epochs)
    told.directory.mkdir(parents=True, exist_ok=True)
    save_file(learned.state_dict(), told.directory / "reach.safetensors")
    print(f"it succeeds in {succeeds(learned):.0%} of 20 starts")
    export(learned, told.directory / "reach", inputs=learned.inputs)
