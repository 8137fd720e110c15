"""``reflex init``: a parity test of one model and the jobs that run it, which run as they are."""

from __future__ import annotations

import re
import shlex
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from keyword import iskeyword
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pytest_reflex.cli.jobs import RUN, TESTS, Job, ignored, jobs_of, leftovers
from pytest_reflex.cli.reads import are_specs, inputs_of, require_inputs
from pytest_reflex.cli.reference import (
    importable,
    is_graph,
    is_policy,
    is_script,
    named,
    nameless,
    policy_in,
    read_by,
    require_policy,
)
from pytest_reflex.cli.report import PASS, Reported
from pytest_reflex.errors import BundleError, CheckpointError, ReflexError, a_type

if TYPE_CHECKING:
    from exporters.bundles import Bundle

# A test that makes what it judges sees a policy that has changed on both sides.
_GUARDS: Final = "without --bundle the test guards the export and not a file that was shipped"
_SAID_IN_IT: Final = f"Written by `reflex init`; {_GUARDS}."

_OF_A_CHECKPOINT: Final = '''\
"""The {family} policy of {shown} and its export compute the same.

{guards}
"""

from pathlib import Path

import pytest_reflex as reflex
from exporters import {family}

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = {checkpoint}


@reflex.parity(threshold=1e-4)
def test_{name}(parity, tmp_path):
    policy = {family}.load(CHECKPOINT)
    parity.check(policy, {family}.export(policy, tmp_path / "{name}", verify=False))
'''

_FROM_CAMERA: Final = '''\
"""The {family} policy of {shown} and its export compute the same.

{guards}
"""

from pathlib import Path

import pytest_reflex as reflex
from exporters import {imported}

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = {checkpoint}


@reflex.parity(threshold=1e-4)
def test_{name}(parity, tmp_path):
    policy = {family}.load(CHECKPOINT)
    bundle = export_policy(policy, tmp_path / "{name}", processors=True, verify=False)
    # Every stage from the camera to the joint; what the robot saw: inputs=reflex.episodes("recording").
    parity.check_pipeline(policy, bundle)
'''

_OF_A_BUNDLE: Final = '''\
"""The {family} policy of {shown} and {bundle} compute the same."""

from pathlib import Path

import pytest_reflex as reflex
from exporters import {imported}

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = {checkpoint}


@reflex.parity(threshold=1e-4)
def test_{name}(parity):
    parity.{check}({family}.load(CHECKPOINT), open_bundle({opened}))
'''

_OF_A_SCRIPT: Final = '''\
"""{shown} and its export compute the same.

{guards}
"""

import sys
from pathlib import Path

import pytest_reflex as reflex
from exporters import {export}

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [{folders}]

import {module} as script  # noqa: E402


@reflex.parity(threshold=1e-4)
def test_{name}(parity, tmp_path):
    policy = script.{policy}
    bundle = {export}(policy, tmp_path / "{name}", {reads}verify=False)
    parity.check(policy, bundle)
'''

_OF_A_SCRIPT_S_BUNDLE: Final = '''\
"""{shown} and {bundle} compute the same."""

import sys
from pathlib import Path

import pytest_reflex as reflex
from exporters import open_bundle

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [{folders}]

import {module} as script  # noqa: E402


@reflex.parity(threshold=1e-4)
def test_{name}(parity):
    parity.{check}(script.{policy}, open_bundle({opened}))
'''

_OF_A_SCRIPT_S_BUNDLE_AND_INPUTS: Final = _OF_A_SCRIPT_S_BUNDLE.replace(
    "    parity.{check}(script.{policy}, open_bundle({opened}))\n",
    """\
    bundle = open_bundle({opened})
    # What the file says that the policy reads now, so that a bundle which reads another thing is doubted.
    policy = bundle.reference_runner(script.{policy}, inputs=script.INPUTS)
    parity.{check}(policy, bundle)
""",
)

_OF_A_SCRIPT_S_FILE: Final = _OF_A_SCRIPT_S_BUNDLE.replace("from exporters import open_bundle\n", "").replace(
    "(script.{policy}, open_bundle({opened}))", "(script.{policy}, {opened}{reads})"
)

# Where trainings keep their checkpoints; which policy it is says what is above.
_ANY_S: Final = re.compile(r"pretrained_model|last|checkpoints?|\d+")

