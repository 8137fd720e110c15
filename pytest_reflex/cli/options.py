"""The options that several commands share, each parsed as every other way in parses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from pytest_reflex import settings
from pytest_reflex.verdict.gates import THRESHOLD


def parsed(context: click.Context, parameter: click.Parameter, value: object) -> object:
    """A value as every other way in takes it, with the same words for a bad one, before any work is done."""
    name = str(parameter.name)
    return settings.PARSERS[name](value, f"--{name}")


provider_option = click.option(
    "--provider", metavar="NAME", default="cpu", show_default=True, callback=parsed,
    help="ONNX Runtime execution provider.",
)  # fmt: skip
model_option = click.option(
    "--model",
    required=True,
    help="The reference: a checkpoint directory or hub id; for other models module:name or file.py:name; "
    "or a .safetensors recording, which needs no torch.",
)
api_key_option = click.option(
    "--api-key", metavar="KEY", envvar="REFLEX_API_KEY", help="What clients send  [env: REFLEX_API_KEY]"
)


def judging_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that reaches a verdict."""
    for option in reversed(
        (
            click.option(
                "--threshold", metavar="FLOAT", default=str(THRESHOLD), show_default=True, callback=parsed,
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
                "--fixtures", metavar="N", default="5", show_default=True, callback=parsed,
                help="How many fixtures are compared.",
            ),
            click.option(
                "--seed", metavar="N", default="0", show_default=True, callback=parsed,
                help="What the fixtures are drawn with.",
            ),
            provider_option,
            click.option(
                "--output-json", is_flag=True, expose_value=False,
                help="Print JSON to stdout and nothing else.",
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command
