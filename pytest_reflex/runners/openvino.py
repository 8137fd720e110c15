"""Runs an ONNX model under OpenVINO, and reports on which device and in which precision it ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners.base import first_line
from pytest_reflex.runners.model_files import FilesRunner, files_of, which_model
from pytest_reflex.runners.opened_files import OpenedFiles
from pytest_reflex.verdict import machine

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["PRECISIONS", "OpenVinoRunner"]

# What can be asked for, by the names that reports use, and OpenVINO's words.
PRECISIONS: Final = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_NAMES: Final = {word: name for name, word in PRECISIONS.items()}


class OpenVinoRunner(FilesRunner):
    """Runs an ONNX model, or an OpenVINO ``.xml``, on one device.

    Where a device does not have the precision that was asked for, OpenVINO takes another one and says
    nothing. What each node of the compiled model runs in is read back: ``providers_used`` says it, and the
    verdict refuses what is not as asked.

    Args:
        model: path of the file.
        device: one of OpenVINO's, such as ``CPU`` or ``GPU.0``.
        precision: what floats are computed in: ``float32``, ``float16`` or ``bfloat16``.
        threads: threads on the CPU; by default what OpenVINO chooses.
        name: for people; by default the path.

    Attributes:
        provider_asked: the device and the precision that were asked for, in words.
        providers_used: what it ran on, in the same words; empty before it was opened.
        inputs: names of the model's inputs, empty before the first open.
        outputs: names of the outputs, empty before the first open.
        changed: which file was written to while it was open, in words; known once it is closed.

    Raises:
        RunnerError: the precision is none of these.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "CPU",
        precision: str = "float32",
        threads: int | None = None,
        name: str | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise RunnerError(f"precision is {precision!r}; give one of {', '.join(PRECISIONS)}")
        self._model = Path(model)
        self._device, self._precision, self._threads = device, precision, threads
        self.name = name or str(model)
        self.provider_asked = f"OpenVINO {device} in {precision}"
        self.providers_used: tuple[str, ...] = ()
        self.inputs: tuple[str, ...] = ()
        self.outputs: tuple[str, ...] = ()
        self._compiled: Any = None

    @property
    def graphs(self) -> Sequence[Path | bytes]:
        """Its one graph, where that is ONNX; see :class:`~pytest_reflex.runners.base.HasGraphs`."""
        return (self._model,) if self._model.suffix == ".onnx" else ()

    def open(self) -> None:
        if self._compiled is not None:
            return
        if not self._model.is_file():
            raise RunnerError(f"{self._model} does not exist; give the path of an .onnx file or an .xml")
        try:
            import openvino
        except ImportError as error:
            raise RunnerError(f"{self.name} needs OpenVINO; pip install 'pytest-reflex[openvino]'") from error
        core = openvino.Core()
        files, unseen = self._read()
        asked = {"INFERENCE_PRECISION_HINT": PRECISIONS[self._precision], "EXECUTION_MODE_HINT": "ACCURACY"}
        if self._threads is not None:
            asked["INFERENCE_NUM_THREADS"] = str(self._threads)
        if self._device.partition(".")[0] not in {d.partition(".")[0] for d in core.available_devices}:
            raise RunnerError(
                f"OpenVINO has no device {self._device!r} here; there is {', '.join(core.available_devices)}"
            )
        try:
            model = core.read_model(str(self._model))
            # Compiled, a value has the names of all that are the same, in no order.
            names = [[port.any_name for port in side] for side in (model.inputs, model.outputs)]
            compiled = core.compile_model(model, self._device, asked)
        except Exception as error:
            raise RunnerError(f"{self.name} is no model that OpenVINO can open: {_said(error)}") from error
        self._watch(files, unseen)
        self._compiled = compiled
        self.inputs, self.outputs = (tuple(side) for side in names)
        ran = _precision_of(compiled, PRECISIONS[self._precision])
        self.providers_used = (f"OpenVINO {self._device} in {ran}",)

    def _read(self) -> tuple[OpenedFiles, str]:
        if self._model.suffix == ".onnx":
            return files_of(self._model, self.name)
        weights = self._model.with_suffix(".bin")
        held = [path for path in (self._model, weights) if path.is_file()]
        return OpenedFiles({path.name: path for path in held}), ""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import numpy as np

        compiled = self._opened(self._compiled)
        wrong = sorted({*inputs} ^ {*self.inputs})
        if wrong:
            raise RunnerError(
                f"{self.name} takes {', '.join(self.inputs)}; {wrong[0]!r} is on one side alone"
            )
        try:
            # Copied: the next run writes into the same memory.
            found = compiled([np.ascontiguousarray(inputs[name]) for name in self.inputs])
            return {name: np.array(found[at]) for at, name in enumerate(self.outputs)}
        except Exception as error:
            raise RunnerError(f"{self.name} failed under OpenVINO: {_said(error)}") from error

    def close(self) -> None:
        self._leave()
        self._compiled = None

    def facts(self) -> dict[str, Any]:
        import openvino

        self._opened(self._compiled)
        return {
            "kind": "onnx",
            "runtime": "openvino",
            "name": self.name,
            "path": str(self._model),
            "sha256": which_model(self._model, self.digests()),
            "provider_asked": self.provider_asked,
            "providers_used": list(self.providers_used),
            "threads": self._threads,
            "machine": machine.here(),
            "versions": {"openvino": str(openvino.__version__).partition("-")[0]},
        }


def _precision_of(compiled: Any, asked: str) -> str:
    """What the floats of a compiled model are computed in: one name, or how many nodes are in which.

    In float32 none may be narrower. Asked for a narrower one, OpenVINO leaves in float32 what it must; but
    in another narrow one nothing may be.
    """
    ran: Counter[str] = Counter()
    where: dict[str, str] = {}
    for node in compiled.get_runtime_model().get_ops():
        said = node.get_rt_info()
        word = str(getattr(said["runtimePrecision"], "value", said["runtimePrecision"]))
        if word in _NAMES:
            ran[word] += 1
            where.setdefault(word, node.get_friendly_name())
    others = [word for word in ran if word not in (asked, "f32")]
    if not others and (asked in ran or not ran):
        return _NAMES[asked]
    shown = others or ["f32"]
    return ", ".join(
        f"{_NAMES[word]} in {ran[word]} of {sum(ran.values())} nodes, such as {where[word]}" for word in shown
    )


def _said(error: Exception) -> str:
    """What is wrong, below the lines that say where in OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '")) and ":" in line]
    return (told or lines or [first_line(error)])[0].rstrip(":")