_NO_POLICY_S: Final = (
    "--bundle is {bundle}, a graph, and {model} is a policy with more around it than one graph says; "
    "give the bundle that it was exported to"
)

# What a script calls the function that gives its policy, which says nothing of which policy that is.
_A_FACTORY: Final = re.compile(
    r"(?i)(make|build|create|load|get|new)?_?(the_|my_|own_)?(policy|model|module|net|network|runner)?"
)


@dataclass(frozen=True)
class _Made:
    """A test but for its name, what it may be called, the extra that it needs, and what it reads."""

    names: tuple[str, ...]
    text: Callable[..., str]
    extra: str
    reads: Path | None


@click.command(short_help="Write a parity test and the CI jobs that run it.")
@click.argument("model")
@click.option(
    "--ci", type=click.Choice(["github", "gitlab", "both", "none"]), default="both", show_default=True,
    help="Whose jobs are written.",
)  # fmt: skip
@click.option(
    "--inputs", default="INPUTS", show_default=True, metavar="NAME",
    help="Of a script, the name of its list of InputSpec.",
)  # fmt: skip
@click.option(
    "--bundle", metavar="PATH", type=click.Path(path_type=Path),
    help="A bundle of MODEL that was shipped, or its .onnx file, judged in place of what the test exports.",
)  # fmt: skip
@click.option(
    "-o", "--out", metavar="DIR", default=".", show_default=True, type=click.Path(path_type=Path),
    help="The repository.",
)  # fmt: skip
def init(model: str, ci: str, inputs: str, bundle: Path | None, out: Path) -> Reported:
    """Write a parity test of MODEL into tests/parity, and jobs for GitHub and GitLab that run it.

    MODEL is a checkpoint directory or a hub id, or file.py:name. Where lerobot's processors are in the
    checkpoint or the bundle, every stage from the camera to the joint is judged. Without --bundle the test
    guards the export and not a file that was shipped. What is there already is
    left as it is, but for a job of this command's own that nobody has changed and that lacks what MODEL
    needs.
    """
    if bundle is not None and inputs != "INPUTS" and not is_graph(bundle):
        raise click.UsageError("--inputs was given, and --bundle says itself what it reads; leave it out")
    if inputs != "INPUTS" and not is_script(model):
        raise click.UsageError("--inputs was given, and a checkpoint says itself what it reads; leave it out")
    made = (
        _of_a_script(model, inputs, bundle, out) if is_script(model) else _of_a_checkpoint(model, bundle, out)
    )
    name = _name_there(out, made) or next((n for n in made.names if _is_free(out, n)), made.names[-1])
    lines = [_written(out, f"{TESTS}/test_{name}.py", made.text(name=name))]
    below: list[str] = []
    for job in jobs_of(ci):
        lines.append(_job(out, job, made.extra, below))
    for reads in (made.reads, bundle):
        if reads is None:
            continue
        if not reads.resolve().is_relative_to(out.resolve()):
            below.append(
                f"{reads} is not in the repository {out.resolve()}, so the test finds it on this machine "
                "alone, and no job does; copy it into the repository, or give its own by --out"
            )
        elif lost := ignored(out, reads):
            below.append(
                f"git ignores {lost}, so the test finds it on this machine alone, and no job does; take it "
                "out of .gitignore, large files into Git LFS, or have the job fetch it before the test"
            )
    if bundle is None:
        below.append(
            f"{_GUARDS.capitalize()}. Where one was shipped, judge it: reflex init {shlex.quote(model)} "
            "--bundle PATH"
        )
    below += leftovers(out)
    return Reported(
        PASS, "\n".join([*lines, "", *(f"{said}\n" for said in below), f"Next: {_next(out)}"]) + "\n"
    )


def _job(out: Path, job: Job, extra: str, below: list[str]) -> str:
    """What became of a job's file; ``below`` gets what to change in one that is somebody's own."""
    path = out / job.place
    there = _text(path)
    if there is None or (again := job.again(there, extra)) is None:
        line = _written(out, job.place, job.text(extra))
        if there is not None and (advice := job.advice(there, extra)):
            below.append(f"{path} {advice}")
        return line
    if again == there:
        return f"as it was   {path}"
    _write(path, again)
    return f"updated     {path}, which installs the extra {extra} now"


