"""A served bundle as a candidate: what it reads and how its reference is called, the server says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from exporters.bundle import registry
from exporters.bundle.store import Described
from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs import check_specs
from pytest_reflex.runners import Runner
from pytest_reflex.runners.served import ServedRunner

# Far beyond any policy: a reference told to take more would not end.
_MOST_STEPS: Final = 10_000


@dataclass(frozen=True)
class Served(Described):
    """A bundle behind a socket.

    Attributes:
        url: where it is served.
        manifest: what the server says of it; its files are the server's, and so is their check.
        api_key: what the server asks for, or None.
    """

    url: str
    manifest: Mapping[str, Any]
    api_key: str | None = field(default=None, repr=False)

    @property
    def called(self) -> str:
        return self.url

    def runner(self, provider: str = "cpu") -> ServedRunner:
        """The served policy as a runner, which must have run on ``provider`` and be the same bundle still."""
        digest = str(self.manifest["digest"])
        return ServedRunner(self.url, api_key=self.api_key, provider=provider, digest=digest)

    def reference_runner(self, model: object) -> Runner:
        """``model`` as the reference, called as for the bundle itself."""
        return registry.reference_runner(self, model)


def open_served(url: str, *, api_key: str | None = None) -> Served:
    """Ask a server what it serves.

    Raises:
        SettingsError: the url is neither ``ws://`` nor ``wss://``.
        RunnerError: nobody answers there, or it is no `reflex serve`.
    """
    with ServedRunner(url, api_key=api_key) as runner:
        manifest = runner.metadata["manifest"]
    kinds = {"family": str, "layout": str, "call": dict, "inputs": list, "outputs": list, "digest": str}
    for key, kind in kinds.items():
        if not isinstance(manifest.get(key), kind):
            raise RunnerError(f"{url} does not say its {key!r}; serve it with this version of pytest-reflex")
    if not isinstance(manifest.get("options", {}), dict):
        raise RunnerError(f"{url} says {manifest['options']!r} of its options; serve it with this version")
    steps = manifest.get("steps")
    if steps is not None and not (type(steps) is int and 1 <= steps <= _MOST_STEPS):
        raise RunnerError(f"{url} says that it takes {steps!r} steps; a policy takes 1 to {_MOST_STEPS}")
    served = Served(url, manifest, api_key)
    try:
        check_specs(served.inputs)
        names = served.outputs
    except Exception as error:  # whatever values of a wrong type lead to
        raise RunnerError(f"{url} says what cannot be read of its inputs and outputs: {error}") from error
    if not names:
        raise RunnerError(f"{url} names no output, so there is nothing to judge")
    return served
