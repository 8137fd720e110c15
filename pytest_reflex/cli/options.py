"""The options that several commands share, each parsed as every other way in parses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from pytest_reflex import settings

_Command = TypeVar("_Command", bound=Callable[..., Any])


def setting_option(name: str) -> Callable[[_Command], _Command]:
    """The option of a declared setting, parsed with the same words for a bad value as every other way in."""
    setting = settings.CHECK[name]
    flags, default = setting.flags(name), setting.default
    in_words = setting.shown_default if setting.switch or setting.otherwise else ""

    def parsed(context: click.Context, parameter: click.Parameter, value: object) -> object:
        if setting.repeated:
            value = list(value) if isinstance(value, tuple) and value else None
        return None if value is None else setting.parse(value, flags[0])

    return click.option(
        "/".join(flags),
        is_flag=setting.switch,
        metavar=setting.metavar,
        multiple=setting.repeated,
        # Text, so that a default goes the way of every given value.
        default=default if setting.switch or default is None else str(default),
        show_default=not setting.switch and not setting.otherwise,
        callback=parsed,
        help=f"{setting.help[0].upper()}{setting.help[1:]}."
        + (f"  [default: {in_words}]" if in_words else ""),
    )


_POLICY: Final = (
    "The reference: a checkpoint directory or hub id; for other models module:name or file.py:name"
)
_MODEL: Final = f"{_POLICY}; or a .safetensors recording, which needs no torch."
model_option = click.option("--model", required=True, help=_MODEL)
policy_option = click.option("--model", required=True, help=f"{_POLICY}.")
steps_option = click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Denoising steps that are meant, where the bundle takes others than the policy itself.",
)


def _fixture(context: click.Context, parameter: click.Parameter, value: str) -> int:
    from pytest_reflex.verdict.results import fixture_idx_of  # with numpy, which a help page does without

    found = fixture_idx_of(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no fixture; give its number, or corner 0 as a report has it")
    return found


fixture_option = click.option(
    "--fixture", default="0", show_default=True, metavar="N", callback=_fixture,
    help="Which fixture: its number, or its name in a report, such as 'corner 0'.",
)  # fmt: skip
inputs_option = click.option(
    "--inputs", metavar="NAME", help="What is drawn: a list of InputSpec, as module:name or file.py:name."
)
api_key_option = click.option(
    "--api-key", metavar="KEY", envvar="REFLEX_API_KEY", help="What clients send  [env: REFLEX_API_KEY]"
)


RUNTIMES: Final = "What opens the graphs: ort, openvino, evaluator, or what another distribution brings"


def model_or_reference(command: _Command) -> _Command:
    """What a candidate is held against: the policy, or a graph because the user says so."""
    graph = click.option(
        "--reference",
        type=click.Path(path_type=Path),
        metavar="GRAPH",
        help="In place of --model: another bundle or .onnx file is the judge, and PyTorch is not asked. "
        "A pass is then an agreement, and no parity; with --strict it is a fail.",
    )
    return click.option("--model", help=_MODEL)(graph(command))


def policy_or_runtime(command: _Command) -> _Command:
    """What a bundle's values are held against: the policy's, or its graph's as onnx evaluates it."""
    runtime = click.option(
        "--runtime",
        metavar="NAME",
        help="In place of --model: look for the node that this runtime, ort or openvino, computes otherwise "
        "than onnx's own evaluator.",
    )
    return click.option("--model", help=f"{_POLICY}.")(runtime(command))


def judging_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that reaches a verdict."""
    output_json = click.option(
        "--output-json", is_flag=True, expose_value=False, help="Print JSON to stdout and nothing else."
    )
    return check_options(output_json(command))


def check_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a check alone."""
    for option in reversed([*map(setting_option, settings.CHECK)]):
        command = option(command)
    return command


def episodes_option(command: _Command) -> _Command:
    """What a robot recorded, in place of drawn fixtures; --fixtures says how many frames of it."""
    option = click.option(
        "--episodes",
        metavar="DIR",
        help="Judge frames of a recording: a LeRobotDataset, .npz or .safetensors files, or a dataset's id; "
        "--fixtures says how many, --seed which.",
    )
    return option(command)


save_fixtures_option = click.option(
    "--save-fixtures",
    is_flag=True,
    help="Keep the frames of --episodes in the bundle, episodes.safetensors, to be judged without torch.",
)

# As long as a user waits for it who asks by name.
SIMPLEST_S: Final = 30.0
simplest_option = click.option(
    "--simplest",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Where it fails, look up to {SIMPLEST_S:g} s for the simplest input that fails so, and store it in "
    "FILE, a .safetensors recording.",
)

processors_option = click.option(
    "--processors/--no-processors",
    default=None,
    help="Whether what lerobot runs before and after the policy is in the bundle, and judged  "
    "[default: where the checkpoint has it]",
)
judged_processors_option = click.option(
    "--processors/--no-processors",
    "processors",
    default=None,
    help="Whether a bundle with processors is judged from the camera to the joint, or its policy alone  "
    "[default: where it has them]",
)