def _text(path: Path) -> str | None:
    """What a file holds; None where there is none that can be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _next(out: Path) -> str:
    there = "" if out.resolve() == Path.cwd() else f"cd {shlex.quote(str(out))} && "
    return f"{there}{RUN}"


def _name_there(out: Path, made: _Made) -> str:
    """What the test of the same model is called that is there already; empty where there is none.

    It may have been changed since, and another version may have called it otherwise.
    """
    own = made.text(name="").partition("\n")[0]
    found = (
        path.stem.removeprefix("test_")
        for path in sorted((out / TESTS).glob("test_*.py"))
        # An earlier version's first line says no more.
        if (_text(path) or "").partition("\n")[0].rstrip('"') == own.rstrip('"')
    )
    return next(found, "")


def _is_free(out: Path, name: str) -> bool:
    """Whether no test has the name.

    Two files of one name in two directories without an ``__init__.py`` are an error of pytest's.
    """
    path = out / TESTS / f"test_{name}.py"
    others = [each for each in (out / "tests").rglob(path.name) if each != path]
    return not path.exists() and (not others or (path.parent / "__init__.py").exists())


def _of_a_checkpoint(model: str, bundle: Path | None, out: Path) -> _Made:
    from exporters import FAMILIES, checkpoints
    from exporters.bundle import registry
    from exporters.families.pipeline_files import can_be_put_in

    if model.endswith(".py"):
        raise CheckpointError(nameless(model, "MODEL"))
    if Path(model, "reflex.json").is_file():
        raise CheckpointError(
            f"MODEL is {model!r}, a bundle, and a test wants the policy too; give the checkpoint that it was "
            f"made from, and --bundle {model}"
        )
    if model.endswith(".onnx") and Path(model).is_file():
        raise CheckpointError(
            f"MODEL is {model!r}, a graph, and a test wants the policy too; give that as file.py:name, and "
            f"--bundle {shlex.quote(model)}"
        )
    if bundle is not None and is_graph(bundle):
        raise BundleError(_NO_POLICY_S.format(bundle=bundle, model=model))
    family = registry.family_of(model)
    if family not in FAMILIES:
        raise ReflexError(
            f"{model} is a checkpoint of the installed family {family!r}, whose module only its "
            "distribution knows; write the test by hand, from that of another family"
        )
    directory = checkpoints.resolve(model)
    local = Path(model).is_dir()
    place = _from(out, Path(model)) if local else None
    steps = [part for part in Path(model).resolve().parts if local and not _ANY_S.fullmatch(part)]
    short, *longer = [*steps[:-3:-1]] if local else [*model.split("/")[::-1]]
    config = checkpoints.read_config(directory)
    text, beside, judged = _OF_A_CHECKPOINT, [], {}
    if bundle is not None:
        text, beside, judged = _OF_A_BUNDLE, ["open_bundle"], _judging(bundle, family, out)
    elif can_be_put_in(directory):
        text, beside = _FROM_CAMERA, ["export_policy"]
    return _Made(
        _names(short, *longer),
        partial(
            text.format,
            **judged,
            guards=_SAID_IN_IT,
            family=family,
            imported=", ".join(sorted([family, *beside])),
            shown=_in_docstring(place or model),
            checkpoint=_quoted(model) if place is None else _at(place),
        ),
        # transformers has a pi0 of its own; every other policy is lerobot's.
        "export" if family == "pi0" and "model_type" in config else "lerobot",
        Path(model) if local else None,
    )


def _judging(directory: Path, family: str, out: Path) -> dict[str, str]:
    """How a test opens a checkpoint's bundle, and what it calls: with its processors, or without.

    Raises:
        BundleError: it is none of the family.
    """
    from exporters import open_bundle

    bundle = open_bundle(directory)
    if bundle.family != family:
        raise BundleError(f"{directory} is a bundle of {bundle.family}, and the checkpoint is of {family}")
    return _opening(bundle, directory, out)


def _judging_a_script_s(directory: Path, model: str, held: Any, out: Path) -> dict[str, str]:
    """The same of a bundle that was made from what a script holds.

    Raises:
        BundleError: it is of another policy's family, or nobody says what is around the policy.
    """
    from exporters import checkpoints, open_bundle
    from exporters.families.one_call import family_of_policy

    bundle = open_bundle(directory)
    if bundle.family != "module":
        policy = policy_in(held, model)
        family = family_of_policy(policy)
        if family is None or family.name != bundle.family:
            own = a_type(policy) if family is None else f"of {family.name}"
            raise BundleError(
                f"{directory} is a bundle of {bundle.family}, and the policy of {model} is {own}"
            )
        if bundle.has_processors and checkpoints.directory_of(policy) is None:
            raise BundleError(
                f"{directory} has processors, and the policy of {model} was loaded from no checkpoint, which "
                "would say what they should do; give the checkpoint in place of the file"
            )
    elif specs := read_by(model):
        reads, wanted = ([spec.name for spec in some] for some in (bundle.inputs, specs))
        if {*reads} != {*wanted}:
            raise BundleError(
                f"{directory} reads {', '.join(map(repr, reads))}, and INPUTS beside {model} has "
                f"{', '.join(map(repr, wanted))}; give the bundle that was exported from it"
            )
    # Of a family's policies lerobot's extra has what all of them need.
    extra = "export" if bundle.family == "module" else "lerobot"
    return {**_opening(bundle, directory, out), "extra": extra}


def _opening(bundle: Bundle, directory: Path, out: Path) -> dict[str, str]:
    return {"check": "check_pipeline" if bundle.has_processors else "check", **_placed(directory, out)}


def _placed(judged: Path, out: Path) -> dict[str, str]:
    place = _from(out, judged)
    return {
        "bundle": _in_docstring(place),
        "opened": _at(place),
    }


def _judging_a_graph(file: Path, model: str, held: Any, inputs: str, out: Path) -> dict[str, str]:
    """How a test judges a plain ``.onnx`` file.

    Raises:
        BundleError: there is no such file, or the policy is one of a family, which no plain file holds whole.
        CheckpointError: nobody says what the policy reads.
    """
    if not file.is_file():
        raise BundleError(f"{file}: there is no such file")
    if not _reads(model, held, inputs):
        raise BundleError(_NO_POLICY_S.format(bundle=file, model=model))
    return {**_placed(file, out), "check": "check", "extra": "export", "reads": f", inputs=script.{inputs}"}


def _names(short: str, longer: str = "") -> tuple[str, ...]:
    """What a test may be called: as the policy is, then with what that belongs to, then by what it asks."""
    name, more = _identifier(short), _identifier(f"{longer}_{short}")
    return (name, *([more] if longer and longer != short else []), f"{more}_parity")


def _names_of_a_script(name: str, stem: str) -> tuple[str, ...]:
    """As its policy; of a function that every script has, such as ``make_policy``, as the file is."""
    if _A_FACTORY.fullmatch(name) and not _A_FACTORY.fullmatch(stem):
        file, both = _identifier(stem), _identifier(f"{stem}_{name}")
        return (file, both, f"{both}_parity")
    return _names(name, stem)


def _folder(place: str) -> str:
    """A folder of the repository on Python's path, in a test."""
    return "str(ROOT)" if place == "." else f"str({_at(place)})"


