"""A stage of a bundle with processors, or all of them, as a robot runs them: to be judged, without torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from exporters.bundle.processors import POSTPROCESS, PREPROCESS, TOKENIZER, OpenProcessors
from exporters.bundle.runner import BundleRunner
from exporters.bundle.store import StoredBundle
from pytest_reflex.errors import BundleError
from pytest_reflex.result import STAGES, WHOLE
from pytest_reflex.runners import OnnxRunner
from pytest_reflex.runners.base import RunnerBase, said_by
from pytest_reflex.verdict.coverage import Decision
from pytest_reflex.verdict.units import InUnits

__all__ = ["ProcessedRunner"]

_SESSIONS: Final = {PREPROCESS: "before", POSTPROCESS: "after"}
Arrays = Mapping[str, np.ndarray[Any, Any]]


class ProcessedRunner(RunnerBase):
    """A stage of a bundle: ``preprocess``, ``postprocess`` or ``whole``.

    ``preprocess`` reads a raw observation and gives the policy's inputs but its noise; ``postprocess`` reads
    ``actions``, and of the observation what relative actions are counted from, and gives ``action`` in the
    robot's units; ``whole`` reads a raw observation and the noise, and gives ``action``.

    Args:
        bundle: a bundle with processors.
        stage: which.
        provider: the execution provider, by short or by full name.

    Raises:
        BundleError: the bundle has no processors, or no such stage.
    """

    def __init__(self, bundle: StoredBundle, stage: str = WHOLE, provider: str = "cpu") -> None:
        said = bundle.stated.processors
        if said is None:
            raise BundleError(f"{bundle.called} has no processors")
        if stage not in (PREPROCESS, POSTPROCESS, WHOLE):
            raise BundleError(f"{stage!r} is no stage of processors; the stages are {', '.join(STAGES)}")
        self.name = f"{bundle.called}: {stage}"
        # What whoever knows lerobot's tokenizer says of the bundle's, where they are apart.
        self.apart = ""
        self._bundle, self._stage = bundle, stage
        self._around = OpenProcessors(bundle.path, said, provider)
        self._policy = BundleRunner(bundle, provider=provider) if stage == WHOLE else None

    def open(self) -> None:
        self._around.open()
        if self._policy is not None:
            self._policy.open()

    def close(self) -> None:
        self._around.close()
        if self._policy is not None:
            self._policy.close()

    @property
    def _sessions(self) -> dict[str, OnnxRunner]:
        both = {PREPROCESS: self._around.before, POSTPROCESS: self._around.after}
        return both if self._stage == WHOLE else {self._stage: both[self._stage]}

    @property
    def provider_asked(self) -> str:
        return next(iter(self._sessions.values())).provider_asked

    @property
    def providers_used(self) -> Sequence[str]:
        """What its sessions ran on; of several, the first that is not on the provider asked for."""
        every: list[Any] = [*self._sessions.values(), *([self._policy] if self._policy is not None else [])]
        used = [tuple(said_by(session, "providers_used", ())) for session in every]
        return next((one for one in used if not one or one[0] != self.provider_asked), used[0])

    @property
    def graphs(self) -> Sequence[Path | bytes]:
        """The policy's graphs, whose precision is the whole's, or the stage's own."""
        if self._policy is not None:
            return self._policy.graphs
        return [graph for session in self._sessions.values() for graph in session.graphs]

    @property
    def precision_stated(self) -> str:
        """In which precision its manifest says that the policy's graphs are; processors are in float32."""
        return "float32" if self._policy is None else self._policy.precision_stated

    @property
    def robot_units(self) -> Mapping[str, InUnits]:
        """See :class:`~pytest_reflex.runners.base.SaysUnits`."""
        return {} if self._stage == PREPROCESS else self._around.said.robot_units("action", behind=True)

    @property
    def changed(self) -> str:
        """What its files are that the manifest does not say, or that is no tokenizer of the policy's."""
        holders: list[Any] = [self._bundle, *self._sessions.values()]
        holders += [self._policy] if self._policy is not None else []
        return "; ".join(dict.fromkeys(filter(None, (self.apart, *(holder.changed for holder in holders)))))

    def watching(self, inputs: Mapping[str, tuple[Any, Any]] | None = None) -> ProcessedRunner:
        """A copy that notes the decisions of its graphs; see :class:`.base.HasDecisions`.

        What its graphs read is made of the inputs on the way, so their ranges bound none of it.
        """
        watched = copy.copy(self)
        watched._around = copy.copy(self._around)
        for role in self._sessions:
            name = _SESSIONS[role]
            setattr(watched._around, name, getattr(self._around, name).watching(None))
        if self._policy is not None:
            watched._policy = self._policy.watching(None)
        return watched

    @property
    def decisions(self) -> Sequence[Decision]:
        """The decisions of a copy that notes them, graph by graph, as they are run."""
        found = {role: list(session.decisions) for role, session in self._sessions.items()}
        policy = [] if self._policy is None else list(self._policy.decisions)
        return [*found.get(PREPROCESS, ()), *policy, *found.get(POSTPROCESS, ())]

    def facts(self) -> dict[str, Any]:
        first = next(iter(self._sessions.values())).facts()
        policy = {} if self._policy is None else self._policy.facts()
        ran: dict[str, str] = {}
        for role, session in self._sessions.items():
            own = session.digests()
            # A graph stands under its role, the weights beside it under their names.
            ran |= {role: own.pop(self._around.said.graphs[role]), **own}
        if PREPROCESS in ran and self._around.tokenizer_digest:
            ran[TOKENIZER] = self._around.tokenizer_digest
        return {
            **first,
            **policy,
            "kind": "bundle",
            "name": self.name,
            "path": self.name,
            "sha256": {**ran, **policy.get("sha256", {})},
        }

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        if self._stage == PREPROCESS:
            return self._around.preprocess(inputs)
        if self._stage == POSTPROCESS:
            raw = {name: array for name, array in inputs.items() if name != "actions"}
            return {"action": self._around.postprocess(inputs["actions"], raw)}
        known = {spec.name for spec in self._around.said.raw}
        raw = {name: array for name, array in inputs.items() if name in known}
        noise = {name: array for name, array in inputs.items() if name not in known}
        read = {**self._around.preprocess(raw), **noise}
        gave = self._opened(self._policy).run({spec.name: read[spec.name] for spec in self._bundle.inputs})
        return {"action": self._around.postprocess(gave[self._around.said.actions], raw)}
