"""A policy or a checkpoint -> a bundle, whichever family it is of."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exporters.bundle.registry import family_named, family_of, known_families
from exporters.families.pipeline_files import has_pipelines
from pytest_reflex.errors import CheckpointError, InputError, ReflexError, SettingsError, a_type
from pytest_reflex.inputs import InputSpec
from pytest_reflex.settings import threshold

if TYPE_CHECKING:
    from torch import nn

    from exporters.bundles import Bundle, Export
    from exporters.exporting.stages import Around
    from exporters.families.base import Family
    from pytest_reflex.progress import Progress

__all__ = [
    "export_policy",
    "family_of_policy",
    "processors_of",
    "with_processors",
]


def family_of_policy(policy: object) -> Family | None:
    """The family of a live policy, by its class; None where none knows it."""
    names = {kind.__name__ for kind in type(policy).__mro__}
    for name in known_families():
        # One of another distribution that cannot be imported stands in nobody's way.
        with contextlib.suppress(ReflexError):
            family: Family = family_named(name)
            if names.intersection(family.policies):
                return family
    return None


def export_policy(
    policy: nn.Module | str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    inputs: Sequence[InputSpec] | None = None,
    revision: str | None = None,
    processors: bool | str | os.PathLike[str] | tuple[Any, Any] | None = False,
    **options: Any,
) -> Export:
    """Export a policy as a bundle, proven against itself: of a family, or one's own.

    Args:
        policy: a checkpoint directory, a training of lerobot's, a hub id, a live policy of a family, or any
            module.
        out_dir: where the bundle goes.
        inputs: what a policy of no family reads; one of a family says that itself.
        revision: branch, tag or commit of the hub id.
        processors: put in what lerobot runs before and after the policy, and judge that too: True for what
            its checkpoint holds, a checkpoint's directory, or the two pipelines; None for what its
            checkpoint holds where that can be put in. Episodes are then raw observations.
        **options: the family's own options, and what :func:`exporters.export` takes.

    Raises:
        ParityError: the export misses the threshold; nothing is written.
        InputError: the policy is of no family and nobody says what it reads, or both say it.
        ReflexError: it could not be found, loaded, made or judged; nothing is written.
    """
    family: Family | None
    if isinstance(policy, (str, os.PathLike)):
        family = family_named(family_of(policy, revision=revision))
        live = family.load(policy, revision=revision)
    else:
        live, family = policy, family_of_policy(policy)
    if family is None:
        from exporters.exporting import export

        if inputs is None:
            raise InputError(
                f"{a_type(live)} is of none of the families {', '.join(known_families())}; "
                "say what it reads, inputs=[InputSpec(...), ...]"
            )
        return export(live, out_dir, inputs=inputs, **options)
    if inputs is not None:
        raise InputError(f"inputs is given, and a policy of {family.name} says itself what it reads")
    return family.export(live, out_dir, **with_processors(family, live, processors, options))


def with_processors(
    family: Family,
    policy: Any,
    asked: bool | str | os.PathLike[str] | tuple[Any, Any] | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The options of an export, with what puts the policy's processors in where they are asked for.

    Args:
        family: the policy's family.
        policy: the live policy.
        asked: as ``processors`` of :func:`export_policy`.
        options: keywords of the family's ``export``.

    Raises:
        ReflexError: they are asked for and cannot be had, or the bundle is for several observations at once.
    """
    from exporters import checkpoints

    of_checkpoint = asked is None or asked is True
    source: Any = checkpoints.directory_of(policy) if of_checkpoint else asked
    if source is None or source is False:
        if asked is True:
            raise CheckpointError(
                "processors are asked for, and the policy was loaded from no checkpoint; give the two "
                "pipelines, processors=(preprocessor, postprocessor)"
            )
        return dict(options)
    if asked is None and not has_pipelines(source):
        return dict(options)
    if options.get("batch", 1) != 1 or options.get("dynamic_batch"):
        if asked is None:
            return dict(options)
        raise SettingsError("processors take one observation at a time; export with a batch of 1 that is set")
    from exporters.families.end_to_end import Processing
    from exporters.families.lerobot_processors import pipelines

    try:
        whole = pipelines(family, policy, source)
    except ReflexError as error:
        if asked is not None:
            raise
        return {**options, "around": _without(error)}
    given = dict(options)
    seen, keep = given.pop("episodes", None), given.get("save_fixtures", False)
    judging = {} if seen is None else {"inputs": seen}
    # The policy alone has no units: what is said in them is asked of the stages.
    judging |= {"units": given.pop("units")} if given.get("units") is not None else {}
    if given.get("threshold") is not None and threshold(given["threshold"]).rest.unit:
        judging["threshold"] = given.pop("threshold")
    if seen is not None and keep:  # the policy is judged on them, and keeps them, as it reads them
        sizes: Any = {option.name: options.get(option.name) for option in family.options}
        given["episodes"] = whole.episodes(seen, family.read(policy, options.get("steps"), **sizes))
    return {**given, "around": Processing(whole, asked is not None, judging=judging)}


def processors_of(policy: object, asked: Any) -> list[Any] | None:
    """What a policy's processors are, by their content: to be told from others of the same policy.

    Args:
        policy: a live policy; of anything else nothing is known.
        asked: as ``processors`` of :func:`export_policy`.

    Returns:
        None where there are none, or none that could be put in, or they are not wanted.
    """
    from exporters import checkpoints

    family = family_of_policy(policy)
    if family is None or asked is False:
        return None
    source: Any = checkpoints.directory_of(policy) if asked is None or asked is True else asked
    if not has_pipelines(source):
        return None
    from exporters.families.lerobot_processors import content_of, pipelines

    try:
        return content_of(pipelines(family, policy, source))
    except ReflexError:  # the export says it, or goes without
        return None


def _without(why: ReflexError) -> Around:
    """An export without processors that says why there are none."""

    def around(bundle: Bundle, progress: Progress, options: object) -> tuple[dict[str, Any], None, str]:
        return dict(bundle.manifest), None, f"without processors: {why}"

    return around
