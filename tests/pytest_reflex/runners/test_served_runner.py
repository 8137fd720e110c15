"""ServedRunner against servers that are none, break off, keep quiet, or say what they should not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from websockets.sync.server import ServerConnection, serve

from pytest_reflex.errors import RunnerError, SettingsError
from pytest_reflex.inputs import Gaussian, InputSpec
from pytest_reflex.judge.check import check
from pytest_reflex.runners import Runner, ServedRunner, wire
from pytest_reflex.runners.base import RunnerBase

CPU = "CPUExecutionProvider"
METADATA: dict[str, Any] = {
    "server": "pytest-reflex",
    "version": "0",
    "provider_asked": CPU,
    "providers_used": [CPU],
    "manifest": {"family": "module", "layout": "single", "steps": None, "digest": "d"},
}
X = np.arange(3, dtype=np.float32)

Handler = Callable[[ServerConnection], None]


@contextmanager
def served(handler: Handler, **options: Any) -> Iterator[str]:
    with serve(handler, "127.0.0.1", 0, compression=None, **options) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()


def answering(answer: Callable[[dict[str, Any]], object], metadata: object = METADATA) -> Handler:
    """A server that greets with ``metadata`` and answers with what ``answer`` gives."""

    def handler(connection: ServerConnection) -> None:
        connection.send(metadata if isinstance(metadata, str | bytes) else wire.encode(metadata))
        for message in connection:
            reply = answer(wire.decode(message))
            connection.send(reply if isinstance(reply, str | bytes) else wire.encode(reply))

    return handler


def double(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"y": inputs["x"] * 2, "server_timing": {"infer_ms": 1.0}}


def test_it_is_a_runner_whose_outputs_are_its_own() -> None:
    with served(answering(double)) as url, ServedRunner(url) as runner:
        assert isinstance(runner, Runner)
        outputs = runner.run({"x": X})
        assert list(outputs) == ["y"]
        assert outputs["y"].tobytes() == (X * 2).tobytes()
        assert outputs["y"].flags.writeable
        assert (runner.provider_asked, runner.providers_used) == (CPU, (CPU,))
        facts = runner.facts()
        assert (facts["kind"], facts["name"], facts["digest"]) == ("served", url, "d")
        assert facts["server"] == {"server": "pytest-reflex", "version": "0", "provider_asked": CPU}
        # A server of an earlier release says nothing of its machine, and this one's is not its.
        assert facts["machine"] == {}


def test_it_opens_again_and_closes_twice() -> None:
    with served(answering(double)) as url:
        runner = ServedRunner(url)
        for _ in range(2):
            with runner:
                runner.open()
                assert runner.run({"x": X})["y"][2] == 4
            runner.close()
        with pytest.raises(RunnerError, match="is not open"):
            runner.run({"x": X})


class Doubling(RunnerBase):
    name = "doubling"

    def open(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

    def facts(self) -> dict[str, Any]:
        return {}

    def run(self, inputs: Any) -> dict[str, Any]:
        return {"y": inputs["x"] * 2}


@pytest.mark.parametrize(
    ("used", "passed"), [([CPU], True), (["CUDAExecutionProvider", CPU], False), ([], False)]
)
def test_the_provider_that_the_server_used_is_judged(used: list[str], passed: bool) -> None:
    with served(answering(double, {**METADATA, "providers_used": used})) as url:
        result = check(Doubling(), ServedRunner(url), inputs=[InputSpec("x", (3,), meaning=Gaussian())])
    assert result.passed is passed
    assert {answer.gate for _, answer in result.refusals} == (set() if passed else {"provider"})


def test_a_reply_with_other_bits_fails() -> None:
    with served(answering(lambda inputs: {"y": inputs["x"] * 2.001})) as url:
        result = check(Doubling(), ServedRunner(url), inputs=[InputSpec("x", (3,), meaning=Gaussian())])
    assert not result.passed


@pytest.mark.parametrize("url", ["http://127.0.0.1", "127.0.0.1:8000", "", "WS://x", None, 3])
def test_a_url_that_is_none_is_refused_at_once(url: Any) -> None:
    with pytest.raises(SettingsError, match=r"give ws://HOST:PORT or wss://HOST:PORT"):
        ServedRunner(url)


def test_nobody_there() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(
            RunnerError, match=r"cannot be reached: .*refused.*; see that `reflex serve` runs there"
        ):
            ServedRunner(url).open()


def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "socks_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with served(answering(double)) as url, ServedRunner(url) as runner:
        assert runner.run({"x": X})


def test_no_web_socket_there() -> None:
    respond = {"process_request": lambda c, r: c.respond(HTTPStatus.NOT_FOUND, "no")}
    said = r"refused the connection: InvalidStatus: .*404"
    with served(answering(double), **respond) as url, pytest.raises(RunnerError, match=said):
        ServedRunner(url).open()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (HTTPStatus.UNAUTHORIZED, "asks for an API key, and this is not it"),
        (HTTPStatus.SERVICE_UNAVAILABLE, "as many clients as it takes"),
    ],
)
def test_a_refusal_says_what_to_do(status: HTTPStatus, said: str) -> None:
    respond = {"process_request": lambda c, r: c.respond(status, "no")}
    with served(answering(double), **respond) as url, pytest.raises(RunnerError, match=said):
        ServedRunner(url, api_key="wrong").open()


GREETINGS: dict[str, tuple[object, str]] = {
    "an openpi server": ({}, "does not say which bundle it serves"),
    "another server": ({**METADATA, "server": "other"}, "does not say which bundle"),
    "no manifest": ({**METADATA, "manifest": None}, "does not say which bundle"),
    "providers that are none": ({**METADATA, "providers_used": [1]}, "does not say which bundle"),
    "a list": ([1], "does not say which bundle"),
    "text": ("go\naway", "refused: go away"),
    "no msgpack": (b"\xc1", "gave what cannot be read: the message is not msgpack"),
    "megabytes": ({**METADATA, "more": b"a" * (1 << 20)}, "says .* bytes of itself"),
}


@pytest.mark.parametrize(("metadata", "said"), GREETINGS.values(), ids=GREETINGS)
def test_a_greeting_that_says_nothing_is_refused(metadata: object, said: str) -> None:
    with served(answering(double, metadata)) as url:
        runner = ServedRunner(url)
        with pytest.raises(RunnerError, match=said) as refused:
            runner.open()
        assert len(str(refused.value).splitlines()) == 1
        with pytest.raises(RunnerError, match="is not open"):
            runner.facts()


def test_another_bundle_than_before_is_refused() -> None:
    with served(answering(double)) as url, pytest.raises(RunnerError, match="serves another bundle"):
        ServedRunner(url, digest="e").open()


REPLIES: dict[str, tuple[object, str]] = {
    "text": ("input 'x' is\nmissing", "refused: input 'x' is missing"),
    "no msgpack": (b"\xc1", "gave what cannot be read"),
    "a number": (1, "gave no map of outputs"),
    "an output that is text": ({"y": "1"}, "output 'y' is a str, not an array"),
    "a nested output": ({"y": {"z": X}}, "output 'y' is a dict, not an array"),
}


@pytest.mark.parametrize(("reply", "said"), REPLIES.values(), ids=REPLIES)
def test_a_reply_that_is_none_is_an_error_and_the_connection_stays(reply: object, said: str) -> None:
    replies = iter([reply, {"y": X}])
    with served(answering(lambda inputs: next(replies))) as url, ServedRunner(url) as runner:
        with pytest.raises(RunnerError, match=said):
            runner.run({"x": X})
        assert list(runner.run({"x": X})) == ["y"]


def test_a_server_that_dies_is_named() -> None:
    def dying(connection: ServerConnection) -> None:
        connection.send(wire.encode(METADATA))
        connection.recv()
        connection.socket.shutdown(socket.SHUT_RDWR)

    with served(dying) as url, ServedRunner(url) as runner:
        with pytest.raises(RunnerError, match=rf"^{url} is gone: ConnectionClosed"):
            runner.run({"x": X})
        with pytest.raises(RunnerError, match="is not open"):
            runner.run({"x": X})


def test_a_late_answer_is_not_taken_for_the_next() -> None:
    given_up = Event()

    def slow(inputs: dict[str, Any]) -> dict[str, Any]:
        if inputs["x"][1]:
            given_up.wait()
        return {"y": inputs["x"]}

    # Time enough for whoever answers at once, on a busy machine too.
    with served(answering(slow)) as url, ServedRunner(url, timeout_s=1) as runner:
        with pytest.raises(RunnerError, match=r"gave no answer within 1 s; .*larger timeout_s"):
            runner.run({"x": X})
        given_up.set()
        with pytest.raises(RunnerError, match="is not open"):
            runner.run({"x": X * 0})
        runner.open()
        assert not runner.run({"x": X * 0})["y"].any()


def test_an_input_that_cannot_travel_is_refused_before_it_is_sent() -> None:
    with served(answering(double)) as url, ServedRunner(url) as runner:
        with pytest.raises(RunnerError, match="cannot be sent"):
            runner.run({"x": np.array([1j])})
        assert runner.run({"x": X})
