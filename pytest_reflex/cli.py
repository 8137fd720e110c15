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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from click.core import ParameterSource

from exporters.schedule import LAYOUTS
from pytest_reflex import settings
from pytest_reflex._version import __version__
from pytest_reflex.errors import BundleError, CheckpointError, ParityError, ReflexError, RunnerError
from pytest_reflex.guard import death, supervised
from pytest_reflex.report.command import Reported, report
from pytest_reflex.verdict import THRESHOLD

if TYPE_CHECKING:
    from exporters.bundle import Bundle
    from pytest_reflex.runners import Runner
    from pytest_reflex.verdict import ParityResult

PASS: Final = 0
FAIL: Final = 1
ERROR: Final = 2
# A file may hold a name of any length; nobody reads more than this of it.
LONGEST_REASON: Final = 4000

# Options of `reflex export` that not every family takes.
_OF_SOME_FAMILIES: Final = frozenset({"cameras", "prompt_tokens", "tokens", "embodiment"})

# What a command gives back: the verdict, and what to say below it.
Judged = tuple["ParityResult", str]


def _parsed(context: click.Context, parameter: click.Parameter, value: object) -> object:
    """A value as every other way in takes it, with the same words for a bad one, before any work is done."""
    name = str(parameter.name)
    return settings.PARSERS[name](value, f"--{name}")


_provider = click.option(
    "--provider", metavar="NAME", default="cpu", show_default=True, callback=_parsed,
    help="ONNX Runtime execution provider.",
)  # fmt: skip
_model = click.option(
    "--model",
    required=True,
    help="The reference: a checkpoint directory or hub id; for other models module:name or file.py:name; "
    "or a .safetensors recording, which needs no torch.",
)
_api_key = click.option(
    "--api-key", metavar="KEY", envvar="REFLEX_API_KEY", help="What clients send  [env: REFLEX_API_KEY]"
)


