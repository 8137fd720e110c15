"""How a policy is told of the chunk before: how many of its rows a new chunk is held to, and how firmly.

Real-time chunking plans a new chunk while the robot still carries out the one before. Two whole numbers say
how they fit together: the *horizon*, so many rows of what is left of the old chunk are looked at, and the
*delay*, so many of them will have been carried out when the new one is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pytest_reflex.errors import InputError
from pytest_reflex.inputs.fixtures import make_fixture
from pytest_reflex.inputs.spec import (
    Distribution,
    Draw,
    InputSpec,
    require,
    require_dtype,
    require_fits,
    specs_of,
)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Horizon(Distribution):
    """How many rows of the chunk before are looked at, from 0 to ``most``, one number for the whole batch.

    Fixture 0 looks at half a chunk, fixture 1 at nothing, as at an episode's beginning, fixture 2 at all.
    """

    kind: ClassVar[str] = "horizon"
    shared: ClassVar[bool] = True
    most: int

    def check(self, spec: InputSpec) -> None:
        require_dtype(spec, "iu")
        require(spec.shape == (), spec, "shape", list(spec.shape), "(), one number for the whole batch")
        require_fits(spec, "most", self.most)
        require(self.most > 0, spec, "most", self.most, "a whole number above 0")

    def limits(self) -> tuple[int, int]:
        return 0, self.most

    def reach(self, spec: InputSpec) -> tuple[Array, Array]:
        return np.asarray(0), np.asarray(self.most)

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        drawn = int(draw.rng.integers(1, self.most + 1))
        plain = ((self.most + 1) // 2, 0, self.most)
        return np.asarray(plain[draw.fixture_idx] if draw.fixture_idx < len(plain) else drawn)


@dataclass(frozen=True)
class Delay(Horizon):
    """How many rows of the chunk before will have been carried out when the new one is there.

    From 0 to what the input ``horizon`` looks at, below it in fixtures 0 and 2, and all of it in fixture 3.
    """

    kind: ClassVar[str] = "delay"
    horizon: str

    def needs(self) -> tuple[str, ...]:
        return (self.horizon,)

    def check_needs(self, spec: InputSpec, earlier: Mapping[str, InputSpec]) -> None:
        other = earlier[self.horizon].meaning
        good = type(other) is Horizon and other.most == self.most
        require(good, spec, f"meaning of {self.horizon!r}", other, f"Horizon(most={self.most!r})")

    def draw(self, draw: Draw, spec: InputSpec) -> Array:
        horizon = int(draw.drawn[self.horizon])
        if draw.fixture_idx == 3:
            return np.asarray(horizon)
        # A delay that is the whole horizon already would hide one that is larger.
        below = draw.fixture_idx in (0, 2)
        return np.asarray(draw.rng.integers(0, max(horizon, 1) if below else horizon + 1))


def left_over(chunk: Array, used: int) -> Array:
    """What is left of a chunk: its later rows moved up, and zeros after them.

    Args:
        chunk: [batch, rows, dim].
        used: how many rows were carried out.

    Raises:
        InputError: so many rows it has not.
    """
    if isinstance(used, bool) or not isinstance(used, int) or not 0 <= used <= chunk.shape[1]:
        raise InputError(f"used is {used!r}, expected a whole number from 0 to {chunk.shape[1]}")
    left = np.zeros_like(chunk)
    left[:, : chunk.shape[1] - used] = chunk[:, used:]
    return left


@dataclass(frozen=True)
class Chain:
    """Sequences of chunks, each planned while the one before is carried out.

    ``check_sequence(policy, bundle, inputs=chain.sequences, states=chain.states, hand_over=chain.hand_over)``
    judges them.

    Attributes:
        sequences: what each chunk reads, arrays ``[chunks, ...]``, and the chunk before the first, of zeros.
        used: before each chunk, how many rows of the one before were carried out.
        previous: the input that is the chunk before.
        output: the output that becomes it.
    """

    sequences: list[dict[str, Array]]
    used: list[int]
    previous: str
    output: str

    @property
    def states(self) -> dict[str, str]:
        """As ``check_sequence`` takes them."""
        return {self.previous: self.output}

    @property
    def hand_over(self) -> Callable[[int, dict[str, Array]], dict[str, Array]]:
        """As ``check_sequence`` takes it: what is left of a chunk when the next one is asked for."""
        return lambda step, states: {n: left_over(chunk, self.used[step]) for n, chunk in states.items()}


def chain(
    specs: Sequence[InputSpec],
    chunks: int,
    *,
    horizon: int | None = None,
    sequences: int = 3,
    seed: int = 0,
    previous: str = "prev_chunk",
    output: str = "actions",
) -> Chain:
    """Draw sequences of chunks with every delay from 0 to the horizon, over and over.

    The first chunk has none before it. After each round of delays comes one that is asked for late, when
    fewer rows are left than the horizon: it is held to those that are.

    Args:
        specs: what a policy reads, a :class:`Horizon` and a :class:`Delay` among it.
        chunks: how many chunks a sequence has.
        horizon: how many rows a chunk is held to; by default half of them.
        sequences: how many sequences.
        seed: what all of it is drawn with.
        previous: the input that is the chunk before.
        output: the output that becomes it.

    Raises:
        InputError: there are no such inputs, or too few chunks for every delay.
    """
    specs = specs_of(specs)
    kinds = {type(spec.meaning): spec for spec in specs}
    if Horizon not in kinds or Delay not in kinds or previous not in {spec.name for spec in specs}:
        raise InputError(
            f"the inputs have no {previous!r}, Horizon and Delay; export the policy with rtc=True"
        )
    rows = kinds[Delay].meaning.limits()[1]  # type: ignore[index]
    horizon = rows // 2 if horizon is None else horizon
    if not 0 < horizon <= rows or chunks < horizon + 3:
        raise InputError(
            f"a horizon of {horizon} in {chunks} chunks of {rows} rows: give one from 1 to {rows}, and "
            "3 chunks more than it"
        )
    used, horizons, delays = _round(rows, horizon, chunks, np.random.default_rng(seed))
    counts = {kinds[Horizon].name: np.asarray(horizons), kinds[Delay].name: np.asarray(delays)}
    made = []
    for number in range(sequences):
        drawn = [make_fixture(specs, seed, number * chunks + chunk) for chunk in range(chunks)]
        over = {spec.name: np.stack([one[spec.name] for one in drawn]) for spec in specs}
        told = {name: array.astype(over[name].dtype) for name, array in counts.items()}
        made.append({**over, **told, previous: np.zeros_like(drawn[0][previous])})
    return Chain(made, used, previous, output)


def _round(
    rows: int, horizon: int, chunks: int, rng: np.random.Generator
) -> tuple[list[int], list[int], list[int]]:
    """Before each chunk the rows that were used, the horizon and the delay; with the first there are none."""
    used, horizons, delays = [0], [0], [0]
    for chunk in range(chunks - 1):
        delay, most = chunk % (horizon + 2), rows - horizon
        late = delay > horizon
        low, high = (most + 1, rows) if late else (min(1, most), most)
        used.append(int(rng.integers(low, high + 1)))
        horizons.append(min(horizon, rows - used[-1]))
        delays.append(int(rng.integers(0, horizons[-1] + 1)) if late else delay)
    return used, horizons, delays
