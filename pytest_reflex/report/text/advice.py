"""What to look at next, gate by gate: the causes found behind each kind of failure, likeliest first."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from pytest_reflex.verdict.divergence import Location
from pytest_reflex.verdict.results import Answer, RunResult

_ADVICE: Final = MappingProxyType(
    {
        "structure": "compare the output names, order, dtypes and shapes of the two sides; a wrong dtype "
        "often means a model in half precision, a wrong shape a chunk length or a batch size fixed while "
        "tracing.",
        "provider": "see with onnxruntime.get_available_providers() what this build has, then install the "
        "build that has the provider, or ask for another.",
        "finite": "look for the first value that is not finite: often an attention row in which everything "
        "is masked, or an overflow in half precision.",
        "exact": "integers and booleans must be equal, so look for an argmax or a rounding whose input "
        "differs in the last bits, or a token id or mask that was built otherwise.",
        "threshold": "every fixture fails, so look at what all of them pass through: the weights, the number "
        "of steps and their times, an attention mask, constants that should be float64.",
        "intact": "export the bundle again, or find out who changed its files: what was proven is not what "
        "is there.",
        "compared": "give the check fixtures, inputs and outputs to compare; what was not compared is never "
        "a pass.",
        "reference": "give the PyTorch policy itself, in eval mode: what changes from call to call must be "
        "an input (such as noise) or be reset, and what was made of the policy is never its judge.",
        "power": "give a threshold that is small beside what the output does, 1 % of it or less, or in "
        "floors, such as 2x floor; an output far smaller than the others may need a check of its own.",
        "variation": "draw more fixtures (--fixtures N): what was never drawn, or had one size, was never "
        "compared.",
        "repeat": "look for a random operator in the graph (noise must be an input) or a provider that sums "
        "in no fixed order; an answer that does not repeat cannot be trusted.",
        "inputs": "look for where the input leaves the graph: an input that is not wired, a mask that was "
        "dropped, or a value that was fixed while tracing.",
    }
)


def next_steps(result: RunResult, refusal: Answer) -> str:
    """One short paragraph for the refusal that a result's first line names.

    Files that were changed explain whatever else is wrong, so they are spoken of first.
    """
    if any(answer.gate == "intact" and not answer.passed for answer in result.answers):
        return _ADVICE["intact"]
    if result.located is not None and result.located.place is not None:
        return _located(result.located.place)
    passing = [fixture.fixture_idx for fixture in result.fixtures if fixture.passed]
    if refusal.gate == "threshold" and passing:
        failing = next(fixture.fixture_idx for fixture in result.fixtures if not fixture.passed)
        return (
            f"compare the inputs of fixture {failing}, which fails, with those of fixture {passing[0]}, "
            "which passes: a masked camera, a short prompt or a state at its limits is where masks and "
            "padding go wrong."
        )
    return _ADVICE.get(
        refusal.gate, "run the check again with --reflex-report DIR and read every figure there."
    )


def _located(place: Location) -> str:
    where = f"{place.source} and " if place.source else ""
    return (
        f"look at {where}the graph's node {place.node}; reflex locate DIR --model MODEL --repro OUT writes "
        "the smallest graph that shows it, with a script that needs onnxruntime and numpy alone."
    )
