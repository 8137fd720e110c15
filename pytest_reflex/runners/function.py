"""Runs a function of named arrays or tensors, for what is no ``nn.Module``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_reflex.errors import MissingPackageError, ReflexError, RunnerError, a_type
from pytest_reflex.runners.base import RunnerBase, first_line, shown
from pytest_reflex.runners.structure import StructureError, by_name, named
from pytest_reflex.verdict import machine

if TYPE_CHECKING:
    import numpy as np

    from pytest_reflex.inputs import InputSpec

    Array = np.ndarray[Any, Any]


class FunctionRunner(RunnerBase):
    """Runs a function, as reference or as candidate.

    Args:
        function: called with the inputs by keyword; it gives an array or a tensor, a mapping from name to
            such, or a sequence of them. A reference has to give the same for the same inputs each time.
        tensors: give it torch tensors, without gradients, instead of numpy arrays.
        outputs: names of the outputs, needed for a sequence whose names should say something.
        name: for people; by default the function's name.

    Raises:
        RunnerError: it is nothing to call.
    """

    def __init__(
        self,
        function: Callable[..., object],
        *,
        tensors: bool = False,
        outputs: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        if not callable(function) or isinstance(function, type):
            what = f"the class {function.__name__}" if isinstance(function, type) else repr(function)
            raise RunnerError(f"function is {what}; give a function of the inputs by name")
        self.name = name or str(getattr(function, "__name__", type(function).__name__))
        self.drew_random = False
        self._function, self._tensors = function, tensors
        self._outputs = None if outputs is None else tuple(outputs)
        self._open: bool | None = None

    def open(self) -> None:
        if self._open is None:
            self._open, self.drew_random = True, False

    def close(self) -> None:
        self._open = None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import numpy as np

        self._opened(self._open)
        before = _torch_state()
        try:
            outputs = self._called({name: np.array(array) for name, array in inputs.items()})
        except ReflexError:
            raise
        except Exception as error:
            raise RunnerError(f"{self.name} failed on inputs {shown(inputs)}: {first_line(error)}") from error
        self.drew_random |= before is not None and before != _torch_state()
        torch = sys.modules.get("torch")
        one = (np.ndarray, np.generic, *((torch.Tensor,) if torch is not None else ()))
        try:
            found = named(outputs, self._outputs)
        except StructureError as error:
            raise RunnerError(f"{self.name} {error}") from error
        return {name: self._array(name, value, one) for name, value in found.items()}

    def _called(self, arrays: dict[str, Array]) -> object:
        if not self._tensors:
            return by_name(self._function, arrays, self.name)
        try:
            import torch
        except ModuleNotFoundError as error:
            raise MissingPackageError(f"{self.name} wants tensors, and torch is not installed") from error
        with torch.no_grad():
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            return by_name(self._function, tensors, self.name)

    def _array(self, name: str, value: Any, one: tuple[type, ...]) -> Array:
        import numpy as np

        if not isinstance(value, one):
            what = a_type(value)
            raise RunnerError(f"{self.name}: output {name!r} is {what}; return arrays or tensors only")
        if isinstance(value, np.ndarray | np.generic):
            return np.array(value)
        from pytest_reflex.runners.torch import array_of

        tensor: Any = value
        return array_of(self.name, name, tensor)

    def doubts(self, specs: Sequence[InputSpec]) -> Sequence[str]:
        """See :class:`~pytest_reflex.runners.base.HasDoubts`."""
        from pytest_reflex.runners.sessions import session_doubt

        return session_doubt(self.name, self._function)

    def same_model(self, other: object) -> bool:
        """See :class:`~pytest_reflex.runners.base.HasModel`; a module is its ``forward``."""
        theirs = other._function if isinstance(other, FunctionRunner) else getattr(other, "asked_by", None)
        if theirs is None or "torch" not in sys.modules:
            return theirs is not None and bool(self._function == theirs)
        from pytest_reflex.runners.one_model import forward_of, same_call

        return same_call(forward_of(self._function), forward_of(theirs))

    def facts(self) -> dict[str, Any]:
        self._opened(self._open)
        torch = sys.modules.get("torch")
        function = self._function
        return {
            "kind": "function",
            "name": self.name,
            "class": f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', self.name)}",
            "drew_random": self.drew_random,
            "machine": machine.here(),
            "versions": {} if torch is None else {"torch": str(torch.__version__)},
        }


def _torch_state() -> bytes | None:
    """The state of torch's random generator, where torch is loaded."""
    torch = sys.modules.get("torch")
    return None if torch is None else bytes(torch.random.get_rng_state().numpy().tobytes())
