"""Runs an ONNX model under onnx's own reference evaluator: slow, and no kernel of any runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners.model_files import FilesRunner, files_of, which_model
from pytest_reflex.verdict import machine

if TYPE_CHECKING:
    import numpy as np

    from pytest_reflex.runners.graph64 import Graph64Runner

    Array = np.ndarray[Any, Any]

__all__ = ["EvaluatorRunner"]


class EvaluatorRunner(FilesRunner):
    """Evaluates an ONNX model node by node in numpy, in the precisions that the graph says.

    What ONNX's own specification means by a graph; where runtimes disagree, an arbiter.

    Args:
        model: path of the ``.onnx`` file.
        threads: is not obeyed: numpy's own.
        name: for people; by default the path.

    Attributes:
        inputs: names of the model's inputs, empty before the first open.
        outputs: names of the outputs, empty before the first open.
        changed: which file was written to while it was open, in words; known once it is closed.
    """

    def __init__(self, model: str | Path, *, threads: int | None = None, name: str | None = None) -> None:
        self._model = Path(model)
        self.name = name or str(model)
        self.inputs: tuple[str, ...] = ()
        self.outputs: tuple[str, ...] = ()
        self._evaluator: Graph64Runner | None = None

    @property
    def graphs(self) -> Sequence[Path | bytes]:
        """Its one graph; see :class:`~pytest_reflex.runners.base.HasGraphs`."""
        return (self._model,)

    def open(self) -> None:
        if self._evaluator is not None:
            return
        if not self._model.is_file():
            raise RunnerError(f"{self._model} does not exist; give the path of an .onnx file")
        try:
            import onnx
        except ImportError as error:
            raise RunnerError(f"{self.name} needs onnx, to be evaluated; pip install onnx") from error
        from pytest_reflex.runners.graph64 import Graph64Runner

        files, unseen = files_of(self._model, self.name)
        evaluator = Graph64Runner(self._model, lift=False, name=self.name)
        evaluator.open()
        self._watch(files, unseen)
        graph = onnx.load(self._model, load_external_data=False).graph
        held = {tensor.name for tensor in graph.initializer}
        self.inputs = tuple(value.name for value in graph.input if value.name not in held)
        self.outputs = tuple(value.name for value in graph.output)
        self._evaluator = evaluator

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._opened(self._evaluator).run(inputs)

    def close(self) -> None:
        self._leave()
        self._evaluator = None

    def facts(self) -> dict[str, Any]:
        import onnx

        self._opened(self._evaluator)
        return {
            "kind": "onnx",
            "runtime": "evaluator",
            "name": self.name,
            "path": str(self._model),
            "sha256": which_model(self._model, self.digests()),
            "machine": machine.here(),
            "versions": {"onnx": str(onnx.__version__)},
        }
