"""Policy: runs a bundle, whatever its layout. The loop of a ``stepwise`` bundle is here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.schedule import schedule_from_json
from pytest_reflex.runners import OnnxRunner
from pytest_reflex.runners.base import RunnerBase

if TYPE_CHECKING:
    from exporters.bundle import Bundle

# ONNX Runtime packs a private copy of every weight for its matrix kernels. Beyond this many bytes
# the weights are mapped from the file instead: slower to run, far less memory and time to open.
PREPACK_LIMIT_BYTES = 2 << 30


class Policy(RunnerBase):
    """A bundle under ONNX Runtime: named observation arrays in, actions out.

    Args:
        bundle: an open bundle.
        provider: the execution provider, by short or by full name.
        steps: the number of denoising steps, where the layout leaves it open (``loop``,
            ``stepwise``); by default what the bundle was exported with.
    """

    def __init__(self, bundle: Bundle, *, provider: str = "cpu", steps: int | None = None) -> None:
        manifest = bundle.manifest
        self.name = bundle.shown or str(bundle.path)
        self._bundle = bundle
        self._steps = steps if steps is not None else manifest["steps"]
        weights = sum(facts["size"] for facts in manifest["files"].values())
        self.sessions = {
            role: OnnxRunner(bundle.path / file, provider=provider, prepack=weights < PREPACK_LIMIT_BYTES)
            for role, file in manifest["graphs"].items()
        }

    def open(self) -> None:
        for session in self.sessions.values():
            session.open()

    def close(self) -> None:
        for session in self.sessions.values():
            session.close()

    @property
    def provider_asked(self) -> str:
        return next(iter(self.sessions.values())).provider_asked

    @property
    def providers_used(self) -> Sequence[str]:
        """What the sessions ran on; of several, the first that is not on the provider asked for."""
        used = [session.providers_used for session in self.sessions.values()]
        return next((u for u in used if not u or u[0] != self.provider_asked), used[0])

    def facts(self) -> dict[str, Any]:
        first = next(iter(self.sessions.values()))
        return {
            **first.facts(),
            "kind": "bundle",
            "name": self.name,
            "path": self.name,
            "family": self._bundle.family,
            "layout": self._bundle.layout,
            "steps": self._steps,
            "graphs": dict(self._bundle.manifest["graphs"]),
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._bundle.layout != "stepwise":
            extra = {} if self._bundle.layout != "loop" else {"num_steps": np.asarray(self._steps, np.int64)}
            return self.sessions["model"].run({**inputs, **extra})
        return self._walk(inputs)

    def _walk(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Encode the observation once, then ``x += dt * velocity(x, t)``."""
        loop = self._bundle.manifest["loop"]
        schedule = schedule_from_json(loop["schedule"])
        observation = {name: array for name, array in inputs.items() if name != loop["noise"]}
        context = self.sessions["encoder"].run(observation)
        x = inputs[loop["noise"]]
        dt = np.float32(schedule.dt(self._steps))
        for index in range(self._steps):
            time = np.full(x.shape[:1], schedule.time(index, self._steps), np.float32)
            velocity = self.sessions["step"].run({"x_t": x, "time": time, **context})["velocity"]
            x = x + dt * velocity
        return {loop["output"]: x}
