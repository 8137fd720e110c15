"""export() in four stages, never back: planned, traced, proven against the reference, sealed in its place."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import onnx_ir as ir
from torch import nn

from exporters import checkpoints
from exporters.bundle.manifest import Manifest, write_manifest
from exporters.bundle.registry import distribution_of
from exporters.bundle.replaced import replaced
from exporters.bundle.runner import sizes_of
from exporters.bundle.served_bound import not_served
from exporters.bundle.store import EPISODES, FIXTURES, file_facts, staged
from exporters.bundles import Bundle, Export
from exporters.flow.decoding import DecodingPolicy
from exporters.flow.policy import FlowPolicy, flow_runner, own_sampler
from exporters.flow.schedule import LAYOUTS, Layout, Loop
from exporters.graph.decoding import traced_decoding
from exporters.graph.graph_passes import write_graph
from exporters.graph.layouts import compose
from exporters.graph.narrowing import narrowed
from exporters.graph.precisions import PRECISIONS, Kept, Precision
from exporters.graph.traced_halves import CONTEXT, Example, example_of, require_float32, trace_halves
from exporters.graph.tracing import converted, trace, uncollected
from pytest_reflex.errors import InputError, SettingsError, a_type
from pytest_reflex.inputs import InputSpec, make_fixture
from pytest_reflex.inputs.episodes import Episodes
from pytest_reflex.inputs.spec import specs_of
from pytest_reflex.judge.check import check
from pytest_reflex.progress import Progress, progress_callback
from pytest_reflex.result import ParityResult, PipelineResult
from pytest_reflex.runners import TorchRunner, save_recording
from pytest_reflex.runners.external_data import FileFacts
from pytest_reflex.runners.memory import release_mapped
from pytest_reflex.settings import CheckOptions, Settings, of_call
from pytest_reflex.verdict import machine

PACKAGES = (
    "pytest-reflex", "torch", "transformers", "lerobot", "diffusers", "onnx", "onnx-ir", "onnxscript",
    "onnxruntime", "numpy",
)  # fmt: skip
# Inputs and outputs of a fixture, by name.
_Seen = tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]


def export(
    reference: nn.Module | TorchRunner,
    out_dir: str | os.PathLike[str],
    *,
    inputs: Sequence[InputSpec],
    flow: FlowPolicy | None = None,
    whole: nn.Module | None = None,
    layout: Layout | None = None,
    steps: int | None = None,
    outputs: Sequence[str] | None = None,
    family: str = "module",
    dynamic_batch: bool = False,
    precision: Precision = "float32",
    calibration: Sequence[Mapping[str, np.ndarray]] | None = None,
    keep: Kept | None = None,
    call: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int | None] | None = None,
    verify: bool = True,
    episodes: Episodes | None = None,
    save_fixtures: bool = False,
    around: Around | None = None,
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
        whole: what is traced of a reference without a loop, where its own call cannot be: a module that takes
            the inputs by keyword and gives the outputs by name, or a
            :class:`~exporters.flow.decoding.DecodingPolicy`. It is judged against the reference.
        layout: how the bundle carries a flow's loop: ``unrolled``, the default, ``loop`` or ``stepwise``.
        steps: the number of a flow's denoising steps; by default the flow's own.
        outputs: names of a module's outputs, where it does not return a mapping.
        family: the module of this package that knows how to call the reference again.
        dynamic_batch: leave the batch, the first dimension of every input, free; fixtures then come in
            batches of several sizes.
        precision: ``float32``, ``float16``, ``bfloat16`` (the weights alone), ``int8`` or ``int8-dynamic``;
            inputs and outputs stay float32. Where no threshold is given it is ``2x floor`` of that precision.
        calibration: recorded inputs that the scales of ``int8`` are taken from; by default the fixtures as
            they are drawn, which the manifest then says.
        keep: names of the nodes that stay in float32, by graph, and no others; the manifest lists them. By
            default that is, in ``float16``, what tells the policy its time, and otherwise nothing.
        call: what the family's ``reference`` takes besides the steps, for whoever judges the bundle again.
        sizes: what the family's ``inputs`` was told besides the batch, for the same.
        verify: judge before writing. Without it the bundle's manifest says that nothing was proven.
        episodes: frames of a recording that it has to pass as well, once it has passed what is drawn.
        save_fixtures: keep those frames in the bundle, so that a robot without torch is judged on them.
        around: puts into the proven bundle what stands around the policy, proves that, and gives the
            manifest, the verdict and why there is none; see
            :class:`~exporters.families.end_to_end.Processing`.
        progress: called with (stage, done, total); by default pytest's line of progress is told, where
            there is one.
        **options: ``threshold``, ``fixtures`` and so on, the keywords of
            :class:`~pytest_reflex.settings.CheckOptions`.

    Raises:
        ParityError: the candidate does not compute what the reference computes. Nothing is written.
        ReflexError: it could not be made, run or written. Nothing is written.
    """
    told = of_call(options, "export")
    inputs = specs_of(inputs)
    if (episodes is None and save_fixtures) or (episodes is not None and not verify):
        raise SettingsError("save_fixtures keeps what episodes= was judged on; give both, and verify")
    report_progress = progress_callback(progress)
    plan = planned(reference, inputs, flow, layout, steps, outputs, dynamic_batch, told.seed)
    if whole is not None and plan.flow is not None:
        raise SettingsError("whole is given, and what is traced of a flow are its halves; give one")
    plan = replace(plan, whole=whole)
    narrowing = narrowing_of(plan, precision, calibration, told, keep)
    # Open for as long as it is traced: in eval mode.
    with plan.runner, staged(out_dir) as stage:
        require_float32(plan.runner)
        said = {"family": family, "call": call or {}, "options": sizes or {}}
        models = traced(plan, report_progress)
        draft = written(plan, models, narrowing, stage, said, report_progress)
        if verify:
            bundle = Bundle(stage, draft.to_json(), shown=str(out_dir))
            seen, result = proven(plan, bundle, report_progress, options)
            if episodes is not None and result is not None:
                result = shown_on(plan, bundle, episodes, save_fixtures, result, report_progress, options)
        else:
            with plan.runner:
                seen, result = [(plan.example.arrays, plan.runner.run(plan.example.arrays))], None
        manifest, pipeline, why_none = sealed(draft, seen, result, stage), None, ""
        if around is not None:
            bundle = Bundle(stage, manifest, shown=str(out_dir))
            manifest, pipeline, why_none = around(bundle, report_progress, options if verify else None)
        instead_of = replaced(out_dir, manifest)  # it is still there
    if result is not None:
        unserved = not_served(result, out_dir, draft.precision)
        notes = [note for note in (instead_of, why_none, unserved) if note]
        result = replace(result, notes=(*result.notes, *notes))
    return Export(Path(out_dir), manifest, result=result, replaced=instead_of, pipeline=pipeline)


