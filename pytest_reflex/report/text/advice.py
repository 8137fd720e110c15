"""What to look at next, gate by gate: the causes found behind each kind of failure, likeliest first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from pytest_reflex.verdict.divergence import Location
from pytest_reflex.verdict.results import Answer, RunResult


def next_steps(result: RunResult, refusal: Answer) -> str:
    """One short paragraph for the refusal that a result's first line names.

    Files that were changed explain whatever else is wrong, so they are spoken of first.
    """
    if any(answer.gate == "intact" and not answer.passed for answer in result.answers):
        return _intact(result)
    if result.located is not None and result.located.place is not None:
        return _located(result.located.place)
    return _ADVICE.get(refusal.gate, _unknown)(result)


def _located(place: Location) -> str:
    where = f"{place.source} and " if place.source else ""
    return (
        f"look at {where}the graph's node {place.node}; reflex locate DIR --model MODEL --repro OUT writes "
        "the smallest graph that shows it, with a script that needs onnxruntime and numpy alone."
    )


def _structure(result: RunResult) -> str:
    return (
        "compare the output names, order, dtypes and shapes of the two sides; a wrong dtype often means "
        "a model in half precision, a wrong shape a chunk length or a batch size fixed while tracing."
    )


def _provider(result: RunResult) -> str:
    return (
        "see with onnxruntime.get_available_providers() what this build has, then install the build that has "
        "the provider, or ask for another."
    )


def _finite(result: RunResult) -> str:
    return (
        "look for the first value that is not finite: often an attention row in which everything is masked, "
        "or an overflow in half precision."
    )


def _exact(result: RunResult) -> str:
    return (
        "integers and booleans must be equal, so look for an argmax or a rounding whose input differs in the "
        "last bits, or a token id or mask that was built otherwise."
    )


def _threshold(result: RunResult) -> str:
    failing = [f.fixture_idx for f in result.fixtures if not f.passed]
    passing = [f.fixture_idx for f in result.fixtures if f.passed]
    if passing:
        return (
            f"compare the inputs of fixture {failing[0]}, which fails, with those of fixture {passing[0]}, "
            "which passes: a masked camera, a short prompt or a state at its limits is where masks and "
            "padding go wrong."
        )
    return (
        "every fixture fails, so look at what all of them pass through: the weights, the number of steps and "
        "their times, an attention mask, constants that should be float64."
    )


def _intact(result: RunResult) -> str:
    return "export the bundle again, or find out who changed its files: what was proven is not what is there."


def _compared(result: RunResult) -> str:
    return "give the check fixtures, inputs and outputs to compare; what was not compared is never a pass."


def _reference(result: RunResult) -> str:
    return (
        "give the PyTorch policy itself, in eval mode: what changes from call to call must be an input (noise, a "
        "step) or be reset, and what was made of the policy is never its judge."
    )


def _power(result: RunResult) -> str:
    return (
        "give a threshold that is small beside what the output does, 1 % of it or less, or in floors, such as "
        "2x floor; an output far smaller than the others may need a check of its own."
    )


def _variation(result: RunResult) -> str:
    return (
        "draw more fixtures (--fixtures N): what was never drawn, or had one size only, was never compared."
    )


def _repeat(result: RunResult) -> str:
    return (
        "look for a random operator in the graph (noise must be an input) or a provider that sums in no "
        "fixed order; an answer that does not repeat cannot be trusted."
    )


def _inputs(result: RunResult) -> str:
    return (
        "look for where the input leaves the graph: an input that is not wired, a mask that was dropped, or "
        "a value that was fixed while tracing."
    )


def _unknown(result: RunResult) -> str:
    return "run the check again with --reflex-report DIR and read every figure there."


_ADVICE: Final[Mapping[str, Callable[[RunResult], str]]] = MappingProxyType(
    {
        "structure": _structure,
        "provider": _provider,
        "finite": _finite,
        "exact": _exact,
        "threshold": _threshold,
        "intact": _intact,
        "compared": _compared,
        "reference": _reference,
        "power": _power,
        "variation": _variation,
        "repeat": _repeat,
        "inputs": _inputs,
    }
)
