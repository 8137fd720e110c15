"""Names that do not fit: the nearest good one, one thing matched with one thing, and the line to write."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

# What other tools call what is known here by another name, where no spelling is near.
_ELSEWHERE: Final = MappingProxyType(
    {
        **dict.fromkeys(("atol", "abs_tol", "tol", "tolerance", "eps", "epsilon", "bound"), "threshold"),
        **dict.fromkeys(("samples", "count", "runs", "n"), "fixtures"),
        **dict.fromkeys(("random_state", "rng", "random_seed"), "seed"),
        **dict.fromkeys(("device", "providers", "ep"), "provider"),
        "reference": "model",
    }
)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'threshold'?)"``, by spelling or by what other tools say; empty for no idea."""
    import difflib

    good = list(known)
    plain, bare = _bare(name), {_bare(each): each for each in good}
    elsewhere = _ELSEWHERE.get(plain)
    found = [elsewhere] if elsewhere in bare else difflib.get_close_matches(plain, bare, 1)
    return f" (did you mean {bare[found[0]]!r}?)" if found else ""


def _bare(name: str) -> str:
    return name.lower().lstrip("-").replace("-", "_").removeprefix("reflex_")


def unknown(what: str, names: Sequence[str], known: Iterable[str]) -> str:
    """``"unknown keyword 'treshold' (did you mean 'threshold'?)"``, all of them."""
    good = list(known)
    said = ", ".join(f"{name!r}{did_you_mean(name, good)}" for name in names)
    return f"unknown {what}{'s' if len(names) > 1 else ''} {said}"


def near_path(path: Path) -> str:
    """``" (did you mean 'checkpoints/pi0'?)"``, of what lies where a path leads that is none; or empty."""
    if os.path.exists(path):
        return ""
    try:
        there = [path.with_name(name) for name in sorted(os.listdir(path.parent))]
    except (OSError, ValueError):
        return ""
    # What all paths here begin with, and what many end with, makes no two names alike.
    alike = [other for other in there if did_you_mean(path.stem, [other.stem])]
    return did_you_mean(str(path), map(str, alike))


def only_pair(given: Iterable[str], taken: Iterable[str]) -> tuple[str, str] | None:
    """Both names, where there is one on each side and they are not the same: no other match is possible."""
    one, other = list(given), list(taken)
    return (one[0], other[0]) if len(one) == len(other) == 1 and one != other else None


def output_advice(reference: Sequence[str], candidate: Sequence[str]) -> str:
    """The line to write where two sides give as many outputs under other names or in another order."""
    if len(reference) != len(candidate):
        return ""
    names = list(candidate)
    if set(reference) == set(candidate):
        return f"; where the names are right, give OnnxRunner(path, outputs={list(reference)})"
    if all(re.fullmatch(r"output(_\d+)?", name) for name in reference):  # TorchRunner's own
        return f"; name them, in the policy's order: TorchRunner(policy, outputs={names})"
    if any("." in name for name in reference):
        picked = ", ".join(f"{new!r}: gave{_picked(old)}" for old, new in zip(reference, names, strict=True))
        return (
            "; where their order is the same, give TorchRunner(policy, call=lambda **given: (lambda gave: "
            f"{{{picked}}})(policy(**given)))"
        )
    return (
        f"; where their order is the same, give TorchRunner(policy, outputs={names}), or of a dict "
        f"TorchRunner(policy, call=lambda **given: dict(zip({names}, policy(**given).values())))"
    )


def _picked(name: str) -> str:
    """How the output ``arm.0`` is taken out of what a policy gives: ``['arm'][0]``."""
    return "".join(f"[{part}]" if part.isdigit() else f"[{part!r}]" for part in name.split("."))


def call_line(given: Sequence[str], taken: Sequence[str]) -> str:
    """The runner that calls a policy by other names than the inputs have; empty where that is not all."""
    if len(given) != len(taken) or set(given) == set(taken):
        return ""
    alike = {name: name for name in taken if name in given}
    rest = ([n for n in given if n not in alike], [n for n in taken if n not in alike])
    told = {**alike, **dict(zip(rest[1], rest[0], strict=True))}
    if all(map(str.isidentifier, given)):
        called = f"lambda {', '.join(given)}: policy({', '.join(f'{b}={told[b]}' for b in taken)})"
    else:
        called = f"lambda **given: policy({', '.join(f'{b}=given[{told[b]!r}]' for b in taken)})"
    return f"TorchRunner(policy, call={called})"
