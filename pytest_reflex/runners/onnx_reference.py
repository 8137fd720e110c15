"""An ONNX graph as a reference, where somebody says so: PyTorch is not asked then.

Quantised against float, before against after an optimiser, one opset against another: two graphs can be
compared as a policy and its export are. What passes says that the two agree, and nothing of any policy; so it
is a verdict of another kind, and says so wherever it is shown.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_reflex.errors import RunnerError, a_type
from pytest_reflex.runners.base import HasFloat64, Runner, RunnerBase, said_by, trajectory_of
from pytest_reflex.runners.onnx import OnnxRunner
from pytest_reflex.verdict.results import ONNX_REFERENCE

if TYPE_CHECKING:
    import numpy as np

    from pytest_reflex.inputs import InputSpec
    from pytest_reflex.runners.base import Trajectory

    Array = np.ndarray[Any, Any]

__all__ = ["OnnxReference"]


class OnnxReference(RunnerBase):
    """Says that an ONNX graph is the judge of a check: ``check(OnnxReference("float.onnx"), "int8.onnx")``.

    It runs on the CPU unless a runner for another provider is given, and has to run where it was told to.

    Args:
        graph: the path of an ``.onnx`` file; a bundle; or a runner of either, to be opened in another way
            than they are by default.

    Raises:
        RunnerError: it is none of these, or the file does not exist.
    """

    def __init__(self, graph: Any) -> None:
        self._inner, self.inputs = _opened_by(graph)
        self.name = self._inner.name

    def open(self) -> None:
        self._inner.open()
        asked = said_by(self._inner, "provider_asked", None)
        used = said_by(self._inner, "providers_used", ())
        if asked is not None and (not used or used[0] != asked):
            ran = used[0] if used else "no provider"
            raise RunnerError(f"the reference {self.name} runs on {ran}, not on {asked} as asked; give cpu")

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._inner.run(inputs)

    def exact(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What its graph says in float64; see :class:`~pytest_reflex.runners.base.HasFloat64`."""
        if not isinstance(self._inner, HasFloat64):
            raise RunnerError(f"{self.name} has no float64 run")
        return self._inner.exact(inputs)

    @property
    def trajectory(self) -> Trajectory | None:
        """What the loop holds after each step; see :class:`~pytest_reflex.runners.base.HasTrajectory`."""
        return trajectory_of(self._inner)

    @property
    def changed(self) -> str:
        """What of its files was written to while it was open, in words; no verdict passes that."""
        return str(said_by(self._inner, "changed", ""))

    def close(self) -> None:
        self._inner.close()

    def facts(self) -> dict[str, Any]:
        said = self._inner.facts()
        kind = said.get("kind")
        if kind not in ("onnx", "bundle"):
            raise RunnerError(
                f"the reference {self.name} is a {kind!r} runner, expected one of an ONNX graph"
            )
        return {**said, "kind": ONNX_REFERENCE, "of": kind}


def _opened_by(graph: Any) -> tuple[Runner, Sequence[InputSpec] | None]:
    """The runner of what was given, and what that reads where it says so, as a bundle does."""
    if isinstance(graph, str | os.PathLike):
        path = Path(graph)
        if path.is_dir():
            raise RunnerError(f"{path} is a directory; open it with exporters.open_bundle({str(path)!r})")
        if not path.is_file():
            raise RunnerError(f"reference {path} does not exist; give the path of an .onnx file")
        return OnnxRunner(path), None
    make = getattr(graph, "runner", None)
    if callable(make):  # a bundle
        return make(), list(graph.inputs)
    if isinstance(graph, Runner) and said_by(graph, "provider_asked", None) is not None:
        return graph, None
    raise RunnerError(
        f"OnnxReference is given {a_type(graph)}; give the path of an .onnx file, a bundle, or a "
        "runner of one"
    )
