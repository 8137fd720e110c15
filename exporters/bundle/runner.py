"""Runs a bundle, whatever its layout. The loop of a ``stepwise`` bundle is here and nowhere else."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.bundle.processors import WORDS, OpenProcessors
from exporters.flow.schedule import BACKBONE
from pytest_reflex.errors import InputError, RunnerError, a_type
from pytest_reflex.inputs import InputSpec
from pytest_reflex.runners import OnnxRunner
from pytest_reflex.runners.base import HasTraps, RunnerBase, said_by
from pytest_reflex.runners.onnx import WEIGHTS_PLACE, Optimization
from pytest_reflex.runners.runtimes import DEFAULT, full_name, graph_runtime
from pytest_reflex.settings import PROVIDERS, provider_name

if TYPE_CHECKING:
    from exporters.bundle.store import StoredBundle
    from exporters.flow.schedule import Loop
    from pytest_reflex.runners.base import Trajectory
    from pytest_reflex.verdict.coverage import Decision
    from pytest_reflex.verdict.units import InUnits

# ONNX Runtime packs a private copy of a weight for every node that multiplies by it, so that an unrolled
# bundle holds one for each step. Beyond this many bytes the weights are mapped from the file instead:
# slower to run, far less memory and time to open.
PREPACK_LIMIT_BYTES = 2 << 30


class BundleRunner(RunnerBase):
    """A bundle under ONNX Runtime: named observation arrays in, actions out.

    A robot calls :meth:`infer`; a check calls :meth:`run`, which leaves nothing to chance. Both may be
    called from several threads at once.

    Args:
        bundle: an open bundle.
        provider: the execution provider, by short or by full name.
        steps: the number of denoising steps, where the layout leaves it open (``loop``,
            ``stepwise``); by default what the bundle was exported with.
        prepack: pack the weights for speed; by default where that takes less than 2 GiB.
        seed: what the noise that :meth:`infer` is not given is drawn with; by default it is fresh.
        threads: threads within an operator; by default what ONNX Runtime chooses.
        optimization: how far ONNX Runtime may rewrite the graphs; by default as the manifest says.
        disabled_optimizers: names of ONNX Runtime's graph transformers that are left out.
        config: session configuration entries; by default the manifest's.
        runtime: what opens the graphs, by a name of :mod:`pytest_reflex.runners.runtimes`. Another one than
            ONNX Runtime takes of all these ``threads`` alone.

    Raises:
        RunnerError: nobody knows the runtime, or a provider is asked of another than ONNX Runtime.
    """

    def __init__(
        self,
        bundle: StoredBundle,
        *,
        provider: str = "cpu",
        steps: int | None = None,
        prepack: bool | None = None,
        seed: int | None = None,
        threads: int | None = None,
        optimization: Optimization | None = None,
        disabled_optimizers: Sequence[str] = (),
        config: Mapping[str, str] | None = None,
        runtime: str = DEFAULT,
    ) -> None:
        stated = bundle.stated
        self.name = bundle.called
        self._bundle = bundle
        self._inputs = {spec.name: spec for spec in bundle.inputs}
        loop = stated.loop
        self._loop = loop = loop.taking(steps) if loop is not None and steps is not None else loop
        self._steps = loop.steps if loop is not None else steps
        self._noise = loop.noise if loop is not None else None
        self._noises = loop.noises if loop is not None else ()
        self._rng, self._rng_lock = np.random.default_rng(seed), threading.Lock()
        if prepack is None:
            weights = sum(facts["size"] for facts in stated.files.values())
            copies = loop.steps if loop is not None and bundle.layout == "unrolled" else 1
            prepack = weights * copies < PREPACK_LIMIT_BYTES
        # The same for every session of this policy: as it was judged, which the manifest says, it is run.
        self._options: dict[str, Any] = {
            "provider": provider,
            "prepack": prepack,
            "threads": threads,
            "optimization": optimization or stated.optimization,
            "disabled_optimizers": disabled_optimizers,
            "config": stated.config if config is None else config,
        }
        self._unlike = ""
        self.runtime = full_name(runtime)
        if self.runtime != DEFAULT and provider_name(provider) != PROVIDERS["cpu"]:
            raise RunnerError(
                f"provider is {provider!r}, which is one of ONNX Runtime's, and the runtime is {runtime!r}; "
                "leave one out"
            )
        opener = graph_runtime(runtime)
        told = self._options if self.runtime == DEFAULT else {"threads": threads}
        around = stated.processors
        self._around = None if around is None else OpenProcessors(bundle.path, around, provider)
        self._looked_back: dict[str, list[np.ndarray]] = {}
        # ONNX Runtime may be asked from several threads at once; of others nobody says so.
        several = self.runtime == DEFAULT
        self._turn: AbstractContextManager[object] = nullcontext() if several else threading.Lock()
        self.sessions: dict[str, Any] = {
            role: opener(bundle.path / file, **told) for role, file in stated.graphs.items()
        }

    def __getstate__(self) -> dict[str, Any]:
        """As it is sent to another process."""
        return {name: value for name, value in vars(self).items() if name != "_rng_lock"}

    def __setstate__(self, told: dict[str, Any]) -> None:
        vars(self).update(told, _rng_lock=threading.Lock())

    def open(self) -> None:
        for session in self.sessions.values():
            session.open()

    def close(self) -> None:
        for session in self.sessions.values():
            session.close()
        if self._around is not None:
            self._around.close()
        self.reset()

    @property
    def provider_asked(self) -> str | None:
        asked: str | None = said_by(next(iter(self.sessions.values())), "provider_asked", None)
        return asked

    @property
    def providers_used(self) -> Sequence[str]:
        """What the sessions ran on; of several, the first that is not on the provider asked for."""
        used = [tuple(said_by(session, "providers_used", ())) for session in self.sessions.values()]
        return next((u for u in used if not u or u[0] != self.provider_asked), used[0])

    @property
    def graphs(self) -> Sequence[Path | bytes]:
        """Its graphs; see :class:`~pytest_reflex.runners.base.HasGraphs`."""
        return [self._bundle.path / file for file in self._bundle.stated.graphs.values()]

    @property
    def has_processors(self) -> bool:
        """Whether processors stand around the policy; a run of it alone leaves them out."""
        return self._bundle.has_processors

    @property
    def robot_units(self) -> Mapping[str, InUnits]:
        """What its actions are in the robot's units; see :class:`~pytest_reflex.runners.base.SaysUnits`."""
        said = self._bundle.stated.processors
        return {} if said is None else said.robot_units(said.actions, behind=False)

    @functools.cached_property
    def units_apart(self) -> str:
        """Whether these are not to be believed, in words: what is behind the policy does not keep to them."""
        if self._around is None:
            return ""
        said, outputs = self._around.said, self._bundle.stated.outputs
        shape = next(output["shape"] for output in outputs if output["name"] == said.actions)
        return self._around.scale_apart(shape)

    @property
    def precision_stated(self) -> str:
        """In which precision its manifest says that the graphs are, such as ``float16`` or ``int8``."""
        said = self._bundle.stated.precision
        return said.partition("-")[0]

    @property
    def changed(self) -> str:
        """What the sessions ran that is not what the manifest says, or was written to meanwhile, in words.

        Known as far as :meth:`facts` was asked and the sessions were closed; no verdict passes that.
        """
        found = (self._unlike, *(said_by(session, "changed", "") for session in self.sessions.values()))
        return "; ".join(dict.fromkeys(filter(None, found)))

    def facts(self) -> dict[str, Any]:
        first = next(iter(self.sessions.values()))
        stated = {name: file["sha256"] for name, file in self._bundle.stated.files.items()}
        # A runtime that somebody else brings need not say what it read: then what was opened is said.
        opened = {role: {file: stated[file]} for role, file in self._bundle.stated.graphs.items()}
        read = {role: s.digests() if hasattr(s, "digests") else {} for role, s in self.sessions.items()}
        told = [found or opened[role] for role, found in read.items()]
        ran = {name: found for one in told for name, found in one.items()}
        unlike = sorted(name for name, found in ran.items() if found != stated.get(name))
        if unlike and not self._bundle.changed:
            self._unlike = f"{self._bundle.path / unlike[0]} was changed after the bundle was opened"
        return {
            **first.facts(),
            **({} if self.runtime == DEFAULT else {"runtime": self.runtime}),
            **({"fell_back": fell_back} if (fell_back := self._fell_back()) else {}),
            "kind": "bundle",
            "name": self.name,
            "path": self.name,
            "family": self._bundle.family,
            "layout": self._bundle.layout,
            "steps": self._steps,
            "source": self._bundle.stated.origin.get("source"),
            "call": dict(self._bundle.stated.call),
            "graphs": dict(self._bundle.stated.graphs),
            # Of a file that nobody opened nothing is said: it was not judged.
            "sha256": ran,
        }

    def _fell_back(self) -> list[str]:
        """The nodes of all graphs that another provider runs than was asked for."""
        return [node for session in self.sessions.values() for node in said_by(session, "fell_back", ())]

    def infer(
        self, observation: Mapping[str, np.ndarray], *, noise: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Actions for one observation.

        Args:
            observation: every input but the noise, by name, with the dtypes and shapes of the bundle's
                ``inputs``.
            noise: where a flow starts, ``[batch, chunk, dim]``; drawn from a normal distribution when
                not given, as is the noise of its steps. Both may stand in the observation, under their names.

        Raises:
            InputError: an input is missing, unknown, of another dtype or shape, or not finite.
            RunnerError: the policy is not open, or ONNX Runtime failed.
        """
        if not isinstance(observation, Mapping):
            raise InputError(
                f"observation is {a_type(observation)}; give a dict of arrays by the names of the "
                f"inputs, {', '.join(self._inputs)}"
            )
        given = {name: np.asarray(array) for name, array in observation.items()}
        if noise is not None:
            if self._noise is None or self._noise in given:
                raise InputError("noise is given twice" if self._noise else "noise: this policy takes none")
            given[self._noise] = np.asarray(noise)
        sizes = self._fitting(given)
        for name in self._noises:
            if name not in given:
                spec = self._inputs[name].sized(sizes)
                with self._rng_lock:
                    given[name] = self._rng.standard_normal(spec.shape, np.float32)
        return self.run({name: given[name] for name in self._inputs})

    def act(
        self,
        raw: Mapping[str, Any],
        *,
        noise: np.ndarray | Mapping[str, np.ndarray] | None = None,
        seen: dict[str, list[np.ndarray]] | None = None,
    ) -> np.ndarray:
        """Actions in the robot's units for what it sees, where the bundle has processors.

        A policy that looks back on several observations is given the last ones of these calls, the first as
        often as there are too few; :meth:`reset` forgets them. One robot at a time may call it then.

        Args:
            raw: by the policy's own feature names: cameras uint8 [height, width, 3], joints float32 [dim] in
                the robot's units, ``task`` as text.
            noise: as for :meth:`infer`; or each of several by its name.
            seen: what is looked back on, kept here for whoever asks on behalf of several robots.

        Returns:
            [batch, chunk, dim].

        Raises:
            InputError: the bundle has no processors, or something is missing, unknown, of another dtype or
                shape, or not finite.
            RunnerError: the policy is not open, or ONNX Runtime failed.
        """
        if self._around is None:
            raise InputError(f"{self.name} has no processors: give infer() the policy's own inputs")
        self._around.open()
        read, history = self._around.preprocess(raw), self._around.said.history
        if history:
            before = self._looked_back if seen is None else seen
            for name, array in read.items():
                if name in WORDS:
                    continue
                kept = before.setdefault(name, [array[:, -1]] * (history - 1))
                before[name] = kept = [*kept, array[:, -1]][-history:]
                read[name] = np.stack(kept, axis=1)
        drawn = dict(noise) if isinstance(noise, Mapping) else {}
        gave = self.infer({**read, **drawn}, noise=None if isinstance(noise, Mapping) else noise)
        return self._around.postprocess(gave[self._around.said.actions], raw)

    def reset(self) -> None:
        """Forget the observations that :meth:`act` looks back on."""
        self._looked_back = {}

    def _fitting(self, given: Mapping[str, np.ndarray]) -> dict[str, int]:
        return sizes_of(self._inputs, given, drawn=self._noises)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with self._turn:
            if self._loop is None or self._bundle.layout != "stepwise":
                made: dict[str, np.ndarray] = self.sessions["model"].run(self._fed(self._seen(inputs)))
                return made
            return {self._loop.output: self._loop.finished(self._denoised(self._loop, inputs)[-1])}

    def exact(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the graphs say in float64, the loop included; see :meth:`OnnxRunner.exact`."""
        if self._loop is None or self._bundle.layout != "stepwise":
            made: dict[str, np.ndarray] = self.sessions["model"].exact(
                self._fed(self._seen(inputs, exact=True))
            )
            return made
        return {self._loop.output: self._loop.finished(self._denoised(self._loop, inputs, exact=True)[-1])}

    @property
    def trajectory(self) -> Trajectory | None:
        """What the loop holds after each step; see :class:`~pytest_reflex.runners.Runner`.

        None where there is no loop. Where it is inside of the graph, a copy of that is opened which shows it,
        by ONNX Runtime alone.
        """
        inside = self._bundle.layout != "stepwise" and self.runtime != DEFAULT
        return None if self._loop is None or inside else functools.partial(self._trajectory, self._loop)

    def _trajectory(self, loop: Loop, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        if self._bundle.layout == "stepwise":
            with self:
                return np.stack([loop.finished(x) for x in self._denoised(loop, inputs)])
        from exporters.flow.loop_states import with_states

        file = self._bundle.path / self._bundle.stated.graphs["model"]
        model, names = with_states(file, self._bundle.layout, loop)
        config = {**self._options["config"], WEIGHTS_PLACE: str(file.parent)}
        with OnnxRunner(model, name=self.name, **{**self._options, "config": config}) as session:
            with self:
                seen = self._seen(inputs)
            outputs = session.run(self._fed(seen))
        if self._bundle.layout == "loop":
            return np.stack([loop.finished(x) for x in outputs[names[0]]])
        return np.stack([*(loop.finished(outputs[name]) for name in names), outputs[loop.output]])

    def without_traps(self) -> Mapping[str, BundleRunner]:
        """See :class:`~pytest_reflex.runners.base.HasTraps`; each is ended in all of its graphs."""
        spared: dict[str, dict[str, Any]] = {}
        for role, session in self.sessions.items():
            for words, without in session.without_traps().items() if isinstance(session, HasTraps) else ():
                spared.setdefault(words, {})[role] = without
        found: dict[str, BundleRunner] = {}
        for words, sessions in spared.items():
            found[words] = copy.copy(self)
            found[words].sessions = {**self.sessions, **sessions}
        return found

    def watching(self, inputs: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None) -> BundleRunner:
        """A copy that notes the decisions of its graphs; see :class:`.base.HasDecisions`."""
        watched = copy.copy(self)
        watched.sessions = {role: session.watching(inputs) for role, session in self.sessions.items()}
        return watched

    @property
    def decisions(self) -> Sequence[Decision]:
        """The decisions of a copy that notes them, graph by graph."""
        return [decision for session in self.sessions.values() for decision in session.decisions]

    def _seen(self, inputs: Mapping[str, np.ndarray], *, exact: bool = False) -> Mapping[str, np.ndarray]:
        """What the graphs behind a backbone read: its features in place of what it alone reads."""
        backbone = self.sessions.get(BACKBONE)
        if backbone is None:
            return inputs
        ask = backbone.exact if exact else backbone.run
        features: dict[str, np.ndarray] = ask({name: inputs[name] for name in backbone.inputs})
        return {n: a for n, a in inputs.items() if n not in backbone.inputs} | features

    def _fed(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the one graph of a layout is given; a ``loop`` is told its number of steps where it asks."""
        asked = self._bundle.layout == "loop" and self._loop is not None and not self._loop.schedule.fixed
        return {**inputs, "num_steps": np.asarray(self._steps, np.int64)} if asked else dict(inputs)

    def _denoised(
        self, loop: Loop, inputs: Mapping[str, np.ndarray], *, exact: bool = False
    ) -> list[np.ndarray]:
        """Encode the observation once, then walk the schedule; every ``x``."""
        ask = {role: session.exact if exact else session.run for role, session in self.sessions.items()}
        seen = self._seen(inputs, exact=exact)
        observation = {name: array for name, array in seen.items() if name not in loop.noises}
        context = ask["encoder"](observation)
        times, x, *noises = np.asarray(loop.times, loop.schedule.dtype), *(inputs[n] for n in loop.noises)

        def velocity(index: int, x: np.ndarray) -> np.ndarray:
            time = np.full(x.shape[:1], times[index])
            velocity: np.ndarray = ask["step"]({"x_t": x, "time": time, **context})["velocity"]
            if velocity.shape != x.shape:
                raise RunnerError(
                    f"{self._bundle.stated.graphs['step']} gives velocity {list(velocity.shape)} for x_t "
                    f"{list(x.shape)}, expected the same shape; export the bundle again"
                )
            return velocity

        return list(loop.states(x, velocity, *noises))


# What a robot calls it.
Policy = BundleRunner


def sizes_of(
    inputs: Mapping[str, InputSpec], given: Mapping[str, np.ndarray], *, drawn: Sequence[str] = ()
) -> dict[str, int]:
    """The free sizes of a policy's inputs.

    Args:
        inputs: what it reads, by name.
        given: the inputs.
        drawn: those that are drawn where they are not given.

    Raises:
        InputError: what its graphs would refuse less clearly, or would take for what it is not.
    """
    takes = ", ".join(inputs)
    for name in given:
        if name not in inputs:
            raise InputError(f"input {name!r} is not known; this policy takes {takes}")
    sizes: dict[str, int] = {}
    for name, spec in inputs.items():
        if name in given:
            _require_fit(spec, given[name], sizes)
        elif name not in drawn:
            raise InputError(f"input {name!r} is missing; this policy takes {takes}")
    return sizes


def _require_fit(spec: InputSpec, array: np.ndarray, sizes: dict[str, int]) -> None:
    """Refuse an array that is not as ``spec`` says. ``sizes`` learns the free axes it has not seen."""
    if array.dtype != np.dtype(spec.dtype):
        raise InputError(f"input {spec.name!r} is {array.dtype}; it takes {spec.dtype}")
    names = spec.free or (None,) * len(spec.shape)
    expected = "[" + ", ".join(name or str(n) for n, name in zip(spec.shape, names, strict=True)) + "]"
    shape = list(array.shape)
    if len(shape) != len(spec.shape):
        raise InputError(f"input {spec.name!r} has shape {shape}; it takes {expected}")
    for got, want, name in zip(shape, spec.shape, names, strict=True):
        if name is not None:
            want = sizes.setdefault(name, got)
        if got != want or got < 1:
            said = f" with {name} = {want}, as the inputs before it" if name is not None else ""
            raise InputError(f"input {spec.name!r} has shape {shape}; it takes {expected}{said}")
    limits = spec.meaning.limits()
    # A number without a shape has no place either, so that they are counted and not measured.
    if limits is not None and len(beyond := np.argwhere((array < limits[0]) | (array > limits[1]))):
        first = tuple(int(i) for i in beyond[0])
        said = f"{array[first]} at {list(first)}" if first else str(array)
        raise InputError(
            f"input {spec.name!r} is {said}; it takes whole numbers from {limits[0]} to {limits[1]}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"input {spec.name!r} is {array[at]} at {list(at)}; every value must be finite")