# What stands around a policy, put into its bundle: with the options of the check, or None for no check.
Around = Callable[[Bundle, Progress, CheckOptions | None], tuple[dict[str, Any], PipelineResult | None, str]]


@dataclass(frozen=True)
class Plan:
    """What is traced, and how: decided before anything is run."""

    owner: nn.Module
    runner: TorchRunner
    inputs: list[InputSpec]
    example: Example
    layout: Layout
    flow: FlowPolicy | None
    loop: Loop | None
    whole: nn.Module | None = None

    @property
    def traced(self) -> tuple[nn.Module, Callable[..., Any]]:
        """Without a loop: what holds the weights, and what is called."""
        return (self.owner, self.runner.forward) if self.whole is None else (self.whole, self.whole)


@dataclass(frozen=True)
class Narrowing:
    """The precision that the graphs are brought to, what int8 is calibrated with, and what that is."""

    precision: Precision
    calibration: Sequence[Mapping[str, np.ndarray]] = ()
    calibrated_on: str | None = None
    keep: Kept | None = None

    def to_json(self) -> dict[str, Any]:
        said: dict[str, Any] = {}
        if self.calibrated_on is not None:
            said["calibrated_on"] = self.calibrated_on
        if self.keep is not None:
            said["kept"] = {role: sorted(names) for role, names in self.keep.items()}
        return {} if self.precision == "float32" else {"precision": {"name": self.precision, **said}}


