"""A tiny checkpoint of each family, as its upstream writes and loads it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# lerobot has a pi0 of its own beside transformers'.
LEROBOT_PI0: Final = "pi0-lerobot"
_FEATURES: Final = ("act", "diffusion", "gaussian_actor", "multi_task_dit", "tdmpc", "vqbet", "xvla")


@contextlib.contextmanager
def tiny_checkpoint(family: str, place: Path, work: Path) -> Iterator[Path]:
    """A checkpoint of a family at ``place``; it can be loaded while this is open.

    lerobot writes the sizes of pi0, pi0.5 and pi0-FAST into its code: small ones stand there meanwhile.

    Args:
        family: a name of ``exporters.FAMILIES``, or :data:`LEROBOT_PI0`.
        place: where the checkpoint goes.
        work: a directory for what a configuration names besides.
    """
    if family == "pi0":
        from examples.tiny_pi0 import tiny_pi0

        tiny_pi0().save_pretrained(place)
        yield place
    elif family == "groot":
        from tiny_groot import config, weights, write_checkpoint

        place.parent.mkdir(parents=True, exist_ok=True)
        yield write_checkpoint(place, config(), weights())
    elif family in _FEATURES:
        from tiny_features import save_checkpoint as save_features

        yield save_features(family, place)
    elif family == "pi0_fast":
        from tiny_pi0_fast import save_checkpoint as save_pi0_fast
        from tiny_pi0_fast import small_parts

        save_pi0_fast(place)
        with small_parts():
            yield place
    else:
        from tiny_lerobot import SHALLOW, save_checkpoint, small_sizes

        called = "pi0" if family == LEROBOT_PI0 else family
        save_checkpoint(called, place, work, **SHALLOW[called])
        with small_sizes(called):
            yield place
