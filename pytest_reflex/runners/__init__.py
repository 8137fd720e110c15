"""Runners open a model, map named arrays to named arrays, and close: PyTorch, ONNX Runtime, recordings,
servers.

Nothing heavy is imported until a runner is opened, and only what that runner needs.
"""

from __future__ import annotations

from pytest_reflex.runners.base import Runner, RunnerBase
from pytest_reflex.runners.onnx_runner import OnnxRunner
from pytest_reflex.runners.recorded_runner import RecordedRunner, save_recording
from pytest_reflex.runners.served_runner import ServedRunner
from pytest_reflex.runners.torch_runner import TorchRunner

__all__ = [
    "OnnxRunner",
    "RecordedRunner",
    "Runner",
    "RunnerBase",
    "ServedRunner",
    "TorchRunner",
    "save_recording",
]
