"""How a flow-matching loop is carried and counts its time. Plain data: a host that runs it needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pytest_reflex.errors import BundleError

# How a bundle carries the loop: N steps in one graph, an ONNX Loop, or a step graph that the host calls.
Layout = Literal["unrolled", "loop", "stepwise"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


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


@dataclass(frozen=True)
class BucketedSchedule:
    """Equal Euler steps from noise at 0 to actions at 1, with the time told in whole buckets.

    ``x += velocity(x, t) / steps`` with ``t = int(i / steps * buckets)``: counted in Python floats and cut
    off, not rounded, as GR00T's action head does. Four steps of 1,000 buckets are at 0, 250, 500, 750.

    Attributes:
        buckets: how many the time from 0 to 1 is cut into.
    """

    buckets: int = 1000

    kind = "bucketed_euler"

    def dt(self, steps: int) -> float:
        """The step's length, a float64."""
        return 1.0 / steps

    def time(self, index: int, steps: int) -> float:
        """The bucket of step ``index``, a whole number that the policy is given as float32."""
        return float(int(index / float(steps) * self.buckets))

    def to_json(self) -> dict[str, object]:
        return {"kind": self.kind, "buckets": self.buckets}


Schedule = EulerSchedule | BucketedSchedule


@dataclass(frozen=True)
class Loop:
    """A flow's loop, ``x += dt * velocity(x, time)`` from noise to actions, whoever runs it.

    Attributes:
        schedule: how it counts its time.
        steps: how many steps it takes.
        noise: the input that it starts from.
        output: what it gives.
    """

    schedule: Schedule
    steps: int
    noise: str
    output: str

    @property
    def dt(self) -> float:
        """The step's length, a float64."""
        return self.schedule.dt(self.steps)

    @property
    def times(self) -> list[float]:
        """The time of each step, float64 numbers that the policy sees as float32."""
        return [self.schedule.time(index, self.steps) for index in range(self.steps)]

    def to_json(self) -> dict[str, object]:
        """All but the steps, which a manifest says beside it."""
        return {"noise": self.noise, "output": self.output, "schedule": self.schedule.to_json()}


def schedule_from_json(stored: Mapping[str, Any]) -> Schedule:
    """The schedule that ``to_json`` wrote.

    Raises:
        BundleError: its kind is not known.
    """
    kind = stored.get("kind")
    if kind == EulerSchedule.kind:
        return EulerSchedule(start=float(stored["start"]), end=float(stored["end"]))
    if kind == BucketedSchedule.kind:
        return BucketedSchedule(buckets=int(stored["buckets"]))
    raise BundleError(
        f"schedule kind is {kind!r}, this version knows {EulerSchedule.kind!r} and {BucketedSchedule.kind!r}"
    )
