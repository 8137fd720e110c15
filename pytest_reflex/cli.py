"""The ``reflex`` command: the composition root, where the makers and the judge meet.

Exit 0 pass, 1 fail, 2 error. With ``--output-json`` stdout is one JSON document and nothing else;
what is said to people goes to stderr then.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from click.core import ParameterSource

from exporters.schedule import LAYOUTS
from pytest_reflex import settings
from pytest_reflex._version import __version__
from pytest_reflex.errors import BundleError, CheckpointError, ParityError, ReflexError
from pytest_reflex.verdict import THRESHOLD

if TYPE_CHECKING:
    from exporters.bundle import Bundle
    from pytest_reflex.runners import Runner
    from pytest_reflex.verdict import ParityResult

PASS: Final = 0
FAIL: Final = 1
ERROR: Final = 2

# Options of `reflex export` that not every family takes.
_OF_SOME_FAMILIES: Final = frozenset({"cameras", "prompt_tokens", "tokens", "embodiment"})

# What a command gives back: the verdict, and what to say below it.
Judged = tuple["ParityResult", str]


def _parsed(context: click.Context, parameter: click.Parameter, value: object) -> object:
    """A value as every other way in takes it, with the same words for a bad one, before any work is done."""
    name = str(parameter.name)
    return settings.PARSERS[name](value, f"--{name}")


def _judging(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that reaches a verdict."""
    for option in reversed(
        (
            click.option(
                "--threshold", metavar="FLOAT", default=str(THRESHOLD), show_default=True, callback=_parsed,
                help="Pass is max_abs_diff strictly below this.",
            ),
            click.option("--strict", is_flag=True, help="Threshold 1e-5, and doubts are failures."),
            click.option(
                "--fixtures", metavar="N", default="5", show_default=True, callback=_parsed,
                help="How many fixtures are compared.",
            ),
            click.option(
                "--seed", metavar="N", default="0", show_default=True, callback=_parsed,
                help="What the fixtures are drawn with.",
            ),
            click.option(
                "--provider", metavar="NAME", default="cpu", show_default=True, callback=_parsed,
                help="ONNX Runtime execution provider.",
            ),
            click.option(
                "--output-json", is_flag=True, expose_value=False,
                help="Print JSON to stdout and nothing else.",
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pytest-reflex")
def app() -> None:
    """Prove that an exported ONNX policy computes what the PyTorch policy computes.

    Exits 0 on a pass, 1 on a fail, 2 when no verdict could be reached.
    """


@app.command()
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--layout", type=click.Choice(LAYOUTS), help="How the loop is carried  [default: the family's]")
@click.option("--steps", type=click.IntRange(min=1), help="Denoising steps  [default: the checkpoint's]")
@click.option("--cameras", type=click.IntRange(min=1), help="How many cameras the bundle reads.")
@click.option("--prompt-tokens", type=click.IntRange(min=1), help="Text length that prompts are padded to.")
@click.option("--tokens", type=click.IntRange(min=1), help="How many features GR00T reads  [default: free]")
@click.option("--embodiment", type=click.IntRange(min=0), help="Bake this one of GR00T's embodiments in.")
@click.option("--dynamic-batch", is_flag=True, help="Leave the batch size free.")
@_judging
def export(
    model: str,
    out: Path,
    dynamic_batch: bool,
    **options: Any,
) -> Judged:
    """Export the policy MODEL to the bundle OUT, proven before it is written.

    MODEL is a checkpoint directory or a hub id.
    """
    import exporters

    name = exporters.family_of(model)
    family = getattr(exporters, name)
    given = {option: value for option, value in options.items() if value is not None}
    taken = inspect.signature(family.export).parameters
    for option in _OF_SOME_FAMILIES & given.keys() - taken.keys():
        raise click.UsageError(f"--{option.replace('_', '-')} was given, and {name} has no such choice")
    with _Progress() as tell:
        tell("load", 0, 1)
        policy = family.load(model)
        tell("load", 1, 1)
        made = family.export(
            policy,
            out,
            dynamic_batch=dynamic_batch,
            progress=tell,
            **given,
        )
    if made.result is None:
        raise BundleError(f"{out} was written without a verdict")
    return made.result, f"Bundle: {out}"


@app.group()
def validate() -> None:
    """Judge a candidate against the PyTorch policy."""


@validate.command("export")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--model",
    required=True,
    help="The reference: a checkpoint directory or hub id; for other models module:name or file.py:name; "
    "or a .safetensors recording, which needs no torch.",
)
@_judging
@click.pass_context
def validate_export(context: click.Context, /, directory: Path, model: str, **judging: Any) -> Judged:
    """Judge the bundle DIR against the policy it was made from."""
    if model.endswith(".safetensors"):
        for name in ("fixtures", "seed"):
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name} was given, and a recording brings its own fixtures")
    from exporters.bundle import open_bundle
    from pytest_reflex.check import check

    with _Progress() as tell:
        tell("digests", 0, 1)
        bundle = open_bundle(directory, to_judge=True)
        tell("digests", 1, 1)
        reference, inputs = _reference(bundle, model)
        result = check(reference, bundle, inputs=inputs, name=str(directory), progress=tell, **judging)
    return result, ""


def _reference(bundle: Bundle, model: str) -> tuple[Runner, Any]:
    """The reference that ``--model`` names, and its inputs where it brings its own.

    A policy is loaded when its runner opens and let go when it closes, before the candidate is opened.
    """
    if model.endswith(".safetensors"):
        from pytest_reflex.runners import RecordedRunner

        recording = RecordedRunner(model)
        return recording, recording.recorded()
    if bundle.family == "module":
        return bundle.reference_runner(_imported(model)), None
    import exporters
    from exporters import checkpoints

    if bundle.family not in exporters.FAMILIES:
        raise BundleError(
            f"{bundle.path} was made from a {bundle.family!r} policy, which this version does not know "
            f"({', '.join(exporters.FAMILIES)}); judge it with the version that made it"
        )
    checkpoints.read_config(checkpoints.resolve(model))
    # Last, for it imports torch.
    family = getattr(exporters, bundle.family)
    runner = bundle.reference_runner(lambda: family.load(model))
    runner.name = model
    return runner, None


def _imported(model: str) -> Any:
    """What ``module:name`` or ``file.py:name`` names: an ``nn.Module``, or a function that gives one."""
    source, _, name = model.rpartition(":")
    if not source or not name:
        raise CheckpointError(
            f"--model is {model!r}, and this bundle was made from a plain module; "
            "give module:name or file.py:name"
        )
    try:
        if source.endswith(".py"):
            if not Path(source).is_file():
                raise CheckpointError(f"--model is {model!r}, and there is no file {source}")
            spec = importlib.util.spec_from_file_location(Path(source).stem, source)
            if spec is None or spec.loader is None:
                raise CheckpointError(f"--model is {model!r}, and {source} cannot be imported")
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
            f"--model is {model!r}, and {source} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, name):
        raise CheckpointError(f"--model is {model!r}, and {source} has no {name!r}")
    return getattr(module, name)


def _say(result: ParityResult, as_json: bool, below: str = "") -> int:
    """Print the verdict; its exit code."""
    from pytest_reflex.report.json import document, dumps
    from pytest_reflex.report.terminal import result_text

    code = PASS if result.passed else FAIL
    if as_json:
        click.echo(dumps(document([result], exit_code=code)), nl=False)
    else:
        click.echo("\n".join(text for text in (result_text(result), below) if text))
    return code


class _Progress:
    """A bar for each stage on stderr, once the work has taken two seconds, on a terminal only."""

    DELAY_S: Final = 2.0

    def __enter__(self) -> Callable[[str, int, int], None]:
        self._bars: Any = None
        self._stages: dict[str, Any] = {}
        if sys.stderr.isatty():
            from threading import Timer

            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._timer = Timer(self.DELAY_S, self._bars.start)
            self._timer.daemon = True
            self._timer.start()
        return self._tell

    def _tell(self, stage: str, done: int, total: int) -> None:
        if self._bars is None:
            return
        if stage not in self._stages:
            self._stages[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._stages[stage], completed=done, total=total)

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._timer.cancel()
            # A bar that starts after it was stopped would take the verdict's place on stdout.
            self._timer.join()
            self._bars.stop()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code; an error is one line on stderr, and JSON where asked for."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--output-json" in given
    # A policy of someone's own may print while it is imported or run.
    aside = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    try:
        with aside:
            made = app.main(given, prog_name="reflex", standalone_mode=False)
        code = _say(made[0], as_json, made[1]) if isinstance(made, tuple) else made
    except ParityError as error:
        code = _say(error.result, as_json)
    except ReflexError as error:
        code = _fail(error, str(error), as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = ERROR
    except click.ClickException as error:
        code = _fail(error, _usage(error), as_json)
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        code = _fail(error, "interrupted; nothing was written", as_json)
    except Exception as error:
        # A fault of this program is no verdict either; its traceback is what a report of it needs.
        traceback.print_exc()
        code = _fail(error, f"internal error: {type(error).__name__}: {error}", as_json)
    sys.exit(code)


def _usage(error: click.ClickException) -> str:
    """What click says of a command line, in one line and with where to look."""
    said = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "reflex"
    see = " See" if said.endswith("?") else "; see"
    return f"{said[:1].lower()}{said[1:]}{see} `{where} -h`"


def _fail(error: BaseException, message: str, as_json: bool) -> int:
    message = " ".join(message.split())
    click.echo(f"reflex: error: {message}", err=True)
    if as_json:
        from pytest_reflex.report.json import dumps, error_document

        click.echo(dumps(error_document(error, message=message, exit_code=ERROR)), nl=False)
    return ERROR
