"""Runs a policy that ``reflex serve`` serves, over its socket: what a robot is given is what is judged."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from pytest_reflex.errors import InputError, RunnerError, SettingsError, a_type
from pytest_reflex.runners.base import RunnerBase, first_line
from pytest_reflex.settings import PROVIDERS, provider_name
from pytest_reflex.verdict import machine

if TYPE_CHECKING:
    import numpy as np
    from websockets.sync.client import ClientConnection

    from pytest_reflex.verdict.units import InUnits

    Array = np.ndarray[Any, Any]

SERVER: Final = "pytest-reflex"
MAX_METADATA_BYTES: Final = 1 << 20
MAX_REPLY_BYTES: Final = 64 << 20
TIMING: Final = "server_timing"  # what an openpi server puts beside the outputs
ACTIONS: Final = "actions"  # what an openpi server answers to what a robot sees, [chunk, dim]

_OPEN_TIMEOUT_S: Final = 10.0
_REFUSED: Final = {
    401: "it asks for an API key, and this is not it; give --api-key or REFLEX_API_KEY",
    503: "it has as many clients as it takes, or is stopping; try again later",
}


# What a report keeps of what a server says of itself.
_SAID_OF_ITSELF: Final = ("server", "version", "provider_asked")


class ServedRunner(RunnerBase):
    """Runs a served policy, one observation at a time.

    Args:
        url: where it is served, ``ws://host:port`` or ``wss://host:port``.
        api_key: what the server asks for, where it asks for one.
        timeout_s: seconds to wait for one answer.
        provider: the execution provider that the server must have run on, by short or full name; which
            one it did run on, the server says itself.
        asked: where the server's runtime is another than ONNX Runtime, what that was asked for, in the
            server's words.
        digest: the digest of the manifest that must be served; by default any.
        name: for people; by default the url.
        precision: in what its graphs are, as the server says, which shows none of them.
        whole: send what a robot sees, and take the answer as ``action`` [1, chunk, dim] in its units.
        units: what that is in, as the server says.

    Attributes:
        provider_asked: ONNX Runtime's full name of the provider asked for, or ``asked``.
        precision_stated: ``precision``.
        providers_used: what the server says of its sessions, empty before the first open.
        metadata: what the server said of itself when it was opened last.

    Raises:
        SettingsError: the url is neither ``ws://`` nor ``wss://``, or the provider has no such name.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 600.0,
        provider: str = "cpu",
        asked: str | None = None,
        digest: str | None = None,
        name: str | None = None,
        precision: str = "float32",
        whole: bool = False,
        units: Mapping[str, InUnits] | None = None,
    ) -> None:
        if not isinstance(url, str) or not url.startswith(("ws://", "wss://")):
            raise SettingsError(f"url is {url!r}; give ws://HOST:PORT or wss://HOST:PORT")
        self.name = name or url
        self.provider_asked = provider_name(provider)
        if asked is not None:
            if self.provider_asked != PROVIDERS["cpu"]:
                raise SettingsError(
                    f"provider: {provider} is one of ONNX Runtime's, and {url} is on {asked}; leave it out"
                )
            self.provider_asked = asked
        self.precision_stated = precision
        self.providers_used: tuple[str, ...] = ()
        self.metadata: dict[str, Any] = {}
        self._url = url
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._digest = digest
        self._whole = whole
        self.robot_units: Mapping[str, InUnits] = dict(units or {})
        self._connection: ClientConnection | None = None
        self._leave = ExitStack()

    def open(self) -> None:
        if self._connection is not None:
            return
        self._connection = self._connected()
        try:
            message = self._answer(_OPEN_TIMEOUT_S)
            self.metadata = self._known(message)
        except BaseException:
            self.close()
            raise
        self.providers_used = tuple(self.metadata["providers_used"])

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        from pytest_reflex.runners import wire

        connection = self._opened(self._connection)
        try:
            message = wire.encode(dict(inputs))
        except InputError as error:
            raise RunnerError(f"{self.name}: {error}") from error
        try:
            connection.send(message)
        except Exception as error:
            self._lost(error)
        reply = self._answer(self._timeout_s)
        if isinstance(reply, str):
            raise RunnerError(f"{self.name} refused: {_one_line(reply)}")
        outputs = self._decoded(reply)
        import numpy as np

        if not isinstance(outputs, dict):
            raise RunnerError(f"{self.name} gave no map of outputs; is it a policy server?")
        outputs.pop(TIMING, None)
        for name, value in outputs.items():
            if not isinstance(name, str) or not isinstance(value, np.ndarray):
                raise RunnerError(f"{self.name}: output {name!r} is {a_type(value)}, not an array")
        if self._whole:
            if list(outputs) != [ACTIONS] or outputs[ACTIONS].ndim != 2:
                raise RunnerError(
                    f"{self.name} gave {', '.join(outputs)} for what a robot sees; not {ACTIONS}"
                )
            return {"action": outputs[ACTIONS][None].copy()}
        # Decoded arrays are views of the message, which nobody else may find written over.
        return {name: array.copy() for name, array in outputs.items()}

    def close(self) -> None:
        self._connection = None
        self._leave.close()

    def facts(self) -> dict[str, Any]:
        from pytest_reflex.runners import wire

        self._opened(self._connection)
        manifest = self.metadata["manifest"]
        return {
            "kind": "served",
            "name": self.name,
            "path": self.name,
            "provider_asked": self.provider_asked,
            "providers_used": list(self.providers_used),
            "server": {key: self.metadata.get(key) for key in _SAID_OF_ITSELF}
            | {key: self.metadata[key] for key in ("runtime",) if key in self.metadata},
            **{key: manifest.get(key) for key in ("family", "layout", "steps", "digest")},
            # The server's own, where it says so.
            "machine": machine.stated(self.metadata.get("machine")),
            "versions": {"websockets": str(wire.package("websockets").__version__)},
        }

    def _connected(self) -> ClientConnection:
        from pytest_reflex.runners import wire

        client = wire.package("websockets.sync.client")
        wire.package("msgpack")  # said before anyone is asked
        headers = {"Authorization": f"Api-Key {self._api_key}"} if self._api_key else None
        try:
            connecting = client.connect(
                self._url,
                additional_headers=headers,
                compression=None,
                open_timeout=_OPEN_TIMEOUT_S,
                close_timeout=2,
                max_size=MAX_REPLY_BYTES,
                # A robot's server is reached directly, whatever the shell says of the web.
                proxy=None,
            )
            connection: ClientConnection = self._leave.enter_context(connecting)
        except TimeoutError:
            raise RunnerError(
                f"{self.name} did not open within {_OPEN_TIMEOUT_S:g} s; is `reflex serve` running there?"
            ) from None
        except OSError as error:
            why = error.strerror or error
            raise RunnerError(
                f"{self.name} cannot be reached: {why}; see that `reflex serve` runs there"
            ) from error
        except Exception as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            said = _REFUSED.get(status) if isinstance(status, int) else None
            raise RunnerError(f"{self.name} refused the connection: {said or first_line(error)}") from error
        return connection

    def _answer(self, timeout_s: float) -> str | bytes:
        try:
            return self._opened(self._connection).recv(timeout=timeout_s)
        except TimeoutError:
            # A late answer would be taken for that to the next question.
            self.close()
            raise RunnerError(
                f"{self.name} gave no answer within {timeout_s:g} s; see whether it is busy, or give a "
                "larger timeout_s"
            ) from None
        except Exception as error:
            self._lost(error)
            raise

    def _lost(self, error: Exception) -> None:
        self.close()
        raise RunnerError(
            f"{self.name} is gone: {first_line(error)}; see the server's own output, and open it again"
        ) from error

    def _decoded(self, message: bytes) -> Any:
        from pytest_reflex.runners import wire

        try:
            return wire.decode(message)
        except InputError as error:
            raise RunnerError(f"{self.name} gave what cannot be read: {error}") from error

    def _known(self, message: str | bytes) -> dict[str, Any]:
        """The metadata, once it is sure to be that of a served bundle."""
        if isinstance(message, str):
            raise RunnerError(f"{self.name} refused: {_one_line(message)}")
        if len(message) > MAX_METADATA_BYTES:
            raise RunnerError(
                f"{self.name} says {len(message)} bytes of itself, more than {MAX_METADATA_BYTES}; "
                "is it `reflex serve`?"
            )
        found = self._decoded(message)
        told = found if isinstance(found, dict) and found.get("server") == SERVER else {}
        manifest, used = told.get("manifest"), told.get("providers_used")
        named = isinstance(used, list) and all(isinstance(name, str) for name in used)
        if not isinstance(manifest, dict) or not named:
            raise RunnerError(
                f"{self.name} does not say which bundle it serves; only a policy served by `reflex serve` "
                "can be judged"
            )
        if self._digest is not None and manifest.get("digest") != self._digest:
            raise RunnerError(f"{self.name} serves another bundle than before; judge it again")
        return told


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
