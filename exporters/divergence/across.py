"""Where a bundle's graphs part on a runtime: each is walked with what it is given in a run of the bundle."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.bundle.runner import BundleRunner
from pytest_reflex.judge.parting import Parting, parting
from pytest_reflex.progress import Progress
from pytest_reflex.result import Located
from pytest_reflex.runners import Runner
from pytest_reflex.runners.runtimes import DEFAULT, full_name, graph_runtime

if TYPE_CHECKING:
    from exporters.bundle.store import StoredBundle

__all__ = ["parted_on"]

Array = np.ndarray[Any, Any]


def parted_on(
    bundle: StoredBundle,
    runtime: str,
    fixture: Mapping[str, Array],
    *,
    fixture_idx: int = 0,
    progress: Progress | None = None,
    deadline: Callable[[], None] | None = None,
) -> Located:
    """The first node that a runtime computes otherwise than onnx's own evaluator; PyTorch is not asked.

    Args:
        bundle: the bundle.
        runtime: the name of the runtime.
        fixture: what it is given.
        fixture_idx: which fixture that is.
        progress: called with (stage, done, total).
        deadline: raises a ReflexError when the time is over; it is called before each run of a part.

    Raises:
        RunnerError: nobody knows the runtime, or it or the evaluator cannot run a part of a graph.
    """
    opener, stated = graph_runtime(runtime), bundle.stated
    told: dict[str, Any] = {}
    if full_name(runtime) == DEFAULT:  # as the bundle opens it
        told = {"optimization": stated.optimization, "config": stated.config}

    def opens(file: Path) -> Runner:
        if deadline is not None:
            deadline()
        return opener(file, name=f"{full_name(runtime)}, of a part of the graph", **told)

    began, values = time.perf_counter(), 0
    found, role = Parting(None, False, 0), ""
    fed = _fed(bundle, fixture)
    for done, (role, feed) in enumerate(fed.items()):
        if progress is not None:
            progress("walk", done, len(fed))
        found = parting(bundle.path / stated.graphs[role], feed, opens)
        values += found.values
        if found.place is not None:
            break
    if progress is not None:
        progress("walk", len(fed), len(fed))
    return Located(
        fixture_idx=fixture_idx,
        cause="rounding" if found.place is None else "runtime",
        said=_said(found, full_name(runtime), stated.graphs.get(role, "")),
        place=found.place,
        growth=(),
        values=values,
        unmatched=0,
        seconds=time.perf_counter() - began,
    )


def _fed(bundle: StoredBundle, fixture: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """What each graph is given first in a run of the bundle under the evaluator, in that order."""
    fed: dict[str, dict[str, Array]] = {}
    runner = BundleRunner(bundle, runtime="evaluator")

    def noted(role: str, run: Any) -> Any:
        def asked(inputs: Mapping[str, Array]) -> Any:
            fed.setdefault(role, dict(inputs))
            return run(inputs)

        return asked

    for role, session in runner.sessions.items():
        session.run = noted(role, session.run)
    with runner:
        runner.run(fixture)
    return fed


def _said(found: Parting, runtime: str, graph: str) -> str:
    place = found.place
    if place is None:
        return f"{runtime} is nowhere further from its graph than float32 explains"
    off = f"{place.where}: {place.operator} {place.node} of {graph} is {place.error:.1e} off on {runtime}"
    if found.alone:
        return f"{off} by itself, where the evaluator rounds by {place.rounding:.1e}"
    return f"{off}, and only together with what is before it: the runtime rewrites these nodes"
