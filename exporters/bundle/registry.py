"""Families by their names: the one place where a name becomes a family.

A bundle and a checkpoint say by name which family they are of. The families make bundles, so they stand above
this file, which knows no more of them than their names.
"""

from __future__ import annotations

import copy
import functools
import importlib
import os
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any, Final

from exporters import checkpoints
from exporters.bundle.differences import differences
from exporters.bundle.installed import installed, versions_of
from pytest_reflex.errors import BundleError, CheckpointError, MissingPackageError, ReflexError
from pytest_reflex.runners import Runner, TorchRunner

if TYPE_CHECKING:
    from torch import nn

    from exporters.bundle.manifest import Manifest
    from exporters.flow.policy import FlowPolicy
    from pytest_reflex.inputs import InputSpec

FAMILIES: Final = (
    "act", "diffusion", "gaussian_actor", "groot", "multi_task_dit", "pi0", "pi05", "pi0_fast", "smolvla",
    "tdmpc", "vqbet", "xvla",
)  # fmt: skip

# What a checkpoint of a family calls itself, where that is not the family's name: known without torch.
_OWN_NAMES: Final = {"Gr00tN1d6": "groot", "Gr00tN1d7": "groot"}


# transformers has a pi0 of its own; every other policy is lerobot's.
_LEROBOT_S: Final = frozenset(f"exporters.families.{name}" for name in FAMILIES if name != "pi0")


