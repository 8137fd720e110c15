"""Traces that several tests need, made once for all of them, whichever worker they run in.

A trace is the larger part of a tiny policy's export, and one pair of halves serves all layouts and numbers
of steps. What is kept goes by the content of all that a trace depends on, in the sense of
:mod:`exporters.caching`: weights, configuration, code, with whatever a test has planted in them. Who asks
first gets the trace itself, whoever asks again the same model read from its bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import onnx
import onnx_ir as ir
from filelock import FileLock

from exporters.caching.fingerprint import Fingerprint
from exporters.flow.policy import FlowPolicy
from exporters.flow.schedule import Loop
from exporters.graph import graph_passes, program_passes, traced_halves, tracing
from exporters.graph.traced_halves import Example, trace_halves
from exporters.graph.tracing import Traced, converted

MAKERS = (tracing, traced_halves, program_passes, graph_passes)


class TracedOnce:
    """Stands for :func:`trace_halves` and :func:`converted`, with their arguments and errors.

    Attributes:
        made: how many halves were traced and converted here.
        found: how many were not.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[int, Path] = {}
        self.made = self.found = 0

    def trace_halves(self, flow: FlowPolicy, example: Example, loop: Loop) -> Iterator[Traced | ir.Model]:
        seen = (flow, example.tensors(), dict(example.free), loop.noise, loop.times[0])
        # What traces and converts is seen too: a test may have planted something there.
        makers = [{n: v for n, v in vars(m).items() if isinstance(v, FunctionType)} for m in MAKERS]
        key = Fingerprint().add((seen, makers)).hexdigest()
        files = [self._directory / f"{key}.{half}.onnx" for half in ("prefix", "step")]
        with FileLock(self._directory / f"{key}.lock"):
            if all(file.exists() for file in files):
                self.found += 2
                yield from (ir.from_proto(onnx.load_model(file)) for file in files)
                return
            for file, traced in zip(files, trace_halves(flow, example, loop), strict=True):
                self._files[id(traced)] = file
                yield traced

    def converted(self, half: Traced | ir.Model) -> ir.Model:
        if isinstance(half, ir.Model):
            return half
        model = converted(half)
        self.made += 1
        file = self._files.pop(id(half))
        # Whole or not at all: who is killed here lets go of the lock.
        partial = file.with_suffix(".partial")
        onnx.save_model(ir.to_proto(model), partial)
        os.replace(partial, file)
        return model
