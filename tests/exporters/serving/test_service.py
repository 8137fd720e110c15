"""A service answers every message, and names the field of the one that it cannot take."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from serve_cases import INPUTS, same_bits

from exporters import Policy, open_bundle
from exporters.serving.service import Service
from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs import make_fixture
from pytest_reflex.runners import wire

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def policy(small: Callable[..., Path]) -> Iterator[Policy]:
    with Policy(open_bundle(small())) as opened:
        yield opened


def answered(service: Service, message: object) -> Any:
    packed = message if isinstance(message, bytes | str) else wire.encode(message)
    reply = service.answer(packed)
    return reply if isinstance(reply, str) else wire.decode(reply)


def test_it_answers_with_the_policy_s_own_bits_and_the_time_it_took(policy: Policy) -> None:
    observation = make_fixture(INPUTS, 7, 1)
    begin = time.perf_counter()
    reply = wire.decode(Service(policy).answer(wire.encode(observation), 12.5))
    whole_ms = 1000 * (time.perf_counter() - begin)
    assert list(reply) == ["actions", "server_timing"]
    assert same_bits(reply["actions"], policy.infer(observation)["actions"])
    assert reply["server_timing"]["prev_total_ms"] == 12.5
    assert 0 < reply["server_timing"]["infer_ms"] <= whole_ms


def test_without_noise_it_draws_its_own(policy: Policy) -> None:
    observation = make_fixture(INPUTS, 7, 1)
    del observation["noise"]
    one, other = (answered(Service(policy), observation)["actions"] for _ in range(2))
    assert not same_bits(one, other)


WRONG: dict[str, tuple[Change, str]] = {
    "missing": (lambda o: o.pop("state"), "input 'state' is missing; this policy takes image, camera, "),
    "unknown": (lambda o: o.update(stat=o["state"]), "input 'stat' is not known; this policy takes image, "),
    "dtype": (
        lambda o: o.update(state=o["state"].astype("f8")),
        "input 'state' is float64; it takes float32",
    ),
    "mask as a number": (
        lambda o: o.update(camera=o["camera"].astype("u1")),
        "input 'camera' is uint8; it takes bool",
    ),
    "shape": (
        lambda o: o.update(state=o["state"][0]),
        "input 'state' has shape [3]; it takes [1, 3]",
    ),
    "size": (
        lambda o: o.update(noise=o["noise"][:, :2]),
        "input 'noise' has shape [1, 2, 3]; it takes [1, 5, 3]",
    ),
    "empty": (
        lambda o: o.update(image=o["image"][:0]),
        "input 'image' has shape [0, 3, 8, 8]; it takes [1, 3, 8, 8]",
    ),
    "NaN": (
        lambda o: o.update(state=np.array([[0, np.nan, 0]], "f4")),
        "input 'state' is nan at [0, 1]; every value must be finite",
    ),
    "infinity": (
        lambda o: o.update(noise=o["noise"] + np.float32(-np.inf)),
        "input 'noise' is -inf at [0, 0, 0]; every value must be finite",
    ),
    "a list": (
        lambda o: o.update(state=[[0.0, 0.0, 0.0]]),
        "input 'state' is a list; send it as an array",
    ),
    "text": (lambda o: o.update(prompt="pick it up"), "input 'prompt' is a str; send it as an array"),
    "nothing": (lambda o: o.update(state=None), "input 'state' is None; send it as an array"),
    "nested": (
        lambda o: o.update(state={"left": o["state"]}),
        "input 'state' is a dict; send it as an array",
    ),
    "a scalar": (
        lambda o: o.update(state=np.float32(1)),
        "input 'state' has shape []; it takes [1, 3]",
    ),
    "a name in bytes": (lambda o: o.update({b"state": o.pop("state")}), "field b'state': a name is text"),
    "a name of two lines": (lambda o: o.update({"a\nb": o["state"]}), r"input 'a\nb' is not known"),
}


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_an_observation_is_said_in_a_line(
    change: Change, said: str, policy: Policy
) -> None:
    observation = make_fixture(INPUTS, 0, 0)
    change(observation)
    reply = answered(Service(policy), observation)
    assert isinstance(reply, str)
    assert reply.startswith(said)
    assert len(reply.splitlines()) == 1


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("hello", "the message is text; send a map of named arrays, packed with msgpack"),
        (b"\xc1", "the message is not msgpack of maps, arrays and text: FormatError"),
        (msgpack.packb([1]), "the message is a list; send a map of named arrays"),
        (wire.encode(np.zeros(2)), "the message is an ndarray; send a map of named arrays"),
        (msgpack.packb({}), "input 'image' is missing; this policy takes image, "),
        (
            msgpack.packb({"state": {b"__ndarray__": True, b"data": b"", b"dtype": "|O", b"shape": [1]}}),
            "field 'state': dtype '|O' cannot travel; send one of float16, ",
        ),
    ],
    ids=["text", "no msgpack", "a list", "an array", "an empty map", "objects"],
)
def test_a_message_that_is_no_observation_is_said_in_a_line(
    message: str | bytes, said: str, policy: Policy
) -> None:
    assert answered(Service(policy), message).startswith(said)


def test_big_endian_arrays_are_taken_for_what_they_are(policy: Policy) -> None:
    observation = make_fixture(INPUTS, 0, 0)
    turned = {
        name: {
            b"__ndarray__": True,
            b"data": array.astype(array.dtype.newbyteorder(">")).tobytes(),
            b"dtype": array.dtype.newbyteorder(">").str,
            b"shape": list(array.shape),
        }
        for name, array in observation.items()
    }
    reply = answered(Service(policy), msgpack.packb(turned))
    assert same_bits(reply["actions"], policy.infer(observation)["actions"])


def test_a_token_beyond_the_vocabulary_is_refused_by_name(policy: Policy) -> None:
    reply = answered(Service(policy), {**make_fixture(INPUTS, 0, 0), "prompt": np.full((1, 4), 99)})
    assert str(reply).endswith("it takes whole numbers from 0 to 10")


def test_what_the_graph_refuses_tells_the_client_nothing_of_the_machine(
    policy: Policy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where a manifest says more tokens than the graph has.
    monkeypatch.setattr("exporters.bundle.runner._require_fit", lambda *_: None)
    observation = {**make_fixture(INPUTS, 0, 0), "prompt": np.full((1, 4), 99)}
    with caplog.at_level(logging.ERROR, "reflex.serve"):
        reply = answered(Service(policy), observation)
    assert reply == "the policy could not be run on this observation; the server's log says why"
    (record,) = caplog.records
    assert policy.name in record.getMessage()
    assert record.exc_info is None


@pytest.mark.parametrize(
    ("error", "said", "traced"),
    [
        (RunnerError("/secret/model.onnx failed"), "the policy could not be run", False),
        (ZeroDivisionError("/secret"), "internal error; the server's log says what", True),
        (MemoryError(), "internal error", True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_fault_of_its_own_is_logged_and_not_told(
    error: Exception, said: str, traced: bool, policy: Policy, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def failing(observation: object) -> None:
        raise error

    monkeypatch.setattr(policy, "infer", failing)
    reply = Service(policy).answer(wire.encode({}))
    assert isinstance(reply, str)
    assert reply.startswith(said)
    assert "secret" not in reply
    (record,) = caplog.records
    assert bool(record.exc_info) is traced


def test_the_same_bits_from_many_threads(policy: Policy) -> None:
    from concurrent.futures import ThreadPoolExecutor

    service = Service(policy)
    sent = [make_fixture(INPUTS, 3, i) for i in range(8)] * 10
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(service.answer, map(wire.encode, sent)))
    for observation, reply in zip(sent, replies, strict=True):
        assert isinstance(reply, bytes), reply
        assert same_bits(wire.decode(reply)["actions"], policy.infer(observation)["actions"])


def test_the_bundle_s_place_is_not_in_what_a_client_is_told(small: Callable[..., Path]) -> None:
    from exporters.serving.service import prepared

    server = prepared(small(), port=0)
    try:
        told = wire.decode(server._greeting)
    finally:
        server._socket.close()
    assert os.fspath(small().parent) not in repr(told)
