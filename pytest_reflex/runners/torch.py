"""Runs a PyTorch module as it is: eval mode, no gradients, in its own precision, nothing patched.

That is float32 for most. A module whose parameters are all float16, or all bfloat16, reads its float inputs
in that type, as its own first layer would otherwise refuse them; where its parameters are of several types
the policy itself knows where it casts, and the inputs stay float32. What it gives in half precision is
widened to float32, which changes no value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_reflex.errors import ReflexError, RunnerError
from pytest_reflex.runners.base import RunnerBase, first_line
from pytest_reflex.runners.memory import release_mapped
from pytest_reflex.verdict import machine

if TYPE_CHECKING:
    import numpy as np
    import torch

    from pytest_reflex.inputs import InputSpec
    from pytest_reflex.runners.base import Trajectory
    from pytest_reflex.runners.rounded import Arithmetic, Spared

    Array = np.ndarray[Any, Any]
    Outputs = torch.Tensor | Mapping[str, torch.Tensor] | Sequence[torch.Tensor]


class TorchRunner(RunnerBase):
    """Runs an ``nn.Module``.

    Args:
        model: the module, or a function without arguments that returns one: it is called on open, and
            its module is freed on close.
        call: what is called with the inputs by keyword, such as ``policy.sample_actions``; by default
            the module itself. When ``model`` is a function, ``call`` gets the module before the inputs.
        outputs: names of the outputs, needed for a tuple or list whose names should say something; a
            mapping must have just these, in this order.
        states: gives what the module's loop holds after each denoising step, called with the module and
            then the inputs by keyword; by default the steps are not seen.
        name: for people; by default the class or the function.

    Attributes:
        drew_random: whether any run since opening moved one of torch's random generators.
        doubted_by: what says in words, of the model and of the inputs that somebody else specified, where its
            model means something else; by default nothing does.
    """

    def __init__(
        self,
        model: torch.nn.Module | Callable[[], torch.nn.Module],
        call: Callable[..., Outputs] | None = None,
        *,
        outputs: Sequence[str] | None = None,
        states: Callable[..., Sequence[torch.Tensor]] | None = None,
        name: str | None = None,
    ) -> None:
        if not callable(model):
            raise RunnerError(
                f"model is a {type(model).__name__}; give an nn.Module or a function that returns one"
            )
        self.name = name or str(getattr(model, "__name__", type(model).__name__))
        self.drew_random = False
        self.doubted_by: Callable[[Any, Sequence[InputSpec]], Sequence[str]] | None = None
        self._given = model
        self._call = call
        self._outputs = None if outputs is None else tuple(outputs)
        self._states = states
        self._model: torch.nn.Module | None = None
        self._training: list[tuple[torch.nn.Module, bool]] = []
        # The types of its parameters, float32 first, and where all have one that is narrower, that.
        self._types: tuple[torch.dtype, ...] = ()
        self._cast: torch.dtype | None = None

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
        return self._named(self._bound(model)(**tensors))  # type: ignore[return-value]

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
        self._model = model
        self.drew_random = False
        model.eval()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import torch

        bound = self._bound(self._opened(self._model))
        before = self._random_state()
        try:
            with torch.no_grad():
                outputs = bound(**self._tensors(inputs))
        except ReflexError:
            raise
        except Exception as error:
            raise RunnerError(
                f"{self.name} failed on inputs {', '.join(inputs)}: {first_line(error)}"
            ) from error
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

        bound, device = self._bound(self._opened(self._model)), self._device()
        try:
            # As they are: what casting them costs is part of the precision's own error.
            tensors = self._tensors(inputs, cast=False)
            half = self.precision != "float32"
            # A model that draws must not move the generators of the runs that are judged.
            drawn_on = [device] if device.type == "cuda" else []
            with torch.no_grad(), torch.random.fork_rng(devices=drawn_on), lifted(half=half):
                outputs = bound(**tensors)
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

        if self._model is None:
            raise RunnerError(f"{self.name} is not open; call open() or use it in a with statement")
        if self.precision != "float32":
            raise RunnerError(f"{self.name} is in {self.precision} itself; what rounds it is already there")
        dtype, device = narrow_type(precision), self._device()
        weights, buffers = list(self._model.parameters()), list(self._model.buffers())
        try:
            drawn_on = [device] if device.type == "cuda" else []
            with torch.no_grad(), torch.random.fork_rng(devices=drawn_on):
                tensors = {name: torch.tensor(array, device=device) for name, array in inputs.items()}
                with rounded(dtype, weights, arithmetic, spared, buffers) as given:
                    tensors = {name: given(tensor) for name, tensor in tensors.items()}
                    outputs = self._bound(self._model)(**tensors)
        except Exception as error:
            raise RunnerError(f"{self.name} does not run in {precision}: {first_line(error)}") from error
        return self._arrays(outputs)

    def state(self) -> Mapping[str, object]:
        """What the model holds: buffers, parameters, and what its modules keep as attributes."""
        from pytest_reflex.runners.state import state_of

        return {} if self._model is None else state_of(self._model)

    def doubts(self, specs: Sequence[InputSpec]) -> Sequence[str]:
        """See :class:`~pytest_reflex.runners.base.HasDoubts`."""
        return [] if self.doubted_by is None else self.doubted_by(self.model, specs)

    def close(self) -> None:
        # Flag by flag: train() may be overridden, and submodules may differ from their parents.
        for module, training in self._training:
            module.training = training
        self._training = []
        if self._model is not None:
            # Whoever holds the policy keeps it; what it has read of its checkpoint need not stay in memory.
            release_mapped(tensor.data_ptr() for tensor in self._model.parameters())
        self._model = None

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
            raise RunnerError(f"{self.name} returned a {type(model).__name__}; it must return an nn.Module")
        return model

    def _checked_types(self, model: torch.nn.Module) -> tuple[torch.dtype, ...]:
        """The types of the float parameters, float32 first.

        Raises:
            RunnerError: there are others than float32 and the two in half precision.
        """
        import torch

        halves = (torch.float16, torch.bfloat16)
        parameters = [("parameter", *named) for named in model.named_parameters()]
        found = {tensor.dtype for _, _, tensor in parameters if tensor.is_floating_point()}
        for what, name, tensor in (*parameters, *(("buffer", *named) for named in model.named_buffers())):
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

    def _bound(self, model: torch.nn.Module) -> Callable[..., Outputs]:
        import functools

        if self._call is None:
            return model
        return self._call if model is self._given else functools.partial(self._call, model)

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

    def _named(self, outputs: object) -> Mapping[str, object]:
        import torch

        if isinstance(outputs, Mapping):
            names = tuple(str(name) for name in outputs)
            self._require_unlike(names)
            if self._outputs not in (None, names):
                should = list(self._outputs or ())
                raise RunnerError(f"{self.name} returned {list(names)}; its outputs should be {should}")
            return dict(zip(names, outputs.values(), strict=True))
        if isinstance(outputs, torch.Tensor):
            given = {"output": outputs}
        elif isinstance(outputs, tuple | list):
            given = {f"output_{i}": value for i, value in enumerate(outputs)}
        else:
            raise RunnerError(
                f"{self.name} returned a {type(outputs).__name__}; return tensors, or use call="
            )
        names = tuple(given) if self._outputs is None else self._outputs
        self._require_unlike(names)
        if len(names) != len(given):
            raise RunnerError(
                f"{self.name} returned {len(given)} outputs; {len(names)} are named: {list(names)}"
            )
        return dict(zip(names, given.values(), strict=True))

    def _arrays(self, outputs: object) -> dict[str, Array]:
        return {name: self._array(name, value) for name, value in self._named(outputs).items()}

    def _require_unlike(self, names: Sequence[str]) -> None:
        """Two outputs of one name would be one, and the other never compared."""
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise RunnerError(f"{self.name}: two outputs are named {twice!r}; give each a name of its own")

    def _array(self, name: str, value: object) -> Array:
        import numpy as np
        import torch

        if not isinstance(value, torch.Tensor):
            wrong = f"output {name!r} is a {type(value).__name__}"
            raise RunnerError(f"{self.name}: {wrong}, not a tensor; use call= to return tensors only")
        tensor = value.detach().cpu()
        if self.precision != "float32" and tensor.dtype in (torch.float16, torch.bfloat16):
            tensor = tensor.float()
        if tensor.dtype != torch.bfloat16:
            return np.array(tensor.numpy())
        try:
            import ml_dtypes
        except ImportError as error:
            wrong = f"output {name!r} is bfloat16, which numpy does not know"
            raise RunnerError(f"{self.name}: {wrong}; install ml_dtypes, or return .float()") from error
        return np.array(tensor.contiguous().view(torch.uint16).numpy()).view(ml_dtypes.bfloat16)
