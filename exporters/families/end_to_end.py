"""From the camera to the joint: a bundle with its processors, judged stage by stage against lerobot's own.

Each stage is judged on what lerobot gives it, so that a fault is found where it is; the whole is judged on
what the bundle itself hands on. The reference is lerobot's pipelines around its own policy, unpatched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch

from exporters.bundle.kept import linked
from exporters.bundle.manifest import write_manifest
from exporters.bundle.processors import POSTPROCESS, PREPROCESS, TASK, TOKENIZER, OpenProcessors
from exporters.bundle.registry import family_named
from exporters.bundle.store import file_facts, staged
from exporters.bundles import Bundle, open_bundle
from exporters.families.lerobot_processors import Pipelines, graphs_of, pipelines, said_of, tokenizer_text
from exporters.graph.graph_passes import write_graph
from exporters.graph.tracing import trace
from pytest_reflex.errors import BundleError, ParityError, SettingsError
from pytest_reflex.inputs import InputSpec, make_fixture
from pytest_reflex.inputs.fixtures import Fixtures, MakesFixtures, fixtures_from
from pytest_reflex.judge.check import check
from pytest_reflex.report.text.terminal import headline
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import FunctionRunner, OnnxRunner
from pytest_reflex.runners.base import RunnerBase

__all__ = ["STAGES", "PipelineResult", "add_processors", "check_pipeline"]

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]

POLICY, WHOLE = "policy", "whole"
# In the order in which an observation goes through them; the whole last.
STAGES: Final = (PREPROCESS, POLICY, POSTPROCESS, WHOLE)
# In the robot's units: a thousandth of a degree is far below what a joint's encoder sees.
IN_UNITS: Final = 1e-3


@dataclass(frozen=True)
class PipelineResult:
    """The verdict on a bundle with its processors.

    Attributes:
        stages: the result of each stage, by its name, in order.
    """

    stages: Mapping[str, ParityResult]

    @property
    def passed(self) -> bool:
        """Whether every stage has been judged, and has passed."""
        return tuple(self.stages) == STAGES and all(result.passed for result in self.stages.values())

    @property
    def failing(self) -> str | None:
        """The first stage that failed."""
        return next((stage for stage, result in self.stages.items() if not result.passed), None)

    def __str__(self) -> str:
        """The stage that failed first; then each stage in a line, and the whole report of that one."""
        said = [f"{stage}: {headline(result)}" for stage, result in self.stages.items()]
        if self.failing is None and not self.passed:
            left = ", ".join(stage for stage in STAGES if stage not in self.stages)
            return "\n".join([f"pipeline FAIL: not judged: {left}", *said])
        if self.failing is None:
            return "\n".join([f"pipeline PASS: {', '.join(self.stages)}", *said])
        first = self.stages[self.failing]
        return "\n".join([f"pipeline FAIL in {self.failing}: {headline(first)}", *said, "", str(first)])

    def require(self) -> PipelineResult:
        """Itself where every stage passed.

        Raises:
            ParityError: one did not; the first line names the first that did not.
        """
        if self.passed:
            return self
        raise ParityError(str(self), self.stages.get(self.failing or WHOLE))


def add_processors(
    policy: Any,
    bundle: Bundle,
    source: str | os.PathLike[str] | tuple[Any, Any],
    *,
    names: Sequence[str] = (),
    **judging: Any,
) -> tuple[Bundle, PipelineResult]:
    """Put lerobot's processors into a bundle, proven stage by stage before it takes the bundle's place.

    Args:
        policy: the live policy that the bundle was made from.
        bundle: the bundle.
        source: the checkpoint with ``policy_preprocessor.json`` and ``policy_postprocessor.json``, or the two
            pipelines as lerobot makes them.
        names: what each element of an action is called.
        **judging: what :func:`check_pipeline` takes.

    Returns:
        The bundle as it is now, and the verdict.

    Raises:
        ParityError: a stage failed; the bundle stays as it was.
        ReflexError: the processors could not be had, traced or judged; the bundle stays as it was.
    """
    if bundle.changed:
        raise BundleError(f"{bundle.changed}; export the bundle again")
    family = family_named(bundle.family)
    whole = pipelines(family, policy, source)
    said = said_of(whole, bundle.inputs, bundle.outputs[0])
    shape = tuple(int(n) for n in bundle.stated.outputs[0]["shape"])
    with staged(bundle.path) as stage:
        for name in bundle.stated.files:
            linked(bundle.path / name, stage / name)
        files = dict(bundle.stated.files)
        for role, (module, example) in graphs_of(whole, shape).items():
            files |= write_graph(trace(module.eval(), module, example), stage, role)
        if said.prompt is not None:
            (stage / TOKENIZER).write_text(tokenizer_text(whole), encoding="utf-8")
            files |= file_facts(stage, [TOKENIZER])
        graphs = {role: f"{role}.onnx" for role in (PREPROCESS, POSTPROCESS)}
        processors = replace(said, graphs=graphs, names=tuple(names))
        manifest = write_manifest(stage, replace(bundle.stated, processors=processors, files=files))
        made = Bundle(stage, manifest, shown=bundle.called)
        result = check_pipeline(policy, made, source, **judging).require()
    return open_bundle(bundle.path), result


def check_pipeline(
    policy: Any,
    bundle: Bundle,
    source: str | os.PathLike[str] | tuple[Any, Any],
    *,
    inputs: MakesFixtures | None = None,
    fixtures: int = 5,
    seed: int = 0,
    thresholds: Mapping[str, Any] | None = None,
    stages: Sequence[str] = STAGES,
    **options: Any,
) -> PipelineResult:
    """Judge a bundle with its processors, stage by stage and whole.

    Args:
        policy: the live policy that it was made from.
        bundle: a bundle with processors.
        source: as for :func:`add_processors`: what lerobot runs around the policy.
        inputs: the episodes of a recording; by default raw observations are drawn.
        fixtures: how many observations are judged, where the episodes do not say it.
        seed: what they are drawn or chosen with, and their noise.
        thresholds: the threshold of a stage, by its name; by default 1e-3 in the robot's units for what comes
            after the policy, and the check's own before.
        stages: those that are judged; a result without all of them is no pass.
        **options: further keywords of :func:`pytest_reflex.check`, for every stage.

    Raises:
        BundleError: the bundle has no processors.
        SettingsError: a threshold is of no stage, or a stage is none.
    """
    told = {POSTPROCESS: IN_UNITS, WHOLE: IN_UNITS, **(thresholds or {})}
    if strange := (told.keys() | {*stages}) - {*STAGES}:
        raise SettingsError(f"there is no stage {sorted(strange)[0]!r}; give {', '.join(STAGES)}")
    if bundle.stated.processors is None:
        raise BundleError(
            f"{bundle.called} has no processors; add_processors(policy, bundle, ...) puts them in"
        )
    made = _Stages(policy, bundle, pipelines(family_named(bundle.family), policy, source), seed)
    raw = fixtures_from(made.whole.raw() if inputs is None else inputs, fixtures, seed, made.whole.raw())
    found = {}
    with closing(made):
        for stage in [known for known in STAGES if known in stages]:
            reference, candidate, given = made.sides(stage, raw)
            limit = {"threshold": told[stage]} if stage in told else {}
            found[stage] = check(
                reference, candidate, inputs=given, name=f"{bundle.called}: {stage}", **limit, **options
            )
    return PipelineResult(found)


@dataclass(frozen=True)
class _Derived:
    """Fixtures made of others, one at a time; the last one is at hand."""

    base: Fixtures
    made: Callable[[int, Arrays], dict[str, Array]]

    def told(self, count: int, seed: int) -> _Derived:
        return self

    def fixtures(self, specs: Sequence[InputSpec], count: int, seed: int) -> Fixtures:
        last: dict[int, dict[str, Array]] = {}

        def make(idx: int) -> dict[str, Array]:
            if idx not in last:
                found = self.made(idx, self.base.make(idx))
                last.clear()
                last[idx] = found
            return {name: array.copy() for name, array in last[idx].items()}

        def spares(idx: int) -> Iterator[Arrays]:
            return (self.made(idx, {**self.base.make(idx), **other}) for other in self.base.spares(idx))

        base = self.base
        known = base.known_distinct if base.known_distinct is not None else base.count
        return replace(base, seed=None, make=make, specs=(), spares=spares, given=(), known_distinct=known)


class _Stages:
    """The two sides of every stage."""

    def __init__(self, policy: Any, bundle: Bundle, whole: Pipelines, seed: int) -> None:
        self.bundle, self.whole, self._seed = bundle, whole, seed
        self._noise = [spec for spec in bundle.inputs if spec.name.endswith("noise")]
        self._specs = {spec.name: spec for spec in bundle.inputs}
        self._policy = bundle.reference_runner(policy)

    def close(self) -> None:
        """Give back the policy, which was opened where it was asked."""
        self._policy.close()

    def sides(self, stage: str, raw: Fixtures) -> tuple[Any, Any, _Derived]:
        processors = self.bundle.stated.processors
        if processors is None:
            raise BundleError(f"{self.bundle.called} has no processors")
        opened = OpenProcessors(self.bundle.path, processors)
        if stage == POLICY:
            return self._policy, self.bundle, _Derived(raw, lambda idx, seen: self._read(idx, seen))
        asked: dict[str, Callable[..., Any]] = {
            PREPROCESS: self._preprocessed,
            POSTPROCESS: self._postprocessed,
            WHOLE: self._acted,
        }
        reference = asked[stage]
        candidate = _Candidate(stage, self.bundle, opened)
        makes: dict[str, Callable[[int, Arrays], dict[str, Array]]] = {
            PREPROCESS: lambda idx, seen: dict(seen),
            POSTPROCESS: self._answers,
            WHOLE: lambda idx, seen: {**seen, **self._drawn(idx)},
        }
        given = makes[stage]
        return FunctionRunner(reference, name=f"lerobot's {stage}"), candidate, _Derived(raw, given)

    def _drawn(self, idx: int) -> dict[str, Array]:
        return make_fixture(self._noise, self._seed, idx) if self._noise else {}

    def _preprocessed(self, **raw: Array) -> dict[str, Array]:
        length = self._specs["lang_tokens"].shape[1] if "lang_tokens" in self._specs else 0
        with torch.no_grad():
            found = self.whole.inputs(self.whole.observed(raw), length)
        return {n: np.ascontiguousarray(found[n].numpy()) for n in self._specs if n in found}

    def _read(self, idx: int, seen: Arrays) -> dict[str, Array]:
        whole = {**self._preprocessed(**seen), **self._drawn(idx)}
        return {name: whole[name] for name in self._specs}

    def _answers(self, idx: int, seen: Arrays) -> dict[str, Array]:
        """What lerobot's policy gives, and what of the observation lerobot's postprocessing remembers."""
        read = self._read(idx, seen)
        self._policy.open()
        gave = self._policy.run(read)[self.bundle.outputs[0]]
        kept = {name: seen[name] for name in self._remembered if name in seen}
        return {"actions": gave, **kept}

    @property
    def _remembered(self) -> tuple[str, ...]:
        steps = self.whole.after.steps
        relative = any(getattr(step, "enabled", False) for step in steps)
        return (self.whole.named_state,) if relative else ()

    def _postprocessed(self, actions: Array, **kept: Array) -> dict[str, Array]:
        if kept:
            self.whole.remember(kept)
        return {"action": self.whole.answered(torch.from_numpy(actions)).numpy()}

    def _acted(self, **seen: Array) -> dict[str, Array]:
        raw = {name: array for name, array in seen.items() if name not in self._specs or name == TASK}
        noise = {spec.name: seen[spec.name] for spec in self._noise}
        read = {**self._preprocessed(**raw), **noise}
        self._policy.open()
        gave = self._policy.run({name: read[name] for name in self._specs})[self.bundle.outputs[0]]
        return {"action": self.whole.answered(torch.from_numpy(gave)).numpy()}


class _Candidate(RunnerBase):
    """One stage of a bundle, or all of them, as a robot runs them."""

    def __init__(self, stage: str, bundle: Bundle, opened: OpenProcessors) -> None:
        self.name = f"{bundle.called}: {stage}"
        self._stage, self._opened_processors = stage, opened
        self._policy = bundle.runner() if stage == WHOLE else None
        self._bundle = bundle

    def open(self) -> None:
        self._opened_processors.open()
        if self._policy is not None:
            self._policy.open()

    def close(self) -> None:
        self._opened_processors.close()
        if self._policy is not None:
            self._policy.close()

    @property
    def _sessions(self) -> list[OnnxRunner]:
        both = {PREPROCESS: [self._opened_processors.before], POSTPROCESS: [self._opened_processors.after]}
        return both.get(self._stage, [self._opened_processors.before, self._opened_processors.after])

    @property
    def provider_asked(self) -> str:
        return self._sessions[0].provider_asked

    @property
    def providers_used(self) -> Sequence[str]:
        return self._sessions[0].providers_used

    @property
    def changed(self) -> str:
        """What its files are that the manifest does not say."""
        return "; ".join(dict.fromkeys(filter(None, (session.changed for session in self._sessions))))

    def facts(self) -> dict[str, Any]:
        return {**self._sessions[0].facts(), "kind": "bundle", "name": self.name, "path": self.name}

    def run(self, inputs: Arrays) -> dict[str, Array]:
        if self._stage == PREPROCESS:
            return self._opened_processors.preprocess(inputs)
        if self._stage == POSTPROCESS:
            raw = {name: array for name, array in inputs.items() if name != "actions"}
            return {"action": self._opened_processors.postprocess(inputs["actions"], raw)}
        known = {spec.name for spec in self._opened_processors.said.raw}
        raw = {name: array for name, array in inputs.items() if name in known}
        noise = {name: array for name, array in inputs.items() if name not in known}
        read = {**self._opened_processors.preprocess(raw), **noise}
        policy = self._opened(self._policy)
        gave = policy.run({spec.name: read[spec.name] for spec in self._bundle.inputs})
        return {
            "action": self._opened_processors.postprocess(gave[self._opened_processors.said.actions], raw)
        }
