"""A command that runs a model of someone else's ends by itself."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from pytest_reflex.errors import RunnerError

__all__ = ["to_a_verdict"]

_Made = TypeVar("_Made")


def to_a_verdict(command: Callable[..., _Made]) -> Callable[..., _Made]:
    """Have a command that runs a model end by itself: the model's exit is an error, and stdout is not its.

    Without this an ``Exit`` of click, which its ``--help`` ends with, would be a good end from anywhere.
    """

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> _Made:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return command(*arguments, **options)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, click.exceptions.Exit):
                raise
            said = error.exit_code if isinstance(error, click.exceptions.Exit) else error
            raise RunnerError(
                f"the model, or what loads it, raised {type(error).__name__}({said}) before there was a "
                "verdict; have it return, nothing is proven"
            ) from error

    return run
