"""Recurrent: a policy with hidden state as a runner of whole sequences, its state handed on step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners.base import (
    HasDoubts,
    HasFloat64,
    HasModel,
    HasState,
    Runner,
    RunnerBase,
    asked,
    said_by,
)

if TYPE_CHECKING:
    import numpy as np

    from pytest_reflex.inputs import InputSpec

    Array = np.ndarray[Any, Any]

# What becomes of the states between two steps: the number of the step that reads them, and each state by the
# name of its input, as the step before gave it.
HandOver = Callable[[int, "dict[str, Array]"], "Mapping[str, Array]"]


def as_given(step: int, states: dict[str, Array]) -> Mapping[str, Array]:
    """Every state goes into the next step as the step before gave it."""
    return states


class Recurrent(RunnerBase):
    """Runs another runner once for each step of a sequence.

    Inputs have the steps as a new first axis, ``[steps, ...]``, but for the states, which are given as they
    are before the first step. Outputs have it too, the states among them.

    Args:
        runner: one step: inputs and states in, outputs and new states out.
        states: for each state, the input that it is, and the output that becomes it in the next step. Without
            any, every step is by itself, and whoever asks gives it all its inputs.
        sealed: what else knows whether the runner's files are as they were, such as its bundle.
        stated: what one step reads, where the candidate alone says that; see :meth:`doubts`.
        hand_over: what becomes of the states between two steps; by default nothing.

    Attributes:
        in_this_process: that no worker runs it, for what it has seen is read here.
        seen: the outputs of every run since it was first opened, in order. A check opens its reference again
            to ask what inputs do, after all else.
    """

    in_this_process = True

    def __init__(
        self,
        runner: Runner,
        states: Mapping[str, str],
        sealed: object = None,
        stated: Sequence[InputSpec] = (),
        hand_over: HandOver = as_given,
    ) -> None:
        self.name = runner.name
        self.seen: list[dict[str, Array]] = []
        self._runner = runner
        self._states = dict(states)
        self._sealed = sealed
        self._stated = tuple(stated)
        self._hand_over = hand_over

    @property
    def provider_asked(self) -> str | None:
        """See :class:`~pytest_reflex.runners.base.OnProvider`."""
        asked_for: str | None = said_by(self._runner, "provider_asked", None)
        return asked_for

    @property
    def providers_used(self) -> Sequence[str]:
        """See :class:`~pytest_reflex.runners.base.SaysProviders`."""
        used: Sequence[str] = said_by(self._runner, "providers_used", ())
        return used

    @property
    def changed(self) -> str:
        """What of its files is not as it was, as it or what it comes from says; empty where nothing."""
        said = [said_by(one, "changed", "") for one in (self._sealed, self._runner)]
        found: str = next((one for one in said if one != ""), "")
        return found

    def open(self) -> None:
        self._runner.open()

    def close(self) -> None:
        self._runner.close()

    def facts(self) -> dict[str, Any]:
        return {**self._runner.facts(), "states": self._states}

    def state(self) -> Mapping[str, object]:
        """See :class:`~pytest_reflex.runners.base.HasState`."""
        return self._runner.state() if isinstance(self._runner, HasState) else {}

    def doubts(self, specs: Sequence[InputSpec]) -> Sequence[str]:
        """See :class:`~pytest_reflex.runners.base.HasDoubts`; a check is given sequences as arrays."""
        return self._runner.doubts(specs or self._stated) if isinstance(self._runner, HasDoubts) else ()

    def same_model(self, other: object) -> bool:
        """See :class:`~pytest_reflex.runners.base.HasModel`."""
        inner = other._runner if isinstance(other, Recurrent) else other
        return isinstance(self._runner, HasModel) and self._runner.same_model(inner)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = self._over_time(lambda step: asked(self._runner, step), inputs)
        self.seen.append(outputs)
        return outputs

    def exact(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See :class:`~pytest_reflex.runners.base.HasFloat64`; the states are handed on in float64."""
        if not isinstance(self._runner, HasFloat64):
            raise RunnerError(f"{self.name} has no float64 run")
        return self._over_time(self._runner.exact, inputs)

    def _over_time(
        self, step: Callable[[Mapping[str, Array]], Mapping[str, Array]], inputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        import numpy as np

        missing = [name for name in self._states if name not in inputs]
        if missing:
            raise RunnerError(f"{self.name}: no input is named {missing[0]!r}, which is a state; give it")
        state = {name: inputs[name] for name in self._states}
        given = {name: array for name, array in inputs.items() if name not in state}
        steps = sorted({array.shape[0] if array.ndim else 0 for array in given.values()})
        if len(steps) != 1 or not steps[0]:
            raise RunnerError(
                f"{self.name}: its inputs have {steps} steps, the first axis; give all as many, at least one"
            )
        found: list[Mapping[str, Array]] = []
        for number in range(steps[0]):
            if number and state:
                state = dict(self._hand_over(number, state))
            outputs = step({**{name: array[number] for name, array in given.items()}, **state})
            lacking = [name for name in self._states.values() if name not in outputs]
            if lacking:
                raise RunnerError(
                    f"{self.name}: no output is named {lacking[0]!r}, which is the next state; "
                    f"its outputs are {', '.join(outputs)}"
                )
            state = {name: outputs[new] for name, new in self._states.items()}
            found.append(outputs)
        return {name: np.stack([one[name] for one in found]) for name in found[0]}