def imported(module: str) -> Any:
    """A module of this package.

    Raises:
        MissingPackageError: a package that it needs is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("exporters", "pytest_reflex"):
            raise
        # Of these families' policies lerobot's extra has what all of them need, torch and transformers too.
        extra = "lerobot" if module in _LEROBOT_S else "export"
        raise MissingPackageError(
            f"{module} needs {error.name}, which is not installed; pip install 'pytest-reflex[{extra}]'"
        ) from error


def known_families(*, built_in: bool = True) -> tuple[str, ...]:
    """The names of all families: :data:`FAMILIES`, then those of other distributions."""
    return (*(FAMILIES if built_in else ()), *(name for name in installed() if name not in FAMILIES))


def family_named(name: str) -> Any:
    """A family, an ``exporters.families.base.Family``, by one of the names of :func:`known_families`.

    Where another distribution has a family of a name of :data:`FAMILIES`, it is warned of and left alone.

    Raises:
        MissingPackageError: a package that it needs is not installed.
        BundleError: nobody knows the name.
        ReflexError: what is installed under it cannot be imported, or is no sound family of that name, or is
            installed twice.
    """
    entries = installed().get(name, [])
    if name in FAMILIES:
        for entry in entries:
            warnings.warn(
                f"{entry.value} is installed as the family {name!r} too, and {name!r} is this package's own; "
                f"uninstall {_distribution(entry)}",
                stacklevel=2,
            )
        return imported(f"exporters.families.{name}").FAMILY
    if not entries:
        raise BundleError(f"no family is named {name!r}, expected one of {', '.join(known_families())}")
    if len(entries) > 1:
        raise ReflexError(
            f"two installed families are named {name!r}: {' and '.join(entry.value for entry in entries)}; "
            f"uninstall {' or '.join(map(_distribution, entries))}"
        )
    return _loaded(entries[0])


def _loaded(entry: EntryPoint) -> Any:
    of = f"of the distribution {_distribution(entry)}"
    kind = imported("exporters.families.base").Family
    try:
        family = entry.load()
        good = isinstance(family, kind) and family.name == entry.name
        if good:
            family.require_sound()
    except KeyboardInterrupt:
        raise
    except ReflexError as error:
        raise ReflexError(f"{error} ({of})") from error
    except BaseException as error:  # also an exit, and whatever a test's own skip is
        raise ReflexError(
            f"the family {entry.name!r} cannot be imported from {entry.value} {of}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not good:
        raise ReflexError(
            f"{entry.value} {of} is installed as the family {entry.name!r} and is no "
            "exporters.families.base.Family of that name"
        )
    return family


def _distribution(entry: EntryPoint) -> str:
    return next(iter(versions_of([entry])))


def distribution_of(name: str) -> dict[str, str]:
    """The distribution that brings a family, with its version; nothing for one of :data:`FAMILIES`."""
    return {} if name in FAMILIES else versions_of(installed().get(name, []))


def family_of(checkpoint: str | os.PathLike[str], *, revision: str | None = None) -> str:
    """The family of a checkpoint, by what its ``config.json`` says.

    Args:
        checkpoint: a directory or a hub id.
        revision: branch, tag or commit of the hub id.

    Raises:
        CheckpointError: it cannot be had, or its family is none of :func:`known_families`; the message says
            which of these could not be asked, and why.
    """
    config = checkpoints.read_config(checkpoints.resolve(checkpoint, revision=revision))
    stated = config.get("model_type") or config.get("type")
    found = _OWN_NAMES.get(str(stated), stated)
    known = known_families()
    if found in known:
        return str(found)
    theirs, silent = [], []
    for name in known_families(built_in=False):
        try:
            if stated in family_named(name).own_names:
                theirs.append(name)
        except ReflexError as error:
            silent.append(str(error))
    if len(theirs) > 1:
        raise CheckpointError(
            f"{checkpoint} is a checkpoint of {stated!r}, which {' and '.join(theirs)} say is theirs; "
            "uninstall one, or export with the family itself"
        )
    if not theirs:
        raise CheckpointError(
            f"{checkpoint} is a checkpoint of {found!r}, expected one of {', '.join(known)}; "
            "export any other model from Python with exporters.export"
            + "".join(f"; not asked: {why}" for why in silent)
        )
    return theirs[0]


def reference_runner(
    stated: Manifest, model: Any, steps: int | None = None, inputs: Sequence[InputSpec] = ()
) -> Runner:
    """``model``, a policy of the bundle's family or a function that loads one, as its reference.

    It is asked what the manifest says, and doubts it where the policy says otherwise.

    Args:
        stated: the manifest.
        model: the policy; or a runner that says itself how it is asked, such as a sampler's.
        steps: how many steps are meant, where the caller says so and not the policy.
        inputs: what a module's own file says that it reads.

    Raises:
        BundleError: the manifest tells it what no reference of the family can be told, or takes another
            number of steps than the caller says.
    """
    if steps is not None and steps != stated.steps:
        takes = f"takes {stated.steps} steps" if stated.steps else "has no steps"
        raise BundleError(f"the bundle {takes} and {steps} were asked for; export one that takes {steps}")
    family = family_named(stated.family) if stated.family != "module" else None
    runner: Runner
    if isinstance(model, Runner) and not isinstance(model, type):
        runner = copy.copy(model)  # which says itself how its policy is asked
    elif family is not None:
        kept = [option.name for option in family.options if option.kept]
        if unknown := sorted(stated.call.keys() - set(kept)):
            raise BundleError(
                f"its manifest tells the reference {unknown[0]!r}, and {family.name}'s takes "
                f"{', '.join(kept) or 'nothing'} besides the steps; export the bundle again"
            )
        runner = family.reference(model, steps=stated.steps, **stated.call)
    else:
        from exporters.flow.policy import flow_runner

        looped = stated.layout != "single"
        runner = flow_runner(model, stated.steps, stated.output_names, looped=looped)
    if isinstance(runner, TorchRunner):
        runner.doubted_by = functools.partial(differences, stated, family, steps, read=tuple(inputs))
    return runner


def stages_of(bundle: Any, policy: Any, source: Any, **how: Any) -> Any:
    """The two sides of every stage of a bundle with processors; see ``exporters.families.pipeline_sides``.

    Raises:
        BundleError: it has no processors.
    """
    if bundle.stated.processors is None:
        raise BundleError(
            f"{bundle.called} has no processors; reflex export CHECKPOINT OUT or add_processors(policy, "
            "bundle, ...) puts them in"
        )
    return imported("exporters.families.pipeline_sides").stages(bundle, policy, source, **how)


def with_processors(family: Any, policy: Any, asked: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a family's export, with what puts the policy's processors in.

    Raises:
        ReflexError: they are asked for and cannot be had.
    """
    made: dict[str, Any] = imported("exporters.families.one_call").with_processors(
        family, policy, asked, options
    )
    return made


def processors_of(policy: Any, asked: Any) -> Any:
    """What a policy's processors are, by their content; None where there are none, or they are not wanted."""
    return imported("exporters.families.one_call").processors_of(policy, asked)


def flow_of(stated: Manifest, policy: nn.Module) -> FlowPolicy:
    """The two halves that the bundle's graphs were traced from."""
    from exporters.flow.policy import FlowPolicy

    if isinstance(policy, FlowPolicy):
        return policy
    made: FlowPolicy = family_named(stated.family).flow(policy, **stated.call)
    return made.eval()


def whole_of(stated: Manifest, policy: nn.Module) -> nn.Module | None:
    """What the graph of a bundle without a loop was traced from, where it is not the policy's own call."""
    if stated.family == "module":
        return None
    made: nn.Module | None = family_named(stated.family).whole(policy)
    return made if made is None else made.eval()
