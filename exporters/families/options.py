"""What a family's ``inputs`` takes besides the batch, as the command line shows it: it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Option:
    """A whole number that a family's ``inputs`` and ``export`` take by this name.

    Families that share a name share the whole option; ``reflex export`` refuses two that differ.

    Attributes:
        name: the keyword; ``reflex export`` has it with dashes.
        help: what the command line says of it.
        least: the smallest that it may be.
        kept: whether ``reference`` and ``flow`` take it too. The manifest then keeps it, for whoever judges
            the bundle again.
    """

    name: str
    help: str
    least: int = 1
    kept: bool = False

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"


LEROBOT: Final = (
    Option("cameras", "How many cameras the bundle reads."),
    Option("prompt_tokens", "Text length that prompts are padded to."),
)
GROOT: Final = (
    Option("tokens", "How many features GR00T reads  [default: free]"),
    Option("embodiment", "Bake this one of GR00T's embodiments in.", least=0, kept=True),
)
