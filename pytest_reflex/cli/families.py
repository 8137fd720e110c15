"""The options of ``reflex export`` that are a family's: those of this package need no torch to be shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import click

from exporters.bundle import registry
from exporters.bundle.options import Option
from exporters.families import options
from pytest_reflex.errors import ReflexError

_OWN: Final = {option.name: option for option in (*options.LEROBOT, *options.GROOT, *options.XVLA)}


@dataclass
class Offered:
    """The options of all families, each name once.

    Attributes:
        options: those of this package first.
        left_out: the installed families whose options are not among them, and why.
    """

    options: dict[str, Option] = field(default_factory=lambda: dict(_OWN))
    left_out: dict[str, ReflexError] = field(default_factory=dict)


def offered(command: click.Command) -> Offered:
    """What a command offers besides its own parameters.

    A family that cannot be loaded, or whose options mean something else here, is left out, so that it stands
    in nobody's way who exports another.
    """
    found, owners = Offered(), dict.fromkeys(_OWN, "this package's own")
    for name in registry.known_families(built_in=False):
        try:
            theirs = registry.family_named(name).options
            _require_free(name, theirs, command)
            _require_equal(name, theirs, found.options, owners)
        except ReflexError as error:
            found.left_out[name] = error
            continue
        for option in theirs:
            found.options.setdefault(option.name, option)
            owners.setdefault(option.name, repr(name))
    return found


def _require_free(family: str, theirs: Iterable[Option], command: click.Command) -> None:
    """Refuse the names of the command's own parameters, and their words on the command line."""
    own = [
        param for param in click.Command.get_params(command, click.Context(command)) if param.name not in _OWN
    ]
    taken = {word for param in own for word in (param.name, *param.opts, *param.secondary_opts)}
    for option in theirs:
        if not taken.isdisjoint((option.name, option.flag)):
            raise ReflexError(
                f"the family {family!r} has the option {option.flag}, which `reflex {command.name}` has "
                "itself; rename it, or uninstall its distribution"
            )


def _require_equal(
    family: str, theirs: Iterable[Option], known: dict[str, Option], owners: dict[str, str]
) -> None:
    for option in theirs:
        first = known.get(option.name, option)
        if first != option:
            raise ReflexError(
                f"the option {option.flag} of the installed family {family!r} is {option!r}, and of "
                f"{owners[option.name]} {first!r}; options of one name must be equal: uninstall the "
                "distribution of one"
            )


def _declared(option: Option) -> dict[str, Any]:
    if option.switch:
        # Not given it is None, as a number that is not given: the family then decides.
        return {"is_flag": True, "flag_value": True, "default": None, "help": option.help}
    return {"type": click.IntRange(min=option.least), "help": option.help}


def family_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of this package's own families."""
    for option in reversed(_OWN.values()):
        command = click.option(option.flag, **_declared(option))(command)
    return command


class OfFamilies(click.Command):
    """A command that takes the options of families from other distributions too."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        theirs = [option for name, option in offered(self).options.items() if name not in _OWN]
        added = [click.Option([option.flag], **_declared(option)) for option in theirs]
        return [*super().get_params(ctx), *added]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            # It may be one of theirs.
            missing = "".join(
                f" (the family {name!r} was left out: {why})" for name, why in offered(self).left_out.items()
            )
            if not missing:
                raise
            raise click.UsageError(error.format_message() + missing, ctx) from error
