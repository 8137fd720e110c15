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


def schedule_from_json(stored: Mapping[str, Any]) -> EulerSchedule:
    """The schedule that ``to_json`` wrote.

    Raises:
        BundleError: its kind is not known.
    """
    if stored.get("kind") != EulerSchedule.kind:
        raise BundleError(
            f"schedule kind is {stored.get('kind')!r}, this version knows {EulerSchedule.kind!r}"
        )
    return EulerSchedule(start=float(stored["start"]), end=float(stored["end"]))
