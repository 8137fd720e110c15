"""The options that several commands share, each parsed as every other way in parses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pytest_reflex import settings

_Command = TypeVar("_Command", bound=Callable[..., Any])


def setting_option(name: str) -> Callable[[_Command], _Command]:
    """The option of a declared setting, parsed with the same words for a bad value as every other way in."""
    setting = settings.CHECK[name]
    switch, default = setting.metavar is None, setting.default

    def parsed(context: click.Context, parameter: click.Parameter, value: object) -> object:
        if setting.repeated:
            value = list(value) if isinstance(value, tuple) and value else None
        return None if value is None else setting.parse(value, f"--{name}")

    return click.option(
        f"--{name}/--no-{name}" if switch and default is None else f"--{name}",
        is_flag=switch,
        metavar=setting.metavar,
        multiple=setting.repeated,
        # Text, so that a default goes the way of every given value.
        default=default if switch or default is None else str(default),
        show_default=not switch,
        callback=parsed,
        help=f"{setting.help[0].upper()}{setting.help[1:]}."
        + (f"  [default: {setting.otherwise}]" if setting.otherwise else ""),
    )


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
    output_json = click.option(
        "--output-json", is_flag=True, expose_value=False, help="Print JSON to stdout and nothing else."
    )
    for option in reversed((*map(setting_option, settings.CHECK), output_json)):
        command = option(command)
    return command
