"""repair(): the fewest nodes of a bundle in another precision that have to stay in float32 for a budget.

Which nodes matter is known from PyTorch (:mod:`exporters.divergence.contributions`): what each adds to the
error, for the number of nodes that it costs. How many of them are needed is measured, in ten runs at most.
The bundle that is written then goes the way of every export: judged against the policy, sealed, renamed into
place.
"""

from __future__ import annotations

import ast
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from torch import nn

from exporters.bundle import registry
from exporters.bundle.store import require_replaceable, staged
from exporters.bundles import Bundle, Export, open_bundle, require_bundle
from exporters.divergence.contributions import Unit, contributions
from exporters.divergence.interpreter import Interpreter
from exporters.divergence.search import programs_of
from exporters.exporting.around import proven_around, taken_along
from exporters.exporting.stages import (
    Narrowing,
    Plan,
    narrowing_of,
    planned,
    proven,
    sealed,
    traced,
    weights_of,
    written,
)
from exporters.graph.narrowing import clock_of, nodes_that_round, weight_test
from exporters.graph.traced_halves import require_float32
from pytest_reflex.errors import ReflexError, SettingsError
from pytest_reflex.inputs.fixtures import fixtures_from
from pytest_reflex.judge.check import check
from pytest_reflex.progress import Progress, progress_callback
from pytest_reflex.result import POLICY, WHOLE, ParityResult, PipelineResult
from pytest_reflex.runners import Runner, TorchRunner
from pytest_reflex.settings import Settings, of_call
from pytest_reflex.settings import budget as budget_of

__all__ = ["Repair", "repair"]

MOST_RUNS: Final = 10
# The clock is one: a graph that keeps its products and rounds its sines is right on the CPU alone.
_CLOCK: Final = ("", "clock")
# So much of the budget is aimed at, for what is known to first order is not known to the last digit.
_AIM: Final = 0.8
# Predictions that are followed: what does not suffice then lies beyond what errors are predicted for.
_PREDICTIONS: Final = 3
# The plain fixture, and the two where the ends of what is drawn lie.
_LOOKED_INTO: Final = 3
_SCOPES: Final = "pkg.torch.onnx.name_scopes"
_HALF: Final = "pytest_reflex.half"
# Name of a graph and of a node in it.
_Place = tuple[str, str]
_Named = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Point:
    """One run of a candidate: how many nodes were in float32, and the largest error that was left."""

    nodes: int
    error: float


@dataclass(frozen=True)
class Repair:
    """What a repair came to.

    Attributes:
        bundle: the bundle that meets the budget, with its verdict: a new one, or the one that was given,
            where that met it as it was.
        kept: names of the nodes in float32, by graph; None where nothing had to be repaired.
        nodes: how many nodes the graphs have.
        curve: every run of a candidate, in order of the nodes kept.
    """

    bundle: Export
    kept: Mapping[str, Sequence[str]] | None
    nodes: int
    curve: Sequence[Point]

    @property
    def text(self) -> str:
        """For people, a line for each fact."""
        if self.kept is None:
            return (
                f"Nothing to repair: {self.bundle.called} meets the budget as it is, and nothing was written"
            )
        count = sum(map(len, self.kept.values()))
        share = f"{count} of {self.nodes} nodes ({count / self.nodes:.1%})"
        return f"Kept in float32: {share}\nNodes kept, and the error left: {_said(self.curve)}"


