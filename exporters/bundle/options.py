"""The options of a family, which its ``inputs`` takes besides the batch, and the words that they may have.

Imports no torch, so that the command line can show them.
"""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pytest_reflex.errors import ReflexError
from pytest_reflex.settings import CHECK


@dataclass(frozen=True)
class Option:
    """A whole number, or a switch, that a family's ``inputs`` and ``export`` take by this name.

    Families that share a name share the whole option; ``reflex export`` refuses two that differ.

    Attributes:
        name: the keyword; ``reflex export`` has it with dashes. Small letters, digits and single underscores,
            and no word that ``export``, ``check``, ``cached`` or ``reflex export`` take themselves.
        help: what the command line says of it.
        least: the smallest that it may be.
        kept: whether ``reference`` and ``flow`` take it too. The manifest then keeps it, for whoever judges
            the bundle again.
        switch: whether it is True or nothing, and no number; manifests say 1 and null.
    """

    name: str
    help: str
    least: int = 1
    kept: bool = False
    switch: bool = False

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"


# What is the same keyword in Python, and the same name for click, as its flag says.
_WORD: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_KINDS: Final = {"name": str, "help": str, "least": int, "kept": bool, "switch": bool}


def words_of(*functions: Callable[..., Any]) -> dict[str, str]:
    """Who takes each keyword; those of a check are taken by whoever passes keywords on."""
    found: dict[str, str] = {}
    for function in functions:
        for parameter in inspect.signature(function).parameters.values():
            passed_on = parameter.kind is parameter.VAR_KEYWORD
            words = (
                CHECK
                if passed_on
                else ()
                if parameter.kind is parameter.VAR_POSITIONAL
                else (parameter.name,)
            )
            for word in words:
                found.setdefault(word, f"`{function.__qualname__}`")
    return found


def require_options(family: Any, taken: Mapping[str, str]) -> None:
    """Refuse what are no options, and options that something else would take on their way to the family.

    Args:
        family: an ``exporters.families.base.Family``.
        taken: who takes a word already.

    Raises:
        ReflexError: naming the family and the option.
    """
    wrong = next(_wrong(family, taken), None)
    if wrong:
        raise ReflexError(f"the family {family.name!r} {wrong} in {type(family).__qualname__}.options")


def _wrong(family: Any, taken: Mapping[str, str]) -> Iterator[str]:
    options = family.options
    if not isinstance(options, (list, tuple)) or not all(isinstance(option, Option) for option in options):
        yield f"has the options {options!r}, expected a tuple of Option; write one"
        return
    names = [option.name for option in options]
    for option in options:
        for field, kind in _KINDS.items():
            if type(value := getattr(option, field)) is not kind:
                yield f"has an option whose {field} is {value!r}, expected {kind.__name__}; write one"
        name = option.name
        if type(name) is not str or not _WORD.fullmatch(name) or keyword.iskeyword(name):
            yield (
                f"has the option {name!r}, expected a keyword of small letters, digits and single "
                "underscores; rename it"
            )
        elif name in taken:
            yield f"has the option {name!r}, which {taken[name]} takes itself; rename it"
        elif names.count(name) > 1:
            yield f"has the option {name!r} twice; remove one"
