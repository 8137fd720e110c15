"""What tests of serving share: a small policy with every kind of input, a server process, a plain client."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from websockets.sync.client import ClientConnection, connect

from exporters import FlowPolicy, export
from pytest_reflex.inputs import CameraMask, Gaussian, Image, InputSpec, PromptMask, State, Tokens
from pytest_reflex.runners import wire

ROOT = Path(__file__).resolve().parents[2]
INPUTS = [
    InputSpec("image", (1, 3, 8, 8), meaning=Image()),
    InputSpec("camera", (1, 2), "bool", meaning=CameraMask()),
    InputSpec("prompt_mask", (1, 4), "bool", meaning=PromptMask()),
    InputSpec("prompt", (1, 4), "int64", meaning=Tokens(vocab=11, mask="prompt_mask")),
    InputSpec("state", (1, 3), meaning=State()),
    InputSpec("noise", (1, 5, 3), meaning=Gaussian()),
]


class Small(FlowPolicy):
    """Every kind of input changes its actions."""

    steps = 3

    def __init__(self) -> None:
        super().__init__()
        self.see, self.feel = nn.Linear(192, 8), nn.Linear(3, 8)
        self.look, self.read = nn.Linear(2, 8), nn.Embedding(11, 8)
        self.head = nn.Sequential(nn.Linear(12, 16), nn.SiLU(), nn.Linear(16, 3))

    def prefix(
        self,
        image: torch.Tensor,
        camera: torch.Tensor,
        prompt_mask: torch.Tensor,
        prompt: torch.Tensor,
        state: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        words = (self.read(prompt) * prompt_mask[..., None].float()).sum(1)
        seen = self.see(image.flatten(1)) + self.look(camera.float())
        return {"seen": torch.tanh(seen + self.feel(state) + words)}  # [B, 8]

    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        when = time[:, None, None].expand(-1, x_t.shape[1], 1)
        return self.head(torch.cat([x_t, when, seen[:, None].expand(-1, x_t.shape[1], -1)], -1))


def policy(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small().eval()


def made(place: Path, *, layout: str = "unrolled", seed: int = 0, **options: Any) -> Path:
    """A bundle of the small policy."""
    return export(policy(seed), place, inputs=INPUTS, layout=layout, fixtures=3, **options).path


def around(**more: str) -> dict[str, str]:
    """An environment in which this machine is reached directly and no key lies about."""
    unwanted = ("proxy", "reflex_api_key")
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith(unwanted)}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]), **more}


@dataclass(frozen=True)
class Serving:
    """A server that serves."""

    process: subprocess.Popen[str]
    proven: str
    line: str

    @property
    def url(self) -> str:
        return self.line.rpartition(" ")[2]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Its exit code and what it said on stderr."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@contextlib.contextmanager
def serving(*arguments: object, command: list[str] | None = None, **more: str) -> Iterator[Serving]:
    """``reflex serve`` with these arguments on a free port, in a process of its own."""
    command = command or [sys.executable, "-m", "pytest_reflex", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=around(**more),
    )
    try:
        assert process.stdout is not None
        proven, line = process.stdout.readline().strip(), process.stdout.readline().strip()
        if not line.startswith("serving "):
            _, said = process.communicate(timeout=60)
            raise AssertionError(f"exit {process.returncode}: {proven}\n{line}\n{said}")
        yield Serving(process, proven, line)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def client(url: str, **options: Any) -> Iterator[ClientConnection]:
    """A connection whose metadata was read."""
    with connect(url, compression=None, proxy=None, max_size=None, **options) as connection:
        connection.recv(timeout=30)
        yield connection


def asked(connection: ClientConnection, message: Mapping[str, Any] | bytes | str) -> Any:
    """The answer to a message: the decoded map, or the text that it was."""
    packed = message if isinstance(message, bytes | str) else wire.encode(message)
    connection.send(packed)
    reply = connection.recv(timeout=30)
    return reply if isinstance(reply, str) else wire.decode(reply)


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
