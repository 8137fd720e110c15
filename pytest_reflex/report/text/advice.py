"""What to look at next, gate by gate: the causes found behind each kind of failure, likeliest first."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from pytest_reflex.verdict.claim import MOST_SHARE, percent, seconds_text
from pytest_reflex.verdict.divergence import Location
from pytest_reflex.verdict.results import (
    ANOTHER,
    BASELINE_GATE,
    DEAD,
    DRAWS,
    DREW,
    ELSEWHERE,
    IDLE,
    OPEN_AXIS,
    SWAPPED,
    TRAP,
    Answer,
    RunResult,
    named_fixture,
)
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD

# So much of an output, where the error is concentrated, is little of it; so much of what it is, is small.
FEW: Final = 0.05
# Fixtures that are off by no more than so many times what others are, are off alike.
NEAR: Final = 4.0
SMALL: Final = 1e-2
# So many units in the last place are what another order of summing does.
FEW_ULPS: Final = 16

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
        BASELINE_GATE: "find out what changed since the baseline was kept, or take the figures as they are "
        "with --reflex-baseline-update.",
        "coverage": "see under Coverage what was never asked: give the input that it hangs on a wider "
        "meaning, or recorded frames in which it happens (inputs=, --episodes); or ask for a lower share, "
        "where no input of the robot's goes the other way.",
        "claim": "see under Claim what was reached; more fixtures establish more.",
        "inputs": "look for where the input leaves the graph: an input that is not wired, a mask that was "
        "dropped, or a value that was fixed while tracing.",
    }
)


_LIKE_THE_POLICY: Final = (
    "export it again from this policy, or give the policy that it was made from; where other steps are "
    "meant, say so as above."
)


_ANOTHER: Final = (
    "the bundle was made of a policy that answers otherwise than this one: of another checkpoint, trained on "
    "or changed since, or made anew each time without a seed (torch.manual_seed(0)). Give that one, or "
    "export this."
)


_IDLE: Final = (
    "where other inputs decide whether it is read, such as a mask that is off in these fixtures, take "
    "another seed (--seed N) or recorded frames in which it is on; an input that the policy never reads is "
    "none of its inputs: leave it out of them, or judge without strict."
)


# By gate, then by what a refusal says, which asks for another thing than most of its gate.
_OF_REASON: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "inputs": {IDLE: _IDLE},
        "variation": {
            OPEN_AXIS: "say in the InputSpec of each of these inputs that the axis is free, as above, so "
            "that several sizes are drawn; more fixtures of one size say nothing of another."
        },
        "compared": {
            DRAWS: "put the policy into evaluation mode, policy.eval(), before it is exported, and give what "
            "it draws on purpose as an input; one process repeats what the next one does not.",
            DREW: "give what the policy draws as an input, such as noise, or call it where it draws nothing; "
            "in evaluation mode dropout does not.",
            ELSEWHERE: "leave the provider out that cannot run these nodes, or take a build of ONNX Runtime "
            "that can; what another provider ran says nothing of the one that was asked for.",
        },
    }
)


def next_steps(result: RunResult, refusal: Answer) -> str:
    """One short paragraph for the refusal that a result's first line names.

    Files that were changed explain whatever else is wrong, so they are spoken of first.
    """
    if any(answer.gate == "intact" and not answer.passed for answer in result.answers):
        return _ADVICE["intact"]
    if any(note.startswith(ANOTHER) for note in result.notes):
        place = result.located.place if result.located is not None else None
        return _ANOTHER + (_where(result) if place is None else f" {_located(result, place)}")
    if swapped := next((n for n in result.notes if n.startswith(SWAPPED)), ""):
        return f"{swapped.removeprefix(SWAPPED)}: wire these two as the policy reads them."
    if trap := next((n for n in result.notes if n.startswith(TRAP)), ""):
        return f"{trap.removeprefix(TRAP)}: end it wherever the policy runs, or make a file that it spares."
    dead = [a.said for a in result.answers if a.gate == "inputs" and not a.passed and DEAD in a.said]
    if dead and refusal.gate in ("threshold", "exact"):  # it explains whatever else is wrong
        return f"{dead[0]}: look first at where the export drops it, such as a mask or a camera."
    if result.located is not None and result.located.place is not None:
        return _located(result, result.located.place)
    if refusal.gate == "threshold":
        return _of_precision(result) or _beyond(result) + _where(result)
    if refusal.gate == "reference" and refusal.said.startswith("the bundle"):
        return "the file was made for another loop or other inputs than the policy has: " + _LIKE_THE_POLICY
    if refusal.gate == BASELINE_GATE:
        return _ADVICE[BASELINE_GATE] + _where(result)
    if refusal.gate in ("finite", "exact"):
        first = _floats_first(result) if refusal.gate == "exact" else ""
        return (first or _ADVICE[refusal.gate]) + _where(result)
    for said, advice in _OF_REASON.get(refusal.gate, {}).items():
        if said in refusal.said:
            return advice
    if refusal.gate == "claim":
        return _of_claim(result) or _ADVICE["claim"]
    return _ADVICE.get(refusal.gate, "see what the gate says of itself, under Refused by.")


def _of_claim(result: RunResult) -> str:
    """The ways to a claim that was not reached though nothing else refuses; empty where none is known."""
    claim = result.claim
    if claim is None or claim.asked is None:
        return ""
    if claim.source == "recorded":
        return "record more frames, each picked independently of the others, or give InputSpecs to draw from."
    if claim.source == "derived":
        return f"ask for {claim.asked.draws:,} fixtures, fixtures={claim.asked.draws} or --fixtures."
    lower = f", or ask for less: {percent(claim.bound)} is reached" if claim.bound <= MOST_SHARE else ""
    if claim.stopped != "budget":
        return ""
    needs = f", some {seconds_text(claim.needs)} s here" if claim.needs is not None else ""
    return (
        f"give it more time (claim_budget=, --claim-budget, in pytest --reflex-claim-budget{needs}), more "
        f"processes (workers=, --workers, --reflex-workers){lower}."
    )


def _floats_first(result: RunResult) -> str:
    """The output of floats to look at before whole numbers that may be made of it; empty where none is."""
    off = [(share, far, name) for _, name, far, share in _shares(result) if share >= 1 and far < math.inf]
    if not off:
        return ""
    _, far, name = max(off)
    return (
        f"{name} is off by {far:.1e} too, so look at it first: integers and booleans that come of the same "
        "values change with them."
    )


def _where(result: RunResult) -> str:
    """How to find the place where two sides part, where nobody has looked and it can be looked for."""
    kinds = result.candidate.get("kind"), result.reference.get("kind")
    if result.located is not None or kinds != ("bundle", "torch"):
        return ""
    return f" {_again(result)} names the first module that parts."


def _again(result: RunResult, *more: str, told: tuple[str, ...] = ()) -> str:
    """What looks for the place in the very fixture that failed, as one would write it.

    Args:
        result: a fail.
        more: options that stand last.
        told: what stands in place of ``--model MODEL``.
    """
    bundle, *model = _named(result)
    worst = result.worst_fixture
    idx = worst.fixture_idx if worst is not None else 0
    if result.located is not None:
        idx = result.located.fixture_idx
    if result.seed is None:  # the command draws its own
        return (
            f"in Python open_bundle({bundle!r}).locate(policy, inputs=INPUTS, fixture_idx={idx}), with the "
            "inputs that were judged,"
        )
    which = [
        *(["--fixture", str(idx)] if idx else []),
        *(["--seed", str(result.seed)] if result.seed else []),
    ]
    return shlex.join(["reflex", "locate", bundle, *(told or model), *which, *more])


def _beyond(result: RunResult) -> str:
    """What an error looks like, by how much of the worst output it takes and how large it is there."""
    worst = result.worst_fixture
    output = worst.worst if worst is not None else None
    d = output.difference if output is not None else None
    if d is not None and output is not None and 0 < d.ulp_max <= FEW_ULPS and d.scale:
        return (
            f"{output.name} is off by {d.ulp_max} units in the last place at most, where it is as large as "
            f"{d.scale:.2g}: likely rounding, and floor=True or --floor says whether it is; then a threshold "
            "that grows with the output, such as 2x floor, or one in its units (units=, --units)."
        )
    few = max(1, FEW * d.elements) if d is not None else 0
    # How many elements of the largest error would have the same sum.
    if (
        d is not None
        and output is not None
        and d.elements > 1
        and d.mean_abs_diff * d.elements < few * d.max_abs_diff
    ):
        at = list(d.worst_index)
        return (
            f"little of {output.name} is wrong, {at} most: look at what writes that place alone, such as an "
            "index, a slice, a clamp, one joint's scale; what all elements pass through is right."
        )
    passing = [fixture.fixture_idx for fixture in result.fixtures if fixture.passed]
    alike = _alike(result)
    if passing and not alike:
        failing = next(fixture.fixture_idx for fixture in result.fixtures if not fixture.passed)
        return (
            f"compare the inputs of {named_fixture(failing)}, which fails, with those of "
            f"{named_fixture(passing[0])}, which passes: a masked camera, a short prompt or a "
            "state at its limits is where masks and padding go wrong."
        )
    if d is not None and output is not None and d.scale and d.max_abs_diff < SMALL * d.scale:
        share = f"{d.max_abs_diff / d.scale:.0e} of what {output.name} is"
        return (
            f"{_all_of(result)}, by {share}: look at constants and times that should be float64, an "
            "epsilon, an approximated activation, a cast to half precision; floor=True or --floor says "
            "whether it is rounding."
        )
    return (
        f"{_all_of(result)}, by much, so look at what all of them pass through: the weights, the number of "
        "steps and their times, an attention mask, a normalisation."
    )


def _alike(result: RunResult) -> bool:
    """Whether fixtures that pass are off nearly as far as those that fail."""
    failing = [share for passed, _, _, share in _shares(result) if not passed]
    passing = [share for passed, _, _, share in _shares(result) if passed]
    return bool(failing and passing) and max(failing) <= NEAR * max(passing)


def _shares(result: RunResult) -> Iterator[tuple[bool, str, float, float]]:
    """Of each output of floats: whether its fixture passed, its name, how far off, and that by its bound."""
    for fixture in result.fixtures:
        for output in fixture.outputs:
            if "float" in output.dtype and output.difference is not None and (most := result.most_of(output)):
                far = output.difference.max_abs_diff
                yield fixture.passed, output.name, far, far / most


def _all_of(result: RunResult) -> str:
    """That all that was judged is off, whether or not the threshold lies beyond all of it."""
    if result.count == 1:
        return "the only fixture fails"
    if any(fixture.passed for fixture in result.fixtures):
        return "all fixtures are off alike, and the threshold lies between them"
    return "every fixture fails"


def _of_precision(result: RunResult) -> str:
    """What follows from the precision that the candidate was held to; empty where nothing does."""
    name, short = result.precision.name, result.precision.short
    if any(o.quantised is not None and o.quantised.word == "bug" for f in result.fixtures for o in f.outputs):
        return (
            "the runtime computes something else than its own graph says: try another optimization level, "
            "version or provider of ONNX Runtime before the graph itself is doubted."
        )
    unheld = [o.floor for f in result.fixtures for o in f.outputs if o.bound == 0 and o.floor is not None]
    if any(floor.unknown for floor in unheld):
        return (
            "nothing says here what rounding costs, so give a number that your arm allows, --threshold 1e-2; "
            "a bundle's reflex.json has the one that it was proven with, under check, threshold."
        )
    if result.word is not None and result.word.startswith("rounding"):
        more = "" if name == "float32" else ", or keep in float32 what costs most: reflex repair --budget"
        if result.strict and not result.asked.rest.plain:  # that is asked for already
            return (
                f"it is rounding, and no bug: strict holds every output to {STRICT_THRESHOLD:g}, whatever "
                f"else is asked, and {name} does not give that here. Judge it without strict{more}."
            )
        return (
            f"it is rounding, and no bug: the threshold asks for more than {name} gives here. Say it in "
            f"units of PyTorch's own error, threshold='2x floor'{more}."
        )
    if name == "float32" and short and not result.precision.told:
        held = f"the candidate is {short.removesuffix(', judged as float32')} and was held to float32"
        if result.reference.get("kind") == "recorded":
            return (
                f"{held}: a recording does not say what rounding costs, so give the number that it was "
                "proven with, --threshold; a bundle's reflex.json has it under check, threshold."
            )
        meant = result.precision.stated or "float16"
        return (
            f"{held}; where a narrower precision is meant say which, --rounding {meant} or "
            f"rounding={meant!r}."
        )
    if name != "float32" and result.word is None:
        return (
            f"{name} costs much by itself: --floor or floor=True says whether this is more, threshold='2x "
            "floor' asks for no more, and reflex repair --budget keeps in float32 what costs most."
        )
    return ""


def _located(result: RunResult, place: Location) -> str:
    if result.located is not None and result.located.cause == "runtime":
        runtime = str(result.candidate.get("runtime", "ort"))
        again = _again(result, told=("--runtime", runtime))
        return (
            f"{runtime} computes the graph's node {place.node} otherwise than onnx's own evaluator, so that "
            f"the export is not to blame; {again} shows it again. Run the policy on another runtime, or in "
            "another precision."
        )
    where = f"{place.source} and " if place.source else ""
    looked = f"look at {where}the graph's node {place.node}; {_again(result, '--repro', 'repro')}"
    if result.seed is None:
        return f"{looked} finds it again."
    return (
        f"{looked} writes the smallest graph that shows it, with a script that needs onnxruntime and numpy "
        "alone."
    )


def _named(result: RunResult) -> tuple[str, str, str]:
    """The bundle and the model, as a command line names them; what is not known is in capitals."""
    bundle = result.candidate.get("path") if result.candidate.get("kind") == "bundle" else None
    name = str(result.reference.get("name", ""))
    source = result.candidate.get("source")
    held = source.get("checkpoint") if isinstance(source, Mapping) else None
    # As --model had it: a path, a hub id or file.py:name; else what the bundle says that it was made from.
    model = name if "/" in name or ":" in name else held
    return str(bundle or "DIR"), "--model", str(model or "MODEL")
