"""Where figures come from: what a run was made on, and how two runs were not made alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from pytest_reflex.report.compare import Change
from pytest_reflex.verdict import machine
from pytest_reflex.verdict.results import RunResult

UNALIKE: Final = "The two runs were not made alike, so figures may differ for that alone:"

_SIDES: Final = ("reference", "candidate")
_PROCESSOR: Final = "processor"
_INSTRUCTIONS: Final = "instruction sets"
# In the order in which they are said; settings by environment come after them.
_LABELS: Final = (
    *(_PROCESSOR, _INSTRUCTIONS, "cores", "PyTorch", "PyTorch's CPU capability"),
    *("ONNX Runtime", "ONNX Runtime's build", "threads"),
)
_BY_PACKAGE: Final = ("PyTorch", "ONNX Runtime")


class Unalike(NamedTuple):
    """One way in which two runs differ though the candidate may be the same.

    Attributes:
        what: ``processor``, ``threads of the reference``, ``OMP_NUM_THREADS``.
        words: ``A before, B now``, and of how many results when not of all.
    """

    what: str
    words: str

    def __str__(self) -> str:
        return f"{self.what}: {self.words}"


def unalike(changes: Iterable[Change]) -> list[Unalike]:
    """How two runs were not made alike: processor, capability, threads, builds; empty when they were.

    Only results that stand in both runs are looked at. What neither run states is not said; where only one of
    the two states its machine, the processor is said to be not stated in the other.
    """
    pairs = [
        (c.before.result, c.after.result) for c in changes if c.before is not None and c.after is not None
    ]
    # (label, before, now) -> the sides of each result in which it was found
    found: dict[tuple[str, str], dict[int, set[str]]] = {}
    for at, (before, after) in enumerate(pairs):
        for side in _SIDES:
            for label, words in _differences(_origin(getattr(before, side)), _origin(getattr(after, side))):
                found.setdefault((label, words), {}).setdefault(at, set()).add(side)
    said = []
    for (label, words), where in sorted(found.items(), key=lambda item: _place(item[0])):
        sides = set.union(*where.values())
        of = f" of the {sides.pop()}" if len(sides) == 1 and _has_sides(label) else ""
        some = f" (in {len(where)} of {len(pairs)} results)" if len(where) < len(pairs) else ""
        said.append(Unalike(label + of, words + some))
    return said


def made_on(results: Iterable[RunResult]) -> list[str]:
    """What the results were made on, a line for each machine and setting; empty where none is stated."""
    return list(dict.fromkeys(line for result in results if (line := _made_on(result))))


def _made_on(result: RunResult) -> str:
    origins = {side: _origin(getattr(result, side)) for side in _SIDES}
    stated = {side: origin[_PROCESSOR] for side, origin in origins.items() if _PROCESSOR in origin}
    if not stated:
        return ""
    if len(set(stated.values())) == 1:
        parts = [next(iter(stated.values()))]
    else:
        parts = [f"{processor} ({side})" for side, processor in stated.items()]
    reference, candidate = origins["reference"], origins["candidate"]
    if "PyTorch" in reference:
        capability = reference.get("PyTorch's CPU capability", machine.UNKNOWN)
        count = reference.get("threads", "")
        threads = f", {count} thread{'' if count == '1' else 's'}" if count else ""
        parts.append(f"PyTorch {reference['PyTorch']} at {capability}{threads}")
    if "ONNX Runtime" in candidate:
        parts.append(f"ONNX Runtime {candidate['ONNX Runtime']}")
    return ", ".join(parts)


def _origin(facts: object) -> dict[str, str]:
    """What facts say of where their figures come from, as text by label."""
    if not isinstance(facts, Mapping):
        return {}
    told = machine.stated(facts.get("machine"))
    versions = facts.get("versions")
    versions = versions if isinstance(versions, Mapping) else {}
    by_label = {
        _PROCESSOR: told.get("processor"),
        _INSTRUCTIONS: ", ".join(told["instructions"]) if "instructions" in told else None,
        "cores": told.get("cores"),
        "PyTorch": versions.get("torch"),
        "PyTorch's CPU capability": told.get("torch_capability"),
        "ONNX Runtime": versions.get("onnxruntime"),
        "ONNX Runtime's build": told.get("onnxruntime_build"),
    }
    origin = {label: str(value) for label, value in by_label.items() if value is not None}
    if "threads" in facts:
        asked = facts["threads"]
        origin["threads"] = "as many as ONNX Runtime chooses" if asked is None else str(asked)
    return {**told.get("environment", {}), **origin}


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    if (_PROCESSOR in before) != (_PROCESSOR in after):
        # One of them states no machine at all, so there is nothing to lay beside the rest of it.
        was, now = (origin.get(_PROCESSOR, "not stated") for origin in (before, after))
        yield _PROCESSOR, f"{was} before, {now} now"
        shared = before.keys() & after.keys()
        before, after = ({label: origin[label] for label in shared} for origin in (before, after))
    for label in {**before, **after}:
        if before.get(label) == after.get(label):
            continue
        if label == _INSTRUCTIONS and label in before and label in after:
            yield label, _sets(before[label].split(", "), after[label].split(", "))
            continue
        absent = "not stated" if label in _LABELS else "not set"
        yield label, f"{before.get(label, absent)} before, {after.get(label, absent)} now"


def _sets(before: Sequence[str], after: Sequence[str]) -> str:
    """Which of two lists of names stand in one of them only."""
    gone = ", ".join(name for name in before if name not in after)
    new = ", ".join(name for name in after if name not in before)
    return "; ".join(f"{names} {when}" for names, when in ((gone, "only before"), (new, "only now")) if names)


def _has_sides(label: str) -> bool:
    """Whether a label needs its side: a package's own word names it, and the environment is shared."""
    return label in _LABELS and not label.startswith(_BY_PACKAGE)


def _place(found: tuple[str, str]) -> tuple[int, str, str]:
    label, words = found
    return (_LABELS.index(label) if label in _LABELS else len(_LABELS), label, words)
