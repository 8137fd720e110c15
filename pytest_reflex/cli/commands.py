"""The commands of ``reflex``; what they judge with is imported when they run."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from exporters.flow.schedule import LAYOUTS
from exporters.graph.precisions import PRECISIONS
from pytest_reflex import settings
from pytest_reflex._version import __version__
from pytest_reflex.cli.certify import certify
from pytest_reflex.cli.doctor import doctor
from pytest_reflex.cli.families import OfFamilies, family_options, offered
from pytest_reflex.cli.from_camera import (
    from_camera,
    judged_from_camera,
    judged_served,
    policy_with_processors,
)
from pytest_reflex.cli.init import init
from pytest_reflex.cli.matrix import matrix
from pytest_reflex.cli.options import (
    RUNTIMES,
    SIMPLEST_S,
    api_key_option,
    episodes_option,
    fixture_option,
    inputs_option,
    judged_processors_option,
    judging_options,
    model_option,
    model_or_reference,
    policy_option,
    policy_or_runtime,
    processors_option,
    save_fixtures_option,
    setting_option,
    simplest_option,
    steps_option,
)
from pytest_reflex.cli.progress import Progress
from pytest_reflex.cli.reference import (
    as_stated,
    drawn_of_a_file,
    is_own,
    is_script,
    named_reference,
    nameless,
    or_by_recording,
    own_policy,
    require_draws,
    require_one,
    require_policy_of,
)
from pytest_reflex.cli.report import FAIL, PASS, Reported, report
from pytest_reflex.cli.rollout import rollout
from pytest_reflex.cli.to_a_verdict import to_a_verdict
from pytest_reflex.errors import BundleError, CheckpointError

if TYPE_CHECKING:
    from pytest_reflex.result import ParityResult, PipelineResult

# What a command gives back: the verdict, and what to say below it.
Judged = tuple["ParityResult | PipelineResult", str]


_BUDGET: Final = "What max_abs_diff has to be below, in the outputs' own unit."


def _budget(context: click.Context, parameter: click.Parameter, value: object) -> float:
    return settings.budget(value, "--budget")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pytest-reflex")
def app() -> None:
    """Prove that an exported ONNX policy computes what the PyTorch policy computes.

    Exits 0 on a pass, 1 on a fail, 2 when no verdict could be reached.
    """


@app.command(cls=OfFamilies, short_help="Export a policy to a bundle, proven first.")
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--layout", type=click.Choice(LAYOUTS), help="How the loop is carried  [default: the family's]")
@click.option("--steps", type=click.IntRange(min=1), help="Denoising steps  [default: the checkpoint's]")
@family_options
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="What the graphs store and compute in  [default: float32]",
)
@click.option("--dynamic-batch", is_flag=True, help="Leave the batch size free.")
@processors_option
@episodes_option
@save_fixtures_option
@judging_options
@click.pass_context
@to_a_verdict
def export(
    context: click.Context,
    /,
    model: str,
    out: Path,
    dynamic_batch: bool,
    processors: bool | None,
    episodes: str | None,
    save_fixtures: bool,
    **options: Any,
) -> Judged:
    """Export the policy MODEL to the bundle OUT, proven before it is written.

    MODEL is a checkpoint directory, a training of lerobot's, a hub id, or file.py:name or module:name: a
    module of one's own, or a function that gives one, with its INPUTS in the same file.
    """
    from exporters.bundle import registry
    from exporters.families.one_call import export_policy, with_processors

    if model.endswith(".py"):
        raise CheckpointError(nameless(model, "MODEL"))
    own = is_own(model)
    family = None if own else registry.family_named(registry.family_of(model))
    offer = offered(context.command)
    if family is not None and family.name in offer.left_out:
        raise offer.left_out[family.name]
    given = {option: value for option, value in options.items() if value is not None}
    theirs = {option.name for option in (family.options if family is not None else ())}
    for option in offer.options.values():
        if option.name in given and option.name not in theirs:
            called = family.name if family is not None else model
            raise click.UsageError(f"{option.flag} was given, and {called} has no such choice")
    with Progress() as report_progress:
        report_progress("load", 0, 1)
        policy, inputs = own_policy(model) if family is None else (family.load(model), None)
        report_progress("load", 1, 1)
        given |= {"dynamic_batch": dynamic_batch, "progress": report_progress}
        if (seen := _seen(episodes, save_fixtures)) is not None:
            given |= {"episodes": seen, "save_fixtures": save_fixtures}
        if family is not None:
            made = family.export(policy, out, **with_processors(family, policy, processors, given))
        else:
            made = export_policy(policy, out, inputs=inputs, processors=processors, **given)
    if made.result is None:
        raise BundleError(f"{out} was written without a verdict")
    result = _naming(made.result, model)
    if made.pipeline is not None:
        from exporters.bundle.served_bound import UNSERVED
        from pytest_reflex.report.text.terminal import headline

        unserved = "".join(f"\nNote: {note}" for note in result.notes if note.startswith(UNSERVED))
        drawn = result.seed is not None
        what = "on inputs drawn for it" if drawn else "on the inputs that were recorded"
        alone = f"The policy alone, {what}: {headline(result)}"
        return made.pipeline, f"\n{alone}{unserved}\nBundle: {out}"
    return result, f"Bundle: {out}"


def _naming(result: Any, model: str) -> Any:
    """A result whose notes have the model in their commands that was given here."""
    from exporters.bundle.served_bound import MODEL

    own = f"--model {shlex.quote(model)} "
    return replace(result, notes=tuple(note.replace(f"--model {MODEL} ", own) for note in result.notes))


def _seen(episodes: str | None, save_fixtures: bool = False, *, model: str = "") -> Any:
    """The recording that --episodes names, or None."""
    if episodes is None:
        if save_fixtures:
            raise click.UsageError("--save-fixtures was given, and no --episodes whose frames it would keep")
        return None
    if model.endswith(".safetensors"):
        raise click.UsageError("--episodes was given, and a recording brings its own fixtures")
    from pytest_reflex.inputs.episodes import episodes as opened

    return opened(episodes)


class _Validate(click.Group):
    """What is judged says by itself which command it is for: a plain file, a bundle, a server."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and is_script(args[0]):
            raise click.UsageError(
                f"{args[0]!r} is a policy; give first what is judged, and it by --model {args[0]}",
                ctx,
            )
        if not set(args) & set(self.commands):
            if any(given.startswith(("ws://", "wss://")) for given in args):
                args = ["serve", *args]
            elif any(given.lower().endswith(".onnx") for given in args):
                args = ["onnx", *args]
            elif any((Path(given) / "reflex.json").is_file() for given in args):
                args = ["export", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands:
            from pytest_reflex.verdict.naming import did_you_mean, near_path

            if Path(args[0]).is_dir():
                raise BundleError(f"no bundle at {args[0]}: expected a directory that holds reflex.json")
            nearest = did_you_mean(args[0], self.commands) or near_path(Path(args[0]))
            raise click.UsageError(
                f"{args[0]!r} is no command{nearest}, no .onnx file and no directory of a bundle", ctx
            )
        return super().resolve_command(ctx, args)


@app.group(cls=_Validate)
def validate() -> None:
    """Judge a candidate against the PyTorch policy.

    `reflex validate FILE.onnx`, DIR of a bundle and ws://HOST:PORT need no command's name.
    """


@validate.command("onnx", short_help="Judge a plain .onnx file.")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@model_or_reference
@inputs_option
@episodes_option
@simplest_option
@judging_options
@click.pass_context
@to_a_verdict
def validate_onnx(
    context: click.Context,
    /,
    file: Path,
    model: str | None,
    reference: Path | None,
    inputs: str | None,
    episodes: str | None,
    simplest: Path | None,
    **judging: Any,
) -> Judged:
    """Judge a plain FILE.onnx against the PyTorch policy; `reflex validate FILE.onnx` does the same.

    MODEL is module:name or file.py:name. Without --inputs those are taken that its file calls INPUTS; without
    these, floats and bools are drawn in the shapes that the graph states. With --reference another graph is
    the judge, and PyTorch is not asked.
    """
    require_one(model, reference)
    from pytest_reflex.cli.reference import script_inputs

    if reference is not None:
        if episodes is not None:
            raise click.UsageError("--episodes was given, and with --reference fixtures are drawn")
        own = None if inputs is None else script_inputs(inputs)
        return _agreement(file, reference, judging, own, simplest=simplest)
    return _plain(context, file, str(model), inputs, _seen(episodes, model=str(model)), judging, simplest)


def _judged(candidate: Any, judging: dict[str, Any], simplest: Path | None, **told: Any) -> ParityResult:
    """A check; of a fail with the simplest input that fails, where a file is named for it."""
    from pytest_reflex.judge.check import check
    from pytest_reflex.judge.simplest import Pace, simplified

    reference, pace = told.pop("reference"), Pace(told.pop("progress"))
    result = check(reference, candidate, progress=pace, **told, **judging)
    if simplest is None:
        return result
    how = {"inputs": told["inputs"], "seconds": SIMPLEST_S, "each": pace.each, "place": simplest}
    return simplified(result, reference, candidate, **how)


def _plain(
    context: click.Context,
    file: Path,
    model: str,
    inputs: str | None,
    seen: Any,
    judging: dict[str, Any],
    simplest: Path | None,
) -> Judged:
    require_draws(context, model)
    from pytest_reflex.cli.reference import script_reference
    from pytest_reflex.runners import OnnxRunner

    with Progress() as report_progress:
        reference = script_reference(model)
        candidate = OnnxRunner(file, provider=judging["provider"])
        given, below = drawn_of_a_file(candidate, model, reference, inputs)
        if seen is not None:
            given = replace(seen, inputs=tuple(given or ()))
        told = {"reference": reference, "inputs": given, "name": str(file), "progress": report_progress}
        result = _judged(candidate, judging, simplest, **told)
    if not result.passed and simplest is None and result.seed is not None:
        below += "\nSimplest: --simplest FILE looks for the simplest input that fails, and stores it"
    return result, below.lstrip("\n")


@validate.command("export", short_help="Judge a bundle.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@model_or_reference
@steps_option
@judged_processors_option
@episodes_option
@save_fixtures_option
@simplest_option
@judging_options
@click.pass_context
@to_a_verdict
def validate_export(
    context: click.Context,
    /,
    directory: Path,
    model: str | None,
    reference: Path | None,
    steps: int | None,
    processors: bool | None,
    episodes: str | None,
    save_fixtures: bool,
    simplest: Path | None,
    **judging: Any,
) -> Judged:
    """Judge the bundle DIR against the policy it was made from.

    A bundle with processors is judged stage by stage and whole, from the camera to the joint. With
    --reference another graph is the judge, and DIR may be an .onnx file; PyTorch is not asked then.
    """
    require_one(model, reference, directory)
    if reference is not None:
        if processors:
            raise click.UsageError("--processors was given, and a graph that is the judge has none")
        if steps is not None:
            raise click.UsageError("--steps was given, and a graph that is the judge takes its own")
        if episodes is not None or save_fixtures:
            raise click.UsageError("--episodes was given, and with --reference fixtures are drawn")
        return _agreement(directory, reference, judging, simplest=simplest)
    seen = _seen(episodes, save_fixtures, model=str(model))
    told = {"steps": steps, "seen": seen, "keep": save_fixtures, "processors": processors}
    told["simplest"] = simplest
    return _parity(context, directory, str(model), judging, **told)


def _agreement(
    candidate: Path,
    reference: Path,
    judging: dict[str, Any],
    inputs: Any = None,
    *,
    simplest: Path | None,
) -> Judged:
    from exporters.bundles import open_bundle
    from pytest_reflex.runners import OnnxReference, OnnxRunner
    from pytest_reflex.runners.graph_inputs import graph_inputs

    below = ""
    with Progress() as report_progress:
        report_progress("digests", 0, 1)
        judge = OnnxReference(open_bundle(reference) if reference.is_dir() else reference)
        judged: Any = open_bundle(candidate, to_judge=True) if candidate.is_dir() else candidate
        report_progress("digests", 1, 1)
        if inputs is None and not candidate.is_dir() and not reference.is_dir():
            judged = OnnxRunner(candidate, provider=judging["provider"])
            inputs = graph_inputs(judged)
            below = as_stated(inputs, "reflex validate FILE.onnx --inputs says what they stand for")
        told = {"reference": judge, "inputs": inputs, "name": str(candidate), "progress": report_progress}
        return _judged(judged, judging, simplest, **told), below


def _parity(
    context: click.Context,
    directory: Path,
    model: str,
    judging: dict[str, Any],
    *,
    steps: int | None,
    seen: Any,
    keep: bool,
    processors: bool | None,
    simplest: Path | None,
) -> Judged:
    require_draws(context, model)
    from exporters.bundles import open_bundle

    fixtures: list[Any] = []
    with Progress() as report_progress:
        report_progress("digests", 0, 1)
        bundle = open_bundle(directory, to_judge=True)
        report_progress("digests", 1, 1)
        if from_camera(bundle, processors, keep=keep):
            if simplest is not None:
                raise click.UsageError(
                    "--simplest was given, and stages are judged each by itself; with --no-processors the "
                    "policy is judged alone"
                )
            told = {"steps": steps, "progress": report_progress, **judging}
            return judged_from_camera(bundle, model, seen, told), ""
        with or_by_recording(bundle, model):
            reference, inputs = named_reference(bundle, model, steps)
        result = _judged(
            bundle,
            judging,
            simplest,
            reference=reference,
            inputs=inputs if seen is None else seen,
            name=str(directory),
            progress=report_progress,
            record=(lambda given, gave: fixtures.append((given, gave))) if keep else None,
        )
    if not keep or not result.passed:
        return result, ""
    from exporters.bundle.kept import keep_episodes

    live = result.candidate.get("live_inputs")
    return result, f"Kept: {keep_episodes(bundle, fixtures, live if isinstance(live, (list, tuple)) else [])}"


@validate.command("serve", short_help="Judge a policy that is served.")
@click.argument("url")
@model_option
@steps_option
@judged_processors_option
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The bundle that is served, to judge what is before and behind its policy by itself too.",
)
@api_key_option
@episodes_option
@judging_options
@click.pass_context
@to_a_verdict
def validate_serve(
    context: click.Context,
    /,
    url: str,
    model: str,
    steps: int | None,
    processors: bool | None,
    bundle: Path | None,
    api_key: str | None,
    episodes: str | None,
    **judging: Any,
) -> Judged:
    """Judge the policy served at URL, ws://HOST:PORT, against the policy it was made from.

    The fixtures go over the wire as a robot's observations do: raw where a bundle with processors is served.
    """
    require_draws(context, model)
    from exporters.bundles import open_bundle
    from exporters.serving.candidate import open_served
    from pytest_reflex.judge.check import check

    seen = _seen(episodes, model=model)
    served = open_served(url, api_key=api_key)
    whole = from_camera(served, processors)
    if bundle is not None:
        if not whole or model.endswith(".safetensors"):
            raise click.UsageError("--bundle was given, and no stage is judged by itself; leave it out")
        served = served.beside(open_bundle(bundle))
    if whole:
        with Progress() as report_progress:
            told = {"steps": steps, "progress": report_progress, **judging}
            return judged_served(served, model, seen, told), ""
    reference, inputs = named_reference(served, model, steps)
    inputs = inputs if seen is None else seen
    with Progress() as report_progress:
        result = check(reference, served, inputs=inputs, name=url, progress=report_progress, **judging)
    return result, ""


@app.command(short_help="Serve a bundle to openpi's clients, proven first.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one."
)
@setting_option("provider")
@click.option("--runtime", metavar="NAME", default="ort", show_default=True, help=f"{RUNTIMES}.")
@api_key_option
@click.option("--max-size", type=click.IntRange(min=1), metavar="BYTES", help="The largest message taken.")
@click.option(
    "--require-certificate",
    "trusted",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PEM",
    help="Serve only what this public key, or one of several, has certified.",
)
def serve(directory: Path, **options: Any) -> int:
    """Serve the bundle DIR to openpi's clients, once its recorded fixtures have passed here.

    SIGTERM and SIGINT end it: requests in flight are answered, and it exits 0.
    """
    from exporters.serving.service import prepared

    with Progress() as report_progress:
        server = prepared(directory, progress=report_progress, **options)
    if server.exposed:
        click.echo(
            f"reflex: warning: {server.url} is open to other machines and asks for no key; give --api-key",
            err=True,
        )
    server.run(click.echo)
    return PASS


@app.command("locate", short_help="Find the first module that computes something else.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@policy_or_runtime
@fixture_option
@setting_option("seed")
@click.option("--repro", type=click.Path(path_type=Path), metavar="OUT", help="Write a minimal reproduction.")
@click.option("--output-json", "as_json", is_flag=True, help="Print JSON to stdout and nothing else.")
@to_a_verdict
def locate_place(
    directory: Path,
    model: str | None,
    runtime: str | None,
    fixture: int,
    seed: int,
    repro: Path | None,
    as_json: bool,
) -> Reported:
    """Find the first module that computes something else in the bundle DIR than in the policy.

    With --runtime it is the first node that the runtime computes otherwise than onnx's own evaluator, and the
    policy is not asked. Exits 0 when nothing is further off than float32 explains, 1 when a place was found.
    """  # fmt: skip
    from exporters.bundles import open_bundle
    from exporters.divergence import write_reproduction
    from pytest_reflex.judge.diagnose import plain_file
    from pytest_reflex.report.json.results import divergence_to_json
    from pytest_reflex.report.json.values import dumps
    from pytest_reflex.report.text.divergence import divergence_text

    if runtime is not None:
        return _parted(directory, model, runtime, fixture, seed, repro, as_json)
    if model is None:
        raise click.UsageError("missing option '--model', or '--runtime'")
    require_policy_of(model, "nothing can be walked through")
    if directory.suffix.lower() == ".onnx" and directory.is_file():
        raise BundleError(plain_file(directory, model))
    bundle = open_bundle(directory, to_judge=True)
    reference, _ = named_reference(bundle, model)
    with Progress() as report_progress:
        search = bundle.search(reference, seed=seed, progress=report_progress)
        divergence = search.walk(fixture)
    code = PASS if divergence.cause == "rounding" else FAIL
    below = ""
    if repro is not None and divergence.place is None:
        below = f"\nReproduction: none, for no node is wrong by itself; {repro} was not written\n"
    elif repro is not None:
        below = f"\nReproduction: {write_reproduction(search, repro)}\n"
    text = dumps(divergence_to_json(divergence)) if as_json else divergence_text(divergence) + "\n" + below
    return Reported(code, text)


def _parted(
    directory: Path,
    model: str | None,
    runtime: str,
    fixture: int,
    seed: int,
    repro: Path | None,
    as_json: bool,
) -> Reported:
    """What ``reflex locate --runtime`` says."""
    from exporters.bundles import open_bundle
    from pytest_reflex.report.json.results import divergence_to_json
    from pytest_reflex.report.json.values import dumps
    from pytest_reflex.report.text.divergence import divergence_text

    for flag, given in (("--model", model), ("--repro", repro)):
        if given is not None:
            raise click.UsageError(f"{flag} was given, and with --runtime PyTorch is not asked")
    with Progress() as report_progress:
        bundle = open_bundle(directory, to_judge=True)
        found = bundle.locate_on(runtime, fixture_idx=fixture, seed=seed, progress=report_progress)
    text = dumps(divergence_to_json(found)) if as_json else divergence_text(found) + "\n"
    return Reported(PASS if found.place is None else FAIL, text)


@app.command(short_help="Bring an export in another precision below a budget.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@policy_option
@click.option("--budget", required=True, callback=_budget, metavar="FLOAT", help=_BUDGET)
@click.option("--out", type=click.Path(path_type=Path), help="Where it goes  [default: in place of DIR]")
@setting_option("fixtures")
@setting_option("seed")
@click.option(
    "--output-json", is_flag=True, expose_value=False, help="Print JSON to stdout and nothing else."
)
@to_a_verdict
def repair(directory: Path, model: str, **options: Any) -> Judged:
    """Make the bundle DIR, in another precision, again with the fewest nodes in float32 that meet a budget.

    It is judged as any export before it takes its place; where the budget cannot be met, what is there stays.
    """
    from exporters.bundles import open_bundle
    from exporters.exporting.repair import repair as repaired

    require_policy_of(model, "nobody can say what a node costs")
    bundle = open_bundle(directory)
    if bundle.stated.processors is not None:
        reference, options["processors"] = policy_with_processors(bundle, model)
    else:
        reference, _ = named_reference(bundle, model)
    with Progress() as report_progress:
        made = repaired(bundle, reference, progress=report_progress, **options)
    if made.bundle.result is None:
        raise BundleError(f"{made.bundle.called} was written without a verdict")
    below = f"Bundle: {made.bundle.called}\n{made.text}"
    pipeline = made.bundle.pipeline
    return made.bundle.result, below if pipeline is None else f"{pipeline.headline}\n{below}"


app.add_command(certify)
app.add_command(doctor)
app.add_command(init)
app.add_command(matrix)
app.add_command(report)
app.add_command(rollout)
