"""Traces that several tests need, made once for all of them, whichever worker they run in.

A trace is the larger part of a tiny policy's export, and one pair of halves serves all layouts and numbers
of steps. What is kept goes by the content of all that a trace depends on, in the sense of
:mod:`exporters.caching`: weights, configuration, code, with whatever a test has planted in them. Who asks
first gets the trace itself, whoever asks again the same model read from its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from filelock import FileLock
from torch import nn

from exporters.caching.fingerprint import Fingerprint


class TracedOnce:
    """Stands for :func:`exporters.graph.tracing.trace`, with its arguments and its errors."""

    def __init__(self, trace: Callable[..., ir.Model], directory: Path) -> None:
        self._trace = trace
        self._directory = directory
        self.made = self.found = 0

    def __call__(
        self,
        owner: nn.Module,
        call: Callable[..., dict[str, torch.Tensor]],
        inputs: Mapping[str, torch.Tensor],
        *,
        free: Mapping[str, Sequence[str | None]],
    ) -> ir.Model:
        key = Fingerprint().add((owner, call, dict(inputs), dict(free))).hexdigest()
        kept = self._directory / f"{key}.onnx"
        with FileLock(f"{kept}.lock"):
            if kept.exists():
                self.found += 1
                return ir.from_proto(onnx.load_model(kept))
            model = self._trace(owner, call, inputs, free=free)
            self.made += 1
            onnx.save_model(ir.to_proto(model), kept)
            return model
