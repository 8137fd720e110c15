"""What ``--model`` names: a checkpoint of a family, a module of someone's own, or a recording."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from pytest_reflex.cli.reads import are_specs, inputs_of, require_inputs
from pytest_reflex.errors import BundleError, CheckpointError, ReflexError, a_type
from pytest_reflex.verdict.naming import did_you_mean, near_path

if TYPE_CHECKING:
    from exporters.bundles import Bundle
    from exporters.serving.candidate import Served
    from pytest_reflex.inputs import InputSpec
    from pytest_reflex.runners import OnnxRunner, Runner


def require_draws(context: click.Context, model: str) -> None:
    """Refuse to be told what to draw where nothing is drawn."""
    if not model.endswith(".safetensors"):
        return
    for name in ("fixtures", "seed", "steps"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            own = "steps" if name == "steps" else "fixtures"
            raise click.UsageError(f"--{name} was given, and a recording brings its own {own}")


# What a bundle keeps of its export, that of all stages first.
_RECORDINGS: Final = ("raw.safetensors", "fixtures.safetensors")


def require_policy_of(model: str, why: str) -> None:
    """Refuse a recording where the policy itself is asked; ``why`` says what cannot be done without it."""
    if model.endswith(".safetensors"):
        raise CheckpointError(
            f"--model is {model!r}, a recording, and without the policy itself {why}; give the checkpoint or "
            "file.py:name that the bundle was made from"
        )


def require_one(model: str | None, reference: Path | None, bundle: Path | None = None) -> None:
    """Refuse a candidate held against nothing, or against two things; a bundle has a recording of its own."""
    if (model is None) is (reference is None):
        kept = [bundle / name for name in _RECORDINGS if (bundle / name).is_file()] if bundle else []
        own = f"; or judge it by its own recording, --model {shlex.quote(str(kept[0]))}" if kept else ""
        raise click.UsageError(
            f"give --model, the policy, or --reference, a graph that is to be the judge{own}"
        )


@contextlib.contextmanager
def or_by_recording(
    bundle: Bundle | Served, model: str, file: str = "fixtures.safetensors"
) -> Iterator[None]:
    """Where the policy cannot be imported, name the recording in the bundle, which needs no torch.

    Raises:
        CheckpointError: as inside, or what is imported there is not installed.
    """
    place: Path | None = getattr(bundle, "path", None)  # what is served has no files here
    try:
        yield
    except (CheckpointError, ImportError) as error:
        missing = error if isinstance(error, ImportError) else error.__cause__
        if place is None or file not in bundle.stated.files or not isinstance(missing, ImportError):
            raise
        said = f"--model is {model!r}, and {error}" if missing is error else str(error)
        raise CheckpointError(
            f"{said}; the recording needs no policy: --model {shlex.quote(str(place / file))} judges by it"
        ) from missing


def named_reference(bundle: Bundle | Served, model: str, steps: int | None = None) -> tuple[Runner, Any]:
    """The reference that ``--model`` names, and its inputs where it brings its own.

    ``steps`` are those that are meant, where the command line says it.

    A policy is loaded when its runner opens and let go when it closes, before the candidate is opened.
    """
    if model.endswith(".safetensors"):
        from pytest_reflex.runners import RecordedRunner

        recording = RecordedRunner(model)
        return recording, recording.recorded()
    if bundle.family == "module" or is_script(model):
        held = named(model)
        runner = bundle.reference_runner(held, steps, read_by(model))
        runner.name = model
        return runner, None
    if model.endswith(".py"):
        raise CheckpointError(nameless(model))
    from exporters import checkpoints
    from exporters.bundle import registry

    known = registry.known_families()
    if bundle.family not in known:
        raise BundleError(
            f"{bundle.called} was made from a {bundle.family!r} policy, which this version "
            f"does not know ({', '.join(known)}); judge it with the version that made it"
        )
    place = checkpoints.resolve(model)
    if (place / "reflex.json").is_file():
        raise CheckpointError(nameless(model))
    checkpoints.read_config(place)
    # Last, for it imports torch.
    family = registry.family_named(bundle.family)
    runner = bundle.reference_runner(lambda: family.load(model), steps)
    runner.name = model
    return runner, None


def script_reference(model: str) -> Runner:
    """What ``module:name`` or ``file.py:name`` names, as the reference of a plain ONNX file.

    It is an ``nn.Module``, a function without arguments that gives one, one of the inputs, or a runner.
    """
    from pytest_reflex.runners import FunctionRunner, RecordedRunner, Runner, TorchRunner

    if model.endswith(".safetensors"):
        return RecordedRunner(model)
    made = named(model)
    if isinstance(made, Runner) and not isinstance(made, type):
        return made
    if inspect.isfunction(made) and has_to_be_given(made):
        return FunctionRunner(made, name=model)
    return TorchRunner(made, name=model)


def script_inputs(inputs: str, model: str | None = None) -> Any:
    """What ``--inputs`` names: a list of ``InputSpec``, or of recorded inputs; a function may give it.

    ``model``, what ``--model`` names, is for the message where the file is left out.
    """
    if inputs.isidentifier() and model is not None and is_script(model):
        raise CheckpointError(
            f"--inputs is {inputs!r}; say of which file: --inputs {model.rpartition(':')[0]}:{inputs}"
        )
    made = named(inputs, "--inputs")
    return made() if callable(made) else made


def drawn_of_a_file(
    candidate: OnnxRunner, model: str, reference: Runner, inputs: str | None
) -> tuple[Any, str]:
    """What a plain ``.onnx`` file is judged with, and the line that says whence; a recording brings its own.

    It is what ``--inputs`` names, else what the file of ``--model`` calls ``INPUTS``, else floats and bools
    in the shapes that the graph states.
    """
    from pytest_reflex.runners import RecordedRunner
    from pytest_reflex.runners.graph_inputs import graph_inputs

    if inputs is not None:
        return script_inputs(inputs, model), ""
    if (beside := said_beside(model)) is not None:
        return script_inputs(beside), f"Inputs: those of {beside}; --inputs names others"
    if isinstance(reference, RecordedRunner):
        return None, ""
    stated = graph_inputs(candidate)
    return stated, as_stated(stated, "--inputs file.py:NAME says what they stand for")


def as_stated(specs: Sequence[InputSpec], advice: str) -> str:
    """The line that says what is drawn where nobody but the graph says it."""
    drawn = ", ".join(f"{spec.name} {list(spec.shape)} {spec.dtype}" for spec in specs)
    return f"Inputs: {drawn}, as the graph states them; {advice}"


def read_by(model: str) -> Any:
    """What the file of a policy says that it reads; nothing where it says nothing."""
    beside = getattr(_module_of(model.rpartition(":")[0]), "INPUTS", None)
    return beside if are_specs(beside) else ()


def said_beside(model: str) -> str | None:
    """``file.py:INPUTS`` where the file of ``file.py:name`` was imported and has such a name."""
    source = model.rpartition(":")[0]
    there = is_own(model) and hasattr(_module_of(source), "INPUTS")
    return f"{source}:INPUTS" if there else None


def has_to_be_given(function: Any) -> bool:
    """Whether a function cannot be called with nothing."""
    given = inspect.signature(function).parameters.values()
    return any(p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in given)


def is_graph(path: Path) -> bool:
    """Whether it names an ``.onnx`` file, there or not, and no bundle that is called so."""
    return path.suffix == ".onnx" and not path.is_dir()


def is_script(model: str) -> bool:
    """Whether it can only be ``module:name`` or ``file.py:name``: no directory and no hub id has a colon."""
    return ":" in model and "://" not in model and not Path(model).exists()


def nameless(model: str, option: str = "--model") -> str:
    """What to say of a name that names nothing in a file; the names that are there are shown."""
    if model.endswith(".onnx"):
        return (
            f"{option} is {model!r}, a graph; give the policy, or --reference {model} where it is the judge"
        )
    if Path(model, "reflex.json").is_file():
        return f"{option} is {model!r}, which is a bundle; give the policy that it was made from"
    if not model.endswith(".py") or not Path(model).is_file():
        return f"{option} is {model!r}; give module:name or file.py:name"
    return f"{option} is {model!r}, a Python file; say what in it: {model}:NAME"


def named(model: str, option: str = "--model") -> Any:
    """What ``module:name`` or ``file.py:name`` names."""
    source, _, name = model.rpartition(":")
    if not source or not name:
        raise CheckpointError(nameless(model, option))
    try:
        if source.endswith(".py"):
            module = _of_a_file(source, f"{option} is {model!r}")
        else:
            # The script's own directory comes first on the path; a user means the current one.
            sys.path.insert(0, "")
            module = importlib.import_module(source)
    except ReflexError:
        raise
    except Exception as error:
        rootless = "no known parent package" in str(error)
        out = (
            "; a file that imports from its package by dots needs an __init__.py beside it"
            if rootless
            else ""
        )
        raise CheckpointError(
            f"{option} is {model!r}, and {source} cannot be imported: {type(error).__name__}: {error}{out}"
            f"{_installed_by(error)}"
        ) from error
    if not hasattr(module, name):
        own = [each for each in vars(module) if not each.startswith("_")]
        nearest = did_you_mean(name, own)
        raise CheckpointError(f"{option} is {model!r}, and {source} has no {name!r}{nearest}")
    return getattr(module, name)


def _installed_by(error: Exception) -> str:
    """How a package is had that is not installed, where it is one of those that make bundles."""
    name = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
    extra = {"torch": "export", "transformers": "export", "lerobot": "lerobot"}.get(name.partition(".")[0])
    return f"; pip install 'pytest-reflex[{extra}]'" if extra else ""


def importable(source: str | Path) -> tuple[Path, str]:
    """Where a file is imported from and by what name: that of a package with its package's."""
    file = Path(source).resolve()
    folder, parts = file.parent, [] if file.stem == "__init__" else [file.stem]
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        folder, parts = folder.parent, [folder.name, *parts]
    return folder, ".".join(parts) or file.stem


