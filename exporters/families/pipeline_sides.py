"""The two sides of every stage from the camera to the joint: lerobot's pipelines around its policy, and ours.

Each stage is judged on what lerobot gives it, so that a fault is found where it is; the whole is judged on
what the bundle itself hands on. In float64 the same pipelines and the same policy say what is rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from exporters import checkpoints
from exporters.bundle.processed import ProcessedRunner
from exporters.bundle.processors import POSTPROCESS, PREPROCESS, TASK, TOKENIZER, fitting, tokenizer_of
from exporters.bundle.registry import family_named
from exporters.bundle.store import StoredBundle
from exporters.bundles import Bundle
from exporters.families.lerobot_processors import Pipelines, pipelines, scale_of
from exporters.families.lerobot_prompt import another_vocabulary, apart
from exporters.families.lerobot_statistics import statistics_notes, unnormalised
from exporters.serving.candidate import Served
from pytest_reflex.errors import BundleError, CheckpointError, ReflexError, RunnerError
from pytest_reflex.inputs import InputSpec, make_fixture
from pytest_reflex.inputs.fixtures import Fixtures
from pytest_reflex.result import POLICY, WHOLE
from pytest_reflex.runners import FunctionRunner
from pytest_reflex.runners.base import first_line
from pytest_reflex.runners.float64 import lifted

__all__ = ["Derived", "PipelineStages", "stages"]

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
# A policy's or a stage's own way to run: its own, in float64, or rounded to what a candidate is in.
Run = Callable[[Arrays], dict[str, Array]]


@dataclass(frozen=True)
class Derived:
    """Fixtures made of others, one at a time; the last one is at hand.

    Attributes:
        base: the others.
        made: a fixture of one of them, by its number.
        specs: what they stand for, where that is known: of what a pipeline leaves as it is in each of them,
            such as a camera's mask, these have other values.
        seed: what those are drawn with.
    """

    base: Fixtures
    made: Callable[[int, Arrays], dict[str, Array]]
    specs: Sequence[InputSpec] = ()
    seed: int = 0

    def told(self, count: int, seed: int) -> Derived:
        return self

    def fixtures(self, specs: Sequence[InputSpec], count: int, seed: int) -> Fixtures:
        last: dict[int, dict[str, Array]] = {}

        def make(idx: int) -> dict[str, Array]:
            if idx not in last:
                found = self.made(idx, self.base.make(idx))
                last.clear()
                last[idx] = found
            return {name: array.copy() for name, array in last[idx].items()}

        base = self.base

        def spares(idx: int) -> Iterator[Arrays]:
            for number, other in enumerate(base.spares(idx), 1):
                yield self.made(base.count + number, {**base.make(idx), **other})
                if self.specs:  # from the first on, for there the ends are
                    yield make_fixture(self.specs, self.seed, number)

        return replace(
            base,
            seed=None,
            make=make,
            specs=(),
            spares=spares,
            given=(),
            known_distinct=base.distinct,
            derived=base.source != "recorded",
        )


class _Reference(FunctionRunner):
    """A stage as lerobot computes it; in float64 and in narrower precisions where its policy can."""

    def __init__(
        self, name: str, run: Callable[[Arrays, str], dict[str, Array]], doubted: Sequence[str] = ()
    ) -> None:
        super().__init__(lambda **given: run(given, "run"), name=name)
        self._run, self._doubted = run, list(doubted)

    def doubts(self, specs: Sequence[InputSpec]) -> list[str]:
        """See :class:`~pytest_reflex.runners.base.HasDoubts`: what lerobot does that nobody may mean."""
        return self._doubted

    def exact(self, inputs: Arrays) -> dict[str, Array]:
        """See :class:`~pytest_reflex.runners.base.HasFloat64`."""
        self._opened(self._open)
        try:
            return self._run({name: np.array(array) for name, array in inputs.items()}, "exact")
        except ReflexError:
            raise
        except Exception as error:
            raise RunnerError(f"{self.name} does not run in float64: {first_line(error)}") from error


class _Narrowed(_Reference):
    """The whole, whose policy alone a conversion rounds; the processors stay in float32."""

    def __init__(
        self, name: str, run: Callable[[Arrays, str], dict[str, Array]], through: Callable[[Arrays, Run], Any]
    ) -> None:
        super().__init__(name, run)
        self._through = through
        self.policy: Any = None

    def rounded(self, inputs: Arrays, precision: str, **ways: Any) -> dict[str, Array]:
        """See :class:`~pytest_reflex.runners.base.HasNarrower`."""
        made: dict[str, Array] = self._through(
            inputs, lambda read: dict(self.policy.rounded(read, precision, **ways))
        )
        return made

    def quantised(
        self, inputs: Arrays, activations: Any, ranges: Any = None, **ways: Any
    ) -> dict[str, Array]:
        """See :class:`~pytest_reflex.runners.base.HasNarrower`."""
        made: dict[str, Array] = self._through(
            inputs, lambda read: dict(self.policy.quantised(read, activations, ranges, **ways))
        )
        return made


def stages(
    bundle: Bundle | Served, policy: Any, source: Any, *, seed: int, provider: str, steps: int | None
) -> PipelineStages:
    """The two sides of every stage of a bundle with processors.

    Args:
        bundle: the bundle, on disk or served.
        policy: the live policy that it was made from.
        source: a checkpoint's directory, or the two pipelines; None for the checkpoint that the policy was
            loaded from.
        seed: what noise is drawn with.
        provider: the execution provider.
        steps: the denoising steps that are meant, where the caller says so.

    Raises:
        CheckpointError: nobody says what lerobot runs around the policy, or it cannot be had.
    """
    place = checkpoints.directory_of(policy) if source is None else source
    if place is None:
        raise CheckpointError(
            f"what is around the policy of {bundle.called} is not said, and the policy was loaded from no "
            "checkpoint; give a checkpoint's directory, or (preprocessor, postprocessor), after the bundle"
        )
    whole = pipelines(family_named(bundle.family), policy, place)
    return PipelineStages(policy, bundle, whole, seed, provider, steps)


class PipelineStages:
    """The two sides of every stage.

    Args:
        policy: the live policy, or a function that loads one.
        bundle: a bundle with processors, on disk or served; a served one is asked as a whole.
        whole: the policy with what lerobot runs around it.
        seed: what noise is drawn with.
        provider: the execution provider that the candidates run on.
        steps: the denoising steps that are meant, where the caller says so.
    """

    def __init__(
        self,
        policy: Any,
        bundle: Bundle | Served,
        whole: Pipelines,
        seed: int,
        provider: str = "cpu",
        steps: int | None = None,
    ) -> None:
        self.bundle, self.whole, self._seed, self._provider = bundle, whole, seed, provider
        self.name = bundle.called
        self.raw: Sequence[InputSpec] = whole.raw()
        self.narrower = bundle.stated.precision != "float32"
        read = [spec.name for spec in bundle.inputs]
        self.outputs: Mapping[str, Sequence[str]] = {
            PREPROCESS: read,
            POLICY: bundle.outputs,
            POSTPROCESS: ["action"],
            WHOLE: ["action"],
        }
        self._noise = [spec for spec in bundle.inputs if spec.name.endswith("noise")]
        self._specs = {spec.name: spec for spec in bundle.inputs}
        self._policy: Any = bundle.reference_runner(policy, steps)

    def close(self) -> None:
        """Give back the policy, which was opened where it was asked."""
        self._policy.close()

    def sides(self, stage: str, raw: Fixtures) -> tuple[Any, Any, Derived]:
        """Reference, candidate and fixtures of one stage, over raw observations."""
        if stage == POLICY:
            return self._policy, self.bundle, Derived(raw, self._read, self.bundle.inputs, self._seed)
        asked = {PREPROCESS: self._preprocessed, POSTPROCESS: self._postprocessed, WHOLE: self._acted}[stage]
        makes: dict[str, Callable[[int, Arrays], dict[str, Array]]] = {
            PREPROCESS: lambda idx, seen: dict(seen),
            POSTPROCESS: self._answers,
            WHOLE: lambda idx, seen: {**seen, **self._drawn(idx)},
        }
        called = f"lerobot's {stage}"
        steps = {PREPROCESS: self.whole.before.steps, POSTPROCESS: self.whole.after.steps}.get(stage, ())
        reference = _Reference(called, asked, self._unnormalised(stage, steps))
        if stage == WHOLE:
            reference = _Narrowed(called, asked, self._through)
            reference.policy = self._policy
        candidate: Any
        at_hand = self.bundle.here if isinstance(self.bundle, Served) else self.bundle
        if isinstance(self.bundle, Served) and stage == WHOLE:
            candidate = self.bundle.whole_runner(self._provider)
        elif at_hand is None:  # what is served answers what a robot asks
            raise BundleError(
                f"{self.bundle.called} answers no {stage} by itself; judge {POLICY} and {WHOLE}"
            )
        else:
            candidate = ProcessedRunner(at_hand, stage, self._provider)
            found = {PREPROCESS: self._words_apart, POSTPROCESS: self._scales_apart}.get(stage)
            candidate.apart = found(at_hand) if found is not None else ""
        raw = replace(raw, notes=(*raw.notes, *statistics_notes(steps)))
        return reference, candidate, Derived(raw, makes[stage])

    def _unnormalised(self, stage: str, steps: Sequence[Any]) -> list[str]:
        config = self.whole.policy.config
        features = {PREPROCESS: config.input_features, POSTPROCESS: config.output_features}.get(stage, {})
        return unnormalised(steps, features, config.normalization_mapping)

    def _words_apart(self, bundle: StoredBundle) -> str:
        """Of which text the bundle makes other tokens than lerobot; a few fixtures have few words."""
        said, step = bundle.stated.processors, self.whole.text
        if said is None or said.prompt is None or step is None:
            return ""
        stored = tokenizer_of(bundle.path / TOKENIZER)
        wrong = apart(step, said.prompt, stored) or another_vocabulary(step, stored)
        return f"of {wrong}; export the bundle again" if wrong else ""

    def _scales_apart(self, bundle: StoredBundle) -> str:
        """Whether what thresholds in the robot's units count by is what lerobot's pipelines do."""
        said = bundle.stated.processors
        shape = tuple(int(n) for n in bundle.stated.outputs[0]["shape"])
        own = scale_of(self.whole, shape)
        if said is None or (len(said.scale) == len(own) and np.allclose(said.scale, own, rtol=1e-6, atol=0)):
            return ""
        return (
            f"its manifest says that one of the policy's own units is {list(said.scale)} of the robot's, and "
            f"by lerobot's pipelines it is {list(own)}; export the bundle again"
        )

    def _drawn(self, idx: int) -> dict[str, Array]:
        return make_fixture(self._noise, self._seed, idx) if self._noise else {}

    def _preprocessed(self, raw: Arrays, way: str = "run") -> dict[str, Array]:
        found = self._observed(raw, way="run")
        if way == "run":
            return found
        # What is counted or chosen, such as a token, is what float32 chose: another one is no rounding.
        wide = self._observed(raw, way)
        return {name: wide[name] if array.dtype.kind == "f" else array for name, array in found.items()}

    def _observed(self, raw: Arrays, way: str) -> dict[str, Array]:
        raw = {spec.name: fitting(spec, raw) for spec in self.raw}
        length = self._specs["lang_tokens"].shape[1] if "lang_tokens" in self._specs else 0
        with torch.no_grad(), _precision(way):
            found = self.whole.inputs(self.whole.observed(raw), length)
            return {n: _array(found[n], way) for n in self._specs if n in found}

    def _read(self, idx: int, seen: Arrays) -> dict[str, Array]:
        whole = {**self._preprocessed(seen), **self._drawn(idx)}
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

    def _postprocessed(self, given: Arrays, way: str = "run") -> dict[str, Array]:
        kept = {name: array for name, array in given.items() if name != "actions"}
        if kept:
            with _precision(way):
                self.whole.remember(kept)
        return self._answered(given["actions"], way)

    def _answered(self, actions: Array, way: str) -> dict[str, Array]:
        with _precision(way):
            return {"action": _array(self.whole.answered(torch.from_numpy(actions)), way)}

    def _acted(self, given: Arrays, way: str = "run") -> dict[str, Array]:
        self._policy.open()
        ask: Run = self._policy.exact if way == "exact" else self._policy.run
        return self._through(given, ask, way)

    def _through(self, given: Arrays, ask: Run, way: str = "run") -> dict[str, Array]:
        """A raw observation and the noise through all stages, the policy asked in its own way."""
        raw = {name: array for name, array in given.items() if name not in self._specs or name == TASK}
        noise = {spec.name: given[spec.name] for spec in self._noise}
        read = {**self._preprocessed(raw, way), **noise}
        self._policy.open()
        gave = ask({name: read[name] for name in self._specs})[self.bundle.outputs[0]]
        return self._answered(gave, way)


@contextlib.contextmanager
def _precision(way: str) -> Iterator[None]:
    if way != "exact":
        yield
        return
    with lifted(), _SaysFloat32():
        yield


class _SaysFloat32(TorchFunctionMode):
    """What is computed in float64 says of itself that it is float32, where a program asks and refuses."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        return torch.float32 if found is torch.float64 and func == _DTYPE else found


_DTYPE: Any = torch.Tensor.dtype.__get__  # type: ignore[attr-defined]


def _array(tensor: torch.Tensor, way: str) -> Array:
    array: Array = np.ascontiguousarray(tensor.detach().numpy())
    return array.astype(np.float64) if way == "exact" and array.dtype == np.float32 else array