def _judging(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that reaches a verdict."""
    for option in reversed(
        (
            click.option(
                "--threshold", metavar="FLOAT", default=str(THRESHOLD), show_default=True, callback=_parsed,
                help="Pass is max_abs_diff strictly below this; or '2x floor'.",
            ),
            click.option("--strict", is_flag=True, help="Threshold 1e-5, and doubts are failures."),
            click.option(
                "--floor", is_flag=True, help="Run the reference in float64 too: rounding, or a bug?"
            ),
            click.option(
                "--trajectory/--no-trajectory", default=None,
                help="See the error after each denoising step.  [default: of a fail]",
            ),
            click.option(
                "--fixtures", metavar="N", default="5", show_default=True, callback=_parsed,
                help="How many fixtures are compared.",
            ),
            click.option(
                "--seed", metavar="N", default="0", show_default=True, callback=_parsed,
                help="What the fixtures are drawn with.",
            ),
            _provider,
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
@_model
@_judging
@click.pass_context
def validate_export(context: click.Context, /, directory: Path, model: str, **judging: Any) -> Judged:
    """Judge the bundle DIR against the policy it was made from."""
    _require_draws(context, model)
    from exporters.bundle import open_bundle
    from pytest_reflex.check import check

    with _Progress() as tell:
        tell("digests", 0, 1)
        bundle = open_bundle(directory, to_judge=True)
        tell("digests", 1, 1)
        reference, inputs = _reference(bundle, model)
        result = check(reference, bundle, inputs=inputs, name=str(directory), progress=tell, **judging)
    return result, ""


@validate.command("serve")
@click.argument("url")
@_model
@_api_key
@_judging
@click.pass_context
def validate_serve(
    context: click.Context, /, url: str, model: str, api_key: str | None, **judging: Any
) -> Judged:
    """Judge the policy served at URL, ws://HOST:PORT, against the policy it was made from.

    The fixtures go over the wire as a robot's observations do.
    """
    _require_draws(context, model)
    from exporters.served import open_served
    from pytest_reflex.check import check

    served = open_served(url, api_key=api_key)
    reference, inputs = _reference(served.bundle, model)
    with _Progress() as tell:
        result = check(reference, served, inputs=inputs, name=url, progress=tell, **judging)
    return result, ""


@app.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one."
)
@_provider
@_api_key
@click.option("--max-size", type=click.IntRange(min=1), metavar="BYTES", help="The largest message taken.")
def serve(directory: Path, **options: Any) -> int:
    """Serve the bundle DIR to openpi's clients, once its recorded fixtures have passed here.

    SIGTERM and SIGINT end it: requests in flight are answered, and it exits 0.
    """
    from exporters.serve import prepared

    with _Progress() as tell:
        server = prepared(directory, progress=tell, **options)
    if server.exposed:
        click.echo(
            f"reflex: warning: {server.url} is open to other machines and asks for no key; give --api-key",
            err=True,
        )
    server.run(click.echo)
    return PASS


@app.command("locate")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@_model
@click.option("--fixture", type=click.IntRange(min=0), default=0, show_default=True, help="Which fixture.")
@click.option(
    "--seed",
    metavar="N",
    default="0",
    show_default=True,
    callback=_parsed,
    help="What the fixtures are drawn with.",
)
@click.option("--repro", type=click.Path(path_type=Path), metavar="OUT", help="Write a minimal reproduction.")
@click.option("--output-json", "as_json", is_flag=True, help="Print JSON to stdout and nothing else.")
def locate_place(
    directory: Path, model: str, fixture: int, seed: int, repro: Path | None, as_json: bool
) -> Reported:
    """Find the first module that computes something else in the bundle DIR than in the policy.

    Exits 0 when nothing is further from PyTorch than float32 explains, 1 when a place was found.
    """  # fmt: skip
    from exporters.bundle import open_bundle
    from exporters.locate import Search, write_reproduction
    from pytest_reflex.report.json import dumps
    from pytest_reflex.report.located import located_text
    from pytest_reflex.report.results import located_to_json

    bundle = open_bundle(directory, to_judge=True)
    reference, _ = _reference(bundle, model)
    with _Progress() as tell:
        search = Search(bundle, reference, seed=seed, progress=tell)
        located = search.walk(fixture)
    code = PASS if located.cause == "rounding" else FAIL
    below = ""
    if repro is not None:
        below = f"\nReproduction: {write_reproduction(search, repro)}\n"
    text = dumps(located_to_json(located)) if as_json else located_text(located) + "\n" + below
    return Reported(code, text)


def _require_draws(context: click.Context, model: str) -> None:
    """Refuse to be told what to draw where nothing is drawn."""
    if not model.endswith(".safetensors"):
        return
    for name in ("fixtures", "seed"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} was given, and a recording brings its own fixtures")


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
            f"{bundle.shown or bundle.path} was made from a {bundle.family!r} policy, which this version "
            f"does not know ({', '.join(exporters.FAMILIES)}); judge it with the version that made it"
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


app.add_command(report)


def _say(result: ParityResult, as_json: bool, below: str = "") -> int:
    """Print the verdict; its exit code."""
    from pytest_reflex.report.console import columns, painted, takes_color
    from pytest_reflex.report.json import document, dumps
    from pytest_reflex.report.terminal import headline, result_text

    code = PASS if result.passed else FAIL
    made = document([result], exit_code=code)
    _tell_github(made, "" if result.passed else headline(result))
    if as_json:
        click.echo(dumps(made), nl=False)
    else:
        text = result_text(result, columns())
        text = painted(text) if takes_color(sys.stdout) else text
        click.echo("\n".join(part for part in (text, below) if part))
    return code


def _tell_github(made: Mapping[str, Any], wrong: str) -> None:
    """In a GitHub job, its summary, and an annotation for what is wrong; stdout may be for JSON alone."""
    from pytest_reflex.report import github

    if problem := github.add_summary(made):
        click.echo(f"reflex: warning: {problem}", err=True)
    if wrong and github.running():
        click.echo(github.annotation(wrong, title="reflex"), err=True)


class _Progress:
    """A bar for each stage on stderr, once the work has taken two seconds, on a terminal only."""

    DELAY_S: Final = 2.0

    def __enter__(self) -> Callable[[str, int, int], None]:
        self._bars: Any = None
        self._stages: dict[str, Any] = {}
        if sys.stderr.isatty():
            from threading import Timer

            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
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
    if arguments is None and given[:1] == ["validate"]:
        ended = supervised()
        if ended is not None:
            sys.exit(ended if ended >= 0 else _died(death(ended), as_json))
    # A policy of someone's own may print while it is imported or run.
    aside = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    try:
        with aside:
            made = app.main(given, prog_name="reflex", standalone_mode=False)
        if isinstance(made, Reported):
            click.echo(made.text, nl=False)
            made = made.code
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


def _died(name: str, as_json: bool) -> int:
    message = (
        f"the process that judged was ended by {name}: a model crashed it, or the system ended it; "
        "nothing is proven"
    )
    return _fail(RunnerError(message), message, as_json)


def _fail(error: BaseException, message: str, as_json: bool) -> int:
    # A file's name may hold what a terminal obeys, or what is no text.
    message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(message.split()))
    if len(message) > LONGEST_REASON:
        message = f"{message[:LONGEST_REASON]}... ({len(message)} characters)"
    click.echo(f"reflex: error: {message}", err=True)
    from pytest_reflex.report.json import dumps, error_document

    made = error_document(error, message=message, exit_code=ERROR)
    _tell_github(made, message)
    if as_json:
        click.echo(dumps(made), nl=False)
    return ERROR
