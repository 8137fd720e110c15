"""A reference that is asked once, however many candidates are judged against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_reflex.errors import ReflexError
from pytest_reflex.inputs import InputSpec, array_digest
from pytest_reflex.runners.base import RunnerBase, copied
from pytest_reflex.runners.torch import TorchRunner

if TYPE_CHECKING:
    import numpy as np

    from pytest_reflex.runners.base import Trajectory

    Array = np.ndarray[Any, Any]
    Outputs = dict[str, Array]

__all__ = ["RememberedRunner"]


class RememberedRunner(RunnerBase):
    """PyTorch, which answers what it was asked before from memory.

    While it listens it passes everything on, so that a check sees all that there is to see of a reference:
    whether it holds still, whether it draws numbers. Once :meth:`remember` was called, what is known is
    answered, and PyTorch is opened only for what is not.

    Args:
        runner: what is asked.
    """

    def __init__(self, runner: TorchRunner) -> None:
        self.name = runner.name
        self._runner = runner
        self._known: dict[tuple[str, ...], Outputs | ReflexError] = {}
        self._facts: dict[str, Any] = {}
        self._doubts: Sequence[str] = ()
        self._recalls = self._is_open = False

    def remember(self) -> None:
        """From here on answer what is known."""
        self._recalls = True

    def open(self) -> None:
        if not self._recalls:
            self._open()

    def _open(self) -> TorchRunner:
        if not self._is_open:
            self._runner.open()
            self._is_open = True
        return self._runner

    def close(self) -> None:
        self._is_open = False
        self._runner.close()

    def run(self, inputs: Mapping[str, Array]) -> Outputs:
        return self._answer(("run", array_digest(inputs)), lambda runner: runner.run(inputs))

    def exact(self, inputs: Mapping[str, Array]) -> Outputs:
        """See :class:`~pytest_reflex.runners.base.HasFloat64`."""
        return self._answer(("exact", array_digest(inputs)), lambda runner: runner.exact(inputs))

    def rounded(
        self, inputs: Mapping[str, Array], precision: str, arithmetic: Any = "narrow", spared: Any = "nothing"
    ) -> Outputs:
        """See :class:`~pytest_reflex.runners.base.HasNarrower`."""
        key = ("rounded", array_digest(inputs), precision, str(arithmetic), str(spared))
        return self._answer(key, lambda runner: runner.rounded(inputs, precision, arithmetic, spared))

    def quantised(
        self, inputs: Mapping[str, Array], activations: Any, ranges: Any = None, *, learning: bool = False
    ) -> Outputs:
        """See there; it is never recalled, for it learns."""
        return self._open().quantised(inputs, activations, ranges, learning=learning)

    def _answer(self, key: tuple[str, ...], ask: Callable[[TorchRunner], Outputs]) -> Outputs:
        if key not in self._known or not self._recalls:
            try:
                self._known[key] = copied(ask(self._open()))
            except ReflexError as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, ReflexError):
            raise known
        return copied(known)

    def state(self) -> Mapping[str, object]:
        """See :class:`~pytest_reflex.runners.base.HasState`; what is recalled holds still."""
        return self._runner.state() if self._is_open else {}

    def doubts(self, specs: Sequence[InputSpec]) -> Sequence[str]:
        """See :class:`~pytest_reflex.runners.base.HasDoubts`."""
        if not self._recalls:
            self._doubts = [*self._runner.doubts(specs)]
        return self._doubts

    def same_model(self, other: object) -> bool:
        """See :class:`~pytest_reflex.runners.base.HasModel`."""
        return self._runner.same_model(other)

    @property
    def trajectory(self) -> Trajectory | None:
        """See :class:`~pytest_reflex.runners.base.HasTrajectory`."""
        return self._runner.trajectory

    def facts(self) -> dict[str, Any]:
        if not self._recalls:
            self._facts = self._runner.facts()
        return dict(self._facts)
