"""The reference itself in a narrower precision, as a candidate: what rounding to it does to an arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.runners import Runner
from pytest_reflex.runners.base import HasNarrower, RunnerBase

__all__ = ["Rounded"]


class Rounded(RunnerBase):
    """The reference, each result of its arithmetic rounded.

    Args:
        reference: its runner, which is opened as the candidate's when the reference is closed.
        precision: torch's name of a float type narrower than float32, such as ``bfloat16``.
        inputs: what it reads.

    Raises:
        RunnerError: it cannot be asked so.
    """

    def __init__(self, reference: Runner, precision: str, inputs: Sequence[InputSpec]) -> None:
        if not isinstance(reference, HasNarrower):
            raise RunnerError(f"{reference.name} does not run in {precision}; give a PyTorch policy")
        self.name = f"{reference.name} in {precision}"
        self._reference, self._narrow, self._precision = reference, reference, precision
        self._inputs = tuple(inputs)

    @property
    def inputs(self) -> Sequence[InputSpec]:
        """What it reads."""
        return self._inputs

    def runner(self, provider: str) -> Runner:
        """Itself: it has no provider."""
        return self

    def reference_runner(self, model: Any) -> Runner:
        """The reference that it is made of."""
        return self._reference

    def open(self) -> None:
        self._reference.open()

    def close(self) -> None:
        self._reference.close()

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        return self._narrow.rounded(inputs, self._precision)

    def facts(self) -> dict[str, Any]:
        return {**self._reference.facts(), "kind": "rounded", "precision": self._precision}
