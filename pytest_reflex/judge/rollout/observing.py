"""How what an environment shows becomes what a policy reads, by what each input stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import InputError
from pytest_reflex.inputs import Gaussian, Image, InputSpec, ScaledImage, State, make_fixture
from pytest_reflex.judge.rollout.environments import Environment

__all__ = ["Observe", "Observing", "jittered"]

Array = np.ndarray[Any, Any]
# Given the environment, gives inputs by name, in place of those that are taken from it otherwise.
Observe = Callable[[Environment], Mapping[str, Array]]

_NOISE_TAG: Final = 0x0153
_JITTER_TAG: Final = 0x317


class Observing:
    """The inputs of a policy in a closed loop.

    Images are cameras in their order, the state is the environment's, noise is drawn for every plan,
    the same for every side. What else the policy reads, such as a prompt, is what fixture 0 has. A chunk
    before this one, as real-time chunking hands on, is given as if there were none.

    Args:
        specs: what the policy reads.
        seed: what noise and fixture 0 are drawn with.
        observe: what gives inputs by name where that is not to be.

    Raises:
        InputError: the specifications are bad, or the batch is not one.
    """

    def __init__(self, specs: Sequence[InputSpec], seed: int, observe: Observe | None = None) -> None:
        self.specs, self._seed, self._observe = tuple(specs), seed, observe
        self._fixed = make_fixture(specs, seed, 0)
        for spec in specs:
            shown = isinstance(spec.meaning, Image | State | Gaussian)
            if shown and spec.shape and spec.shape[0] != 1:
                raise InputError(
                    f"input {spec.name!r} is {list(spec.shape)}; a policy that drives an arm has a batch of 1"
                )
            if spec.meaning.kind in ("horizon", "delay"):
                self._fixed[spec.name] = np.zeros_like(self._fixed[spec.name])

    @property
    def sees(self) -> bool:
        """Whether the policy has a camera."""
        return any(isinstance(spec.meaning, Image) for spec in self.specs)

    def inputs(self, env: Environment, start: int, plan: int) -> dict[str, Array]:
        """What the policy reads at a moment, fresh arrays by name.

        Args:
            env: the environment as it is.
            start: the start's number.
            plan: how many plans there were before, from this start.

        Raises:
            InputError: it has fewer cameras than the policy, or a state of another kind.
        """
        rng = np.random.default_rng([self._seed, start, plan, _NOISE_TAG])
        cameras = iter(env.cameras)
        made: dict[str, Array] = {}
        given = {} if self._observe is None else self._observe(env)
        for spec in self.specs:
            if spec.name in given:
                value = np.asarray(given[spec.name])
            elif isinstance(spec.meaning, Image):
                value = _pictures(env, spec, cameras)
            elif isinstance(spec.meaning, State):
                value = _state(env, spec)
            elif isinstance(spec.meaning, Gaussian):
                value = spec.meaning.mean + spec.meaning.std * rng.standard_normal(spec.shape)
            else:
                value = self._fixed[spec.name]
            if value.shape != spec.shape:
                raise InputError(f"input {spec.name!r} is {list(value.shape)}; give {list(spec.shape)}")
            made[spec.name] = np.array(value, spec.dtype, order="C")
        return made


def jittered(
    inputs: Mapping[str, Array], specs: Sequence[InputSpec], seed: int, start: int, plan: int
) -> dict[str, Array]:
    """The same inputs, each float one unit in the last place up or down.

    The last place of a camera is a level of a pixel: an arm that is a rounding elsewhere turns over single
    ones, each of which is more than any float's rounding. So one pixel of each picture is one level off.

    Args:
        inputs: what the policy would read.
        specs: what they stand for.
        seed: what the jitter is drawn with.
        start: the start's number.
        plan: how many plans there were before, from this start.
    """
    rng = np.random.default_rng([seed, start, plan, _JITTER_TAG])
    pictures = {spec.name: _range(spec) for spec in specs if isinstance(spec.meaning, Image)}
    made = {}
    for name, array in inputs.items():
        if name in pictures and array.size:
            low, high = pictures[name]
            array, at = np.array(array), int(rng.integers(array.size))
            level = (high - low) / 255.0
            value = float(array.flat[at])
            array.flat[at] = value - level if value > (low + high) / 2 else value + level
        elif array.dtype.kind == "f":
            up = rng.integers(0, 2, array.shape).astype(bool)
            ends = np.where(up, np.inf, -np.inf).astype(array.dtype)
            array = np.nextafter(array, ends)
        made[name] = np.array(array)
    return made


def _range(spec: InputSpec) -> tuple[float, float]:
    """What black and white are in an input of pictures."""
    meaning = spec.meaning
    return (meaning.low, meaning.high) if isinstance(meaning, ScaledImage) else (-1.0, 1.0)


def _state(env: Environment, spec: InputSpec) -> Array:
    """The first values of the environment's state, as many as the policy reads; 0 where it reads more."""
    state, size = env.state(), spec.shape[-1] if spec.shape else 0
    if any(n != 1 for n in spec.shape[:-1]) or not size:
        raise InputError(
            f"input {spec.name!r} is {list(spec.shape)}, and a state is [1, values]; give observe="
        )
    filled = np.zeros(size)
    filled[: min(size, len(state))] = state[:size]
    return filled.reshape(spec.shape)


def _pictures(env: Environment, spec: InputSpec, cameras: Any) -> Array:
    """As many cameras as the input has planes for, [..., 3, H, W] or [..., H, W, 3], in its range."""
    first = spec.shape[-3] if len(spec.shape) >= 3 else 0
    last = first != 3 and spec.shape[-1] == 3
    if first != 3 and not last:
        raise InputError(
            f"input {spec.name!r} is {list(spec.shape)}, expected [..., 3, height, width] of a camera; give "
            "observe="
        )
    height, width = spec.shape[-3:-1] if last else spec.shape[-2:]
    views = []
    for _ in range(int(np.prod(spec.shape[:-3]))):
        camera = next(cameras, None)
        if camera is None:
            raise InputError(
                f"input {spec.name!r} needs a camera more than {env.name} has ({', '.join(env.cameras)}); "
                "give observe="
            )
        pixels = env.image(camera, height, width)
        views.append(pixels if last else pixels.transpose(2, 0, 1))
    low, high = _range(spec)
    return (low + (high - low) / 255.0 * np.stack(views)).reshape(spec.shape)