def _at(place: str) -> str:
    """A place in the repository, or a whole path, in a test."""
    return _quoted(place) if Path(place).is_absolute() else f"ROOT / {_quoted(place)}"


def _quoted(text: str) -> str:
    """A string of Python's as formatters want it: between double quotes where none are in it."""
    written = repr(text)
    return written if '"' in written else f'"{written[1:-1]}"'


def _of_a_script(model: str, inputs: str, bundle: Path | None, out: Path) -> _Made:
    source, _, name = model.rpartition(":")
    if not source.endswith(".py"):
        raise CheckpointError(f"MODEL is {model!r}; a test imports a file, so give file.py:name")
    root, called = importable(source)
    _require_free_name(source, called)
    held = named(model, "MODEL")
    require_policy(held, model)
    text = _OF_A_SCRIPT
    if bundle is not None and is_graph(bundle):
        text, judged = _OF_A_SCRIPT_S_FILE, _judging_a_graph(bundle, model, held, inputs, out)
    elif bundle is not None:
        text, judged = _OF_A_SCRIPT_S_BUNDLE, _judging_a_script_s(bundle, model, held, out)
        own = judged["extra"] == "export" and judged["check"] == "check"
        if own and are_specs(getattr(sys.modules[called], "INPUTS", None)):
            text = _OF_A_SCRIPT_S_BUNDLE_AND_INPUTS
    elif _reads(model, held, inputs):
        judged = {"export": "export", "reads": f"inputs=script.{inputs}, ", "extra": "export"}
    else:
        judged = {"export": "export_policy", "reads": "", "extra": "lerobot"}
    folders = [
        root,
        *([Path(source).parent] if root != Path(source).resolve().parent and _beside(source) else []),
    ]
    return _Made(
        _names_of_a_script(name, called.rpartition(".")[2]),
        partial(
            text.format,
            **judged,
            guards=_SAID_IN_IT,
            shown=_in_docstring(f"{_from(out, Path(source))}:{name}"),
            folders=", ".join(_folder(_from(out, folder)) for folder in folders),
            module=called,
            policy=name if is_policy(held) else f"{name}()",
        ),
        judged["extra"],
        Path(source),
    )


