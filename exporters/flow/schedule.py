"""How a loop is carried, counts its time and moves its ``x``. Plain data: a host needs no torch to run it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, get_args

import numpy as np

from exporters.flow import update as updates
from exporters.flow.update import EARLIER, EULER, GIVEN, MODEL, NOISE, START, X_NEXT, Update, X
from pytest_reflex.errors import BundleError, SettingsError

# How a bundle carries the loop: N steps in one graph, an ONNX Loop, or a step graph that the host calls.
Layout = Literal["unrolled", "loop", "stepwise"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
# The role of a graph that runs before those of a layout, where there is one.
BACKBONE: Final = "backbone"


class Schedule:
    """What a loop does in step ``index`` of ``steps``.

    Attributes:
        kind: its name in manifests.
        update: what a step does to ``x``.
        dtype: what the policy is told the time as: ``float32``, ``float64`` or ``int64``.
        earlier: which of the update's values, or ``velocity``, the next step reads as ``earlier``: for a
            solver of several steps.
        draws: how many noises the loop reads, one a step from the first on.
        fixed: whether the number of steps is part of it, so that no graph can leave it open.
    """

    kind: ClassVar[str]
    update: Update = EULER
    dtype: str = "float32"
    earlier: str | None = None
    draws: int = 0
    fixed: bool = False

    def over(self, steps: int) -> Schedule:
        """The same over so many steps.

        Raises:
            SettingsError: it is a table of another number of steps.
        """
        return self

    def time(self, index: int, steps: int) -> float:
        """The time of step ``index``, a number that the policy sees as :attr:`dtype`."""
        raise NotImplementedError

    def columns(self, steps: int) -> Mapping[str, float | Sequence[float]]:
        """The coefficients that the update reads by name: one for all steps, or one for each."""
        raise NotImplementedError

    def to_json(self) -> dict[str, object]:
        raise NotImplementedError


class _Counted(Schedule):
    """Equal Euler steps, whose number a graph can leave open."""

    def dt(self, steps: int) -> float:
        """The step's length, a float64."""
        raise NotImplementedError

    def columns(self, steps: int) -> Mapping[str, float | Sequence[float]]:
        return {"dt": self.dt(steps)}


@dataclass(frozen=True)
class EulerSchedule(_Counted):
    """Equal Euler steps from ``start`` to ``end``: ``x += dt * velocity(x, t)`` with ``t = start + i * dt``.

    ``dt = (end - start) / steps`` and ``t`` are counted in Python floats and rounded once, to
    float32, where a tensor is made of them. That is how lerobot's ``euler_integrate`` and
    transformers' ``PI0ForConditionalGeneration.sample_actions`` count; adding ``dt`` up in float32
    gives other last bits.

    Attributes:
        start: time of the first step, where ``x`` is noise.
        end: time after the last step, where ``x`` is actions.
        dtype: ``float64`` where the policy computes with the time as it was counted, and rounds later.
    """

    start: float = 1.0
    end: float = 0.0
    dtype: str = "float32"

    kind = "euler"

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float64"):
            raise SettingsError(f"an Euler schedule tells its time as float32 or float64, not {self.dtype!r}")

    def dt(self, steps: int) -> float:
        return (self.end - self.start) / steps

    def time(self, index: int, steps: int) -> float:
        return self.start + index * self.dt(steps)

    def to_json(self) -> dict[str, object]:
        told = {} if self.dtype == Schedule.dtype else {"dtype": self.dtype}
        return {"kind": self.kind, "start": self.start, "end": self.end, **told}


@dataclass(frozen=True)
class BucketedSchedule(_Counted):
    """Equal Euler steps from noise at 0 to actions at 1, with the time told in whole buckets.

    ``x += velocity(x, t) / steps`` with ``t = int(i / steps * buckets)``: counted in Python floats and cut
    off, not rounded, as GR00T's action head does. Four steps of 1,000 buckets are at 0, 250, 500, 750.

    Attributes:
        buckets: how many the time from 0 to 1 is cut into.
    """

    buckets: int = 1000

    kind = "bucketed_euler"

    def dt(self, steps: int) -> float:
        return 1.0 / steps

    def time(self, index: int, steps: int) -> float:
        return float(int(index / float(steps) * self.buckets))

    def to_json(self) -> dict[str, object]:
        return {"kind": self.kind, "buckets": self.buckets}


