"""What tests of closed loops share: a small policy on an arm in numpy, and candidates that are wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from floors import ROUNDING, Remembered
from serve_cases import INPUTS, Small, made, policy

from exporters import open_bundle
from exporters.bundles import Bundle
from pytest_reflex import FunctionRunner, closed_loop
from pytest_reflex.judge.rollout.shown import RolloutResult

__all__ = ["INPUTS", "ROOT", "ROUNDING", "SHORT", "Small", "bundle_in", "changed", "driven", "policy"]

Array = np.ndarray[Any, Any]
# Half a minute of an arm in seconds of a test: short starts of an arm that needs no simulator.
ROOT = Path(__file__).resolve().parents[2]
SHORT: dict[str, Any] = {"seconds": 2.0, "starts": 3, "execute": 3}


def bundle_in(place: Path) -> Bundle:
    """The policy as a bundle."""
    return open_bundle(made(place / "small"))


def changed(
    change: Callable[[Array], Array], given: Callable[[Mapping[str, Array]], Any] | None = None
) -> Any:
    """A candidate that is the policy but for what a function makes of its actions, or of its inputs."""
    known = reference()

    def run(**inputs: Array) -> dict[str, Array]:
        known.open()
        return {"actions": change(known.run(inputs if given is None else given(inputs))["actions"])}

    return FunctionRunner(run, name="changed")


@functools.cache
def reference() -> Remembered:
    """The policy, which is asked once for each set of inputs, in float64 too."""
    return Remembered(policy().own_runner())


def driven(candidate: Any, against: Any = None, **told: Any) -> RolloutResult:
    """A short closed loop of the small policy on the arm in numpy."""
    told = {**SHORT, "inputs": INPUTS, "env": "planar-reach", **told}
    return closed_loop(reference() if against is None else against, candidate, **told)


@functools.cache
def honest() -> RolloutResult:
    """The policy beside itself."""
    return driven(changed(lambda actions: actions))
