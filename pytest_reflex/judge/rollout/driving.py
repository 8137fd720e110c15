"""One side drives one copy of an environment through one start."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_reflex.errors import ReflexError, RunnerError
from pytest_reflex.judge.rollout.environments import Environment, Unstable
from pytest_reflex.judge.rollout.observing import Observing

__all__ = ["Ended", "Plan", "Terms", "Way", "drive"]

Array = np.ndarray[Any, Any]
Ask = Callable[[Mapping[str, Array]], Mapping[str, Array]]


class Ended(ReflexError):
    """A start that could not be driven to its end."""


@dataclass(frozen=True)
class Terms:
    """How a start is driven.

    Attributes:
        seconds: for how long.
        hz: control instants a second.
        execute: how many actions of a chunk are carried out before the next one is planned.
        seed: what noise is drawn with.
    """

    seconds: float
    hz: float
    execute: int
    seed: int

    @property
    def steps(self) -> int:
        """How many actions are carried out."""
        return round(self.seconds * self.hz)


@dataclass(frozen=True)
class Plan:
    """What a side was asked, and what it said.

    Attributes:
        inputs: what it read.
        actions: what it gave, as it was carried out, [rows, values].
    """

    inputs: Mapping[str, Array]
    actions: Array


@dataclass(frozen=True)
class Way:
    """What one side did from one start.

    Attributes:
        path: each watched quantity at every control instant, the start first, [instants, parts].
        succeeded: whether it did the job; None where there is none.
        plans: the first of its plans, as many as were asked for.
        configurations: the model's whole configuration at every instant, where that was asked for.
    """

    path: Mapping[str, Array]
    succeeded: bool | None
    plans: tuple[Plan, ...] = ()
    configurations: tuple[Array, ...] = ()


def drive(
    side: str,
    ask: Ask,
    env: Environment,
    observing: Observing,
    terms: Terms,
    start: int,
    *,
    latency: int = 0,
    change: Callable[[dict[str, Array], int], dict[str, Array]] | None = None,
    keep_plans: int = 0,
    filmed: bool = False,
) -> Way:
    """Drive a copy of the environment from a start to the end.

    Every ``execute`` instants the policy is shown what there is, and its chunk takes the place of the one
    before it; what is left of that is not carried out. A chunk that is late by some control periods takes
    its place then, without its first rows, which were for instants that are over; until the first is there
    the arm holds.

    Args:
        side: what it is called, for people.
        ask: what answers to inputs with named outputs.
        env: its own copy.
        observing: how the environment becomes inputs.
        terms: for how long, and how.
        start: the start's number.
        latency: how many control periods a chunk is late.
        change: what the inputs become before they are asked, of them and of the number of the plan.
        keep_plans: how many plans to keep.
        filmed: whether the configurations are kept.

    Raises:
        Ended: the environment ended early, or an action is NaN or infinite.
        ReflexError: the side cannot be asked, or what it gives is no chunk of this arm's actions.
    """
    env.reset(start)
    poses, seen = [_copied(env.pose())], []
    plans: list[Plan] = []
    queue: deque[Array] = deque()
    due: tuple[int, Array] | None = None
    for step in range(terms.steps):
        if step % terms.execute == 0:
            number = step // terms.execute
            inputs = observing.inputs(env, start, number)
            inputs = inputs if change is None else change(inputs, number)
            outputs = ask({name: array.copy() for name, array in inputs.items()})
            actions = _chunk(side, outputs, env, terms, latency, (start, step / terms.hz))
            due = (step + latency, actions)
            if len(plans) < keep_plans:
                plans.append(Plan(inputs, actions))
        if due is not None and due[0] == step:
            queue, due = deque(due[1][latency:]), None
        if filmed:
            seen.append(env.configuration())  # type: ignore[attr-defined]
        goes_on, pose = _stepped(env, queue.popleft() if queue else env.hold(), side, start, terms, step)
        poses.append(pose)
        if not goes_on and step + 1 < terms.steps:
            raise Ended(
                f"start {start}: {env.name} ended after {(step + 1) / terms.hz:.2f} of {terms.seconds:g} s, "
                f"driven by the {side}; give --seconds {(step + 1) / terms.hz:.2f} or less, or an "
                "environment that goes on"
            )
    path = {q.name: np.stack([pose[q.name] for pose in poses]) for q in env.quantities}
    return Way(path, env.success(), tuple(plans), tuple(seen))


def _stepped(
    env: Environment, action: Array, side: str, start: int, terms: Terms, step: int
) -> tuple[bool, dict[str, Array]]:
    """Whether it goes on after an action, and the pose that it came to."""
    try:
        goes_on = env.step(action)
    except Unstable as unstable:
        cause = str(unstable)
    else:
        pose = _copied(env.pose())
        broken = [name for name, values in pose.items() if not np.isfinite(values).all()]
        if not broken:
            return goes_on, pose
        cause = f"{broken[0]} is {pose[broken[0]]}"
    raise Ended(
        f"start {start}: {env.name}'s physics came to no number ({cause}) after "
        f"{(step + 1) / terms.hz:.2f} s, driven by the {side}; look at the actions that it gave, or give "
        f"--seconds {step / terms.hz:.2f} or less"
    )


def _copied(pose: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.array(values, np.float64) for name, values in pose.items()}


def _chunk(
    side: str,
    outputs: Mapping[str, Array],
    env: Environment,
    terms: Terms,
    latency: int,
    moment: tuple[int, float],
) -> Array:
    """A policy's outputs as the actions that are carried out, float64 [rows, values]."""
    name = "actions" if "actions" in outputs else next(iter(outputs), None)
    if name is None or (name != "actions" and len(outputs) > 1):
        raise RunnerError(
            f"the {side} gives {', '.join(outputs) or 'nothing'}, expected actions; name that output so"
        )
    chunk = np.asarray(outputs[name], np.float64)
    given, size = chunk.shape, len(env.actions)
    chunk = chunk.reshape(-1, given[-1]) if given and chunk.size else np.zeros((0, 0))
    if chunk.shape[1] < size or any(n != 1 for n in given[:-2]):
        raise RunnerError(
            f"the {side}'s {name} are {list(given)}; {env.name} takes [1, rows, {size}] or wider: "
            f"{', '.join(env.actions)}"
        )
    if len(chunk) < terms.execute + latency:
        late = f" and is {latency} late" if latency else ""
        raise RunnerError(
            f"the {side}'s chunk has {len(chunk)} rows{late}, and {terms.execute} are to be carried out; "
            f"give --execute {max(1, len(chunk) - latency)} or less"
        )
    chunk = chunk[:, :size]
    if not np.isfinite(chunk).all():
        row, column = np.argwhere(~np.isfinite(chunk))[0]
        start, second = moment
        raise Ended(
            f"start {start}: the {side} gave {chunk[row, column]} for {env.actions[column]} (row {row}) "
            f"after {second:.2f} s; no arm can carry that out: mend the policy"
        )
    return chunk