def _of_a_file(source: str, asked: str) -> ModuleType:
    if not Path(source).is_file():
        raise CheckpointError(f"{asked}, and there is no file {source}{near_path(Path(source))}")
    root, name = importable(source)
    # As Python itself does with a script: what lies beside it can be imported.
    sys.path.insert(0, str(root))
    if name != Path(source).stem:
        # Of a package's file what lies beside it comes last, for it may be called as anything.
        sys.path.append(str(Path(source).resolve().parent))
        module = importlib.import_module(name)
        found = getattr(module, "__file__", None)
        if found is None or not Path(found).samefile(source):
            raise CheckpointError(f"{asked}, and {name} is {found} here; give it another name")
        return module
    spec = importlib.util.spec_from_file_location(name, source)
    if spec is None or spec.loader is None:
        raise CheckpointError(f"{asked}, and {source} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def is_own(model: str) -> bool:
    """Whether ``model`` names a policy of one's own, and no checkpoint: ``file.py:name``, ``module:name``."""
    named_so = ".py:" in model or re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", model)
    return bool(named_so) and not Path(model).exists()


def _module_of(source: str) -> ModuleType:
    """What was imported for a name in it."""
    return sys.modules[importable(source)[1] if source.endswith(".py") else source]


def made_by(function: Any, model: str) -> Any:
    """What a function gives that is to give a policy.

    Raises:
        CheckpointError: it raises, or is no function.
    """
    try:
        return function()
    except Exception as error:
        raise CheckpointError(f"{model} could not be loaded: {type(error).__name__}: {error}") from error


def own_policy(model: str) -> tuple[Any, Any]:
    """The policy that ``file.py:name`` or ``module:name`` names, and the inputs that its file says it reads.

    Raises:
        CheckpointError: there is none, or nobody says what it reads.
    """
    found = named(model, "MODEL")
    source = model.rpartition(":")[0]
    place = _module_of(source)
    require_policy(found, model)
    policy = policy_in(found, model)
    from exporters.families.one_call import family_of_policy

    if family_of_policy(policy) is not None:
        return policy, None
    inputs = getattr(place, "INPUTS", None)
    if inputs is None:
        raise CheckpointError(
            f"{model} has no INPUTS beside it; write in {source}: {inputs_of(policy, model, found)}"
        )
    require_inputs(policy, inputs, model, found)
    return policy, inputs


def is_policy(found: Any) -> bool:
    """Whether it is a policy, or the runner of one, and nothing that has to be called for it."""
    from torch import nn

    from pytest_reflex.runners import TorchRunner

    return isinstance(found, nn.Module | TorchRunner)


def policy_in(found: Any, model: str) -> Any:
    """The policy that is named or that a named function gives; or the runner that says how one is asked.

    Raises:
        CheckpointError: a function raises, or gives something else.
    """
    from torch import nn

    from pytest_reflex.runners import TorchRunner

    if is_policy(found):
        return found
    policy = made_by(found, model)
    if isinstance(policy, TorchRunner):
        raise CheckpointError(
            f"{model} gives a TorchRunner; name the runner itself, such as runner = {found.__name__}() in "
            f"{model.rpartition(':')[0]} and {model.rpartition(':')[0]}:runner"
        )
    if not isinstance(policy, nn.Module):
        raise CheckpointError(f"{model} gives {a_type(policy)}, expected an nn.Module")
    return policy


def require_policy(found: Any, model: str) -> None:
    """Refuse what neither is a policy nor can give one.

    Raises:
        CheckpointError: saying what it is; of a class why not, of a function what it has to be given.
    """
    from pytest_reflex.runners import TorchRunner

    if isinstance(found, TorchRunner):
        return
    try:
        TorchRunner(found)
    except ReflexError as error:
        raise CheckpointError(f"{model}{str(error).removeprefix('model')}") from None
    if inspect.isfunction(found) and has_to_be_given(found):
        raise CheckpointError(
            f"{model} has to be given something, {found.__name__}{inspect.signature(found)}, and is given "
            "nothing; write a function without arguments beside it that gives the policy"
        )
