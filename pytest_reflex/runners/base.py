"""What a runner is: the one thing a check asks of either side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    # Named inputs -> what a loop holds after each of its steps, ``[steps, batch, chunk, dim]``.
    Trajectory = Callable[[Mapping[str, Array]], Array]


@runtime_checkable
class Runner(Protocol):
    """Maps named arrays to named arrays between :meth:`open` and :meth:`close`, as often as wanted.

    A runner that stands on ONNX Runtime also has ``provider_asked`` (ONNX Runtime's full name) and, once
    open, ``providers_used`` (what its session reports, the first of which the verdict looks at).

    A runner of a denoising loop may have ``trajectory(inputs)``: what the loop holds after each of its steps,
    stacked, the last of which is the output. It is asked of a closed runner, which opens what it needs and
    closes it again. Where it is None, or not there, the steps of that runner cannot be seen.

    Attributes:
        name: what the runner runs, for people.
    """

    name: str

    def open(self) -> None:
        """Load what is needed to run. Opening an open runner changes nothing.

        Raises:
            RunnerError: the model cannot be opened.
        """

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name, in the model's order, as arrays that nothing else holds on to.

        Raises:
            RunnerError: the runner is not open, the inputs are not the model's, or the model failed.
        """
        ...

    def close(self) -> None:
        """Give back what :meth:`open` took and restore what it changed; on a closed runner, do nothing."""

    def facts(self) -> dict[str, Any]:
        """What ran, as builtins for a report, after :meth:`open`.

        Two keys have a meaning: ``versions``, and ``machine``, as
        :func:`pytest_reflex.verdict.machine.here` says it. A runner without ``machine`` is taken to have
        run in this process.
        """
        ...


class RunnerBase:
    """Gives a runner ``with runner:``, which opens it and closes it whatever happens."""

    def open(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def trajectory_of(runner: object) -> Trajectory | None:
    """A runner's ``trajectory``; None where it has none."""
    found: Trajectory | None = getattr(runner, "trajectory", None)
    return found


def copied(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays as they are now, whatever is done to the originals later."""
    import numpy as np

    return {name: np.array(array, order="C") for name, array in arrays.items()}


def first_line(error: BaseException) -> str:
    """An error's type and first line, to be quoted in a one-line message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