def repair(
    bundle: Bundle,
    reference: Any,
    *,
    budget: float,
    out: str | os.PathLike[str] | None = None,
    calibration: Sequence[_Named] | None = None,
    processors: Any = None,
    fixtures: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> Repair:
    """Make a bundle in another precision again, with the fewest nodes in float32 that meet a budget.

    Args:
        bundle: a bundle in float16, bfloat16 or int8.
        reference: the policy that it was made from, a function that loads one, or a runner of it.
        budget: what max_abs_diff has to be below, in the outputs' own unit.
        out: where the repaired bundle goes; by default where the other is, which it replaces in one rename.
        calibration: what the bundle's int8 was calibrated with, where that was given.
        processors: of a bundle that has them, what lerobot runs around the policy: a checkpoint's directory
            or the two pipelines; by default that of the checkpoint the policy was loaded from. They stay as
            they are, and every stage is proven again: the whole below the budget, in the robot's units.
        fixtures: how many are drawn, to find the nodes and to judge what is made of them.
        seed: what they are drawn with.
        progress: called with (stage, done, total).

    Raises:
        SettingsError: the budget is no bound, or the bundle's calibration is not given.
        ReflexError: the bundle is in float32, the reference cannot be traced, or the budget cannot be met;
            the message has the nodes kept against the error left. What was there stays.
        ParityError: what was made, or a stage of it, is refused for another reason. What was there stays.
    """
    bundle, bound = require_bundle(bundle), budget_of(budget)
    told = of_call({"fixtures": fixtures, "seed": seed, "threshold": bound}, "repair")
    options: Any = {"fixtures": told.fixtures, "seed": told.seed, "threshold": bound}
    precision = _precision_of(bundle, calibration)
    report_progress = progress_callback(progress)
    place = bundle.path if out is None else Path(out)
    require_replaceable(place)  # before minutes are spent on it
    if bundle.stated.processors is not None and not isinstance(reference, nn.Module):
        raise ReflexError(
            f"{bundle.called} has processors, which are proven again around the policy itself; give the live "
            "policy, loaded from its checkpoint, or processors= as well"
        )
    runner = reference if isinstance(reference, Runner) else bundle.reference_runner(reference)
    if not isinstance(runner, TorchRunner):
        raise ReflexError(
            f"{runner.name} is no PyTorch policy, so it cannot be traced again; give the policy"
        )
    result = check(runner, bundle, name=bundle.called, progress=report_progress, **options)
    first = Point(-1, result.max_abs_diff_across_all or 0.0)
    handed = _handed_on(bundle, reference, processors, told)
    shown = check(runner, bundle, inputs=handed, progress=report_progress, **options) if handed else None
    if result.passed and (shown is None or shown.passed):
        return Repair(_as_it_is(bundle, result), None, 0, [first])
    with runner:
        require_float32(runner)
        plan = _plan_again(bundle, runner, told.seed)
        models = traced(plan, report_progress)
        drawn = fixtures_from(bundle.inputs, told.fixtures, told.seed)
        inputs = [*(drawn.make(index) for index in range(drawn.count)), *handed]
        units = _ranked(bundle, runner, models, plan, precision, inputs[:_LOOKED_INTO])

        def narrowing(keep: Mapping[str, Sequence[str]]) -> Narrowing:
            return narrowing_of(plan, precision, calibration, told, keep)

        stated = bundle.stated
        said = {"family": stated.family, "call": stated.call, "options": stated.options}
        trial = _Trial(plan, models, said, inputs, [runner.run(given) for given in inputs], narrowing)
        kept, curve = _searched(units, bound, trial.error, report_progress)
        with staged(place) as stage:
            draft = written(plan, _copied(models), narrowing(kept), stage, said, report_progress)
            made = Bundle(stage, draft.to_json(), shown=str(place))
            seen, verdict = proven(plan, made, report_progress, options)
            sealed_in = Bundle(stage, sealed(draft, seen, verdict, stage), shown=str(place))
            pipeline = _around(bundle, sealed_in, (reference, processors), options, report_progress)
            manifest = open_bundle(stage).manifest
    nodes = sum(len(list(ir.traversal.RecursiveGraphIterator(model.graph))) for model in models.values())
    return Repair(Export(place, manifest, result=verdict, pipeline=pipeline), kept, nodes, curve)


def _handed_on(bundle: Bundle, policy: Any, source: Any, told: Settings) -> list[dict[str, np.ndarray]]:
    """What preprocessing hands on to the policy, on which the budget has to hold as well."""
    if bundle.stated.processors is None:
        return []
    with closing(bundle.stages(policy, source, seed=told.seed)) as sides:
        given = sides.sides(POLICY, fixtures_from(sides.raw, told.fixtures, told.seed))[2]
        made = given.fixtures((), told.fixtures, told.seed)
        return [made.make(index) for index in range(made.count)]


def _around(
    bundle: Bundle,
    made: Bundle,
    given: tuple[Any, Any],
    options: Mapping[str, Any],
    report_progress: Progress,
) -> PipelineResult | None:
    """The bundle's processors put around what was made of it, and the verdict; None where it has none."""
    said = bundle.stated.processors
    if said is None:
        return None
    made = taken_along(bundle, made)
    sides = made.stages(*given, seed=options["seed"])
    factor = max(map(abs, said.scale), default=0.0)
    thresholds = {WHOLE: options["threshold"] * factor} if factor else None
    return proven_around(made, sides, {**options, "thresholds": thresholds, "progress": report_progress})


def _precision_of(bundle: Bundle, calibration: Sequence[_Named] | None) -> Any:
    said = bundle.stated.origin.get("precision")
    if not isinstance(said, dict) or not isinstance(said.get("name"), str):
        raise ReflexError(
            f"{bundle.called} is in float32, where no precision is to be repaired; see where it goes wrong "
            f"with reflex locate {bundle.called} --model MODEL"
        )
    if calibration is None and "that were given" in str(said.get("calibrated_on", "")):
        raise SettingsError(
            f"{bundle.called} was calibrated on {said['calibrated_on']}, which it does not hold; give the "
            "same with calibration="
        )
    return said["name"]


def _as_it_is(bundle: Bundle, result: ParityResult) -> Export:
    return Export(bundle.path, bundle.manifest, bundle.shown, bundle.changed, result)


def _plan_again(bundle: Bundle, runner: TorchRunner, seed: int) -> Plan:
    """What the bundle was exported with, by its manifest."""
    stated, policy = bundle.stated, runner.model
    if policy is None:
        raise ReflexError(f"{runner.name} has no model to trace")
    flow = registry.flow_of(stated, policy) if stated.loop is not None else None
    layout: Any = stated.layout if stated.loop is not None else None
    return planned(runner, stated.inputs, flow, layout, stated.steps, None, False, seed)


@dataclass(frozen=True)
class _Group:
    """Nodes that stay in float32 together, and the length of the error that they would else make."""

    places: tuple[_Place, ...]
    error: float


def _ranked(
    bundle: Bundle,
    runner: TorchRunner,
    models: Mapping[str, ir.Model],
    plan: Plan,
    precision: Any,
    inputs: Sequence[_Named],
) -> list[_Group]:
    """What can be kept, what gains most for each node first; at last all that is left of the graphs.

    A node that is kept rounds where it hands on to one that is not: in float16 those between come second.
    """
    programs, loop = programs_of(bundle, runner, lambda policy: registry.flow_of(bundle.stated, policy), 0)
    every = [
        contributions(Interpreter(programs, given, loop, gradients=True), programs, precision)
        for given in inputs
    ]
    reading, giving = _largest(one.reading for one in every), _largest(one.giving for one in every)
    is_weight = weight_test(weights_of(plan))
    first: dict[Unit, list[_Place]] = {}
    rest: dict[Unit, list[_Place]] = {}
    for role, model in models.items():
        clock = set(clock_of(model.graph, is_weight)) if precision == "float16" else set()
        rounds = set(nodes_that_round(model.graph, precision, is_weight))
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            unit = _CLOCK if node in clock else _unit_of(node, set(programs))
            where = first if node in rounds or node in clock else rest
            where.setdefault(unit, []).append((role, str(node.name)))
            if unit == _CLOCK:
                own = reading.get(_unit_of(node, set(programs)), 0.0)
                reading[_CLOCK] = max(reading.get(_CLOCK, 0.0), own)
    if precision == "float16":
        # What reads nothing that is rounded, such as a constant that float16 has, is between the others; the
        # loop's own arithmetic, which no program has, is not.
        for unit in [unit for unit in first if unit in giving and not reading.get(unit)]:
            rest[unit] = first.pop(unit) + rest.get(unit, [])
    groups = sorted((_Group(tuple(p), reading.get(u, 0.0)) for u, p in first.items()), key=_gain)
    if precision == "float16":
        between = sorted((_Group(tuple(p), giving.get(u, 0.0)) for u, p in rest.items()), key=_gain)
        # What they round is not known to be rounded: only the first kind is counted on.
        groups += [_Group(group.places, 0.0) for group in between]
    return groups


def _gain(group: _Group) -> float:
    return -(group.error**2) / len(group.places)


def _largest(found: Iterable[Mapping[Unit, float]]) -> dict[Unit, float]:
    most: dict[Unit, float] = {}
    for one in found:
        for unit, error in one.items():
            most[unit] = max(most.get(unit, 0.0), error)
    return most


def _unit_of(node: ir.Node, halves: set[str]) -> Unit:
    """The node of the traced program that this one was made of."""
    half = node.metadata_props.get(_HALF, "model")
    try:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    except (ValueError, SyntaxError):
        scopes = []
    name = str(scopes[-1]) if scopes else str(node.name)
    return (half if half in halves else next(iter(halves)), name)


@dataclass(frozen=True)
class _Trial:
    """Measures one set of nodes: a candidate made, run over all fixtures and thrown away."""

    plan: Plan
    models: Mapping[str, ir.Model]
    said: Mapping[str, Any]
    inputs: Sequence[_Named]
    wanted: Sequence[_Named]
    narrowing: Callable[[Mapping[str, Sequence[str]]], Narrowing]

    def error(self, keep: Mapping[str, Sequence[str]]) -> float:
        """The largest difference from the reference; infinite where one is NaN."""
        with tempfile.TemporaryDirectory() as place:
            stage = Path(place)
            draft = written(
                self.plan, _copied(self.models), self.narrowing(keep), stage, self.said, lambda *_: None
            )
            with Bundle(stage, draft.to_json(), shown="a candidate").runner() as runner:
                gave = [runner.run(given) for given in self.inputs]
        with np.errstate(all="ignore"):
            worst = [
                float(np.abs(got[name].astype(np.float64) - array).max(initial=0.0))
                for want, got in zip(self.wanted, gave, strict=True)
                for name, array in want.items()
            ]
        return max((math.inf if math.isnan(far) else far for far in worst), default=math.inf)


def _copied(models: Mapping[str, ir.Model]) -> dict[str, ir.Model]:
    return {role: model.clone() for role, model in models.items()}


def _searched(
    groups: Sequence[_Group],
    budget: float,
    error: Callable[[Mapping[str, Sequence[str]]], float],
    report_progress: Progress,
) -> tuple[dict[str, list[str]], list[Point]]:
    """The first groups that meet the budget, as few as are found in :data:`MOST_RUNS` runs, and every run.

    Raises:
        ReflexError: they do not meet it, or all of them alone do, which is an export in float32.
    """
    # What the groups from each on add up to: errors that know nothing of each other add as squares do.
    left = [math.sqrt(sum(group.error**2 for group in groups[k:])) for k in range(len(groups) + 1)]
    curve: list[Point] = []
    low, high, ratio = -1, len(groups) + 1, 1.0
    guess, predictions = 0, _PREDICTIONS
    # The first run was that of the bundle as it is.
    while high - low > 1 and len(curve) < MOST_RUNS - 1:
        report_progress("repair", len(curve), MOST_RUNS - 1)
        keep = _kept(groups[:guess])
        far = error(keep)
        curve.append(Point(sum(map(len, keep.values())), far))
        if far < budget:
            high = guess
        else:
            low, ratio = guess, far / left[guess] if left[guess] > 0 else ratio
        aim = _AIM * budget / ratio if predictions else None
        predictions -= predictions > 0
        guess = _next_guess(low, high, left, aim, len(groups), MOST_RUNS - 1 - len(curve))
    report_progress("repair", MOST_RUNS - 1, MOST_RUNS - 1)
    curve.sort(key=lambda point: point.nodes)
    if high > len(groups):
        raise ReflexError(
            f"a budget of {budget:.1e} cannot be met: nodes in float32, and the error left: {_said(curve)}; "
            "give a larger one, or export in float32"
        )
    if high == len(groups):
        raise ReflexError(
            f"a budget of {budget:.1e} takes every node in float32: nodes in float32, and the error left: "
            f"{_said(curve)}; give a larger one, or export in float32"
        )
    return _kept(groups[:high]), curve


def _next_guess(low: int, high: int, left: Sequence[float], aim: float | None, every: int, runs: int) -> int:
    """How many groups to keep next: what is predicted to suffice, then halves of what is between."""
    if high <= every:
        return (low + high) // 2
    if runs <= 1:  # the last says whether it can be met at all
        return every
    predicted = next((k for k, rest in enumerate(left) if aim is not None and rest < aim), every)
    # Where what was predicted did not suffice, half of what is left.
    return predicted if low < predicted < every else (low + every + 1) // 2


def _kept(groups: Sequence[_Group]) -> dict[str, list[str]]:
    kept: dict[str, list[str]] = {}
    for group in groups:
        for role, name in group.places:
            kept.setdefault(role, []).append(name)
    return {role: sorted(names) for role, names in kept.items()}


def _said(curve: Sequence[Point]) -> str:
    return ", ".join(f"{point.nodes}: {point.error:.1e}" for point in curve)
