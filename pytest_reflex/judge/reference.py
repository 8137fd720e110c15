"""Is the reference one? It is asked again, its hidden state is watched, and it is not the candidate's own
file.

What is true has to be a function of its inputs: one that counts its calls, keeps a buffer or draws random
numbers gives the export nothing to agree with.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from pytest_reflex.judge.input_dependence import unequal_bits
from pytest_reflex.runners import RecordedRunner, Runner
from pytest_reflex.runners.base import HasModel, HasState, asked
from pytest_reflex.verdict.metrics import largest_difference
from pytest_reflex.verdict.results import DREW, ONNX_REFERENCE

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]

# What a check may be judged against is PyTorch, or was recorded of it; these are what was made of it.
_MADE_OF_IT: Final = ("onnx", "bundle", "graph", "served", "torch.compile", "aotinductor", "executorch")
_PYTORCH: Final = ("torch", "recorded")
_GRAPHS: Final = ("onnx", "bundle", ONNX_REFERENCE)


@dataclass(frozen=True)
class Steadiness:
    """What was seen of a reference over its runs.

    Attributes:
        again: ``(fixture_idx, what it gave otherwise, how far that is off)`` of the first answer that was not
            repeated to the bit; None where all were.
        moved: what the model holds, buffers and attributes, that was not the same before and after its runs.
        counting: what of that moves each time the same question is asked.
        drew: whose random generators it drew from.
    """

    again: tuple[int, str, dict[str, float]] | None = None
    moved: tuple[str, ...] = ()
    counting: tuple[str, ...] = ()
    drew: tuple[str, ...] = ()


@dataclass
class Watch:
    """Runs a reference and sees what each run does to what is not its inputs."""

    runner: Runner
    drew: dict[str, None] = field(default_factory=dict)
    first: Mapping[str, object] = field(default_factory=dict)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        before = _generators()
        outputs = asked(self.runner, inputs)
        for name, state in _generators().items():
            if not _same_state(state, before[name]):
                self.drew[name] = None
        # What is made once, at the first run, is a cache.
        self.first = self.first or self.state()
        return outputs

    def state(self) -> Mapping[str, object]:
        return self.runner.state() if isinstance(self.runner, HasState) else {}

    def asked_again(
        self,
        make: Callable[[int], dict[str, Array]],
        outputs: Sequence[Arrays],
        report_progress: Callable[[], None],
    ) -> Steadiness:
        """Ask the open reference again, in another order than at first.

        Its first fixture, after its last; where its state cannot be seen the last too, at once after itself;
        and where it moves or numbers were drawn, every fixture twice, backwards and forwards.
        """
        if isinstance(self.runner, RecordedRunner):  # it answers from a table
            return Steadiness()
        count, last = len(outputs), self.state()
        moved = _moved(self.first, last)
        counting: tuple[str, ...] = ()
        again: tuple[int, str, dict[str, float]] | None = None
        for turn, idx in enumerate(
            _order(count, bool(moved or self.drew), isinstance(self.runner, HasState))
        ):
            got = self.run(make(idx))
            report_progress()
            said = unequal_bits(outputs[idx], got)
            if said and again is None:
                again = idx, said, _apart(outputs[idx], got)
            if turn == 0 and moved:  # the last fixture, asked twice running
                counting = _moved(last, self.state())
        if again is not None and not moved:
            moved = _moved(self.first, self.state())
        return Steadiness(again, moved, counting, tuple(self.drew))


def again_runs(runner: Runner) -> int:
    """How many runs :meth:`Watch.asked_again` takes of a reference that holds still."""
    return 0 if isinstance(runner, RecordedRunner) else 1 if isinstance(runner, HasState) else 2


def one_model(reference: Runner, candidate: Runner) -> list[str]:
    """A reason to refuse where both sides compute with one model; asked once both have run."""
    sides = ((reference, candidate), (candidate, reference))
    if not any(isinstance(one, HasModel) and one.same_model(other) for one, other in sides):
        return []
    return [f"both sides are {reference.name}, which is no comparison; give what was made of it"]


def judge_reference(
    seen: Steadiness,
    bounds: Mapping[str, float],
    reference: Mapping[str, Any],
    candidate: Mapping[str, Any],
) -> tuple[list[str], list[str]]:
    """Why the reference is none, and what makes it doubtful.

    Args:
        seen: what its runs showed.
        bounds: each output's bound; 0 where it has to be equal.
        reference: its facts.
        candidate: the candidate's facts.
    """
    refused = _not_two(reference, candidate)
    doubted: list[str] = []
    if reference.get("kind") == ONNX_REFERENCE:
        graph = reference.get("path") or reference.get("name")
        doubted.append(
            f"PyTorch was not asked: the reference was said to be {graph}, so this is an agreement of two "
            "graphs and proves no parity with any policy"
        )
    moved = f"; {', '.join(seen.moved)} changed meanwhile" if seen.moved else ""
    if seen.again is not None:
        idx, said, apart = seen.again
        why = f"the reference is no function of its inputs: fixture {idx} asked again gave other bits: {said}"
        # Asked this way round, a NaN is too far.
        near = all(figure < bounds.get(name, 0.0) for name, figure in apart.items())
        (doubted if near and apart else refused).append(why + moved)
    elif seen.counting:
        doubted.append(
            f"the reference keeps count: {', '.join(seen.counting)} changes each time the same fixture is "
            "asked, so that a later answer may be another; hold it still"
        )
    return refused, doubted


def half_precision(
    reference: Mapping[str, Any], exact: Sequence[Arrays | str], outputs: Sequence[Arrays]
) -> list[str]:
    """A doubt where the reference is not in float32: which precision, and how far that is from float64.

    Args:
        reference: its facts.
        exact: what it gives in float64 in each fixture, or why that is not known.
        outputs: what it gives.
    """
    if not is_half(reference):
        return []
    worst: dict[str, float] = {}
    unknown = next((said for said in exact if isinstance(said, str)), "")
    for truth, gave in zip(exact, outputs, strict=True):
        wide = {name: array.astype(np.float64) for name, array in gave.items() if array.dtype.kind == "f"}
        told = {} if isinstance(truth, str) else {name: truth[name] for name in wide if name in truth}
        for name, apart in _apart(told, wide).items():
            worst[name] = max(worst.get(name, 0.0), apart)
    far = ", ".join(f"{name} {apart:.1e}" for name, apart in worst.items())
    itself = f"itself up to {far} from float64" if far else f"how far from float64 is not known ({unknown})"
    return [
        f"the reference is in {reference['dtype']} and runs as it is, {itself}: what is nearer to it than "
        "that need not be nearer to the policy"
    ]


def is_half(reference: Mapping[str, Any]) -> bool:
    """Whether a reference is PyTorch in half precision, by its facts."""
    return reference.get("kind") == "torch" and reference.get("dtype") not in (None, "float32")


def random_numbers(seen: Steadiness, reference: Mapping[str, Any]) -> list[str]:
    """A doubt where the reference drew random numbers, torch's by what its facts say."""
    drew = ["torch", *seen.drew] if reference.get("drew_random") else seen.drew
    if not drew:
        return []
    whose = " and ".join(f"{name}'s" for name in drew)
    return [
        f"the reference drew from {whose} {DREW}, so inputs alone do not determine its output; pass noise as "
        "an input"
    ]


