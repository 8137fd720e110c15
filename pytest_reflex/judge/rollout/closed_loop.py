"""``closed_loop``: a candidate drives an arm beside its reference, and its drift is held against rounding.

Four sides drive one copy of the environment each, from the same starts, with the same noise and cameras: the
reference, the candidate, and two whose drift is rounding alone, the reference in float64 and the reference
with its inputs one unit in the last place off. What those two do in this plant is the floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypedDict, Unpack

from pytest_reflex.errors import InputError, SettingsError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.judge.rollout.driving import Terms
from pytest_reflex.judge.rollout.environments import Made, environment_named
from pytest_reflex.judge.rollout.observing import Observe, Observing
from pytest_reflex.judge.rollout.shown import RolloutResult
from pytest_reflex.judge.rollout.sides import MEASURED, Work
from pytest_reflex.judge.rollout.summing import result_of
from pytest_reflex.judge.sides import has_processors, sides_of
from pytest_reflex.progress import Progress, progress_callback
from pytest_reflex.settings import PROVIDERS
from pytest_reflex.verdict.rollout import NOT_DRIVEN

__all__ = ["Driving", "closed_loop", "closed_loops"]


class Driving(TypedDict, total=False):
    """The keywords of :func:`closed_loop` that say how the arm is driven."""

    seconds: float
    hz: float
    starts: int
    execute: int
    latency: int | str
    seed: int
    within: float | None
    joints: Sequence[str] | None
    inputs: Sequence[InputSpec] | None
    observe: Observe | None
    film: bool
    provider: str


DEFAULTS: Final[Driving] = {
    "seconds": 30.0, "hz": 30.0, "starts": 20, "execute": 8, "latency": 0, "seed": 0, "within": None,
    "joints": None, "inputs": None, "observe": None, "film": False, "provider": PROVIDERS["cpu"],
}  # fmt: skip


def closed_loop(
    reference: Any,
    candidate: Any,
    env: str | Made = "panda-reach",
    *,
    seconds: float = 30.0,
    hz: float = 30.0,
    starts: int = 20,
    execute: int = 8,
    latency: int | str = 0,
    seed: int = 0,
    within: float | None = None,
    joints: Sequence[str] | None = None,
    inputs: Sequence[InputSpec] | None = None,
    observe: Observe | None = None,
    film: bool = False,
    name: str = "rollout",
    provider: str = PROVIDERS["cpu"],
    progress: Progress | None = None,
) -> RolloutResult:
    """Have both drive the same arm, and say how far they come apart beside what rounding alone does.

    Args:
        reference: as of :func:`~pytest_reflex.judge.check.check`.
        candidate: as there: a bundle, a served policy, a path, a runner. Processors of a bundle are not
            driven, which the result says.
        env: the name of an environment, ``gym:ID``, or what makes one for a rate in Hz.
        seconds: how long each start is driven.
        hz: control instants a second.
        starts: how many starts; each is decided by its number.
        execute: how many actions of a chunk are carried out before the next one is planned.
        latency: how many control periods the candidate's chunks are late, in simulated time, 0 to
            ``execute - 1``, or ``measured``: as many as its runs take here; the reference's are in time.
        seed: what noise is drawn with.
        within: how far the first quantity may drift, in its unit (mm for an arm); by default no further
            than rounding.
        joints: the names of the joints that are judged; by default all.
        inputs: what the policy reads; by default what the candidate says.
        observe: gives inputs by name, of the environment, where they are not to be taken as they mean.
        film: keep a film of both, of the start in which they come apart most.
        name: what the result is called.
        provider: ONNX Runtime's full name of the provider.
        progress: called with (stage, done, total).

    Returns:
        The verdict. Where a start could not be driven to its end, those before it and why.

    Raises:
        SettingsError: a setting is not good, or the environment or a joint is unknown.
        ReflexError: the first start could not be driven, or a side is nothing that can be asked.
    """
    found = closed_loops(
        reference, {name: candidate}, env, seconds=seconds, hz=hz, starts=starts, execute=execute,
        latency=latency, seed=seed, within=within, joints=joints, inputs=inputs, observe=observe, film=film,
        provider=provider, progress=progress,
    )  # fmt: skip
    return found[name]


def closed_loops(
    reference: Any,
    candidates: Mapping[str, Any],
    env: str | Made = "panda-reach",
    *,
    progress: Progress | None = None,
    **driving: Unpack[Driving],
) -> dict[str, RolloutResult]:
    """Several candidates beside one reference, which drives once for all; see :func:`closed_loop`.

    Args:
        reference: as there.
        candidates: by their names; all read what the first one does.
        env: as there.
        progress: as there.
        **driving: the keywords there.

    Raises:
        SettingsError: there is no candidate, or as there.
        ReflexError: as there.
    """
    if not candidates:
        raise SettingsError("candidates has none; give each under a name of its own")
    told: Driving = {**DEFAULTS, **driving}
    _require(told)
    make = environment_named(env) if isinstance(env, str) else env
    pairs = {
        name: sides_of(reference, candidate, told["inputs"], told["provider"])
        for name, candidate in candidates.items()
    }
    first = next(iter(pairs.values()))
    specs = _specs(first.inputs)
    terms = Terms(float(told["seconds"]), float(told["hz"]), told["execute"], told["seed"])
    work = Work(
        make,
        Observing(specs, told["seed"], told["observe"]),
        terms,
        starts=told["starts"],
        latency=told["latency"],
        film=told["film"],
        joints=told["joints"],
        candidates=len(candidates),
        report_progress=progress_callback(progress),
    )
    own = work.reference(first.reference)
    made = {}
    for name, sides in pairs.items():
        other = work.candidate(sides.candidate, own)
        around = NOT_DRIVEN if has_processors(candidates[name], sides.candidate) else ""
        found = result_of(work, own, other)
        made[name] = replace(found, name=name, within=told["within"], not_driven=around)
    return made


def _require(told: Driving) -> None:
    """Refuse what is no setting, with what it should be."""
    seconds, hz, execute, latency = told["seconds"], told["hz"], told["execute"], told["latency"]
    if isinstance(latency, str) and latency != MEASURED:
        raise SettingsError(f"latency is {latency!r}; give a number of control periods, or {MEASURED!r}")
    late = 0 if isinstance(latency, str) else latency
    whole = {
        "starts": (told["starts"], 1, None),
        "execute": (execute, 1, None),
        "latency": (late, 0, execute),
    }
    for what, (value, least, end) in whole.items():
        good = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if not good or (end is not None and value >= end):
            upto = "" if end is None else f" and below execute, which is {end}"
            raise SettingsError(f"{what} is {value!r}, expected a whole number of at least {least}{upto}")
    for what, given in {"seconds": seconds, "hz": hz, "within": told["within"]}.items():
        if given is None:
            continue
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < float("inf"):
            raise SettingsError(f"{what} is {given!r}, expected a finite number above 0")
    if round(seconds * hz) < execute:
        raise SettingsError(
            f"seconds is {seconds:g}, which is {round(seconds * hz)} actions at {hz:g} Hz; give at least "
            f"{execute / hz:g}, one chunk of {execute}"
        )


def _specs(inputs: object) -> list[InputSpec]:
    found = list(inputs) if isinstance(inputs, Sequence) else []
    if not found or not all(isinstance(spec, InputSpec) for spec in found):
        raise InputError(
            "a closed loop reads what the arm shows, and its inputs are recorded; give a list of InputSpec"
        )
    return found
