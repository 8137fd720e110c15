"""The policies that mutants are made of: each family's tiny one, exported in one layout."""

from __future__ import annotations

import functools
import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from mutant_judge import Remembered, Subject

FAMILIES: Final = ("groot", "pi0", "pi05", "smolvla")
# Enough for a first, a middle and a last one.
STEPS: Final = 3
SMALL: Final = {"cameras": 2, "prompt_tokens": 12}


def families() -> tuple[str, ...]:
    """Those that can be made here: without lerobot, transformers' pi0."""
    return FAMILIES if find_spec("lerobot") else ("pi0",)


def subject(family: str, layout: Any, work: Path) -> Subject:
    """A bundle made without a verdict, and what is needed to judge mutants of it."""
    module = importlib.import_module(f"exporters.families.{family}")
    policy, sizes, reference = _policy(family, work)
    bundle = module.export(policy, work / family / layout, layout=layout, steps=STEPS, verify=False, **sizes)
    return Subject(family, layout, bundle, reference, bundle.inputs)


@functools.cache
def _policy(family: str, work: Path) -> tuple[Any, dict[str, Any], Remembered]:
    module = importlib.import_module(f"exporters.families.{family}")
    sizes: dict[str, Any] = {} if family == "groot" else dict(SMALL)
    if family == "groot":
        from tiny_groot import GOLDEN

        policy = module.load(GOLDEN)
    elif find_spec("lerobot"):
        from tiny_lerobot import golden_policy

        policy = golden_policy(family, work)
    else:
        from examples.tiny_pi0 import tiny_pi0

        policy = tiny_pi0(depth=(2, 2, 2), steps=STEPS, chunk=4)
    return policy, sizes, Remembered(module.reference(policy, steps=STEPS))
