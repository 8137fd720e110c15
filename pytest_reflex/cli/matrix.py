"""``reflex matrix``: one bundle on several runtimes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_reflex import settings
from pytest_reflex.cli.options import RUNTIMES, check_options, inputs_option, model_option, steps_option
from pytest_reflex.cli.progress import Progress
from pytest_reflex.cli.reference import (
    drawn_of_a_file,
    is_graph,
    named_reference,
    or_by_recording,
    require_draws,
    script_reference,
)
from pytest_reflex.cli.report import Reported, written
from pytest_reflex.cli.to_a_verdict import to_a_verdict
from pytest_reflex.errors import BundleError
from pytest_reflex.verdict.naming import near_path

if TYPE_CHECKING:
    from pytest_reflex.progress import Progress as Told
    from pytest_reflex.runners import Runner
    from pytest_reflex.verdict.matrix import Matrix

__all__ = ["matrix"]


def _names(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else settings.runtimes(value, "--runtimes")


@click.command(short_help="Judge a bundle on several runtimes, and name the odd one out.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@model_option
@inputs_option
@click.option(
    "--runtimes",
    metavar="NAMES",
    callback=_names,
    help=f"{RUNTIMES}  [default: ort, and openvino where it is installed]",
)
@click.option(
    "--report", metavar="DIR", type=click.Path(path_type=Path), help="Write index.html and parity.json there."
)
@steps_option
@check_options
@click.option("--output-json", "as_json", is_flag=True, help="Print JSON to stdout and nothing else.")
@click.pass_context
@to_a_verdict
def matrix(
    context: click.Context,
    /,
    directory: Path,
    model: str,
    inputs: str | None,
    runtimes: tuple[str, ...] | None,
    report: Path | None,
    steps: int | None,
    as_json: bool,
    **judging: Any,
) -> Reported:
    """Judge the bundle DIR, or an .onnx file, on several runtimes against the policy, which runs once.

    Of a file MODEL is module:name or file.py:name, and --inputs says what is drawn as for `reflex validate`.
    Exits with the worst: 2 where a runtime reached no verdict, 1 where one failed, 0 where all passed.
    """
    require_draws(context, model)
    from pytest_reflex.judge.matrix import matrix as judged
    from pytest_reflex.judge.on_runtimes import on_runtimes
    from pytest_reflex.report.json.matrix import matrix_to_json
    from pytest_reflex.report.json.values import dumps
    from pytest_reflex.report.text.console import columns
    from pytest_reflex.report.text.matrix import matrix_text
    from pytest_reflex.runners.runtimes import usual

    asked, left_out = (runtimes, []) if runtimes is not None else usual()
    began = time.time()
    with Progress() as report_progress:
        sides = _file if is_graph(directory) else _bundle
        candidate, reference, given, below = sides(directory, model, inputs, steps, report_progress)
        candidates = on_runtimes(candidate, asked, reference, judging["provider"])
        made = judged(reference, candidates, given, name=str(directory), progress=report_progress, **judging)
    if report is not None:
        _write(report, made, began)
    text = (
        dumps(matrix_to_json(made))
        if as_json
        else "\n\n".join([matrix_text(made, columns()).rstrip("\n"), *below]) + "\n"
    )
    for name in left_out:
        click.echo(
            f"reflex: {name} is not installed and was left out; pip install 'pytest-reflex[{name}]', or say "
            "which by --runtimes",
            err=True,
        )
    return Reported(made.exit_code, text)


def _bundle(
    directory: Path, model: str, inputs: str | None, steps: int | None, progress: Told
) -> tuple[Any, Runner, Any, list[str]]:
    """A bundle, its reference and what is drawn, where that is not for the bundle to say."""
    from exporters.bundles import open_bundle

    if inputs is not None:
        raise click.UsageError("--inputs was given, and a bundle says itself what it reads; leave it out")
    progress("digests", 0, 1)
    bundle = open_bundle(directory, to_judge=True)
    progress("digests", 1, 1)
    with or_by_recording(bundle, model):
        reference, given = named_reference(bundle, model, steps)
    return bundle, reference, given, []


def _file(
    file: Path, model: str, inputs: str | None, steps: int | None, progress: Told
) -> tuple[Any, Runner, Any, list[str]]:
    """The same of a plain file; and the line that says what is drawn."""
    from pytest_reflex.runners import OnnxRunner

    if steps is not None:
        raise click.UsageError("--steps was given, and a plain file says nothing of steps; leave it out")
    if not file.is_file():
        raise BundleError(f"{file} does not exist{near_path(file)}; give a bundle, or a graph")
    reference = script_reference(model)
    given, below = drawn_of_a_file(OnnxRunner(file), model, reference, inputs)
    return file, reference, given, [below] * bool(below)


def _write(place: Path, made: Matrix, began: float) -> None:
    """The runtimes as the results of one run: its page, and its JSON, as of a session of tests."""
    from pytest_reflex.report.html.pages import page
    from pytest_reflex.report.json.documents import Entry, Run
    from pytest_reflex.report.json.values import dumps
    from pytest_reflex.report.session import session

    absent = tuple(
        {"nodeid": f"{made.name} [{column.runtime}]", "outcome": "failed", "reason": column.error}
        for column in made.columns
        if column.result is None
    )
    results = tuple(Entry(column.result) for column in made.columns if column.result is not None)
    run = Run(results, absent, sessions=(session(Path(), began, max(time.time() - began, 0.0)),))
    written({place / "parity.json": dumps(run.to_json()), place / "index.html": page(run)})
