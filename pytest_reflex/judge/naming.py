"""One input or output on each side needs no name to be matched; a note says that it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pytest_reflex.runners import Runner
from pytest_reflex.verdict.naming import only_pair

Array = np.ndarray[Any, Any]


class Named:
    """A candidate whose one output has the name of the reference's one output.

    Args:
        runner: the candidate.
        wanted: the reference's outputs.

    Attributes:
        name: the candidate's.
        matched_facts: what is to be added to its facts.
    """

    def __init__(self, runner: Runner, wanted: Sequence[str]) -> None:
        self.name, self.open, self.close, self.facts = runner.name, runner.open, runner.close, runner.facts
        self.matched_facts: dict[str, Any] = {}
        self._runner, self._wanted = runner, list(wanted)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What the candidate gives."""
        return self.named(self._runner.run(inputs))

    def named(self, outputs: dict[str, Array]) -> dict[str, Array]:
        """What the candidate gave, its one output by the name of the reference's."""
        pair = only_pair(outputs, self._wanted) if isinstance(outputs, Mapping) else None
        if pair is None:
            return outputs
        self.matched_facts = {"matched_output": list(pair)}
        return {pair[1]: outputs[pair[0]]}


def side_notes(reference: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    """What was done to a side without being asked for it, in words."""
    found = [
        f"{side.get('name')} was in training mode; it was judged in eval mode, as a robot runs it"
        for side in (reference, candidate)
        if side.get("was_training")
    ]
    found += [
        f"the one input {given!r} is {taken!r} to {side.get('name')}"
        for side in (reference, candidate)
        for given, taken in dict(side.get("matched") or {}).items()
    ]
    if breaks := candidate.get("graph_breaks"):
        found.append(
            f"{candidate.get('name')} was compiled in {candidate.get('compiled_graphs')} graphs, and Python "
            f"runs between them: {breaks[0]}"
        )
    if "matched_output" in candidate:
        theirs, ours = candidate["matched_output"]
        found.append(
            f"the candidate's one output {theirs!r} is compared with the reference's one output {ours!r}"
        )
    return found
