"""A policy with its processors, from the camera to the joint: judged stage by stage, and whole.

What the two sides of a stage are the candidate knows; which settings each stage is judged with is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from pytest_reflex import settings
from pytest_reflex.errors import BundleError, SettingsError, a_type
from pytest_reflex.inputs import InputSpec
from pytest_reflex.inputs.fixtures import Fixtures, MakesFixtures, fixtures_from
from pytest_reflex.judge.check import check
from pytest_reflex.result import POSTPROCESS, PREPROCESS, STAGES, WHOLE, ParityResult, PipelineResult
from pytest_reflex.verdict.tolerances import Amount, Tolerances
from pytest_reflex.verdict.units import OWN

__all__ = ["HasStages", "Stages", "check_pipeline", "judged"]

# In the robot's units: a thousandth of a degree is far below what a joint's encoder sees.
IN_UNITS: Final = Amount(1e-3, unit=OWN)
# So many raw observations are kept in a bundle, for whoever has no torch.
KEPT: Final = 8


class Stages(Protocol):
    """The two sides of every stage of one candidate.

    Attributes:
        name: what the candidate is called.
        raw: what a robot gives.
        outputs: what each stage gives, by its name.
        narrower: whether the policy is in another precision than float32.
    """

    name: str
    raw: Sequence[InputSpec]
    outputs: Mapping[str, Sequence[str]]
    narrower: bool

    def sides(self, stage: str, raw: Fixtures) -> tuple[Any, Any, MakesFixtures]:
        """Reference, candidate and fixtures of one stage, over raw observations."""

    def close(self) -> None:
        """Give back what is held."""


@runtime_checkable
class HasStages(Protocol):
    """A candidate that has processors around its policy, as a bundle may."""

    def stages(
        self, policy: Any, source: Any = None, *, seed: int, provider: str, steps: int | None
    ) -> Stages:
        """The two sides of its stages; see :meth:`exporters.bundles.Bundle.stages`."""


def check_pipeline(
    policy: Any,
    bundle: Any,
    source: Any = None,
    *,
    inputs: MakesFixtures | None = None,
    fixtures: int | None = None,
    seed: int = 0,
    thresholds: Mapping[str, Any] | None = None,
    stages: Sequence[str] = STAGES,
    steps: int | None = None,
    **options: Any,
) -> PipelineResult:
    """Judge a bundle with its processors, stage by stage and whole.

    Args:
        policy: the live policy that it was made from.
        bundle: a bundle with processors; of one that is served the whole alone can be judged.
        source: what lerobot runs around the policy: the checkpoint with ``policy_preprocessor.json`` and
            ``policy_postprocessor.json``, or the two pipelines as lerobot makes them; by default the
            checkpoint that the policy was loaded from.
        inputs: the episodes of a recording; by default raw observations are drawn.
        fixtures: how many observations are judged, where the episodes do not say it; by default 5.
        seed: what they are drawn or chosen with, and their noise.
        thresholds: the threshold of a stage, by its name; by default ``threshold`` where that is in floors or
            in a physical unit, else 1e-3 in each element's own unit for what comes after the policy, and
            ``threshold`` or the check's own before.
        stages: those that are judged; a result without all of them is no pass.
        steps: the denoising steps that are meant, where the bundle takes others than the policy itself.
        **options: further keywords of :func:`pytest_reflex.check`, for every stage.

    Raises:
        BundleError: the bundle has no processors.
        SettingsError: a threshold is of no stage, or a stage is none.
    """
    told: dict[str, Any] = {"inputs": inputs, "fixtures": fixtures, "seed": seed, "thresholds": thresholds}
    made = stages_of(bundle, policy, source, settings.seed(seed, "seed"), options.get("provider"), steps)
    return judged(made, stages=stages, **told, **options)


def stages_of(
    bundle: Any, policy: Any, source: Any, seed: int | None, provider: str | None, steps: int | None
) -> Stages:
    """The two sides of a candidate's stages.

    Raises:
        BundleError: it is nothing that has processors.
    """
    if not isinstance(bundle, HasStages):
        raise BundleError(f"{a_type(bundle)} has no processors; give a bundle that has them")
    return bundle.stages(policy, source, seed=seed or 0, provider=provider or "cpu", steps=steps)


def judged(
    made: Stages,
    *,
    inputs: MakesFixtures | None = None,
    fixtures: int | None = None,
    seed: int | None = None,
    thresholds: Mapping[str, Any] | None = None,
    stages: Sequence[str] = STAGES,
    name: str | None = None,
    seen: list[Any] | None = None,
    judge: Callable[..., ParityResult] = check,
    **options: Any,
) -> PipelineResult:
    """:func:`check_pipeline` with the sides at hand, which are closed.

    Args:
        made: the sides.
        inputs: as there.
        fixtures: as there.
        seed: as there.
        thresholds: as there.
        stages: as there.
        name: what the results are called, before their stage; by default as the candidate is.
        seen: is given :data:`KEPT` of the whole's fixtures, and what the reference gave.
        judge: judges one stage, called as :func:`pytest_reflex.check` is.
        **options: as there.
    """
    fixtures = 5 if fixtures is None else settings.fixtures(fixtures, "fixtures")
    seed = 0 if seed is None else settings.seed(seed, "seed")
    units, called = options.pop("units", None), name or made.name
    with closing(made):
        stages = [stages] if isinstance(stages, str) else stages
        limits = _limits(made, options.pop("threshold", None), thresholds, stages)
        raw = fixtures_from(made.raw if inputs is None else inputs, fixtures, seed, made.raw)
        kept = {round(float(at)) for at in np.linspace(0, raw.count - 1, min(raw.count, KEPT))}
        found: dict[str, ParityResult] = {}
        for stage in [known for known in STAGES if known in stages]:
            turn = iter(range(raw.count))
            reference, candidate, given = made.sides(stage, raw)

            def record(read: Any, gave: Any, turn: Any = turn) -> None:
                if next(turn, -1) in kept and seen is not None:
                    seen.append((read, gave))

            found[stage] = judge(
                reference,
                candidate,
                inputs=given,
                name=f"{called}: {stage}",
                record=record if stage == WHOLE and seen is not None else None,
                **{**options, **limits.get(stage, {}), "units": None if stage == PREPROCESS else units},
            )
    return PipelineResult(found)


def _limits(
    made: Stages, threshold: object, thresholds: Mapping[str, Any] | None, stages: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """What each stage is told of its threshold.

    Raises:
        SettingsError: a threshold is of no stage or of no output, or a stage is none.
    """
    if not isinstance(thresholds, Mapping | None):
        raise SettingsError(
            f"thresholds is {a_type(thresholds)}, expected those of stages by name, such as "
            "{'whole': '0.001 deg'}"
        )
    if strange := ({*(thresholds or {})} | {*stages}) - {*STAGES}:
        raise SettingsError(f"there is no stage {sorted(strange)[0]!r}; give {', '.join(STAGES)}")
    asked = None if threshold is None else settings.threshold(threshold)
    known = [name for names in made.outputs.values() for name in names]
    if asked is not None and (unknown := next((name for name in asked.outputs if name not in known), None)):
        there = ", ".join(dict.fromkeys(known))
        raise SettingsError(f"threshold: there is no output {unknown!r}; the stages give {there}")
    told: dict[str, Any] = {}
    for stage in STAGES:
        behind = stage in (POSTPROCESS, WHOLE)
        # A conversion is held to the rounding of its precision, which the check knows.
        narrower = stage == WHOLE and made.narrower
        rest = asked.rest if asked is not None else settings.UNSAID
        if behind and (rest == settings.UNSAID or rest.plain):
            rest = settings.UNSAID if narrower else IN_UNITS
        if stage == PREPROCESS and rest.unit:
            rest = settings.UNSAID
        own = {n: one for n, one in (asked.outputs if asked else {}).items() if n in made.outputs[stage]}
        if rest != settings.UNSAID or own:
            told[stage] = Tolerances(rest, own)
    told |= thresholds or {}
    return {stage: {"threshold": limit} for stage, limit in told.items()}
