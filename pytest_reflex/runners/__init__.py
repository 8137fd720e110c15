"""Runners open a model, map named arrays to named arrays, and close: PyTorch, ONNX Runtime, recordings,
servers.

Nothing heavy is imported until a runner is opened, and only what that runner needs.
"""

from __future__ import annotations

from pytest_reflex.runners.base import Runner, RunnerBase
from pytest_reflex.runners.function import FunctionRunner
from pytest_reflex.runners.onnx import OnnxRunner
from pytest_reflex.runners.onnx_reference import OnnxReference
from pytest_reflex.runners.recorded import RecordedRunner, save_recording
from pytest_reflex.runners.served import ServedRunner
from pytest_reflex.runners.torch import TorchRunner

__all__ = [
    "FunctionRunner",
    "OnnxReference",
    "OnnxRunner",
    "RecordedRunner",
    "Runner",
    "RunnerBase",
    "ServedRunner",
    "TorchRunner",
    "save_recording",
]
