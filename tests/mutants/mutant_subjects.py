"""The policies that mutants are made of: each family's tiny one, exported in one layout."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from mutant_judge import Subject

from pytest_reflex.runners.remembered import RememberedRunner

FAMILIES: Final = ("groot", "pi0", "pi05", "smolvla")
# lerobot's policies that read features, each in the layout that its family takes.
FEATURES: Final = ("act", "diffusion", "gaussian_actor", "multi_task_dit", "tdmpc", "vqbet", "xvla")
# What says tokens, in one graph.
DECODING: Final = ("pi0_fast",)
ALL: Final = (*FAMILIES, *FEATURES, *DECODING)
# Enough for a first, a middle and a last one.
STEPS: Final = 3
SMALL: Final = {"cameras": 2, "prompt_tokens": 12}


def families() -> tuple[str, ...]:
    """Those that can be made here: without lerobot, transformers' pi0."""
    return ALL if find_spec("lerobot") else ("pi0",)


def layouts_of(family: str) -> tuple[Any, ...]:
    """How a family's mutants carry the loop: in every way, or, without one, in none."""
    looped = family in FAMILIES or importlib.import_module(f"exporters.families.{family}").FAMILY.looped
    return ("unrolled", "loop", "stepwise") if looped else (None,)


def subject(family: str, layout: Any, work: Path, change: Callable[[Any], None] | None = None) -> Subject:
    """A bundle made without a verdict, and what is needed to judge mutants of it.

    Args:
        family: the policy's family.
        layout: how the bundle carries the loop; None where there is none.
        work: where it is written.
        change: what is done to the policy first.
    """
    module = importlib.import_module(f"exporters.families.{family}")
    policy, sizes, reference = _policy(family, work, change)
    looped: dict[str, Any] = {"layout": layout, "steps": STEPS} if layout else {}
    bundle = module.export(policy, work / family / str(layout), verify=False, **looped, **sizes)
    return Subject(family, layout or "single", bundle, reference, bundle.inputs)


@functools.cache
def _policy(
    family: str, work: Path, change: Callable[[Any], None] | None
) -> tuple[Any, dict[str, Any], RememberedRunner]:
    """A policy that was changed is none that anybody else is given."""
    policy, sizes, reference = _made(family, work)
    if change is not None:
        change(policy)
    return policy, sizes, reference


def _made(family: str, work: Path) -> tuple[Any, dict[str, Any], RememberedRunner]:
    module = importlib.import_module(f"exporters.families.{family}")
    if family in FEATURES:
        from tiny_features import tiny_policy

        policy = tiny_policy(family)
        reference = module.reference(policy, **({"steps": STEPS} if module.FAMILY.looped else {}))
        return policy, {"batch": 8} if family == "tdmpc" else {}, RememberedRunner(reference)
    if family in DECODING:
        from tiny_pi0_fast import tiny_policy as tiny_pi0_fast

        policy = tiny_pi0_fast()
        return policy, {"batch": 2}, RememberedRunner(module.reference(policy))
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
    return policy, sizes, RememberedRunner(module.reference(policy, steps=STEPS))