def narrowing_of(
    plan: Plan,
    precision: Precision,
    calibration: Sequence[Mapping[str, np.ndarray]] | None,
    told: Settings,
    keep: Kept | None = None,
) -> Narrowing:
    """What the graphs are brought to.

    Raises:
        SettingsError: there is no such precision, or it takes no calibration or keeps nothing; or what is
            given as calibration is not what the policy reads.
    """
    if precision not in PRECISIONS:
        raise SettingsError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if precision == "float32" and keep is not None:
        raise SettingsError(
            "keep is given, and every node of a float32 export is in float32; give precision="
        )
    if precision != "int8":
        if calibration is not None:
            raise SettingsError(f"calibration is given, and {precision} takes none; give precision='int8'")
        return Narrowing(precision, keep=keep)
    if calibration is not None:
        if not calibration:
            raise SettingsError("calibration is empty, expected at least one set of inputs")
        known = {spec.name: spec for spec in plan.inputs}
        for number, given in enumerate(calibration):
            try:
                sizes_of(known, {name: np.asarray(array) for name, array in given.items()})
            except (InputError, AttributeError) as error:
                said = error if isinstance(error, InputError) else f"{a_type(given)}, expected inputs"
                raise SettingsError(f"calibration[{number}]: {said}") from error
        said = f"{len(calibration)} sets of inputs that were given"
        return Narrowing(precision, calibration, said, keep)
    sizes = plan.example.sizes
    drawn = [
        make_fixture([spec.sized(sizes) for spec in plan.inputs], told.seed, index)
        for index in range(told.fixtures)
    ]
    said = f"{told.fixtures} drawn fixtures, seed {told.seed}: not recorded data"
    return Narrowing(precision, drawn, said, keep)


def planned(
    reference: nn.Module | TorchRunner,
    inputs: Sequence[InputSpec],
    flow: FlowPolicy | None,
    layout: Layout | None,
    steps: int | None,
    outputs: Sequence[str] | None,
    dynamic_batch: bool,
    seed: int,
) -> Plan:
    if flow is None and isinstance(reference, FlowPolicy):
        flow = reference
    if layout is not None and layout not in LAYOUTS:
        raise SettingsError(f"layout is {layout!r}, expected one of {', '.join(LAYOUTS)}")
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
        raise SettingsError(f"steps is {steps!r}, expected a whole number of at least 1")
    owner = reference.model if isinstance(reference, TorchRunner) else reference
    if not isinstance(owner, nn.Module):
        raise InputError(f"the reference is {a_type(owner)}, expected an nn.Module to export")
    for name, value in (("steps", steps), ("layout", layout)) if flow is None else ():
        if value is not None:
            raise SettingsError(
                f"{name} is {value!r}, and {type(owner).__name__} has no loop; leave it out, or give the two "
                "halves of its loop as flow="
            )
    if isinstance(reference, TorchRunner):
        if outputs is not None:
            raise SettingsError(
                "outputs is given, and the reference is a TorchRunner, which names its own; leave it out, or "
                "give TorchRunner(..., outputs=)"
            )
        runner = reference
    elif flow is not None:
        own_sampler(reference, [spec.name for spec in inputs])  # said before it is traced
        runner = flow_runner(reference, steps, outputs)
    else:
        runner = TorchRunner(reference, outputs=outputs, apart=True)
    inputs = _free_batch(inputs) if dynamic_batch else list(inputs)
    example = example_of(inputs, seed)
    layout = layout or "unrolled"
    if flow is None:
        return Plan(owner, runner, inputs, example, layout, None, None)
    return Plan(owner, runner, inputs, example, layout, flow, flow.loop(steps))


def traced(plan: Plan, report_progress: Progress) -> dict[str, ir.Model]:
    """The graphs in float32, by role."""
    if plan.flow is not None and plan.loop is not None:
        return _composed(plan.flow, plan.example, plan.loop, plan.layout, report_progress)
    report_progress("trace", 0, 1)
    example, owner = plan.example, plan.traced[0]
    if isinstance(owner, DecodingPolicy):
        models = {"model": traced_decoding(owner, example)}
    else:
        models = {"model": trace(*plan.traced, example.tensors(), free=example.free)}
    report_progress("trace", 1, 1)
    return models


def weights_of(plan: Plan) -> list[str]:
    """The names of the weights, as their owner has them."""
    owner = plan.flow if plan.flow is not None else plan.traced[0]
    return [name for name, _ in owner.named_parameters(remove_duplicate=False)]


def written(
    plan: Plan,
    models: dict[str, ir.Model],
    narrowing: Narrowing,
    stage: Path,
    said: Mapping[str, Any],
    report_progress: Progress,
) -> Manifest:
    """Write the graphs, which are consumed; the manifest, without what the reference has yet to show."""
    files: dict[str, FileFacts] = {}
    with tempfile.TemporaryDirectory() as work:
        if narrowing.precision != "float32":
            precision, calibration = narrowing.precision, narrowing.calibration
            models = narrowed(models, precision, weights_of(plan), Path(work), calibration, narrowing.keep)
        for index, (stem, model) in enumerate(models.items()):
            report_progress("write", index, len(models))
            with uncollected():
                files |= write_graph(model, stage, stem)
    report_progress("write", len(models), len(models))
    release_mapped(weight.data_ptr() for weight in plan.owner.parameters())
    return Manifest(
        **said,
        layout=plan.layout if plan.loop is not None else "single",
        inputs=plan.inputs,
        steps=plan.loop.steps if plan.loop is not None else None,
        loop=plan.loop,
        graphs={stem: f"{stem}.onnx" for stem in models},
        files=files,
        origin={**_origin(plan.owner, said["family"]), **narrowing.to_json()},
    )


