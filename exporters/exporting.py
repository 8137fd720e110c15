"""export(): reference -> graph -> bundle -> verdict -> its place on disk, in that order and never back."""

from __future__ import annotations

import contextlib
import gc
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from exporters import checkpoints
from exporters.bundle.manifest import write_manifest
from exporters.bundle.runner import OPTIMIZATION
from exporters.bundle.store import FIXTURES, file_facts, staged
from exporters.bundles import Bundle, Export
from exporters.flow.policy import FlowPolicy, flow_runner
from exporters.flow.schedule import LAYOUTS, Layout
from exporters.graph.graph_passes import write_graph
from exporters.graph.layouts import Loop, compose
from exporters.graph.loop_invariant import TIME, X_T, dims
from exporters.graph.traced_halves import example_sizes, prefix_call, velocity_call
from exporters.graph.tracing import trace
from pytest_reflex.errors import InputError, SettingsError, TracingError
from pytest_reflex.inputs import InputSpec, make_fixture
from pytest_reflex.judge.check import check
from pytest_reflex.progress import Progress, progress_callback
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import TorchRunner, save_recording
from pytest_reflex.runners.memory import release_mapped
from pytest_reflex.settings import CheckOptions, of_call
from pytest_reflex.verdict import machine

PACKAGES = (
    "pytest-reflex",
    "torch",
    "transformers",
    "lerobot",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "numpy",
)


def export(
    reference: nn.Module | TorchRunner,
    out_dir: str | os.PathLike[str],
    *,
    inputs: Sequence[InputSpec],
    flow: FlowPolicy | None = None,
    layout: Layout = "unrolled",
    steps: int | None = None,
    outputs: Sequence[str] | None = None,
    family: str = "module",
    dynamic_batch: bool = False,
    call: Mapping[str, Any] | None = None,
    verify: bool = True,
    progress: Progress | None = None,
    **options: Unpack[CheckOptions],
) -> Export:
    """Export a model as a bundle, proven against itself in PyTorch before it is written.

    Args:
        reference: what is true: an ``nn.Module`` whose ``forward`` takes the inputs by keyword, or a
            :class:`~pytest_reflex.runners.TorchRunner` that says how a policy is called.
        out_dir: where the bundle goes. An earlier bundle there is replaced, in one rename, once the
            new one has passed; anything else there is left alone.
        inputs: what the model reads, in the order of the graph's inputs.
        flow: the reference's two halves, when it is a flow-matching policy; a reference that is a
            :class:`~exporters.flow.policy.FlowPolicy` is its own.
        layout: how the bundle carries a flow's loop: ``unrolled``, ``loop`` or ``stepwise``.
        steps: the number of a flow's denoising steps; by default the flow's own.
        outputs: names of a module's outputs, where it does not return a mapping.
        family: the module of this package that knows how to call the reference again.
        dynamic_batch: leave the batch, the first dimension of every input, free; fixtures then come in
            batches of several sizes.
        call: what the family's ``reference`` takes besides the steps, for whoever judges the bundle again.
        verify: judge before writing. Without it the bundle's manifest says that nothing was proven.
        progress: called with (stage, done, total); by default pytest's line of progress is told, where
            there is one.
        **options: ``threshold``, ``fixtures`` and so on, the keywords of
            :class:`~pytest_reflex.settings.CheckOptions`.

    Raises:
        ParityError: the candidate does not compute what the reference computes. Nothing is written.
        ReflexError: it could not be made, run or written. Nothing is written.
    """
    told = of_call(options, "export")
    report_progress = progress_callback(progress)
    if flow is None and isinstance(reference, FlowPolicy):
        flow = reference
    if flow is not None and layout not in LAYOUTS:
        raise SettingsError(f"layout is {layout!r}, expected one of {', '.join(LAYOUTS)}")
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
        raise SettingsError(f"steps is {steps!r}, expected a whole number of at least 1")
    owner = reference.model if isinstance(reference, TorchRunner) else reference
    if not isinstance(owner, nn.Module):
        raise InputError(f"the reference is a {type(owner).__name__}, expected an nn.Module to export")
    if isinstance(reference, TorchRunner):
        runner = reference
    elif isinstance(reference, FlowPolicy):
        runner = flow_runner(reference, steps, outputs)
    else:
        runner = TorchRunner(reference, outputs=outputs)
    inputs = _free_batch(inputs) if dynamic_batch else list(inputs)
    sizes = example_sizes(inputs)
    example = make_fixture([spec.sized(sizes) for spec in inputs], seed=told.seed, fixture_idx=0)
    free = {spec.name: spec.free for spec in inputs if spec.free}

    # Open for as long as it is traced: in eval mode, and refused by name if it is in half precision.
    with runner, staged(out_dir) as stage:
        loop: Loop | None = None
        if flow is not None:
            loop = Loop(flow.schedule, steps or flow.steps, flow.noise, flow.output)
            models = _flow_models(flow, example, loop, layout, report_progress, free, sizes)
        else:
            report_progress("trace", 0, 1)
            models = {"model": trace(owner, runner.forward, _tensors(example), free=free)}
            report_progress("trace", 1, 1)
        written: dict[str, dict[str, Any]] = {}
        for index, (stem, model) in enumerate(models.items()):
            report_progress("write", index, len(models))
            with _no_collection():
                written |= write_graph(model, stage, stem)
        report_progress("write", len(models), len(models))
        release_mapped(weight.data_ptr() for weight in owner.parameters())

        manifest: dict[str, Any] = {
            "made_by": {"name": "pytest-reflex", "version": _version("pytest-reflex")},
            "family": family,
            "layout": layout if flow is not None else "single",
            "steps": loop.steps if loop is not None else None,
            "loop": None
            if loop is None
            else {"noise": loop.noise, "output": loop.output, "schedule": loop.schedule.to_json()},
            "call": dict(call or {}),
            "graphs": {stem: f"{stem}.onnx" for stem in models},
            "session": {"optimization": OPTIMIZATION},
            "inputs": [spec.to_json() for spec in inputs],
            "source": checkpoints.source_of(owner),
            "dtype": "float32",
            "versions": {name: found for name in PACKAGES if (found := _version(name))},
            "machine": {
                "python": platform.python_version(),
                "system": platform.system(),
                "arch": platform.machine(),
                **machine.here(),
            },
        }
        recorded: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = []
        result: ParityResult | None = None
        if verify:
            # The outputs' names are known once the reference has run; the runner needs only the graphs.
            draft = Bundle(stage, {**manifest, "outputs": [], "files": written}, shown=str(out_dir))
            result = check(
                runner,
                draft,
                inputs=inputs,
                name=str(out_dir),
                progress=report_progress,
                record=lambda given, gave: recorded.append((given, gave)),
                **options,
            ).require()
        else:
            with runner:
                recorded.append((example, runner.run(example)))
        save_recording(stage / FIXTURES, recorded, live_inputs=_live(result, inputs))
        manifest["outputs"] = [
            {"name": name, "dtype": str(array.dtype), "shape": list(array.shape)}
            for name, array in recorded[0][1].items()
        ]
        manifest["check"] = result.to_json() if result is not None else None
        whole = write_manifest(stage, manifest, {**written, **file_facts(stage, [FIXTURES])})
    return Export(Path(out_dir), whole, result=result)


