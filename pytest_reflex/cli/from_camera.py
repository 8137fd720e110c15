"""A bundle with processors on the command line: judged from the camera to the joint, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from pytest_reflex.cli.reference import is_script, named, or_by_recording
from pytest_reflex.errors import BundleError, CheckpointError
from pytest_reflex.result import POLICY, WHOLE
from pytest_reflex.verdict.units import OWN

if TYPE_CHECKING:
    from exporters.bundles import Bundle
    from exporters.serving.candidate import Served
    from pytest_reflex.result import ParityResult, PipelineResult

_UNASKED: Final = (
    "preprocess and postprocess were judged in the whole alone, as a server answers neither; --bundle DIR, "
    "what is served, has them judged by themselves"
)


def from_camera(bundle: Bundle | Served, asked: bool | None, *, keep: bool = False) -> bool:
    """Whether a bundle is judged with its processors: by default where it has them.

    Raises:
        BundleError: they are asked for, and it has none.
        UsageError: frames are to be kept, which are the policy's own inputs.
    """
    has = bundle.stated.processors is not None
    if asked and not has:
        raise BundleError(f"{bundle.called} has no processors; reflex export CHECKPOINT OUT puts them in")
    if has and asked is not False and keep:
        raise click.UsageError(
            "--save-fixtures was given, and a bundle with processors keeps its frames at its export; "
            "give it to reflex export"
        )
    return has and asked is not False


def judged_from_camera(
    bundle: Bundle, model: str, seen: Any, judging: Mapping[str, Any]
) -> ParityResult | PipelineResult:
    """The verdict on a bundle with processors: on all stages, or of a recording on what it has.

    Args:
        bundle: the bundle.
        model: what ``--model`` names: a checkpoint with lerobot's pipelines, ``file.py:name`` or
            ``module:name`` of a function that gives the policy and the two pipelines, or a recording.
        seen: the episodes that are judged, or None.
        judging: the options of the check.

    Raises:
        CheckpointError: the model has no pipelines to judge the processors against.
    """
    if model.endswith(".safetensors"):
        return _replayed(bundle, model, {n: value for n, value in judging.items() if n != "steps"})
    with or_by_recording(bundle, model, "raw.safetensors"):
        policy, source = policy_with_processors(bundle, model)
    from pytest_reflex.judge.pipeline import check_pipeline

    return check_pipeline(policy, bundle, source, inputs=seen, **judging)


def judged_served(
    served: Served, model: str, seen: Any, judging: Mapping[str, Any]
) -> ParityResult | PipelineResult:
    """The verdict on what is served, asked what a robot sees: whole, and its policy by itself.

    The stages around the policy are judged where the bundle that is served is here too; else the verdict says
    why not.
    """
    if model.endswith(".safetensors"):
        return _replayed(served, model, {n: value for n, value in judging.items() if n != "steps"})
    policy, source = policy_with_processors(served, model)
    from pytest_reflex.judge.pipeline import check_pipeline

    if served.here is not None:
        return check_pipeline(policy, served, source, inputs=seen, **judging)
    found = check_pipeline(policy, served, source, inputs=seen, stages=[POLICY, WHOLE], **judging)
    whole = found.stages[WHOLE]
    noted = replace(whole, notes=(*whole.notes, _UNASKED))
    return replace(found, stages={**found.stages, WHOLE: noted}, left_out=_UNASKED)


def policy_with_processors(bundle: Bundle | Served, model: str) -> tuple[Any, Any]:
    """The live policy that ``--model`` names, and what lerobot runs around it.

    Raises:
        CheckpointError: there is nothing around it.
    """
    alone = (
        f"give a checkpoint that has them, or --no-processors to judge the policy of {bundle.called} alone"
    )
    if is_script(model):
        made = named(model)
        found = made() if callable(made) else made
        if not isinstance(found, tuple) or len(found) != 3:
            raise CheckpointError(
                f"--model is {model!r}, which gives no policy, preprocessor and postprocessor, three in a "
                f"tuple; {alone}"
            )
        return found[0], found[1:]
    from exporters import checkpoints
    from exporters.bundle import registry
    from exporters.families.pipeline_files import has_pipelines

    place = checkpoints.resolve(model)
    if not has_pipelines(place):
        raise CheckpointError(f"--model is {model!r}, which has no processors of lerobot's; {alone}")
    return registry.family_named(bundle.family).load(model), place


def _replayed(bundle: Bundle | Served, model: str, judging: Mapping[str, Any]) -> ParityResult:
    """The verdict of a recording, which needs no torch: of raw observations, or of the policy's inputs."""
    from exporters.bundle.processed import ProcessedRunner
    from exporters.serving.candidate import Served
    from pytest_reflex.judge.check import check
    from pytest_reflex.runners import RecordedRunner

    recording = RecordedRunner(model)
    given, said, told = recording.recorded(), bundle.stated.processors, dict(judging)
    if said is None or not {spec.name for spec in said.raw} <= given[0].keys():
        return check(recording, bundle, inputs=given, name=bundle.called, **told)
    if told.get("threshold") is None:
        told["threshold"] = f"0.001 {OWN}"
    whole: Any = (
        bundle.whole_runner(told["provider"])
        if isinstance(bundle, Served)
        else ProcessedRunner(bundle, provider=told["provider"])
    )
    return check(recording, whole, inputs=given, name=f"{bundle.called}: {WHOLE}", **told)