@dataclass(frozen=True)
class TableSchedule(Schedule):
    """Any loop whose steps are known beforehand: an update, and a number for each of its names in each step.

    ``x' = a_i x + b_i model(x, t_i) + c_i noise_i + d_i start`` and what else an update says: a prediction
    that is clipped or thresholded on the way, or the one of the step before (:attr:`earlier`, in the first
    step ``x``, which the table must take by 0). ``start`` is the ``x`` that the loop starts from.

    Attributes:
        times: the time of each step.
        update: what a step does.
        table: for each column that the update reads, a number for each step, exact in float32.
    """

    times: tuple[float, ...]
    update: Update
    table: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    dtype: str = "float32"
    earlier: str | None = None
    draws: int = 0

    kind: ClassVar[str] = "table"
    fixed = True

    def __post_init__(self) -> None:
        read, steps = updates.columns_read(self.update), len(self.times)
        names = [operation.name for operation in self.update]
        wrong = [name for name in read if len(self.table.get(name, ())) != steps]
        if wrong:
            raise SettingsError(
                f"the schedule's column {wrong[0]!r} has not a number for each of {steps} steps"
            )
        noisy = any(NOISE in operation.reads for operation in self.update)
        if self.dtype not in ("float32", "int64") or self.earlier not in (None, MODEL, *names):
            raise SettingsError(f"a schedule of {self.dtype} with earlier={self.earlier!r} is none")
        if names[-1:] != [X_NEXT] or not 0 <= self.draws <= steps or noisy != (self.draws > 0):
            raise SettingsError(
                f"the schedule's update ends in {names[-1:]} and reads {self.draws} noises; it must end in "
                f"{X_NEXT!r} and read one for each of {steps} steps at most, where it reads {NOISE!r}"
            )

    def over(self, steps: int) -> TableSchedule:
        if steps != len(self.times):
            raise SettingsError(
                f"steps is {steps}, and the schedule is a table of {len(self.times)}; "
                f"export with steps={steps}"
            )
        return self

    def time(self, index: int, steps: int) -> float:
        return self.times[index]

    def columns(self, steps: int) -> Mapping[str, float | Sequence[float]]:
        return self.table

    def to_json(self) -> dict[str, object]:
        return {
            "kind": self.kind,
            "times": list(self.times),
            "dtype": self.dtype,
            "update": updates.to_json(self.update),
            "table": {name: list(column) for name, column in self.table.items()},
            "earlier": self.earlier,
            "draws": self.draws,
        }


SCHEDULES: Final = (EulerSchedule, BucketedSchedule, TableSchedule)