def _flow_models(
    flow: FlowPolicy,
    example: Mapping[str, np.ndarray],
    loop: Loop,
    layout: Layout,
    report_progress: Progress,
    free: Mapping[str, Sequence[str | None]],
    sizes: Mapping[str, int],
) -> dict[str, Any]:
    """Trace the two halves, once each, and compose them."""
    tensors = _tensors(example)
    if loop.noise not in tensors:
        raise InputError(
            f"no input is named {loop.noise!r}, which the flow takes as its noise; add its InputSpec"
        )
    x_t = tensors.pop(loop.noise)

    report_progress("trace prefix", 0, 1)
    prefix_model = trace(flow, prefix_call(flow), tensors, free=free)
    report_progress("trace prefix", 1, 1)
    report_progress("trace step", 0, 1)
    # The step is traced on blanks: shapes and dtypes are enough, and the real ones would run the prefix.
    made = {str(value.name): value for value in prefix_model.graph.outputs}
    context = {name: _blank(value, sizes) for name, value in made.items()}
    time = torch.full(x_t.shape[:1], loop.schedule.time(0, loop.steps), dtype=torch.float32)
    step = {X_T: x_t, TIME: time, **context}
    noise_axes = free.get(loop.noise, ())
    step_free = {
        name: [n if isinstance(n, str) else None for n in dims(value)] for name, value in made.items()
    }
    step_free |= {X_T: list(noise_axes), TIME: list(noise_axes[:1])}
    step_model = trace(flow, velocity_call(flow), step, free=step_free)
    report_progress("trace step", 1, 1)
    report_progress("compose", 0, 1)
    with _no_collection():
        composed = compose(prefix_model, step_model, loop, layout)
    report_progress("compose", 1, 1)
    return composed


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without the cyclic collector, which else walks all of torch again for every few hundred nodes made."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _free_batch(inputs: Sequence[InputSpec]) -> list[InputSpec]:
    """The same inputs with the first axis of each left free, under one name."""
    for spec in inputs:
        if not spec.shape:
            raise InputError(f"input {spec.name!r} is a scalar, which has no batch to leave free")
    rest = {spec.name: spec.free[1:] or (None,) * (len(spec.shape) - 1) for spec in inputs}
    return [replace(spec, free=("batch", *rest[spec.name])) for spec in inputs]


def _blank(value: ir.Value, sizes: Mapping[str, int]) -> torch.Tensor:
    """A tensor of zeros of a graph value's shape and dtype."""
    if value.shape is None or value.dtype is None:
        raise TracingError(f"{value.name!r} came out of the prefix without a shape")
    shape = [n if isinstance(n, int) else sizes.get(str(n), 0) for n in dims(value)]
    if not all(shape):
        raise TracingError(
            f"{value.name!r} has shape {dims(value)} out of the prefix; a free axis must keep the size that "
            f"an input has ({', '.join(sizes) or 'none is free'})"
        )
    return torch.from_numpy(np.zeros(shape, value.dtype.numpy()))


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def _live(result: ParityResult | None, inputs: Sequence[InputSpec]) -> list[str]:
    if result is None:
        return []
    live = result.candidate.get("live_inputs", [])
    return [str(name) for name in live] if isinstance(live, (list, tuple)) else []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