def _require_free_name(source: str, called: str) -> None:
    """Refuse a file that a test could not import, or would import another in place of."""
    parts = called.split(".")
    top = parts[0]
    taken = ""
    for part in parts:
        if not part.isidentifier() or iskeyword(part):
            taken = f"{part!r} is no module's name"
    if top in sys.stdlib_module_names:
        taken = f"{top!r} is the name of a module of Python's own"
    elif not taken and _is_imported_before(top):
        taken = f"{top!r} is the name of a package that it imports before"
    if taken:
        raise CheckpointError(f"{source}: a test imports it, and {taken}; rename the file")


def _is_imported_before(name: str) -> bool:
    """Whether what judges has imported an installed package of this name, which is then what a test gets."""
    found = getattr(sys.modules.get(name), "__file__", None)
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(Path(__file__).parents[2])]
    return found is not None and any(Path(found).is_relative_to(place) for place in places)


def _beside(source: str) -> bool:
    """Whether a file of a package has imported what lies beside it by its bare name."""
    folder = Path(source).resolve().parent
    return any(
        Path(file).parent == folder
        for name, module in list(sys.modules.items())
        if "." not in name and (file := getattr(module, "__file__", None))
    )


def _reads(model: str, held: Any, inputs: str) -> bool:
    """Whether the file says what its policy reads; one of a family says that itself.

    Raises:
        CheckpointError: nobody says it.
    """
    from exporters.families.one_call import family_of_policy

    source, policy = model.rpartition(":")[0], policy_in(held, model)
    if (family := family_of_policy(policy)) is not None:
        if inputs != "INPUTS":
            raise CheckpointError(
                f"--inputs was given, and a policy of {family.name} says itself what it reads; leave it out"
            )
        return False
    try:
        specs = named(f"{source}:{inputs}", "--inputs")
    except CheckpointError:
        there = [name for name, value in vars(sys.modules[importable(source)[1]]).items() if are_specs(value)]
        raise CheckpointError(
            f"{source} has no {inputs!r}, and a test has to know what the policy reads; "
            + (
                f"give --inputs {there[0]}"
                if there
                else f"write there: {inputs_of(policy, model, held)}; or name what is there by --inputs"
            )
        ) from None
    if not are_specs(specs):
        raise CheckpointError(
            f"{inputs} in {source} is no list of InputSpec; give the name of one by --inputs"
        )
    require_inputs(policy, specs, model, held)
    return True


def _from(out: Path, path: Path) -> str:
    """A path as a test finds it from the repository's root; whole where it is not in it."""
    whole, root = path.resolve(), out.resolve()
    return whole.relative_to(root).as_posix() if whole.is_relative_to(root) else str(whole)


def _in_docstring(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _identifier(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_").lower() or "policy"


def _written(out: Path, place: str, text: str) -> str:
    path = out / place
    if path.exists():
        return f"as it was   {path}" if _text(path) == text else f"left alone  {path}, which is another"
    _write(path, text)
    return f"written     {path}"


def _write(path: Path, text: str) -> None:
    from pytest_reflex.report.files import write_text

    try:
        write_text(path, text)
    except OSError as error:
        raise ReflexError(
            f"{path}: cannot be written ({error.strerror or error}); give another --out"
        ) from error
