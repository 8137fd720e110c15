"""The options of ``reflex export`` that are a family's: those of this package need no torch to be shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from exporters.bundle import registry
from exporters.families import options
from exporters.families.options import Option


def every_option() -> list[Option]:
    """The options of all families, each name once."""
    installed = registry.known_families(built_in=False)
    theirs = [option for name in installed for option in registry.family_named(name).options]
    return list({option.name: option for option in (*theirs, *options.LEROBOT, *options.GROOT)}.values())


def family_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of this package's own families."""
    for option in reversed((*options.LEROBOT, *options.GROOT)):
        command = click.option(option.flag, type=click.IntRange(min=option.least), help=option.help)(command)
    return command


class OfFamilies(click.Command):
    """A command that takes the options of families from other distributions too."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        params = super().get_params(ctx)
        taken = {param.name for param in params}
        return params + [
            click.Option([option.flag], type=click.IntRange(min=option.least), help=option.help)
            for option in every_option()
            if option.name not in taken
        ]
