"""Traces that several tests need, made once for all of them, whichever worker they run in.

A trace is the larger part of a tiny policy's export, and one pair of halves serves all layouts and numbers
of steps. What is kept goes by the content of all that a trace depends on, in the sense of
:mod:`exporters.caching`: weights, configuration, code, with whatever a test has planted in them. Who asks
first gets the trace itself, whoever asks again the same model read from its bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType, MappingProxyType
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
from filelock import FileLock
from torch import nn

from exporters.caching.fingerprint import Fingerprint
from exporters.exporting import stages
from exporters.flow.policy import FlowPolicy
from exporters.flow.schedule import Loop
from exporters.graph import graph_passes, program_passes, traced_halves, tracing
from exporters.graph.traced_halves import Example, trace_halves
from exporters.graph.tracing import Traced, converted, trace

MAKERS = (tracing, traced_halves, program_passes, graph_passes)


class TracedOnce:
    """Stands for :func:`trace`, :func:`trace_halves` and :func:`converted`, with their arguments and errors.

    Attributes:
        made: how many graphs were traced and converted here.
        found: how many were not.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[int, Path] = {}
        self.made = self.found = 0

    def patch(self, patched: pytest.MonkeyPatch) -> None:
        """Have :mod:`exporters.exporting.stages` ask this one."""
        for name in ("trace", "trace_halves", "converted"):
            patched.setattr(stages, name, getattr(self, name))

    def trace(
        self,
        owner: nn.Module,
        call: Callable[..., Any],
        inputs: Mapping[str, torch.Tensor],
        *,
        free: Mapping[str, Sequence[str | None]] = MappingProxyType({}),
    ) -> ir.Model:
        file = self._file((owner, call, dict(inputs), dict(free)), "model")
        with FileLock(file.with_suffix(".lock")):
            if file.exists():
                self.found += 1
                return read(file)
            model = trace(owner, call, inputs, free=free)
            self.made += 1
            keep(model, file)
            return model

    def trace_halves(self, flow: FlowPolicy, example: Example, loop: Loop) -> Iterator[Traced | ir.Model]:
        seen = (flow, example.tensors(), dict(example.free), loop.noise, loop.times[0])
        files = [self._file(seen, half) for half in ("prefix", "step")]
        with FileLock(files[0].with_suffix(".lock")):
            if all(file.exists() for file in files):
                self.found += 2
                yield from (read(file) for file in files)
                return
            for file, traced in zip(files, trace_halves(flow, example, loop), strict=True):
                self._files[id(traced)] = file
                yield traced

    def converted(self, half: Traced | ir.Model) -> ir.Model:
        if isinstance(half, ir.Model):
            return half
        model = converted(half)
        self.made += 1
        keep(model, self._files.pop(id(half)))
        return model

    def _file(self, seen: Any, graph: str) -> Path:
        # What traces and converts is seen too: a test may have planted something there.
        makers = [{n: v for n, v in vars(m).items() if isinstance(v, FunctionType)} for m in MAKERS]
        return self._directory / f"{Fingerprint().add((seen, makers)).hexdigest()}.{graph}.onnx"


def read(file: Path) -> ir.Model:
    return ir.from_proto(onnx.load_model(file))


def keep(model: ir.Model, file: Path) -> None:
    """Whole or not at all: who is killed here lets go of the lock."""
    partial = file.with_suffix(".partial")
    onnx.save_model(ir.to_proto(model), partial)
    os.replace(partial, file)
