"""What an environment is, and the registry of those that have a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, runtime_checkable

from pytest_reflex.errors import ReflexError, SettingsError
from pytest_reflex.verdict.naming import did_you_mean

if TYPE_CHECKING:
    import numpy as np

    from pytest_reflex.verdict.drift import Quantity

    Array = np.ndarray[Any, Any]

__all__ = ["Environment", "Made", "Unstable", "environment_named", "known_environments"]

GROUP: Final = "pytest_reflex.environments"
_GYM: Final = "gym:"
_OWN: Final = {
    "panda-reach": "pytest_reflex.judge.rollout.panda:PandaReach",
    "aloha-reach": "pytest_reflex.judge.rollout.aloha:AlohaReach",
    "planar-reach": "pytest_reflex.judge.rollout.planar:PlanarReach",
}


class Unstable(ReflexError):
    """What an environment's :meth:`Environment.step` raises where its physics gave no more numbers."""


@runtime_checkable
class Environment(Protocol):
    """An arm and its surroundings, one copy of them. What it does hangs on its start and actions alone.

    Attributes:
        name: what it is called.
        quantities: what is watched of it; the first is the one that pictures show.
        actions: the names of the values of an action, in order.
        cameras: the names of its cameras, in order.
    """

    name: str
    quantities: Sequence[Quantity]
    actions: Sequence[str]
    cameras: Sequence[str]

    def reset(self, start: int) -> None:
        """Begin anew, from a start that its number alone decides."""

    def state(self) -> Array:
        """What a policy is told as its state, about -1 to 1, [values]; a policy that reads fewer gets the
        first of them."""
        ...

    def image(self, camera: str, height: int, width: int) -> Array:
        """What a camera sees, uint8 [height, width, 3].

        Raises:
            ReflexError: nothing can be drawn here; the message says what is missing.
        """
        ...

    def hold(self) -> Array:
        """The action that changes nothing, [values]."""
        ...

    def step(self, action: Array) -> bool:
        """Carry out an action for one control period; values beyond -1 to 1 are cut.

        Returns:
            Whether it goes on; False where the environment ended the episode.

        Raises:
            Unstable: its physics has come to what is no number.
        """
        ...

    def pose(self) -> Mapping[str, Array]:
        """The watched quantities as they are, by name, each [parts] in its unit, float64."""
        ...

    def success(self) -> bool | None:
        """Whether the job is done; None where there is none."""
        ...

    def close(self) -> None:
        """Give back what it took."""


# Makes one copy, for so many control instants a second.
Made = Callable[[float], Environment]


def known_environments() -> list[str]:
    """The names, those of other distributions too."""
    return sorted({*_OWN, *(point.name for point in entry_points(group=GROUP))})


def environment_named(name: str) -> Made:
    """What makes the environment of a name, or of ``gym:ID`` for an id of gymnasium.

    Raises:
        SettingsError: there is none of that name.
        ReflexError: it cannot be imported.
    """
    if name.startswith(_GYM):
        from pytest_reflex.judge.rollout.gym_adapter import GymEnvironment

        return lambda hz: GymEnvironment(name.removeprefix(_GYM), hz)
    if name in _OWN:
        module, _, attribute = _OWN[name].partition(":")
        return cast(Made, getattr(import_module(module), attribute))
    for point in entry_points(group=GROUP):
        if point.name == name:
            try:
                return cast(Made, point.load())
            except Exception as error:
                raise ReflexError(
                    f"environment {name!r} of {point.value} cannot be imported: "
                    f"{type(error).__name__}: {error}"
                ) from error
    known = known_environments()
    raise SettingsError(
        f"environment {name!r} is unknown{did_you_mean(name, known)}; give one of {', '.join(known)}, or "
        "gym:ID for an id of gymnasium"
    )
