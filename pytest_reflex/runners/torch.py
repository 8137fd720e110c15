"""Runs a PyTorch module as it is: eval mode, no gradients, in its own precision, nothing patched.

That is float32 for most. A module whose parameters are all float16, or all bfloat16, reads its float inputs
in that type, as its own first layer would otherwise refuse them; where its parameters are of several types
the policy itself knows where it casts, and the inputs stay float32. What it gives in half precision is
widened to float32, which changes no value.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_reflex.errors import ReflexError, RunnerError, a_type
from pytest_reflex.runners.base import RunnerBase, first_line, shown
from pytest_reflex.runners.memory import release_mapped
from pytest_reflex.runners.structure import StructureError, arguments, misfit, named
from pytest_reflex.verdict import machine
from pytest_reflex.verdict.naming import call_line, only_pair

if TYPE_CHECKING:
    import numpy as np
    import torch

    from pytest_reflex.inputs import InputSpec
    from pytest_reflex.runners.base import Trajectory
    from pytest_reflex.runners.quantising import Activations, Ranges
    from pytest_reflex.runners.rounded import Arithmetic, Spared

    Array = np.ndarray[Any, Any]


# What policies call the whole of what they do, the plainest first.
_SAMPLERS: Final = ("sample_actions", "predict_action_chunk", "select_action")


def samplers_of(model: object) -> list[str]:
    """The samplers that a policy has, by name."""
    import torch

    held = {name: getattr(model, name, None) for name in _SAMPLERS}
    return [name for name, own in held.items() if callable(own) and not isinstance(own, torch.nn.Module)]


def forward_runner(model: torch.nn.Module, *, apart: bool = False) -> TorchRunner:
    """A module that is asked by its ``forward``, as nobody says how else; doubted where it has a sampler."""
    runner, kind = TorchRunner(model, apart=apart), type(model).__name__
    runner.doubted_by = lambda model, _: [
        f"{kind} was asked by its forward and has a {name} too, and the candidate does not say which it was "
        f"made from; give TorchRunner(policy) for the first, TorchRunner(policy, policy.{name}) for the other"
        for name in samplers_of(model)[:1]
    ]
    return runner


class TorchRunner(RunnerBase):
    """Runs an ``nn.Module``.

    Args:
        model: the module, or a function without arguments that returns one: it is called on open, and
            its module is freed on close.
        call: what is called with the inputs by keyword, such as ``policy.sample_actions``; by default
            the module itself. When ``model`` is a function, ``call`` gets the module before the inputs.
        outputs: names of the outputs, of every tensor or of what is at the top, needed for a tuple or list
            whose names should say something; a mapping must have just these, in this order.
        states: gives what the module's loop holds after each denoising step, called with the module and
            then the inputs by keyword; by default the steps are not seen.
        name: for people; by default the class or the function.
        apart: whether an output that has the name of an input has ``_out`` after it, as in a graph.

    Attributes:
        drew_random: whether any run since opening moved one of torch's random generators.
        doubted_by: what says in words, of the model and of the inputs that somebody else specified, where its
            model means something else; by default nothing does.
        matched: the one input it was given, and what its model calls its one input, where these differ.
    """

    def __init__(
        self,
        model: torch.nn.Module | Callable[[], torch.nn.Module],
        call: Callable[..., Any] | None = None,
        *,
        outputs: Sequence[str] | None = None,
        states: Callable[..., Sequence[torch.Tensor]] | None = None,
        name: str | None = None,
        apart: bool = False,
    ) -> None:
        if not callable(model):
            raise RunnerError(f"model is {a_type(model)}; give an nn.Module or a function that returns one")
        if isinstance(model, type):
            raise RunnerError(
                f"model is the class {model.__name__}, which would have other weights each time it is "
                "opened; give one of it, or a function that loads its weights"
            )
        self.name = name or str(getattr(model, "__name__", type(model).__name__))
        self.drew_random = False
        self.doubted_by: Callable[[Any, Sequence[InputSpec]], Sequence[str]] | None = None
        self.matched: dict[str, str] = {}
        self._given = model
        self._call = call
        self._outputs = None if outputs is None else tuple(outputs)
        self._states = states
        self._apart = apart
        self._model: torch.nn.Module | None = None
        self._training: list[tuple[torch.nn.Module, bool]] = []
        self._reflex_ran: Callable[[], torch.nn.Module | None] = lambda: None
        # The types of its parameters, float32 first, and where all have one that is narrower, that.
        self._types: tuple[torch.dtype, ...] = ()
        self._cast: torch.dtype | None = None

    def __getstate__(self) -> dict[str, Any]:
        """As it is sent to another process: closed, whatever ran in this one."""
        return {**vars(self), "_model": None, "_training": [], "_reflex_ran": None}

    def __setstate__(self, told: dict[str, Any]) -> None:
        vars(self).update(told, _reflex_ran=lambda: None)

    @property
    def precision(self) -> str:
        """``float32``, or the types of its parameters, such as ``bfloat16``; ``float32`` until it is open."""
        return " and ".join(str(dtype).removeprefix("torch.") for dtype in self._types) or "float32"

    @property
    def model(self) -> torch.nn.Module | None:
        """The module that the runner was given or has loaded; None while a function has still to load it."""
        import torch

        return self._given if isinstance(self._given, torch.nn.Module) else self._model

    def forward(self, **tensors: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """What :meth:`run` computes, tensors to named tensors, for whoever traces it. It need not be open.

        Raises:
            RunnerError: there is no model yet, or it returns something else than tensors.
        """
        model = self.model
        if model is None:
            raise RunnerError(f"{self.name} has not been loaded; open it first")
        return self._asked(model, tensors)

    @property
    def asked_by(self) -> Callable[..., Any] | None:
        """What is called with its inputs, a module or a function; None where that is still to be loaded."""
        import torch

        return (self._call or self._given) if isinstance(self._given, torch.nn.Module) else None

    @property
    def trajectory(self) -> Trajectory | None:
        """What the loop holds after each step; see :class:`~pytest_reflex.runners.Runner`."""
        return None if self._states is None else self._trajectory

    def _trajectory(self, inputs: Mapping[str, Array]) -> Array:
        import numpy as np
        import torch

        if self._states is None:
            raise RunnerError(f"{self.name} was not told how its steps can be seen; give states=")
        with self, torch.no_grad():
            seen = self._states(self._model, **self._tensors(inputs))
            return np.stack([self._array("x_t", state) for state in seen])

    def open(self) -> None:
        if self._model is not None:
            return
        model = self._load()
        self._types = self._checked_types(model)
        self._cast = self._types[0] if len(self._types) == 1 and self.precision != "float32" else None
        self._training = [(module, module.training) for module in model.modules()]
        self._model, self._reflex_ran = model, weakref.ref(model)
        self.drew_random = False
        model.eval()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import torch

        model = self._opened(self._model)
        before = self._random_state()
        try:
            with torch.no_grad():
                outputs = self._asked(model, self._tensors(inputs))
        except ReflexError:
            raise
        except Exception as error:
            said = first_line(error) + _beyond(error, inputs)
            raise RunnerError(f"{self.name} failed on inputs {shown(inputs)}: {said}") from error
        after = self._random_state()
        self.drew_random |= any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        return self._arrays(outputs)

    def exact(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What :meth:`run` would compute if every float were a float64; see :mod:`.float64`.

        Args:
            inputs: as for :meth:`run`.

        Returns:
            The outputs by name, floats as float64.

        Raises:
            RunnerError: the runner is not open, or the model does not run in float64; the message says why.
        """
        import torch

        from pytest_reflex.runners.float64 import lifted

        model, device = self._opened(self._model), self._device()
        try:
            # As they are: what casting them costs is part of the precision's own error.
            tensors = self._tensors(inputs, cast=False)
            half = self.precision != "float32"
            # A model that draws must not move the generators of the runs that are judged.
            drawn_on = [device] if device.type == "cuda" else []
            with torch.no_grad(), torch.random.fork_rng(devices=drawn_on), lifted(half=half):
                outputs = self._asked(model, tensors)
        except Exception as error:
            raise RunnerError(f"{self.name} does not run in float64: {first_line(error)}") from error
        return self._arrays(outputs)

    def rounded(
        self,
        inputs: Mapping[str, Array],
        precision: str,
        arithmetic: Arithmetic = "narrow",
        spared: Spared = "nothing",
    ) -> dict[str, Array]:
        """What :meth:`run` would compute in a narrower precision; see :mod:`.rounded`.

        Args:
            inputs: as for :meth:`run`.
            precision: torch's name of a float type narrower than float32, such as ``float16``.
            arithmetic: ``narrow``, every result is rounded, or ``float32``, only what is stored is.
            spared: what is stored as it is: ``nothing``, ``clock`` or ``constants``.

        Returns:
            The outputs by name, in the dtypes of :meth:`run`.

        Raises:
            RunnerError: the runner is not open, there is no such precision, or the model does not run in it;
                the message says why.
        """
        import torch

        from pytest_reflex.runners.rounded import narrow_type, rounded

        model = self._opened(self._model)
        if self.precision != "float32":
            raise RunnerError(f"{self.name} is in {self.precision} itself; what rounds it is already there")
        dtype, device = narrow_type(precision), self._device()
        weights, buffers = list(model.parameters()), list(model.buffers())
        try:
            drawn_on = [device] if device.type == "cuda" else []
            with torch.no_grad(), torch.random.fork_rng(devices=drawn_on):
                tensors = {name: torch.tensor(array, device=device) for name, array in inputs.items()}
                with rounded(dtype, weights, arithmetic, spared, buffers) as given:
                    tensors = {name: given(tensor) for name, tensor in tensors.items()}
                    outputs = self._asked(model, tensors)
        except Exception as error:
            raise RunnerError(f"{self.name} does not run in {precision}: {first_line(error)}") from error
        return self._arrays(outputs)

    def quantised(
        self,
        inputs: Mapping[str, Array],
        activations: Activations,
        ranges: Ranges | None = None,
        *,
        learning: bool = False,
    ) -> dict[str, Array]:
        """What :meth:`run` would compute with its products in 8 bits; see :mod:`.quantising`.

        Args:
            inputs: as for :meth:`run`.
            activations: ``weights``, ``dynamic`` or ``static``.
            ranges: of ``static``, which runs with ``learning`` have made.
            learning: compute in float32, and widen ``ranges`` by what is seen.

        Raises:
            RunnerError: the runner is not open, or the model does not run so; the message says why.
        """
        import torch

        from pytest_reflex.runners.quantising import Quantising

        model, device = self._opened(self._model), self._device()
        weights = list(model.parameters())
        mode = Quantising(weights, activations, {} if ranges is None else ranges, learning=learning)
        try:
            tensors, drawn_on = self._tensors(inputs), [device] if device.type == "cuda" else []
            with torch.no_grad(), torch.random.fork_rng(devices=drawn_on), mode:
                outputs = self._asked(model, tensors)
        except Exception as error:
            raise RunnerError(f"{self.name} does not run in int8: {first_line(error)}") from error
        return self._arrays(outputs)

    def state(self) -> Mapping[str, object]:
        """What the model holds: buffers, parameters, and what its modules keep as attributes."""
        from pytest_reflex.runners.state import state_of

        return {} if self._model is None else state_of(self._model)

    def doubts(self, specs: Sequence[InputSpec]) -> Sequence[str]:
        """See :class:`~pytest_reflex.runners.base.HasDoubts`."""
        said = [] if self.doubted_by is None else [*self.doubted_by(self.model, specs)]
        from pytest_reflex.runners.sessions import session_doubt

        # A module that runs an ONNX graph is PyTorch in name alone.
        return [*said, *session_doubt(self.name, self._model, self._call)]

    def same_model(self, other: object) -> bool:
        """See :class:`~pytest_reflex.runners.base.HasModel`."""
        from pytest_reflex.runners.one_model import same_call, same_module

        if not isinstance(other, TorchRunner) or type(self).run is not type(other).run:
            return False
        ours, theirs = self._reflex_ran(), other._reflex_ran()
        # What is loaded anew each time, by the same function, is one too.
        one = ours is not None and theirs is not None and same_module(ours, theirs)
        return (one or same_call(self._given, other._given)) and same_call(self._call, other._call)

    def close(self) -> None:
        # Flag by flag: train() may be overridden, and submodules may differ from their parents.
        for module, training in self._training:
            module.training = training
        self._training = []
        if self._model is not None:
            # Whoever holds the policy keeps it; what it has read of its checkpoint need not stay in memory.
            release_mapped(tensor.data_ptr() for tensor in self._model.parameters())
        self._model, self._types, self._cast = None, (), None

    def facts(self) -> dict[str, Any]:
        import torch

        kind = type(self._opened(self._model))
        return {
            "kind": "torch",
            "name": self.name,
            "class": f"{kind.__module__}.{kind.__qualname__}",
            "dtype": self.precision,
            "inputs_cast_to": None if self._cast is None else str(self._cast).removeprefix("torch."),
            "device": str(self._device()),
            "threads": torch.get_num_threads(),
            "drew_random": self.drew_random,
            **({"was_training": True} if self._trained_otherwise() else {}),
            **({"matched": dict(self.matched)} if self.matched else {}),
            "machine": {**machine.here(), "torch_capability": torch.backends.cpu.get_cpu_capability()},
            "versions": {"torch": str(torch.__version__)},
        }

    def _load(self) -> torch.nn.Module:
        import torch

        if isinstance(self._given, torch.nn.Module):
            return self._given
        try:
            model = self._given()
        except ReflexError:
            raise
        except Exception as error:
            raise RunnerError(f"{self.name} could not be loaded: {first_line(error)}") from error
        if not isinstance(model, torch.nn.Module):
            runner = isinstance(model, RunnerBase)
            way = "; name a runner itself, and no function that gives one" if runner else ""
            raise RunnerError(f"{self.name} returned {a_type(model)}; it must return an nn.Module{way}")
        return model

    def _checked_types(self, model: torch.nn.Module) -> tuple[torch.dtype, ...]:
        """The types of the float parameters, float32 first.

        Raises:
            RunnerError: there are others than float32 and the two in half precision.
        """
        import torch

        halves = (torch.float16, torch.bfloat16)
        parameters = [("parameter", *pair) for pair in model.named_parameters()]
        found = {tensor.dtype for _, _, tensor in parameters if tensor.is_floating_point()}
        for what, name, tensor in (*parameters, *(("buffer", *pair) for pair in model.named_buffers())):
            if tensor.is_meta:
                raise RunnerError(
                    f"{self.name}: {what} {name} is on the meta device, so it has a shape and no values; "
                    "load the weights before the check"
                )
            if not tensor.is_floating_point():
                continue
            # A float64 buffer is more exact than asked, not less. What is rounded in a module that is not in
            # half precision is rounded by mistake.
            exact = tensor.dtype == torch.float32 or (tensor.dtype == torch.float64 and what == "buffer")
            half = tensor.dtype in halves and not found.isdisjoint(halves)
            if not exact and not half:
                wrong = f"{what} {name} is {tensor.dtype}"
                raise RunnerError(
                    f"{self.name}: {wrong}; the reference is float32, or float16 or bfloat16, call .float()"
                )
        return tuple(dtype for dtype in (torch.float32, *halves) if dtype in found)

    def _trained_otherwise(self) -> bool:
        """Whether a module that computes otherwise while training was in that mode when it was opened.

        Of one whose code asks for its mode, as for a functional dropout, that is taken to be so.
        """
        from torch.nn.modules.batchnorm import _NormBase
        from torch.nn.modules.dropout import _DropoutNd

        return any(
            training
            and (
                isinstance(module, _NormBase)
                or (isinstance(module, _DropoutNd) and module.p > 0)
                or _asks_for_its_mode(cast("Any", type(module)))
            )
            for module, training in self._training
        )

    def _bound(self, model: torch.nn.Module) -> Callable[..., Any]:
        if self._call is not None:
            return self._call if model is self._given else functools.partial(self._call, model)
        return model

    def _misnamed(self, inputs: Iterable[str]) -> str:
        """What to write where the module has other names for its inputs, or its sampler these; or empty."""
        if self._call is not None or self.model is None:
            return ""
        inputs = list(inputs)
        for sampler in samplers_of(self.model):
            if not misfit(getattr(self.model, sampler), inputs):
                return (
                    f"; its {sampler} takes these: to judge that, give TorchRunner(policy, policy.{sampler})"
                )
        taken = _required(self.model.forward)
        line = "" if taken is None else call_line(inputs, taken)
        return f"; name the inputs {', '.join(taken or ())}, or give {line}" if line else ""

    def _device(self) -> torch.device:
        import itertools

        import torch

        if self._model is None:
            return torch.device("cpu")
        tensors = itertools.chain(self._model.parameters(), self._model.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    def _tensors(self, inputs: Mapping[str, Array], *, cast: bool = True) -> dict[str, torch.Tensor]:
        """The inputs copied, in the module's own type where it has one: a model that writes to them must not
        write to the caller's arrays."""
        import torch

        device = self._device()
        tensors = {name: torch.tensor(array, device=device) for name, array in inputs.items()}
        if self._cast is None or not cast:
            return tensors
        return {n: t.to(self._cast) if t.dtype == torch.float32 else t for n, t in tensors.items()}

    def _random_state(self) -> list[torch.Tensor]:
        import torch

        device, states = self._device(), [torch.random.get_rng_state()]
        return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states

    def _asked(self, model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Call what is to be called, and name every tensor that it returns."""
        bound = self._bound(model)
        try:
            given = arguments(bound, tensors)
            if self._call is None:
                given, said = in_its_names(model, given), given
                self.matched = dict(zip(said, given, strict=True)) if given.keys() != said.keys() else {}
            outputs = named(self._gave(bound, given), self._outputs, tensors, apart=self._apart)
        except StructureError as error:
            raise RunnerError(f"{self.name} {error}") from error
        return {name: self._tensor(name, value) for name, value in outputs.items()}

    def _gave(self, bound: Callable[..., Any], given: Mapping[str, Any]) -> Any:
        try:
            return bound(**given)
        except TypeError as error:
            if said := misfit(bound, given):
                raise StructureError(said + self._misnamed(given)) from error
            raise

    def _arrays(self, outputs: Mapping[str, torch.Tensor]) -> dict[str, Array]:
        return {name: self._array(name, value) for name, value in outputs.items()}

    def _tensor(self, name: str, value: object) -> torch.Tensor:
        import torch

        if isinstance(value, torch.Tensor):
            return value
        wrong = f"output {name!r} is {a_type(value)}"
        raise RunnerError(
            f"{self.name}: {wrong}, not a tensor; return tensors only, or give a "
            "TorchRunner(policy, call) that does"
        )

    def _array(self, name: str, value: object) -> Array:

        import torch

        tensor = self._tensor(name, value)
        if self.precision != "float32" and tensor.dtype in (torch.float16, torch.bfloat16):
            tensor = tensor.float()
        return array_of(self.name, name, tensor)


def array_of(who: str, name: str, tensor: torch.Tensor) -> Array:
    """A tensor as an array of its own.

    Raises:
        RunnerError: numpy has no array of it, such as a sparse one; or it is bfloat16, and ml_dtypes is not
            installed.
    """
    import numpy as np
    import torch

    try:
        # An imaginary part may be a view that says "times -1" and has not been computed.
        tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
        if tensor.dtype != torch.bfloat16:
            return np.array(tensor.numpy())
    except (RuntimeError, TypeError) as error:
        what = f"output {name!r} is a tensor of {tensor.dtype} in the layout {tensor.layout}"
        raise RunnerError(f"{who}: {what}, of which there is no array ({first_line(error)})") from error
    try:
        import ml_dtypes
    except ImportError as error:
        wrong = f"output {name!r} is bfloat16, which numpy does not know"
        raise RunnerError(f"{who}: {wrong}; install ml_dtypes, or return .float()") from error
    return np.array(tensor.contiguous().view(torch.uint16).numpy()).view(ml_dtypes.bfloat16)


def _beyond(error: Exception, inputs: Mapping[str, Array]) -> str:
    """What the inputs of whole numbers are, where a module looks up what is not there by one of them."""
    if not isinstance(error, IndexError) and "out of range" not in str(error):
        return ""
    whole = {name: array for name, array in inputs.items() if array.dtype.kind in "iu" and array.size}
    said = [f"{name!r} is from {array.min()} to {array.max()}" for name, array in whole.items()]
    advice = "say in its InputSpec what it may be, Integers(low, high)"
    return f"; of the inputs of whole numbers {', '.join(said)}: {advice}" if said else ""


def in_its_names(model: torch.nn.Module, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a module is called with: by the module's own name, where it takes one input and is given one."""
    taken = _required(model.forward)
    pair = None if taken is None else only_pair(given, taken)
    return dict(given) if pair is None else {pair[1]: given[pair[0]]}


@functools.cache
def _asks_for_its_mode(kind: Any) -> bool:
    """Whether the code of a module's own ``forward`` asks whether it is training; of torch's it is known."""
    if kind.__module__.startswith("torch."):
        return False
    try:
        return "self.training" in inspect.getsource(kind.forward)
    except (OSError, TypeError, AttributeError):
        return False


def _required(function: Callable[..., object]) -> list[str] | None:
    """The names of what a function has to be given; None where it takes any name."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    if any(p.kind in (p.VAR_KEYWORD, p.POSITIONAL_ONLY) for p in parameters):
        return None
    return [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
