"""The options of ``reflex export`` that are a family's: those of this package need no torch to be shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from exporters.bundle import registry
from exporters.families import options
from exporters.families.options import Option
from pytest_reflex.errors import ReflexError

_OWN: Final = {option.name: option for option in (*options.LEROBOT, *options.GROOT)}


def every_option() -> list[Option]:
    """The options of all families, each name once.

    Raises:
        ReflexError: two families mean different things by one name.
    """
    found = {name: (option, "this package's own") for name, option in _OWN.items()}
    for family in registry.known_families(built_in=False):
        for option in registry.family_named(family).options:
            first, owner = found.setdefault(option.name, (option, repr(family)))
            if first != option:
                raise ReflexError(
                    f"the option {option.flag} of the installed family {family!r} is {option!r}, and of "
                    f"{owner} {first!r}; options of one name must be equal: uninstall the distribution of one"
                )
    return [option for option, _ in found.values()]


def _declared(option: Option) -> dict[str, Any]:
    return {"type": click.IntRange(min=option.least), "help": option.help}


def family_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of this package's own families."""
    for option in reversed(_OWN.values()):
        command = click.option(option.flag, **_declared(option))(command)
    return command


class OfFamilies(click.Command):
    """A command that takes the options of families from other distributions too."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        params = super().get_params(ctx)
        taken = {param.name for param in params}
        for option in every_option():
            if option.name in _OWN:
                continue
            if option.name in taken:
                raise ReflexError(
                    f"an installed family has the option {option.flag}, which `reflex {self.name}` has "
                    "itself; uninstall its distribution"
                )
            params.append(click.Option([option.flag], **_declared(option)))
        return params
