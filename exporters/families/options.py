"""The options of the families of this package; it imports no torch."""

from __future__ import annotations

from typing import Final

from exporters.bundle.options import Option

__all__ = ["GROOT", "GROOT_WHOLE", "LEROBOT", "PROMPTED", "XVLA", "Option"]

PROMPTED: Final = (
    Option("cameras", "How many cameras the bundle reads."),
    Option("prompt_tokens", "Text length that prompts are padded to."),
)
LEROBOT: Final = (
    *PROMPTED,
    Option(
        "rtc",
        "Guide each chunk by the one before: real-time chunking  [default: as the policy says]",
        kept=True,
        switch=True,
    ),
)
GROOT: Final = (
    Option("tokens", "How many features GR00T reads  [default: free]"),
    Option("embodiment", "Bake this one of GR00T's embodiments in.", least=0, kept=True),
)
# From Python alone: a checkpoint is loaded as its head.
GROOT_WHOLE: Final = (
    Option("images", "Take GR00T whole, of so many images  [default: the action head alone]", kept=True),
)
XVLA: Final = (Option("domain", "Bake this one of X-VLA's domains in.", least=0, kept=True),)