@dataclass(frozen=True)
class Loop:
    """A flow's loop from noise to actions, whoever runs it.

    Attributes:
        schedule: how it counts its time, and what a step does.
        steps: how many steps it takes.
        noise: the input that it starts from.
        output: what it gives.
        step_noise: the input that holds the noise of each step, ``[batch, draws, ...]``, where one is read.
        epilogue: what is made of the last ``x``.
    """

    schedule: Schedule
    steps: int
    noise: str
    output: str
    step_noise: str = "step_noise"
    epilogue: Update = ()

    def taking(self, steps: int) -> Loop:
        """The same loop over so many steps.

        Raises:
            SettingsError: its schedule is a table of another number.
        """
        return dataclasses.replace(self, schedule=self.schedule.over(steps), steps=steps)

    @property
    def noises(self) -> tuple[str, ...]:
        """The inputs that are the loop's own."""
        return (self.noise, self.step_noise) if self.schedule.draws else (self.noise,)

    @property
    def times(self) -> list[float]:
        """The time of each step, numbers that the policy sees in the schedule's dtype."""
        return [self.schedule.time(index, self.steps) for index in range(self.steps)]

    def row(self, index: int) -> dict[str, float]:
        """The coefficients of step ``index``, by name."""
        columns = self.schedule.columns(self.steps)
        return {n: float(c[index] if isinstance(c, Sequence) else c) for n, c in columns.items()}

    def advanced(
        self, index: int, x: Any, velocity: Any, earlier: Any, start: Any, noises: Any = None
    ) -> Iterator[tuple[str, Any]]:
        """What step ``index`` makes of ``x``: every value by its name, the last of which is ``x_next``.

        Args:
            index: the step.
            x: what the loop holds.
            velocity: what the policy gives for it.
            earlier: what the step before left; see :attr:`Schedule.earlier`.
            start: what the loop held before its first step.
            noises: the noise of all steps, where they read one.
        """
        row: dict[str, Any] = self.row(index)
        if isinstance(x, np.ndarray):
            row = {name: np.float32(number) for name, number in row.items()}
        values = {**row, X: x, MODEL: velocity, EARLIER: earlier, START: start}
        if self.schedule.draws:
            values[NOISE] = noises[:, min(index, self.schedule.draws - 1)]
        yield from updates.updated(self.schedule.update, values)

    def states(self, x: Any, velocity: Callable[[int, Any], Any], noises: Any = None) -> Iterator[Any]:
        """Run the loop: every ``x`` after its step.

        Args:
            x: what it starts from.
            velocity: gives the policy's answer in a step.
            noises: the noise of all steps, where they read one.
        """
        start = earlier = x
        for index in range(self.steps):
            found = velocity(index, x)
            made = {MODEL: found, **dict(self.advanced(index, x, found, earlier, start, noises))}
            x, earlier = made[X_NEXT], made[self.schedule.earlier or X_NEXT]
            yield x

    def finished(self, x: Any) -> Any:
        """The output, made of the last ``x``."""
        return updates.finished(self.epilogue, x)

    def to_json(self) -> dict[str, object]:
        """All but the steps, which a manifest says beside it."""
        said: dict[str, object] = {"noise": self.noise, "output": self.output}
        if self.schedule.draws:
            said["step_noise"] = self.step_noise
        if self.epilogue:
            said["epilogue"] = updates.to_json(self.epilogue)
        return {**said, "schedule": self.schedule.to_json()}


def loop_from_json(stored: Mapping[str, Any], steps: int) -> Loop:
    """The loop that ``to_json`` wrote.

    Raises:
        BundleError: its schedule or its epilogue is not known, or gives no finite numbers.
    """
    loop = Loop(
        schedule_from_json(stored["schedule"]),
        steps,
        stored["noise"],
        stored["output"],
        str(stored.get("step_noise", "step_noise")),
        updates.from_json(stored.get("epilogue", []), [X], "epilogue"),
    ).taking(steps)
    if not all(map(math.isfinite, (*loop.times, *(n for i in range(steps) for n in loop.row(i).values())))):
        raise BundleError(f"its schedule {stored['schedule']!r} gives no finite numbers")
    return loop


def schedule_from_json(stored: Mapping[str, Any]) -> Schedule:
    """The schedule that ``to_json`` wrote.

    Raises:
        BundleError: its kind is not known.
    """
    kind = stored.get("kind")
    if kind == EulerSchedule.kind:
        told = str(stored.get("dtype", Schedule.dtype))
        return EulerSchedule(start=float(stored["start"]), end=float(stored["end"]), dtype=told)
    if kind == BucketedSchedule.kind:
        return BucketedSchedule(buckets=int(stored["buckets"]))
    if kind == TableSchedule.kind:
        return _table(stored)
    known = [repr(known.kind) for known in SCHEDULES]
    raise BundleError(f"schedule kind is {kind!r}, this version knows {', '.join(known)}")


def _table(stored: Mapping[str, Any]) -> TableSchedule:
    whole = stored["dtype"] == "int64"
    table = {str(name): tuple(map(float, column)) for name, column in stored["table"].items()}
    return TableSchedule(
        times=tuple(int(t) if whole else float(t) for t in stored["times"]),
        update=updates.from_json(stored["update"], [*GIVEN, *table], "update"),
        table=table,
        dtype=str(stored["dtype"]),
        earlier=stored["earlier"],
        draws=int(stored["draws"]),
    )
