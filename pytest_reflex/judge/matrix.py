"""Many runtimes against one reference: each judged, all set beside each other, and the odd one out named."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Unpack

import numpy as np

from pytest_reflex import settings
from pytest_reflex.errors import ReflexError, SettingsError
from pytest_reflex.inputs import InputSpec
from pytest_reflex.inputs.fixtures import fixtures_from
from pytest_reflex.judge.check import check
from pytest_reflex.judge.naming import Named
from pytest_reflex.judge.runs import opened
from pytest_reflex.judge.sides import candidate_runner, inputs_for, known_inputs, reference_runner
from pytest_reflex.progress import Progress
from pytest_reflex.report.text.matrix import beside_line
from pytest_reflex.runners.base import Runner, asked, copied
from pytest_reflex.runners.remembered import RememberedRunner
from pytest_reflex.runners.resident import Resident
from pytest_reflex.runners.torch import TorchRunner
from pytest_reflex.verdict.matrix import REFERENCE, Column, Matrix
from pytest_reflex.verdict.metrics import distances

__all__ = ["matrix"]

Array = np.ndarray[Any, Any]
Answers = Sequence[Mapping[str, Array]]


def matrix(
    reference: Any,
    candidates: Mapping[str, Any],
    inputs: Sequence[InputSpec] | Sequence[Mapping[str, Array]] | None = None,
    *,
    name: str = "matrix",
    progress: Progress | None = None,
    **options: Unpack[settings.CheckOptions],
) -> Matrix:
    """Judge several runtimes of one policy, and say which of them is the odd one out.

    The reference is asked once; the runtimes run one after the other, so that no two are in memory together.
    A runtime that cannot run reaches no verdict, and the others are judged all the same.

    Args:
        reference: as of :func:`~pytest_reflex.judge.check.check`.
        candidates: by the names of their runtimes, what can be judged, such as ``bundle.on("openvino")``.
        inputs: as of ``check``; by default the candidates' own.
        name: what the results are called.
        progress: as of ``check``.
        **options: the keywords of ``check``; every distance is measured from float64 too (``floor``).

    Raises:
        SettingsError: there are no candidates, one is called as the reference is, or a setting is not good.
        ReflexError: the reference cannot be run.
    """
    if not candidates or REFERENCE in candidates:
        said = "none" if not candidates else f"one named {REFERENCE!r}"
        raise SettingsError(f"candidates has {said}; give each runtime under its own name")
    options = {**options, "floor": options.get("floor") or True}
    told = settings.of_call(options, "check")
    first = next(iter(candidates.values()))
    truth = reference_runner(reference, first)
    if isinstance(truth, TorchRunner):
        truth = RememberedRunner(truth)
    given = inputs_for(inputs, truth, first)
    drawn = fixtures_from(given, told.fixtures, told.seed, known_inputs(first))
    fed = [drawn.make(idx) for idx in range(drawn.count)]
    columns, answers = [], {}
    for runtime, candidate in candidates.items():
        column, answers[runtime] = _judged(
            truth, runtime, candidate, fed, inputs, f"{name} [{runtime}]", progress, options
        )
        columns.append(column)
        if column.result is not None and isinstance(truth, RememberedRunner):
            truth.remember()
    with opened(truth):
        answers = {REFERENCE: [copied(asked(truth, one)) for one in fed], **answers}
    told_apart = {
        (one, other): _apart(answers[one], answers[other])
        for one, other in combinations(answers, 2)
        if answers[one] and answers[other]
    }
    return _noted(Matrix(name, tuple(columns), told_apart))


def _noted(made: Matrix) -> Matrix:
    """Each result with what only the others' can say, so that every report of it does."""
    columns = []
    for column in made.columns:
        result = column.result
        if result is not None and (said := beside_line(made, column.runtime)):
            column = replace(column, result=replace(result, notes=(*result.notes, said)))
        columns.append(column)
    return replace(made, columns=tuple(columns))


def _judged(
    truth: Runner,
    runtime: str,
    candidate: Any,
    fed: Sequence[Mapping[str, Array]],
    inputs: Any,
    name: str,
    progress: Progress | None,
    options: Any,
) -> tuple[Column, Answers]:
    """A runtime's verdict, then its answers and how long it took for each; a refusal is no verdict."""
    try:
        result = check(truth, candidate, inputs=inputs, name=name, progress=progress, **options)
        runner = candidate_runner(candidate, settings.of_call(options, "check").provider)
        names = [output.name for output in result.fixtures[0].outputs]
        named, took, gave = Named(runner, names), [], []
        memory = Resident()
        began = time.perf_counter()
        with opened(runner):
            to_open = time.perf_counter() - began
            asked(named, fed[0])  # the first of a session is its slowest
            for one in fed:
                began = time.perf_counter()
                got = asked(named, one)
                took.append(time.perf_counter() - began)
                gave.append(copied(got))
            taken = memory.taken()
    except ReflexError as error:
        return Column(runtime, None, " ".join(str(error).split())), []
    return Column(runtime, result, "", to_open, statistics.median(took), taken), gave


def _apart(one: Answers, other: Answers) -> float:
    """The largest difference of any output in any fixture; of what must be equal 0 or infinity."""
    worst = 0.0
    for mine, theirs in zip(one, other, strict=True):
        for found in distances(mine, theirs).values():
            worst = found if np.isnan(found) else max(worst, found)
    return worst