def _order(count: int, restless: bool, seen: bool) -> Iterator[int]:
    if restless:
        yield from reversed(range(count))
        yield from range(count)
    elif not seen:
        yield count - 1
        yield 0
    else:
        yield 0


def _not_two(reference: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    """Why the two sides are one, or none of them PyTorch."""
    kinds = reference.get("kind"), candidate.get("kind")
    if _artifact(reference, "path") and _artifact(reference, "path") == _artifact(candidate, "path"):
        return [f"both sides are {reference['path']}, which is no comparison; give the PyTorch policy"]
    if _same_files(reference, candidate):
        return [
            f"both sides hold the same bytes, {reference.get('path')} and {candidate.get('path')}; give the "
            "PyTorch policy as reference"
        ]
    if kinds[0] == ONNX_REFERENCE and kinds[1] in _PYTORCH:
        return ["the reference was said to be an ONNX graph and the candidate is PyTorch; turn the two round"]
    if kinds[0] in _MADE_OF_IT and kinds[1] not in _PYTORCH:
        return [
            f"the reference is {reference.get('name')}, which is neither PyTorch nor a recording of it; give "
            "the policy that the candidate was made from, or say that a graph is to be the judge with "
            "OnnxReference"
        ]
    return []


def _same_files(reference: Mapping[str, Any], candidate: Mapping[str, Any]) -> bool:
    """Whether both sides hold the same bytes; of graphs, whether one's files are all among the other's."""
    given = reference.get("sha256"), candidate.get("sha256")
    if not all(side.get("kind") in _GRAPHS for side in (reference, candidate)):
        return bool(given[0]) and given[0] == given[1]
    # A bundle holds more than its graph and the weights of that.
    one, other = (
        set(said.values() if isinstance(said, Mapping) else [said] if said else ()) for said in given
    )
    return bool(one and other) and (one <= other or other <= one)


def _artifact(facts: Mapping[str, Any], key: str) -> str:
    path = facts.get(key)
    if not isinstance(path, str) or not path:
        return ""
    return path if "://" in path else os.path.realpath(path)


def _apart(first: Arrays, again: Arrays) -> dict[str, float]:
    """How far two answers are apart, by output; nothing where they cannot be laid side by side."""
    try:
        return {name: largest_difference(a, again[name]) for name, a in first.items() if a.size}
    except (ValueError, KeyError):
        return {}


def _moved(before: Mapping[str, object], after: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(name for name in {**before, **after} if before.get(name) != after.get(name))


def _generators() -> dict[str, tuple[Any, ...]]:
    """The states of the generators that are everybody's; torch's is for its runner to watch."""
    return {"numpy": tuple(np.random.get_state(legacy=True)), "Python": random.getstate()}


def _same_state(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return all(
        np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in zip(one, other, strict=True)
    )
