"""What stands around a bundle's policy: taken along when that is made again, and proven around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from exporters.bundle.kept import linked
from exporters.bundle.manifest import Manifest, write_manifest
from exporters.bundle.processors import TOKENIZER
from exporters.bundle.store import RAW, file_facts
from exporters.bundles import Bundle, open_bundle
from pytest_reflex.errors import BundleError
from pytest_reflex.judge.pipeline import Stages, judged
from pytest_reflex.result import WHOLE, PipelineResult
from pytest_reflex.runners import save_recording

__all__ = ["policy_alone", "proven_around", "taken_along"]


def policy_alone(stated: Manifest) -> Manifest:
    """What a manifest says without its processors, and without their files."""
    own = {*_own_files(stated)}
    files = {name: facts for name, facts in stated.files.items() if name not in own}
    return replace(stated, processors=None, files=files)


def _own_files(stated: Manifest) -> list[str]:
    """The files of a bundle's processors."""
    graphs = () if stated.processors is None else tuple(stated.processors.graphs.values())
    return [
        name
        for name in stated.files
        if name in (TOKENIZER, RAW) or any(name == graph or name.startswith(f"{graph}.") for graph in graphs)
    ]


def taken_along(bundle: Bundle, made: Bundle) -> Bundle:
    """A bundle that nobody else sees yet, with the processors of another, unproven there.

    Args:
        bundle: the other, of the same policy.
        made: the bundle.
    """
    processors = bundle.stated.processors
    if processors is None:
        return made
    names = [name for name in _own_files(bundle.stated) if name != RAW]
    for name in names:
        linked(bundle.path / name, made.path / name)
    files = {**made.stated.files, **{name: bundle.stated.files[name] for name in names}}
    stated = replace(made.stated, processors=replace(processors, checks={}), files=files)
    return Bundle(made.path, write_manifest(made.path, stated), shown=made.called)


def proven_around(made: Bundle, sides: Stages, judging: Mapping[str, Any]) -> PipelineResult:
    """The verdict on a bundle with processors, which is a pass and is kept in its manifest.

    Some raw observations, and what the reference gave for them, are kept beside it.

    Args:
        made: the bundle, which nobody else sees yet.
        sides: its stages.
        judging: keywords of :func:`pytest_reflex.judge.pipeline.judged`.

    Raises:
        ParityError: a stage failed.
    """
    seen: list[Any] = []
    result = judged(sides, seen=seen, **judging).require()
    live = result.stages[WHOLE].candidate.get("live_inputs")
    save_recording(made.path / RAW, seen, live if isinstance(live, (list, tuple)) else [])
    stated = open_bundle(made.path).stated
    if stated.processors is None:
        raise BundleError(f"{made.called} has no processors")
    checks = {stage: found.to_json() for stage, found in result.stages.items()}
    files = {**stated.files, **file_facts(made.path, [RAW])}
    write_manifest(
        made.path, replace(stated, processors=replace(stated.processors, checks=checks), files=files)
    )
    return result
