"""What a runner is: the one thing a check asks of either side."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar, runtime_checkable

from pytest_reflex.errors import RunnerError, a_type

T = TypeVar("T")


if TYPE_CHECKING:
    import numpy as np

    from pytest_reflex.inputs import InputSpec
    from pytest_reflex.verdict.coverage import Decision
    from pytest_reflex.verdict.units import InUnits

    Array = np.ndarray[Any, Any]
    # Named inputs -> what a loop holds after each of its steps, ``[steps, batch, chunk, dim]``.
    Trajectory = Callable[[Mapping[str, Array]], Array]


@runtime_checkable
class Runner(Protocol):
    """Maps named arrays to named arrays between :meth:`open` and :meth:`close`, as often as wanted.

    What else it can do it says by being an :class:`OnProvider`, a :class:`SaysProviders`, a
    :class:`HasFloat64`, a :class:`HasState`, a :class:`HasDoubts`, a :class:`HasModel`, a
    :class:`HasDecisions` or a :class:`HasTrajectory` too. What a verdict hangs on is read by
    :func:`said_by`, from a ``__getattr__`` too; of the rest, what only that knows of is not seen.

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


def said_by(holder: object, name: str, default: object) -> Any:
    """What an object says of itself by an attribute that a verdict hangs on; ``default`` where it has none.

    ``isinstance`` with a protocol asks otherwise from one version of Python to the next: of a property that
    raises, and of what a ``__getattr__`` gives.

    Raises:
        RunnerError: it has the attribute, which cannot be read.
    """
    try:
        return getattr(holder, name)
    except Exception as error:
        if isinstance(error, AttributeError) and inspect.getattr_static(holder, name, None) is None:
            return default
        raise RunnerError(
            f"{name} of the {type(holder).__name__} cannot be read ({type(error).__name__}: {error}); mend it"
        ) from error


@runtime_checkable
class OnProvider(Protocol):
    """A runner that stands on ONNX Runtime; it has to be a :class:`SaysProviders` too, once it is open."""

    @property
    def provider_asked(self) -> str | None:
        """ONNX Runtime's full name of the provider that it was made for; None where it has none."""


@runtime_checkable
class SaysProviders(Protocol):
    """A runner that says what it ran on."""

    @property
    def providers_used(self) -> Sequence[str]:
        """What its session reports, the first of which the verdict looks at; empty before it is open."""
        ...


