"""A served bundle as a candidate: what it reads and how its reference is called, the server says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from exporters.bundle import registry
from exporters.bundle.manifest import MOST_STEPS, Manifest
from exporters.bundle.processors import TOKENIZER, Processors, require_fits
from exporters.bundle.said import Said
from exporters.bundle.store import manifest_digest
from exporters.bundles import Bundle
from pytest_reflex.errors import BundleError, ReflexError, RunnerError
from pytest_reflex.inputs import InputSpec, check_specs
from pytest_reflex.runners import Runner
from pytest_reflex.runners.runtimes import DEFAULT
from pytest_reflex.runners.served import ServedRunner

if TYPE_CHECKING:
    from pytest_reflex.judge.pipeline import Stages


@dataclass(frozen=True)
class Served:
    """A bundle behind a socket.

    Attributes:
        called: where it is served.
        stated: what the server says of it; its files are the server's, and so is their check.
        digest: the digest of its manifest.
        api_key: what the server asks for, or None.
        asked: what its runtime was asked for, in its words; None where that is ONNX Runtime.
        here: the same bundle on this machine, whose stages can be judged by themselves; or None.
    """

    called: str
    stated: Manifest
    digest: str
    api_key: str | None = field(default=None, repr=False)
    asked: str | None = None
    here: Bundle | None = None

    def beside(self, bundle: Bundle) -> Self:
        """The same with the bundle that it serves at hand.

        Raises:
            BundleError: its files are others than those that are served.
        """
        own = bundle.stated.processors
        same = own is not None and replace(own, checks={}) == self.stated.processors
        if manifest_digest(bundle) != self.digest or not same:
            raise BundleError(
                f"{bundle.called} is not what is served at {self.called}: it is another; give the "
                "bundle that the server was started with"
            )
        return replace(self, here=bundle)

    @property
    def family(self) -> str:
        """Which policy family it was made from."""
        return self.stated.family

    @property
    def has_processors(self) -> bool:
        """Whether a pre- and a postprocessor stand around the policy that is served."""
        return self.stated.processors is not None

    @property
    def inputs(self) -> list[InputSpec]:
        """What it reads, in order."""
        return list(self.stated.inputs)

    def runner(self, provider: str = "cpu") -> ServedRunner:
        """The served policy as a runner, which must have run on ``provider`` and be the same bundle still."""
        said = self.stated.processors
        units = None if said is None else said.robot_units(said.actions, behind=False)
        return self._asked(provider, units=units)

    @property
    def outputs(self) -> list[str]:
        """The names of what it gives."""
        return self.stated.output_names

    def whole_runner(self, provider: str = "cpu") -> ServedRunner:
        """The served policy as a robot asks it: with what it sees, for actions in its units."""
        said = self.stated.processors
        units = None if said is None else said.robot_units("action", behind=True)
        return self._asked(provider, whole=True, units=units)

    def _asked(self, provider: str, **how: Any) -> ServedRunner:
        precision = self.stated.precision.partition("-")[0]
        told: dict[str, Any] = {"api_key": self.api_key, "digest": self.digest, "precision": precision}
        told["asked"] = self.asked
        return ServedRunner(self.called, provider=provider, **told, **how)

    def stages(
        self,
        policy: Any,
        source: Any = None,
        *,
        seed: int = 0,
        provider: str = "cpu",
        steps: int | None = None,
    ) -> Stages:
        """Both sides, as of the bundle it serves: of the policy and the whole; of others where that is here.

        Raises:
            BundleError: it has no processors.
        """
        made: Stages = registry.stages_of(self, policy, source, seed=seed, provider=provider, steps=steps)
        return made

    def reference_runner(
        self, model: object, steps: int | None = None, inputs: Sequence[InputSpec] = ()
    ) -> Runner:
        """``model`` as the reference, called as for the bundle itself."""
        return registry.reference_runner(self.stated, model, steps, inputs)


def open_served(url: str, *, api_key: str | None = None) -> Served:
    """Ask a server what it serves.

    Raises:
        SettingsError: the url is neither ``ws://`` nor ``wss://``.
        RunnerError: nobody answers there, or it is no `reflex serve`.
    """
    with ServedRunner(url, api_key=api_key) as runner:
        manifest = runner.metadata["manifest"]
        asked = _asked_of(url, runner.metadata)
    kinds = {"family": str, "layout": str, "call": dict, "inputs": list, "outputs": list, "digest": str}
    for key, kind in kinds.items():
        if not isinstance(manifest.get(key), kind):
            raise RunnerError(f"{url} does not say its {key!r}; serve it with this version of pytest-reflex")
    if not isinstance(manifest.get("options", {}), dict):
        raise RunnerError(f"{url} says {manifest['options']!r} of its options; serve it with this version")
    steps = manifest.get("steps")
    if steps is not None and not (type(steps) is int and 1 <= steps <= MOST_STEPS):
        raise RunnerError(f"{url} says that it takes {steps!r} steps; a policy takes 1 to {MOST_STEPS}")
    try:
        inputs = [InputSpec.from_json(spec) for spec in manifest["inputs"]]
        check_specs(inputs)
        outputs = [{"name": str(output["name"])} for output in manifest["outputs"]]
    except Exception as error:  # whatever values of a wrong type lead to
        raise RunnerError(f"{url} says what cannot be read of its inputs and outputs: {error}") from error
    if not outputs:
        raise RunnerError(f"{url} names no output, so there is nothing to judge")
    family, layout, call = manifest["family"], manifest["layout"], manifest["call"]
    options = manifest.get("options", {})
    origin = {"precision": manifest["precision"]} if "precision" in manifest else {}
    stated = Manifest(
        family,
        layout,
        inputs,
        outputs,
        call=call,
        options=options,
        steps=steps,
        processors=_processors(url, manifest, inputs, [output["name"] for output in outputs]),
        origin=origin,
    )
    return Served(url, stated, manifest["digest"], api_key, asked)


def _asked_of(url: str, metadata: Mapping[str, Any]) -> str | None:
    """What another runtime than ONNX Runtime was asked for there; None where it is that."""
    runtime, asked = metadata.get("runtime", DEFAULT), metadata.get("provider_asked")
    if runtime == DEFAULT:
        return None
    if not isinstance(runtime, str) or not isinstance(asked, str):
        raise RunnerError(f"{url} does not say what its runtime was asked for; serve it with this version")
    return asked


def _processors(
    url: str, manifest: Mapping[str, Any], inputs: Sequence[InputSpec], outputs: Sequence[str]
) -> Processors | None:
    """What the server says of its processors, whose files are its own."""
    said = manifest.get("processors")
    if said is None:
        return None
    try:
        # Nothing of them is opened here.
        known: Any = {name: {} for name in (*said["graphs"].values(), TOKENIZER)}
        around = Said(said, url, "processors")
        return require_fits(around, Processors.from_json(around, known), inputs, outputs)
    except (ReflexError, KeyError, TypeError, AttributeError) as error:
        raise RunnerError(f"{url} says what cannot be read of its processors: {error}") from error