def _composed(
    flow: FlowPolicy, example: Example, loop: Loop, layout: Layout, report_progress: Progress
) -> dict[str, ir.Model]:
    """Trace the two halves, once each, and compose them."""
    halves = trace_halves(flow, example, loop)
    models = []
    for half in ("prefix", "step"):
        report_progress(f"trace {half}", 0, 1)
        models.append(converted(next(halves)))
        report_progress(f"trace {half}", 1, 1)
    report_progress("compose", 0, 1)
    with uncollected():
        features = {CONTEXT + name: name for name in flow.features}
        composed = compose(models[0], models[1], loop, layout, features)
    report_progress("compose", 1, 1)
    return composed


def _origin(owner: nn.Module, family: str) -> dict[str, Any]:
    """Who exports, what it is of, with which versions and where."""
    python, system, arch = platform.python_version(), platform.system(), platform.machine()
    return {
        "made_by": {"name": "pytest-reflex", "version": _version("pytest-reflex")},
        "source": checkpoints.source_of(owner),
        "dtype": "float32",
        "versions": {
            **{name: found for name in PACKAGES if (found := _version(name))},
            **distribution_of(family),
        },
        "machine": {"python": python, "system": system, "arch": arch, **machine.here()},
    }


def proven(
    plan: Plan, bundle: Bundle, report_progress: Progress, options: CheckOptions
) -> tuple[list[_Seen], ParityResult | None]:
    """What the reference gave, by fixture, and the verdict, which is a pass."""
    seen: list[_Seen] = []
    result = check(
        plan.runner,
        bundle,
        inputs=plan.inputs,
        name=bundle.called,
        progress=report_progress,
        record=lambda given, gave: seen.append((given, gave)),
        **options,
    )
    return seen, result.require()


def shown_on(
    plan: Plan,
    bundle: Bundle,
    episodes: Episodes,
    keep: bool,
    result: ParityResult,
    report_progress: Progress,
    options: CheckOptions,
) -> ParityResult:
    """The verdict with a note of what was recorded, which passed too, and is written where it is kept."""
    seen: list[_Seen] = []
    found = check(
        plan.runner,
        bundle,
        inputs=episodes,
        name=bundle.called,
        progress=report_progress,
        record=(lambda given, gave: seen.append((given, gave))) if keep else None,
        **options,
    ).require()
    if keep:
        live = found.candidate.get("live_inputs")
        save_recording(
            bundle.path / EPISODES, seen, live_inputs=live if isinstance(live, (list, tuple)) else []
        )
    said = f"it passed {found.notes[0]}: max_abs_diff {found.max_abs_diff_across_all:.3e}"
    return replace(result, notes=(*result.notes, said))


def sealed(
    draft: Manifest, seen: Sequence[_Seen], result: ParityResult | None, stage: Path
) -> dict[str, Any]:
    """Write the recording, and the manifest with the digest of every file."""
    live = result.candidate.get("live_inputs") if result is not None else None
    save_recording(stage / FIXTURES, seen, live_inputs=live if isinstance(live, (list, tuple)) else [])
    outputs = [
        {"name": name, "dtype": str(array.dtype), "shape": list(array.shape)}
        for name, array in seen[0][1].items()
    ]
    proof = result.to_json() if result is not None else None
    kept = [name for name in (FIXTURES, EPISODES) if (stage / name).is_file()]
    files = {**draft.files, **file_facts(stage, kept)}
    return write_manifest(stage, replace(draft, outputs=outputs, check=proof, files=files))


def _free_batch(inputs: Sequence[InputSpec]) -> list[InputSpec]:
    """The same inputs with the first axis of each left free, under one name."""
    for spec in inputs:
        if not spec.shape and not spec.meaning.shared:
            raise InputError(f"input {spec.name!r} is a scalar, which has no batch to leave free")
    rest = {spec.name: spec.free[1:] or (None,) * (len(spec.shape) - 1) for spec in inputs}
    return [replace(s, free=("batch", *rest[s.name])) if s.shape else s for s in inputs]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