@runtime_checkable
class HasFloat64(Protocol):
    """A runner that can compute in float64 what it computes in float32."""

    def exact(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What ``run`` would give if every float were a float64.

        Raises:
            ReflexError: the model does not run in float64; the message says why.
        """
        ...


@runtime_checkable
class HasNarrower(Protocol):
    """A runner that can compute in a narrower precision what it computes in float32, as conversions must."""

    def rounded(
        self, inputs: Mapping[str, Array], precision: str, arithmetic: Any = "narrow", spared: Any = "nothing"
    ) -> dict[str, Array]:
        """What ``run`` would give in a narrower float; see :meth:`TorchRunner.rounded`.

        Raises:
            ReflexError: the model does not run so; the message says why.
        """
        ...

    def quantised(
        self, inputs: Mapping[str, Array], activations: Any, ranges: Any = None, *, learning: bool = False
    ) -> dict[str, Array]:
        """What ``run`` would give with its products in 8 bits; see :meth:`TorchRunner.quantised`.

        Raises:
            ReflexError: the model does not run so; the message says why.
        """
        ...


@runtime_checkable
class HasGraphs(Protocol):
    """A runner of ONNX graphs that can be read."""

    @property
    def graphs(self) -> Sequence[Path | bytes]:
        """The files of its graphs, or their bytes, known before it is open; of several, none is the whole."""
        ...


@runtime_checkable
class HasDecisions(Protocol):
    """A runner of ONNX graphs whose decisions can be watched."""

    def watching(self, inputs: Mapping[str, tuple[Array, Array]] | None = None) -> Watching:
        """A copy of itself, closed, that notes the ways which the decisions of its graphs go.

        Args:
            inputs: of inputs of whole numbers and booleans the least and the largest value of each element.

        Raises:
            ReflexError: they cannot be watched; the message says why.
        """
        ...


@runtime_checkable
class Watching(Runner, Protocol):
    """A runner that notes decisions."""

    @property
    def decisions(self) -> Sequence[Decision]:
        """Each of them, with the ways that it went so far."""
        ...


# A trap that is one of the thread, whoever has set it.
FLUSHED: Final = (
    "subnormal values are flushed to 0 in this thread, which a library does when it is loaded (one built "
    "with fast-math) or told to (session.set_denormal_as_zero); torch.set_flush_denormal(False) ends that"
)


@runtime_checkable
class HasTraps(Protocol):
    """A runner that knows what makes it compute otherwise than its graph says, and can do without."""

    def without_traps(self) -> Mapping[str, Runner]:
        """Itself, closed, without each that may be at work, by what that is and what ends it, in words."""
        ...


@runtime_checkable
class HasState(Protocol):
    """A runner that can say what its model holds besides its inputs."""

    def state(self) -> Mapping[str, object]:
        """What may change from one run to the next, by name, as values that can be compared.

        Asked between :meth:`Runner.open` and :meth:`Runner.close`.
        """
        ...


@runtime_checkable
class HasDoubts(Protocol):
    """A reference that is asked what somebody else says, and knows what its model says itself."""

    def doubts(self, specs: Sequence[InputSpec]) -> Sequence[str]:
        """Where the two differ, in words that name both; nothing where they do not.

        Asked between :meth:`Runner.open` and :meth:`Runner.close`.

        Args:
            specs: what its fixtures are drawn from, where the candidate alone says that; otherwise nothing.
        """
        ...


@runtime_checkable
class HasModel(Protocol):
    """A runner that knows whether another one is itself once more."""

    def same_model(self, other: object) -> bool:
        """Whether it computes with the same model in the same way; asked once both have been open."""
        ...


@runtime_checkable
class SaysUnits(Protocol):
    """A candidate that knows what its outputs are in a robot's units."""

    @property
    def robot_units(self) -> Mapping[str, InUnits]:
        """By the name of an output, what the elements of its last axis are.

        Where it is not to be believed, an attribute ``units_apart`` says why, in words.
        """
        ...


@runtime_checkable
class HasTrajectory(Protocol):
    """A runner of a denoising loop that can show its steps."""

    @property
    def trajectory(self) -> Trajectory | None:
        """What the loop holds after each of its steps, stacked, the last of which is the output.

        It is asked of a closed runner, which opens what it needs and closes it again. Where it is None the
        steps cannot be seen.
        """


class RunnerBase:
    """Gives a runner ``with runner:``, which opens it and closes it whatever happens."""

    name: str

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {' '.join(str(self.name).split())}>"

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

    def _opened(self, taken: T | None) -> T:
        """What :meth:`open` has taken; None where it was not called, which is an error."""
        if taken is None:
            raise RunnerError(f"{self.name} is not open; call open() or use it in a with statement")
        return taken


def trajectory_of(runner: object) -> Trajectory | None:
    """A runner's ``trajectory``; None where it has none."""
    return runner.trajectory if isinstance(runner, HasTrajectory) else None


def copied(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays as they are now, whatever is done to the originals later."""
    import numpy as np

    return {name: np.array(array, order="C") for name, array in arrays.items()}


def shown(arrays: Mapping[str, Array]) -> str:
    """What a model was given, for the message where it fails: each name with its shape, and its dtype."""
    return ", ".join(
        f"{name} {list(array.shape)}" + ("" if array.dtype.name == "float32" else f" {array.dtype.name}")
        for name, array in arrays.items()
    )


def asked(runner: Runner, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What a runner gives, once it is sure to be arrays, and none of objects, such as ONNX's strings.

    Raises:
        RunnerError: it is not, or the run failed.
    """
    import numpy as np

    outputs = runner.run(inputs)
    if not isinstance(outputs, Mapping):
        raise RunnerError(f"{runner.name} gave {a_type(outputs)}; a runner gives arrays by name")
    for name, value in outputs.items():
        if type(name) is not str:  # what only says that it is equal to another one is no name
            raise RunnerError(f"{runner.name}: output name {name!r} is {a_type(name)}; give text")
        good = isinstance(value, np.ndarray | np.generic)
        if not good or value.dtype.hasobject:
            what = "holds text or objects" if good else f"is {a_type(value)}"
            raise RunnerError(f"{runner.name}: output {name!r} {what}; a check compares arrays of numbers")
    return {name: np.asarray(value) for name, value in outputs.items()}


def first_line(error: BaseException) -> str:
    """An error's type and first line, to be quoted in a one-line message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
