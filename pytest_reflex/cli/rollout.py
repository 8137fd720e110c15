"""``reflex rollout``: a bundle drives a simulated arm beside the policy that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_reflex.cli.options import api_key_option, model_option, steps_option
from pytest_reflex.cli.progress import Progress
from pytest_reflex.cli.reference import named_reference
from pytest_reflex.cli.report import Reported, written
from pytest_reflex.cli.to_a_verdict import to_a_verdict

if TYPE_CHECKING:
    from pytest_reflex.judge.rollout.shown import RolloutResult

__all__ = ["rollout"]


def _latency(context: click.Context, parameter: click.Parameter, value: str) -> int | str:
    if value == "measured":
        return value
    if not value.isdecimal():
        raise click.BadParameter(f"{value!r} is no latency; give a number of control periods, or measured")
    return int(value)


@click.command(short_help="Drive an arm by a bundle and by its policy.")
@click.argument("directory", metavar="DIR|URL")
@model_option
@click.option(
    "--env", default="panda-reach", show_default=True, metavar="NAME",
    help="panda-reach, aloha-reach, planar-reach, gym:ID of gymnasium, or what another distribution brings.",
)  # fmt: skip
@click.option("--seconds", type=float, default=30.0, show_default=True, help="How long a start is driven.")
@click.option("--hz", type=float, default=30.0, show_default=True, help="Actions a second.")
@click.option("--starts", type=int, default=20, show_default=True, help="How many starts.")
@click.option(
    "--execute", type=int, default=8, show_default=True, help="Actions of a chunk before the next is planned."
)
@click.option(
    "--latency", default="0", show_default=True, metavar="N|measured", callback=_latency,
    help="Control periods that the candidate's chunks are late, in simulated time.",
)  # fmt: skip
@click.option(
    "--within", type=float, metavar="MM",
    help="Pass where the arm's tip drifts less than this  [default: no further than rounding]",
)  # fmt: skip
@click.option("--joints", metavar="NAMES", help="The joints that are judged, with commas  [default: all]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws the noise.")
@click.option("--runtime", metavar="NAME", help="Run the bundle on another runtime, such as openvino.")
@click.option(
    "--rounded", type=click.Choice(("float16", "bfloat16")),
    help="In place of the bundle's graph: the policy itself, each result rounded to this.",
)  # fmt: skip
@click.option("--film", is_flag=True, help="Put a film of both on the page, of the start that drifts most.")
@click.option(
    "--report",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write rollout.html and rollout.json there.",
)
@steps_option
@api_key_option
@click.option("--output-json", "as_json", is_flag=True, help="Print JSON to stdout and nothing else.")
@to_a_verdict
def rollout(
    directory: str,
    model: str,
    env: str,
    runtime: str | None,
    rounded: str | None,
    joints: str | None,
    report: Path | None,
    steps: int | None,
    api_key: str | None,
    as_json: bool,
    **driving: Any,
) -> Reported:
    """Drive a simulated arm by the bundle DIR, or by the policy served at URL, and by the policy it was made
    from, and say how far they come apart beside what rounding alone does.

    The policy drives by itself: the bundle's processors are not driven; what they do is judged by
    `reflex validate`.

    Exits with 0 where the drift is rounding in every start, or below --within; 1 where it is not, or where
    the candidate does the job less often; 2 where a start could not be driven to its end.
    """
    from pytest_reflex.judge.rollout.closed_loop import closed_loop
    from pytest_reflex.judge.rollout.environments import environment_named
    from pytest_reflex.report.json.rollout import rollout_to_json
    from pytest_reflex.report.json.values import dumps
    from pytest_reflex.report.text.console import columns
    from pytest_reflex.report.text.rollout import rollout_text

    environment_named(env)  # a wrong name is said before anything is loaded
    with Progress() as report_progress:
        candidate, reference = _sides(directory, model, runtime, rounded, steps, api_key)
        made = closed_loop(
            reference,
            candidate,
            env,
            joints=None if joints is None else [name.strip() for name in joints.split(",")],
            name=directory if rounded is None else f"{model} in {rounded}",
            progress=report_progress,
            **driving,
        )
    if report is not None:
        _write(report, made)
    text = dumps(rollout_to_json(made)) if as_json else rollout_text(made, columns())
    err = f"reflex: error: {made.error}\n" if made.error else ""
    return Reported(made.exit_code, text, err)


def _sides(
    directory: str,
    model: str,
    runtime: str | None,
    rounded: str | None,
    steps: int | None,
    api_key: str | None,
) -> tuple[Any, Any]:
    """What is judged, and the policy that it was made from."""
    if directory.startswith(("ws://", "wss://")):
        from exporters.serving.candidate import open_served

        if runtime is not None or rounded is not None:
            raise click.UsageError(
                f"{directory} is served, and its server says on what; leave --runtime away"
            )
        bundle: Any = open_served(directory, api_key=api_key)
    else:
        from exporters.bundles import open_bundle

        bundle = open_bundle(directory, to_judge=True)
    reference, recorded = named_reference(bundle, model, steps)
    if recorded is not None:
        raise click.UsageError(f"--model is {model!r}, a recording; a closed loop asks what nobody recorded")
    if rounded is not None:
        from pytest_reflex.judge.rollout.rounded import Rounded

        return Rounded(reference, rounded, bundle.inputs), reference
    return (bundle if runtime is None else bundle.on(runtime)), reference


def _write(place: Path, made: RolloutResult) -> None:
    from pytest_reflex.report.json.values import dumps

    written({place / "rollout.json": dumps(made.to_json()), place / "rollout.html": made.page()})
