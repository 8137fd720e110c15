"""A robot's own loop over chunks, right or with its own idea of what it tells the policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pytest_reflex.inputs import Chain, left_over
from pytest_reflex.runners import RunnerBase

# (chunk, what it is told, what was left before each chunk so far) -> what it is told otherwise.
Tells = Callable[[int, dict[str, Any], list[Any]], dict[str, Any]]


class Robot(RunnerBase):
    """Runs a chain as a robot does: what is left of a chunk goes into the next."""

    def __init__(self, runner: Any, drawn: Chain, tells: Tells) -> None:
        self.name, self.runner, self.drawn, self.tells = "robot", runner, drawn, tells

    def open(self) -> None:
        self.runner.open()

    def close(self) -> None:
        self.runner.close()

    def facts(self) -> dict[str, Any]:
        return {"kind": "robot"}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        previous = self.drawn.previous
        planned, left = [], [inputs[previous]]
        for chunk, used in enumerate(self.drawn.used):
            if chunk:
                left.append(left_over(planned[-1], used))
            told = {name: array[chunk] for name, array in inputs.items() if name != previous}
            told[previous] = left[-1]
            gave = self.runner.run({**told, **self.tells(chunk, told, left)})
            planned.append(gave[self.drawn.output])
        return {self.drawn.output: np.stack(planned)}


def honest(chunk: int, told: dict[str, Any], left: list[Any]) -> dict[str, Any]:
    return {}


def wrong_delay(breaks: int) -> Tells:
    def tells(chunk: int, told: dict[str, Any], left: list[Any]) -> dict[str, Any]:
        delay, horizon = int(told["inference_delay"]), int(told["execution_horizon"])
        other = delay + 1 if delay < horizon else 0
        return {"inference_delay": np.asarray(other)} if chunk >= breaks and horizon else {}

    return tells


def shifted_horizon(breaks: int) -> Tells:
    def tells(chunk: int, told: dict[str, Any], left: list[Any]) -> dict[str, Any]:
        horizon = int(told["execution_horizon"])
        return {"execution_horizon": np.asarray(horizon - 1)} if chunk >= breaks and horizon else {}

    return tells


def stale_chunk(breaks: int) -> Tells:
    return lambda chunk, told, left: {"prev_chunk": left[-2]} if chunk == breaks else {}


def chunk_not_moved_up(breaks: int) -> Tells:
    return lambda chunk, told, left: (
        {"prev_chunk": np.roll(told["prev_chunk"], 1, axis=1)} if chunk == breaks else {}
    )


FAULTS: dict[str, Callable[[int], Tells]] = {
    "wrong delay": wrong_delay,
    "shifted horizon": shifted_horizon,
    "stale previous chunk": stale_chunk,
    "chunk not moved up": chunk_not_moved_up,
}
