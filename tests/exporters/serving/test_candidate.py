"""A served bundle is opened only when its server says all that judging it needs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
from websockets.sync.server import serve

from exporters.serving.candidate import open_served
from pytest_reflex.errors import BundleError, RunnerError
from pytest_reflex.inputs import Gaussian, InputSpec
from pytest_reflex.judge.sides import Candidate
from pytest_reflex.runners import TorchRunner, wire

SPEC = InputSpec("x", (1, 3), meaning=Gaussian())
MANIFEST: dict[str, Any] = {
    "family": "module", "layout": "single", "steps": None, "call": {}, "digest": "d",
    "inputs": [SPEC.to_json()], "outputs": [{"name": "y", "dtype": "float32", "shape": [1, 3]}],
}  # fmt: skip


@contextmanager
def told(manifest: dict[str, Any]):
    greeting = {"server": "pytest-reflex", "providers_used": ["CPUExecutionProvider"], "manifest": manifest}

    def greet(connection: Any) -> None:
        connection.send(wire.encode(greeting))
        for _ in connection:
            pass

    with serve(greet, "127.0.0.1", 0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()


def test_it_is_a_candidate_that_keeps_its_key_to_itself() -> None:
    with told(MANIFEST) as url:
        served = open_served(url, api_key="s3cret")
    assert isinstance(served, Candidate)
    assert served.inputs == [SPEC]
    assert served.runner("cuda").provider_asked == "CUDAExecutionProvider"
    assert "s3cret" not in repr(served)
    reference = served.reference_runner(lambda: None)
    assert isinstance(reference, TorchRunner)
    with pytest.raises(BundleError, match="the bundle has no steps and 4 were asked for"):
        served.reference_runner(lambda: None, 4)


def test_a_server_started_anew_with_another_bundle_is_noticed() -> None:
    manifest = dict(MANIFEST)
    with told(manifest) as url:
        served = open_served(url)
        manifest["digest"] = "e"
        with pytest.raises(RunnerError, match="serves another bundle than before"):
            served.runner().open()


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    **{
        f"no {key}": (lambda m, key=key: m.pop(key), f"does not say its '{key}'")
        for key in ("family", "layout", "call", "inputs", "outputs", "digest")
    },
    "family of a wrong type": (lambda m: m.update(family=["pi0"]), "does not say its 'family'"),
    "steps without end": (lambda m: m.update(steps=10**12), "it takes 1000000000000 steps"),
    "steps that are none": (lambda m: m.update(steps=True), "it takes True steps"),
    "options that are none": (lambda m: m.update(options=3), "says 3 of its options"),
    "no inputs": (lambda m: m.update(inputs=[]), "cannot be read of its inputs and outputs: no inputs"),
    "an input that is none": (lambda m: m.update(inputs=[3]), "cannot be read of its inputs"),
    "an input of a bad shape": (lambda m: m["inputs"][0].update(shape="ab"), "cannot be read of its inputs"),
    "an unknown meaning": (lambda m: m["inputs"][0].update(meaning="os"), "meaning kind 'os' is unknown"),
    "an output without a name": (
        lambda m: m.update(outputs=[{}]),
        "cannot be read of its inputs and outputs",
    ),
    "no outputs": (lambda m: m.update(outputs=[]), "names no output, so there is nothing to judge"),
}


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG)
def test_what_says_too_little_is_not_judged(change: Callable[[dict[str, Any]], object], said: str) -> None:
    manifest = {**MANIFEST, "inputs": [dict(MANIFEST["inputs"][0])]}
    change(manifest)
    with told(manifest) as url, pytest.raises(RunnerError, match=said) as refused:
        open_served(url)
    assert len(str(refused.value).splitlines()) == 1
