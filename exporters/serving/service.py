"""A bundle as a service: proven with its own recorded fixtures, then given to robots as openpi gives its own.

What answers a client is what was proven: the fixtures go through the same codec, the same
:meth:`~exporters.bundle.runner.BundleRunner.infer` and the same sessions. The socket is in
:mod:`exporters.serving.server`.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from exporters.bundle.certificate import certified
from exporters.bundle.runner import BundleRunner
from exporters.bundle.served_bound import doubted_bounds, way_to_be_served
from exporters.bundle.store import RAW, manifest_digest
from exporters.bundles import Bundle, open_bundle
from exporters.serving.observed import is_raw, raw_observation
from exporters.serving.server import Server, bound
from pytest_reflex import settings
from pytest_reflex._version import __version__
from pytest_reflex.errors import BundleError, InputError, ReflexError, RunnerError, SettingsError, a_type
from pytest_reflex.judge.check import check
from pytest_reflex.progress import Progress
from pytest_reflex.report.json.results import tolerances_from_json
from pytest_reflex.report.text.terminal import headline
from pytest_reflex.result import WHOLE, ParityResult
from pytest_reflex.runners import wire
from pytest_reflex.runners.base import RunnerBase
from pytest_reflex.runners.runtimes import DEFAULT, full_name, graph_runtime
from pytest_reflex.runners.served import ACTIONS, SERVER, TIMING
from pytest_reflex.verdict import machine
from pytest_reflex.verdict.tolerances import Amount, Tolerances

# What of the manifest a client needs to make observations, or a judge to make the reference.
_TOLD: Final = (
    *("made_by", "family", "layout", "steps", "loop", "call", "options", "session", "precision"),
    *("inputs", "outputs", "source", "dtype", "versions"),
)
# A message may be this many times as large as its arrays: float64 in place of float32 is to be named
# in an answer, not cut off.
_SLACK: Final = 4
_LEAST_BYTES: Final = 1 << 20
_FREE_BYTES: Final = 64 << 20  # where a free axis leaves the size open

_FAILED: Final = "the policy could not be run on this observation; the server's log says why"
_INTERNAL: Final = "internal error; the server's log says what"

log = logging.getLogger("reflex.serve")


class Service:
    """Answers packed observations with packed actions; from several threads at once.

    Args:
        policy: what answers, opened by whoever made it.

    Attributes:
        name: of the policy.
        metadata: what a client is told when it connects.
    """

    def __init__(self, policy: BundleRunner, bundle: Bundle | None = None) -> None:
        self.name = policy.name
        self.metadata: dict[str, Any] = {}
        self._policy = policy
        self._around = None if bundle is None else bundle.stated.processors
        self._inputs = {} if bundle is None else {spec.name: spec for spec in bundle.inputs}
        self._noises = {name: spec for name, spec in self._inputs.items() if name.endswith("noise")}

    def answer(
        self, message: str | bytes, prev_total_ms: float | None = None, held: dict[str, Any] | None = None
    ) -> str | bytes:
        """The reply to one message: packed outputs, or text that says in one line what is wrong with it."""
        try:
            return self.actions(message, prev_total_ms, held)
        except InputError as error:
            return _one_line(error)
        except ReflexError as error:
            log.error("reflex serve: %s", _one_line(error))
            return _FAILED
        except Exception:
            # The client learns nothing of this machine, and the next one is served.
            log.exception("reflex serve: internal error")
            return _INTERNAL

    def actions(
        self, message: str | bytes, prev_total_ms: float | None = None, held: dict[str, Any] | None = None
    ) -> bytes:
        """The packed outputs for one message: the policy's own inputs, or what a robot sees.

        For what a robot sees there is one output, ``actions`` [chunk, dim] in the robot's units, as openpi's
        policies give it; a policy that looks back finds in ``held`` what this client sent before. Beside the
        outputs stands ``server_timing`` as openpi's server gives it: ``infer_ms``, and ``prev_total_ms`` for
        the request before.

        Raises:
            InputError: the message is no observation of this policy.
            RunnerError: ONNX Runtime failed.
        """
        found = _fields(message)
        begin = time.perf_counter()
        if self._around is not None and is_raw(found, self._inputs):
            raw, noise = raw_observation(found, self._around, self._noises)
            held = {} if held is None else held
            outputs = {ACTIONS: self._policy.act(raw, noise=noise, seen=held)[0]}
        else:
            outputs = self._policy.infer(_observation(found))
        timing = {"infer_ms": (time.perf_counter() - begin) * 1e3}
        if prev_total_ms is not None:
            timing["prev_total_ms"] = prev_total_ms
        return wire.encode({**outputs, TIMING: timing})


class _Answering(RunnerBase):
    """The service as a candidate that stays open, so that what was judged is what serves.

    ``whole`` says that it is asked what a robot sees, and answers ``action`` [1, chunk, dim].
    """

    def __init__(self, service: Service, policy: BundleRunner, *, whole: bool = False) -> None:
        self.name = service.name
        self._service = service
        self._policy = policy
        self._whole = whole

    @property
    def provider_asked(self) -> str | None:
        return self._policy.provider_asked

    @property
    def providers_used(self) -> tuple[str, ...]:
        return tuple(self._policy.providers_used)

    @property
    def changed(self) -> str:
        return self._policy.changed

    def open(self) -> None:
        self._policy.open()

    def close(self) -> None:
        """Nothing: it is needed."""

    def facts(self) -> dict[str, Any]:
        return self._policy.facts()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            reply = self._service.actions(wire.encode(dict(inputs)))
        except InputError as error:
            raise RunnerError(f"{self.name}: {error}") from error
        found = {name: value.copy() for name, value in wire.decode(reply).items() if name != TIMING}
        return {"action": found[ACTIONS][None]} if self._whole else found


def prepared(
    directory: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    provider: str = "cpu",
    runtime: str = DEFAULT,
    api_key: str | None = None,
    max_size: int | None = None,
    trusted: Sequence[str | os.PathLike[str]] = (),
    progress: Progress | None = None,
) -> Server:
    """A server of the bundle, its port taken and its policy proven; it serves when its ``run`` is called.

    Args:
        directory: the bundle.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        provider: the execution provider, by short or by full name.
        runtime: what opens its graphs, by a name of :mod:`pytest_reflex.runners.runtimes`; its processors
            stay under ONNX Runtime, whatever it is.
        api_key: what clients must send as ``Authorization: Api-Key ...``; by default nothing.
        max_size: the largest message in bytes; by default what the bundle's inputs need, and then some.
        trusted: the files of public keys; with any, only what one of them has certified is served.
        progress: called with (stage, done, total).

    Raises:
        BundleError: a digest does not hold, or the bundle was never proven.
        CertificateError: a certificate is required, and there is none that holds here.
        SettingsError: the address cannot be listened on, the API key cannot be sent in a header, or a
            certificate is required, which speaks of ONNX Runtime, and another runtime is asked for.
        RunnerError: nobody knows the runtime, or it cannot run here.
        MissingPackageError: websockets or msgpack is not installed.
        ParityError: what would be served does not give the recorded actions on this machine.
    """
    for name in ("msgpack", "websockets"):
        wire.package(name)
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key.strip()):
        raise SettingsError("api key: it is empty or cannot stand in a header; give printable ASCII")
    if trusted and full_name(runtime) != DEFAULT:
        raise SettingsError(
            f"runtime: {runtime!r} is asked for, and a certificate says what ran under ONNX Runtime; leave "
            "out --runtime or --require-certificate"
        )
    graph_runtime(runtime)
    report_progress = progress or (lambda stage, done, total: None)
    report_progress("digests", 0, 1)
    bundle = open_bundle(directory)
    report_progress("digests", 1, 1)
    certificate = ""
    if trusted:
        held = certified(bundle, trusted, provider=settings.provider_name(provider))
        certificate = f"; {held.headline}"
    tolerances = _proven_tolerances(bundle)
    policy = BundleRunner(bundle, provider=provider, runtime=runtime)
    # Before the proof, which may take minutes: a port that is taken is said at once.
    listening = bound(host, port)
    try:
        service = Service(policy, bundle)
        result = _proof(bundle, service, policy, tolerances, provider, report_progress)
        from_camera = _proof_from_camera(bundle, service, policy, provider, report_progress)
        service.metadata = _metadata(bundle, policy, result)
    except BaseException:
        policy.close()
        listening.close()
        raise
    return Server(
        service,
        listening,
        proven=f"{headline(result)}, as recorded at its export, on {_ran_on(policy)[0]}{from_camera}"
        f"{certificate}",
        api_key=api_key,
        max_size=max_size if max_size is not None else _max_size(bundle),
    )


def _proven_tolerances(bundle: Bundle) -> Tolerances:
    """What each output was held to at the export, in its own unit: a recording knows no floors."""
    verdict = bundle.proof
    if verdict is None:
        raise BundleError(
            f"{bundle.path} is not served: its manifest has no passed verdict; export it with its check"
        )
    try:
        return _tolerances_of(verdict)
    except (ReflexError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{bundle.path} has no threshold in its manifest; export the bundle again"
        ) from error


def _tolerances_of(verdict: Mapping[str, Any]) -> Tolerances:
    largest = _bound_of(verdict["threshold"])
    if "asked" not in verdict:  # of a version that had one threshold for all
        return Tolerances(largest)
    asked, own = tolerances_from_json(verdict["asked"]), dict[str, Amount]()
    for fixture in verdict["fixtures"]:
        for output in fixture["outputs"]:
            if output["bound"] is not None:
                bound = _bound_of(output["bound"])
                own[output["name"]] = max(bound, own.get(output["name"], bound), key=lambda one: one.number)
    rest = largest.number if not asked.rest.plain else asked.plain(strict=verdict["strict"] is True)
    return Tolerances(_bound_of(rest), own, settings.rtol(asked.rtol))


def _bound_of(value: object) -> Amount:
    if not isinstance(value, float) or not math.isfinite(value) or value <= 0:
        raise TypeError(f"{value!r} is no bound")
    return Amount(value)


def _ran_on(policy: BundleRunner) -> Sequence[str]:
    """What its sessions ran on; of a runtime that says nothing of it, its name."""
    return policy.providers_used or (policy.runtime,)


def _proof(
    bundle: Bundle,
    service: Service,
    policy: BundleRunner,
    tolerances: Tolerances,
    provider: str,
    progress: Progress,
) -> ParityResult:
    recording = bundle.recording()
    result = check(
        recording,
        _Answering(service, policy),
        inputs=recording.recorded(),
        threshold=tolerances,
        rtol=tolerances.rtol,
        provider=provider,
        name=service.name,
        progress=progress,
    ).require()
    # The manifest gives its own threshold, which may be one that lets everything pass.
    if weak := doubted_bounds(result):
        way = way_to_be_served(result, bundle.path, bundle.stated.precision)
        raise BundleError(f"{bundle.path} is not served: {'; '.join(weak)}; {way}")
    return result


def _proof_from_camera(
    bundle: Bundle, service: Service, policy: BundleRunner, provider: str, progress: Progress
) -> str:
    """What was proven of a bundle with processors on the raw observations that it holds, in words."""
    said = bundle.stated.processors
    if said is None:
        return ""
    if RAW not in bundle.stated.files or WHOLE not in said.checks:
        raise BundleError(
            f"{bundle.path} is not served: its processors were never proven; export it with its check"
        )
    try:
        tolerances = _tolerances_of(said.checks[WHOLE])
    except (ReflexError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{bundle.path} has no threshold of its processors in its manifest; export the bundle again"
        ) from error
    recording = bundle.recording(RAW)
    result = check(
        recording,
        _Answering(service, policy, whole=True),
        inputs=recording.recorded(),
        threshold=tolerances,
        rtol=tolerances.rtol,
        provider=provider,
        name=f"{service.name}: {WHOLE}",
        progress=progress,
    ).require()
    return f"; from the camera to the joint {headline(result)}"


def _metadata(bundle: Bundle, policy: BundleRunner, result: ParityResult) -> dict[str, Any]:
    """What a client is told when it connects, as builtins."""
    manifest = {name: bundle.manifest[name] for name in _TOLD if name in bundle.manifest}
    if bundle.stated.processors is not None:
        manifest["processors"] = replace(bundle.stated.processors, checks={}).to_json()
    return {
        "server": SERVER,
        "version": __version__,
        "manifest": {**manifest, "digest": manifest_digest(bundle)},
        "runtime": policy.runtime,
        "provider_asked": policy.provider_asked or policy.runtime,
        "providers_used": list(_ran_on(policy)),
        "machine": machine.stated(result.candidate.get("machine")),
        "threshold": result.threshold,
        "proven": {"fixtures": result.count, "max_abs_diff": result.max_abs_diff_across_all},
    }


def _max_size(bundle: Bundle) -> int:
    around = bundle.stated.processors
    inputs = [*bundle.inputs, *(around.raw if around is not None else ())]
    whole = sum(math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in inputs)
    least = _FREE_BYTES if any(spec.free for spec in inputs) else _LEAST_BYTES
    return max(least, _SLACK * whole)


def _fields(message: str | bytes) -> dict[str, Any]:
    """What a message holds, by name."""
    if isinstance(message, str):
        raise InputError("the message is text; send a map of named arrays, packed with msgpack")
    found = wire.decode(message)
    if not isinstance(found, dict):
        raise InputError(f"the message is {a_type(found)}; send a map of named arrays")
    return found


def _observation(found: Mapping[str, Any]) -> dict[str, Any]:
    """The named arrays of a message; whether they are the policy's own, the policy says."""
    for name, value in found.items():
        if not isinstance(name, str):
            raise InputError(f"field {name!r}: a name is text, not bytes")
        if not isinstance(value, np.ndarray | np.generic):
            raise InputError(f"input {name!r} is {a_type(value)}; send it as an array")
    return dict(found)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
