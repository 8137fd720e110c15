"""Runs what was made of a policy and is no ONNX graph: AOTInductor's packages, ExecuTorch's programs.

Somebody else made the file; it is judged as it is, against the policy. Its inputs have no names, or need not
have them: they are given in the order of the inputs that it is judged with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_reflex.errors import RunnerError, a_type
from pytest_reflex.runners.base import first_line
from pytest_reflex.runners.model_files import FilesRunner
from pytest_reflex.runners.opened_files import OpenedFiles
from pytest_reflex.runners.structure import StructureError, named
from pytest_reflex.runners.torch import array_of
from pytest_reflex.verdict import machine

if TYPE_CHECKING:
    import numpy as np
    import torch

    Array = np.ndarray[Any, Any]

__all__ = ["AotInductorRunner", "ExecuTorchRunner"]


class _PackagedRunner(FilesRunner):
    """A model in a file of its own.

    Args:
        model: path of the file.
        outputs: names of its outputs, in their order, where the file has none.
        name: for people; by default the path.

    Attributes:
        changed: whether the file was written to while it was open, in words; known once it is closed.
    """

    OPENS: ClassVar[str]
    RUNTIME: ClassVar[str]
    NEEDS: ClassVar[str]
    INSTALL: ClassVar[str]

    def __init__(
        self, model: str | Path, *, outputs: Sequence[str] | None = None, name: str | None = None
    ) -> None:
        self._model = Path(model)
        self._outputs = None if outputs is None else tuple(outputs)
        self.name = name or str(model)
        self._loaded: Any = None

    def open(self) -> None:
        if self._loaded is not None:
            return
        if not self._model.is_file():
            raise RunnerError(f"{self._model} does not exist; give the path of a {self.OPENS}")
        files = OpenedFiles({self._model.name: self._model})
        try:
            loaded = self._load()
        except RunnerError:
            raise
        except ImportError as error:
            raise RunnerError(
                f"{self.name} needs {self.NEEDS} ({first_line(error)}); pip install {self.INSTALL}"
            ) from error
        except Exception as error:
            raise RunnerError(
                f"{self.name} is no {self.OPENS} that {self.RUNTIME} can open: {first_line(error)}"
            ) from error
        self._watch(files)
        self._loaded = loaded

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import torch

        loaded = self._opened(self._loaded)
        tensors = {name: torch.tensor(array) for name, array in inputs.items()}
        try:
            with torch.no_grad():
                gave = self._asked(loaded, tensors)
            outputs = named(gave, self._outputs, tensors)
        except StructureError as error:
            raise RunnerError(f"{self.name} {error}") from error
        except Exception as error:
            said = f"{self.name} failed under {self.RUNTIME} on inputs {', '.join(inputs)}, in this order"
            raise RunnerError(f"{said}: {first_line(error)}") from error
        return {name: array_of(self.name, name, self._tensor(name, value)) for name, value in outputs.items()}

    def _tensor(self, name: str, value: object) -> torch.Tensor:
        import torch

        if not isinstance(value, torch.Tensor):
            raise RunnerError(f"{self.name}: output {name!r} is {a_type(value)}, not a tensor")
        return value

    def _load(self) -> Any:
        raise NotImplementedError

    def _asked(self, loaded: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self._leave()
        self._loaded = None

    def facts(self) -> dict[str, Any]:
        import torch

        self._opened(self._loaded)
        return {
            "kind": self.RUNTIME,
            "runtime": self.RUNTIME,
            "name": self.name,
            "path": str(self._model),
            "sha256": self.digests()[self._model.name],
            "machine": machine.here(),
            "versions": {"torch": str(torch.__version__), **self._versions()},
        }

    def _versions(self) -> dict[str, str]:
        return {}


class AotInductorRunner(_PackagedRunner):
    """Runs a package that ``torch._inductor.aoti_compile_and_package`` made, a ``.pt2``."""

    OPENS = ".pt2"
    RUNTIME = "aotinductor"
    NEEDS, INSTALL = "PyTorch", "torch"

    def _load(self) -> Any:
        import torch._inductor

        return torch._inductor.aoti_load_package(str(self._model))

    def _asked(self, loaded: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
        import torch

        spec = torch.utils._pytree.treespec_loads(loaded.loader.get_call_spec()[0])
        by_name = list(spec.child(1).context or ())
        if by_name and sorted(by_name) == sorted(tensors):
            return loaded(**tensors)
        return loaded(*tensors.values())


class ExecuTorchRunner(_PackagedRunner):
    """Runs the method ``forward`` of an ExecuTorch program, a ``.pte``, by its own runtime."""

    OPENS = ".pte"
    RUNTIME = "executorch"
    NEEDS, INSTALL = "ExecuTorch", "'pytest-reflex[executorch]'"

    def _load(self) -> Any:
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(str(self._model))
        if "forward" not in program.method_names:
            held = ", ".join(sorted(program.method_names)) or "none"
            raise RunnerError(f"{self.name} has the methods {held}, and no forward; save a program with one")
        return program.load_method("forward")

    def _asked(self, loaded: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
        # What it gives lies in its own memory, which the next run writes into.
        return [value.clone() for value in loaded.execute(list(tensors.values()))]

    def _versions(self) -> dict[str, str]:
        from importlib.metadata import version

        return {"executorch": version("executorch")}
