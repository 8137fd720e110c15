"""What ``--model`` names: a checkpoint of a family, a module of someone's own, or a recording."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pytest_reflex.errors import BundleError, CheckpointError, ReflexError

if TYPE_CHECKING:
    from exporters.bundles import Bundle
    from exporters.serving.candidate import Served
    from pytest_reflex.runners import Runner


def require_draws(context: click.Context, model: str) -> None:
    """Refuse to be told what to draw where nothing is drawn."""
    if not model.endswith(".safetensors"):
        return
    for name in ("fixtures", "seed"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} was given, and a recording brings its own fixtures")


def named_reference(bundle: Bundle | Served, model: str) -> tuple[Runner, Any]:
    """The reference that ``--model`` names, and its inputs where it brings its own.

    A policy is loaded when its runner opens and let go when it closes, before the candidate is opened.
    """
    if model.endswith(".safetensors"):
        from pytest_reflex.runners import RecordedRunner

        recording = RecordedRunner(model)
        return recording, recording.recorded()
    if bundle.family == "module":
        return bundle.reference_runner(
            imported(model, "--model", "this bundle was made from a plain module")[0]
        ), None
    from exporters import checkpoints
    from exporters.bundle import registry

    known = registry.known_families()
    if bundle.family not in known:
        raise BundleError(
            f"{bundle.called} was made from a {bundle.family!r} policy, which this version "
            f"does not know ({', '.join(known)}); judge it with the version that made it"
        )
    checkpoints.read_config(checkpoints.resolve(model))
    # Last, for it imports torch.
    family = registry.family_named(bundle.family)
    runner = bundle.reference_runner(lambda: family.load(model))
    runner.name = model
    return runner, None


def imported(model: str, option: str, why: str) -> tuple[Any, Any]:
    """What ``module:name`` or ``file.py:name`` names, a module or a function that gives one; where it is."""
    source, _, name = model.rpartition(":")
    if not source or not name:
        raise CheckpointError(f"{option} is {model!r}, and {why}; give module:name or file.py:name")
    try:
        if source.endswith(".py"):
            if not Path(source).is_file():
                raise CheckpointError(f"{option} is {model!r}, and there is no file {source}")
            spec = importlib.util.spec_from_file_location(Path(source).stem, source)
            if spec is None or spec.loader is None:
                raise CheckpointError(f"{option} is {model!r}, and {source} cannot be imported")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
        else:
            # The script's own directory comes first on the path; a user means the current one.
            sys.path.insert(0, "")
            module = importlib.import_module(source)
    except ReflexError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{option} is {model!r}, and {source} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, name):
        raise CheckpointError(f"{option} is {model!r}, and {source} has no {name!r}")
    return getattr(module, name), module


def is_own(model: str) -> bool:
    """Whether ``model`` names a module of someone's own, and no checkpoint: ``file.py:name``."""
    return ".py:" in model and not Path(model).exists()


def own_policy(model: str) -> tuple[Any, Any]:
    """The policy that ``file.py:name`` names, and the inputs that its file says it reads.

    Raises:
        CheckpointError: there is none, or nobody says what it reads.
    """
    found, place = imported(model, "MODEL", "it is a policy of one's own")
    from torch import nn

    try:
        policy = found if isinstance(found, nn.Module) else found()
    except Exception as error:
        raise CheckpointError(f"{model} could not be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(policy, nn.Module):
        raise CheckpointError(f"{model} gives a {type(policy).__name__}, expected an nn.Module")
    from exporters.families.one_call import family_of_policy

    if family_of_policy(policy) is not None:
        return policy, None
    inputs = getattr(place, "INPUTS", None)
    if not isinstance(inputs, (list, tuple)):
        raise CheckpointError(f"{model} has no INPUTS beside it; give the list of InputSpec that it reads")
    return policy, inputs
