"""From the camera to the joint: a bundle with its processors, judged stage by stage against lerobot's own.

The reference is lerobot's pipelines around its own policy, unpatched; :mod:`.pipeline_sides` has both sides.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from exporters.bundle.kept import linked
from exporters.bundle.manifest import write_manifest
from exporters.bundle.processors import POSTPROCESS, PREPROCESS, TOKENIZER
from exporters.bundle.registry import family_named
from exporters.bundle.store import file_facts, staged
from exporters.bundles import Bundle, open_bundle, require_bundle
from exporters.exporting.around import policy_alone, proven_around
from exporters.families.lerobot_processors import (
    Pipelines,
    graphs_of,
    pipelines,
    said_of,
    scale_of,
)
from exporters.families.lerobot_prompt import tokenizer_text
from exporters.families.pipeline_sides import PipelineStages
from exporters.graph.graph_passes import write_graph
from exporters.graph.tracing import trace
from pytest_reflex.errors import BundleError, ReflexError, SettingsError
from pytest_reflex.inputs.episodes import Episodes
from pytest_reflex.judge.pipeline import check_pipeline
from pytest_reflex.progress import Progress
from pytest_reflex.result import STAGES, PipelineResult
from pytest_reflex.settings import units as units_setting

__all__ = ["STAGES", "PipelineResult", "Processing", "add_processors", "check_pipeline"]

Source = str | os.PathLike[str] | tuple[Any, Any]


def add_processors(
    policy: Any,
    bundle: Bundle,
    source: Source,
    *,
    names: Sequence[str] = (),
    **judging: Any,
) -> tuple[Bundle, PipelineResult]:
    """Put lerobot's processors into a bundle, proven stage by stage before it takes the bundle's place.

    Args:
        policy: the live policy that the bundle was made from.
        bundle: the bundle; processors that it has are replaced.
        source: the checkpoint with ``policy_preprocessor.json`` and ``policy_postprocessor.json``, or the two
            pipelines as lerobot makes them.
        names: what each element of an action is called; by default as the episodes that it is judged on say.
        **judging: what :func:`check_pipeline` takes; ``units`` are kept in the bundle, by default as the
            episodes say.

    Returns:
        The bundle as it is now, and the verdict.

    Raises:
        ParityError: a stage failed; the bundle stays as it was.
        ReflexError: the processors could not be had, traced or judged; the bundle stays as it was.
    """
    if require_bundle(bundle).changed:
        raise BundleError(f"{bundle.changed}; export the bundle again")
    whole = pipelines(family_named(bundle.family), policy, source)
    # Those that it has may be the same file under a second name, which nobody may write to.
    alone = policy_alone(bundle.stated)
    with staged(bundle.path) as stage:
        for name in alone.files:
            linked(bundle.path / name, stage / name)
        made = Bundle(stage, write_manifest(stage, alone), shown=bundle.called)
        around = Processing(whole, names=names)
        around.put_in(made, around.traced(made), judging.get("inputs"), judging.get("units"))
        result = around.proven(made, judging)
    return open_bundle(bundle.path), result


@dataclass(frozen=True)
class Processing:
    """Puts processors into a bundle that is being written, and proves them there; what ``export`` takes.

    Args:
        whole: the policy with its pipelines.
        required: whether what cannot be traced is an error, or a bundle without processors.
        names: what each element of an action is called.
        judging: what :func:`check_pipeline` takes besides the options of the export's check.

    Raises:
        SettingsError: the names are not as many as the elements, or not different texts.
    """

    whole: Pipelines
    required: bool = True
    names: Sequence[str] = ()
    judging: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given, count = list(self.names), self.whole.dim
        good = all(isinstance(name, str) and name for name in given) and len({*given}) == len(given)
        if given and (not good or len(given) != count):
            raise SettingsError(f"names is {given!r}, expected {count} different texts, one for each element")

    def __call__(
        self, bundle: Bundle, progress: Progress, options: Any
    ) -> tuple[dict[str, Any], PipelineResult | None, str]:
        """The manifest with the processors, the verdict on them, and why there are none.

        Raises:
            ParityError: a stage failed.
            ReflexError: they cannot be traced, where they are required, or judged.
        """
        progress("trace processors", 0, 1)
        try:
            graphs = self.traced(bundle)
        except ReflexError as error:
            if self.required:
                raise
            return dict(bundle.manifest), None, f"without processors: {error}"
        progress("trace processors", 1, 1)
        self.put_in(bundle, graphs, self.judging.get("inputs"), self.judging.get("units"))
        if options is None:
            return dict(open_bundle(bundle.path).manifest), None, ""
        result = self.proven(bundle, {**options, **self.judging, "progress": progress})
        return dict(open_bundle(bundle.path).manifest), result, ""

    def traced(self, bundle: Bundle) -> dict[str, Any]:
        """The two graphs, by their roles."""
        shape = tuple(int(n) for n in bundle.stated.outputs[0]["shape"])
        made = graphs_of(self.whole, shape)
        return {role: trace(module.eval(), module, example) for role, (module, example) in made.items()}

    def put_in(self, bundle: Bundle, graphs: Mapping[str, Any], inputs: object, units: object) -> None:
        """Write graphs, tokenizer and manifest into the directory of a bundle that nobody else sees yet."""
        stage, stated, files = bundle.path, bundle.stated, dict(bundle.stated.files)
        for role, graph in graphs.items():
            files |= write_graph(graph, stage, role)
        said = said_of(self.whole, bundle.inputs, bundle.outputs[0])
        if said.prompt is not None:
            (stage / TOKENIZER).write_text(tokenizer_text(self.whole.text), encoding="utf-8")
            files |= file_facts(stage, [TOKENIZER])
        shape = tuple(int(n) for n in stated.outputs[0]["shape"])
        scale = scale_of(self.whole, shape)
        names, recorded = _told_by(inputs, int(self.whole.dim))
        names = tuple(self.names) or names
        stated_units = recorded if units is None else units_setting(units).of(names, self.whole.dim)
        said = replace(
            said,
            graphs={role: f"{role}.onnx" for role in (PREPROCESS, POSTPROCESS)},
            names=names,
            units=tuple(stated_units) or ("",) * self.whole.dim,
            scale=scale,
        )
        write_manifest(stage, replace(stated, processors=said, files=files))

    def proven(self, bundle: Bundle, judging: Mapping[str, Any]) -> PipelineResult:
        """The verdict, which is a pass and is kept in the manifest; and raw observations, in a recording.

        Raises:
            ParityError: a stage failed.
        """
        made = replace(open_bundle(bundle.path), shown=bundle.called)
        told = dict(judging)
        how = (told.get("seed") or 0, told.get("provider") or "cpu", told.pop("steps", None))
        return proven_around(made, PipelineStages(self.whole.policy, made, self.whole, *how), told)


def _told_by(inputs: object, count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and units of an action's elements, where a recording says them of as many."""
    feature = inputs.recording.features.get("action") if isinstance(inputs, Episodes) else None
    said = (feature.names, feature.units) if feature is not None else ((), ())
    names, units = (one if len(one) == count else () for one in said)
    return names, units
